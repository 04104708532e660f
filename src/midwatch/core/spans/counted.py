"""What usage comes to when it is counted once, and what changes when more of it becomes known.

Sums are kept by place. Late spans give new verdicts and a difference, so that what was summed is never read again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from midwatch.core.spans.counting import Judgement, Verdict, by_default, judge
from midwatch.core.spans.facts import CALL, MONEY, TOKENS, Fact, Key


class Place(NamedTuple):
    """What counts is summed by."""

    trace_id: bytes
    agent: str
    """Whose span it is."""
    owner: str
    """Who is meant, by the name that it gives itself."""
    session: str | None


class Sum(NamedTuple):
    """What was used, counted once. Input holds cached and cache-written tokens, output holds reasoning."""

    calls: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cost_nusd: int = 0
    unpriced: int = 0
    """Calls with tokens and without a cost of their own."""

    def plus(self, other: Sum) -> Sum:
        """Return the sum of both."""
        return Sum(*[mine + theirs for mine, theirs in zip(self, other, strict=True)])

    def minus(self, other: Sum) -> Sum:
        """Return the difference of both; its figures may be negative."""
        return Sum(*[mine - theirs for mine, theirs in zip(self, other, strict=True)])


NOTHING: Final = Sum()


def amount(one: Fact, verdict: Verdict) -> Sum:
    """Return what a span adds to the sums by a verdict."""
    counts = verdict.counts
    if not counts:
        return NOTHING
    is_call = 1 if counts & CALL else 0
    cost_nusd = (one.cost_nusd or 0) if counts & MONEY else 0
    if not counts & TOKENS:
        return Sum(calls=is_call, cost_nusd=cost_nusd)
    given, made = one.input_tokens or 0, one.output_tokens or 0
    return Sum(
        is_call,
        given,
        one.cached_tokens or 0,
        one.cache_write_tokens or 0,
        made,
        one.reasoning_tokens or 0,
        cost_nusd,
        1 if is_call and (given or made) and one.cost_nusd is None else 0,
    )


def place_of(one: Fact, verdict: Verdict) -> Place:
    """Return where a span's usage is summed."""
    return Place(verdict.trace_id, one.agent, verdict.owner, verdict.session)


def sums(judgement: Judgement) -> dict[Place, Sum]:
    """Return what a judgement comes to, by place; places with nothing are left out."""
    found: dict[Place, Sum] = {}
    for key, verdict in judgement.verdicts.items():
        _add(found, judgement.facts[key], verdict)
    return {place: total for place, total in found.items() if total != NOTHING}


def _add(found: dict[Place, Sum], one: Fact, verdict: Verdict, *, back: bool = False) -> None:
    added = amount(one, verdict)
    if added is not NOTHING:
        place = place_of(one, verdict)
        before = found.get(place, NOTHING)
        found[place] = before.minus(added) if back else before.plus(added)


@dataclass(frozen=True, slots=True)
class Change:
    """What more spans change."""

    verdicts: Mapping[Key, Verdict]
    """Verdicts to keep: on new spans where the default does not hold, on old ones where another one held."""
    sums: Mapping[Place, Sum]
    """What is to be added to the sums; figures may be negative."""


def settle(new: Iterable[Fact], old: Iterable[Fact], told: Mapping[Key, Verdict]) -> Change:
    """Return what new spans change, beside old ones that were summed by the verdicts `told` (or by default).

    `old` holds all that is known of the traces of the new spans and of what tells of the same answers. The sums
    of all changes so far are always those of the verdicts in force, however the spans were split.
    """
    before: dict[Key, Fact] = {one.key: one for one in old}
    judgement = judge((*before.values(), *new))
    verdicts: dict[Key, Verdict] = {}
    difference: dict[Place, Sum] = {}
    for key, one in judgement.facts.items():
        verdict = judgement.verdicts.get(key) or by_default(one)
        was = before.get(key)
        held = by_default(one) if was is None else told.get(key) or by_default(was)
        if verdict != held:
            verdicts[key] = verdict
        elif was is one:
            continue
        if was is not None:
            _add(difference, was, held, back=True)
        _add(difference, one, verdict)
    return Change(
        verdicts, {place: total for place, total in difference.items() if total != NOTHING}
    )
