"""Counts the spans of one generation once, together with what earlier ones know of the same calls.

A trace may go on for hours, and a client's span may be sealed long before the gateway's. So before a generation is
judged, the spans that its verdicts depend on are fetched: those of its own traces, those of traces in which the same
answers are told of or that were at work at the same time, and whatever was matched with these. What comes back is a change: verdicts to keep and a difference of sums. It may be worked
out again at any time from the same segments, and is the same then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from midwatch.core.spans.answers import SLACK_NS, family
from midwatch.core.spans.counted import Change, settle
from midwatch.core.spans.counting import Verdict, by_default
from midwatch.core.spans.facts import CALLS, USAGE, Fact, Key, says

MAX_SPANS: Final = 200_000
"""Earlier spans that are fetched for one generation. Beyond, traces are judged by what was fetched."""

MAX_ROUNDS: Final = 8
"""How far it is followed from trace to trace by the answers that they share. Two is what honest agents need."""


class Time(NamedTuple):
    """A stretch of time of an agent and its sub-agents."""

    family: str
    since_ns: int
    until_ns: int


class Known(Protocol):
    """What is settled already. Each call is one query."""

    def of_traces(self, traces: Collection[bytes]) -> Iterable[Fact]:
        """Return the settled spans of these traces, of all agents."""
        ...

    def traces_of(self, names: Collection[str]) -> Iterable[bytes]:
        """Return the traces with a call whose `call_id`, `response_id` or `first_response_id` is one of these. A name that more than
        `answers.MAX_SHARED` traces have is nobody's id: leave it out."""
        ...

    def traces_beside(self, times: Sequence[Time]) -> Iterable[bytes]:
        """Return the traces that have, in one of these times and of its family (`answers.family`), a span that can
        be matched by time alone (`loose`)."""
        ...

    def verdicts(self, traces: Collection[bytes]) -> Mapping[Key, Verdict]:
        """Return the verdicts in force on the spans of these traces, and on those that count in these traces
        (`Verdict.trace_id`), as far as any were kept."""
        ...


@dataclass(frozen=True, slots=True)
class Counted:
    """What a generation changed, and what of it could not be followed to the end."""

    change: Change
    fetched: int
    """Earlier spans that were looked at again."""
    cut_off: Counter[str]
    """By reason, how often a bound kept something from being fetched; to be shown."""
    before: Mapping[Key, int]
    """Of earlier spans on which there is another verdict now, what they counted for: bits of a verdict."""


def count(fresh: Collection[Fact], known: Known) -> Counted:
    """Return what these spans, not settled so far, change. Linear in them and in what is fetched for them."""
    old: dict[Key, Fact] = {}
    told: dict[Key, Verdict] = {}
    fetched: set[bytes] = set()
    asked: set[str] = set()
    cut_off: Counter[str] = Counter()
    traces = {one.trace_id for one in fresh}
    if times := _times(fresh):
        traces.update(known.traces_beside(times))
    more: Collection[Fact] = fresh
    for _ in range(MAX_ROUNDS):
        if (names := _names(more) - asked) != set():
            traces.update(known.traces_of(names))
            asked |= names
        traces -= fetched
        if not traces:
            break
        if len(old) >= MAX_SPANS:
            cut_off["too_many_spans"] += len(traces)
            break
        held = known.verdicts(traces)
        told.update(held)
        more = list(known.of_traces(traces))
        old.update((one.key, one) for one in more)
        fetched |= traces
        # a span that counts elsewhere, and the place where it counts, are judged together
        traces = {verdict.trace_id for verdict in held.values()} | {ids[:16] for _, ids in held}
    else:
        cut_off["too_far"] += 1
    change = settle(fresh, old.values(), told)
    for one in fresh:
        old.pop(one.key, None)
    before = {
        key: (told.get(key) or by_default(old[key])).counts for key in change.verdicts if key in old
    }
    return Counted(change, len(old), cut_off, before)


def loose(one: Fact) -> bool:
    """Tell whether a span can be matched by its time: it tells usage, and so do others that have none of its ids."""
    return says(one) & USAGE != 0


def _names(spans: Iterable[Fact]) -> set[str]:
    """Return the ids of calls and answers that these spans tell of."""
    names: set[str] = set()
    for one in spans:
        if one.role in CALLS:
            told = (one.call_id, one.response_id, one.first_response_id)
            names.update(name for name in told if name)
    return names


def _times(spans: Iterable[Fact]) -> list[Time]:
    """Return when these spans could be matched by time alone; times of a family that touch are one."""
    found: list[Time] = []
    for one in sorted(filter(loose, spans), key=lambda one: (family(one.agent), one.start_ns)):
        whose = family(one.agent)
        since_ns = one.start_ns - SLACK_NS
        until_ns = one.start_ns + (one.duration_ns or 0) + SLACK_NS
        if found and found[-1].family == whose and since_ns <= found[-1].until_ns:
            found[-1] = found[-1]._replace(until_ns=max(until_ns, found[-1].until_ns))
        else:
            found.append(Time(whose, since_ns, until_ns))
    return found
