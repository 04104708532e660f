"""Letting traces go that are over, on ClickHouse: the rules of `core.spans.sampling`, judged by whichever hub settles.

A trace is judged once: in the letting whose stretch of time the last thing that was stored of it lies in, when nothing
of it is open or not settled. Of a letting all hubs see the same traces in the same order and go on from the same counts,
which the last one that was committed carries; so of several that try, one counts, and it does not matter which.
"""

# ruff: noqa: S608  names of tables and columns are ours

from __future__ import annotations

import logging
import random
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from midwatch.core.counts import Counts
from midwatch.core.spans.form import Rank, Signal
from midwatch.core.spans.sampling import Carried, Sampler, names_of, ordered
from midwatch.core.telemetry import SampleRule
from midwatch.store.clickhouse import gone, traces
from midwatch.store.clickhouse.client import ClickHouse
from midwatch.store.clickhouse.minutes import Adding
from midwatch.store.clickhouse.rows import encode
from midwatch.store.clickhouse.schema import NAMES
from midwatch.store.clickhouse.settling import Terms, finish
from midwatch.store.clickhouse.slices import LOOK_S, SLICES, Slice, commit
from midwatch.store.clickhouse.sweeping import DECIDED, LETTINGS, kept
from midwatch.store.clickhouse.traces import TRACES

QUIET_S: Final = 60.0
"""How long nothing of a trace must have been stored before it is judged, by the server's clock."""

REST_S: Final = 120.0
"""Distance of lettings: each has the server look into the parts that hold what goes."""

AT_ONCE: Final = 20_000
"""Traces of one letting, and those of which something was stored in the same millisecond as of the last of them."""

ROUND: Final = 50
"""Lettings of one round."""

_ALL: Final = NAMES[Signal.SPANS]

_Came = tuple[int, Counter[tuple[str, str]]]
"""Spans that went, and what is to be counted: name and label."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Judged:
    """What one letting came to."""

    lines: list[str] = field(default_factory=list[str])
    gone: int = 0
    spans: int = 0
    """Of traces that go."""
    first_ns: int = 2**63 - 1
    last_ns: int = 0
    models: set[str] = field(default_factory=set[str])
    failed: Counter[str] = field(default_factory=Counter[str])
    folded: Counter[str] = field(default_factory=Counter[str])


class Letting:
    """Samples a database. `rules` and `group` return what the fleet file says at the time, `work` runs what blocks in the
    thread that settles."""

    def __init__(
        self,
        work: Callable[[Callable[[], _Came]], Awaitable[_Came]],
        client: ClickHouse,
        terms: Terms,
        rules: Callable[[], Sequence[SampleRule]],
        group: Callable[[str], str | None],
        counts: Counts,
        *,
        quiet_s: float = QUIET_S,
        rest_s: float = REST_S,
    ) -> None:
        self._work = work
        self._client = client
        self._terms = terms
        self._rules = rules
        self._group = group
        self._counts = counts
        self._quiet_ms = round(quiet_s * 1e3)
        self._rest_s = rest_s
        self._last_s = float("-inf")

    async def round(self, now: float) -> int:
        """Judge what has become quiet; return how many spans went. Raises StoreError.

        What was settled before the first rule stays. `now` is not looked at: traces are judged by when the server stored
        them, rounds told apart by a clock that nobody sets.
        """
        del now
        rules = list(self._rules())
        if not rules or time.monotonic() < self._last_s + self._rest_s:
            return 0
        spans, counted = await self._work(lambda: self._let_go(rules))
        self._last_s = time.monotonic()
        for (name, label), number in counted.items():
            self._counts.add(name, label, number)
        return spans

    def _let_go(self, rules: Sequence[SampleRule]) -> _Came:
        spans, counted = 0, Counter[tuple[str, str]]()
        for _ in range(ROUND):
            done = let_go(self._client, rules, self._group, self._terms, self._quiet_ms)
            if done is None:
                break
            spans += done.spans
            counted.update({("sample_failures", rule): n for rule, n in done.failed.items()})
            counted.update({("values_folded", by): n for by, n in done.folded.items()})
        return spans, counted


def let_go(
    client: ClickHouse,
    rules: Sequence[SampleRule],
    group: Callable[[str], str | None],
    terms: Terms,
    quiet_ms: int,
) -> _Judged | None:
    """Judge the next stretch of time, and let go; return what it came to, None when there is nothing to judge or
    another hub was before us. Raises StoreError; what is not done then is done by the next round, here or elsewhere."""
    last = finish(client)
    upto_ms = -1 if last is None else last.upto_ms
    new = Slice(1 if last is None else last.number + 1, random.getrandbits(63), upto_ms, upto_ms)
    before = _carried(client)
    if before is None:
        # the first one only notes where it begins
        _tell(client, new, upto_ms, "[]")
        if commit(client, new):
            finish(client)
        return None
    since_ms, carried = before
    until_ms = _until(client, since_ms, upto_ms, quiet_ms)
    if until_ms is None:
        return None
    names = {rule.name or str(at + 1) for at, rule in enumerate(rules)}
    tallies = Carried.from_text(carried).tallies
    sampler = Sampler(rules, {key: tally for key, tally in tallies.items() if key[0] in names})
    judged = _judge(client, sampler, group, new, since_ms, until_ms)
    columns = ["slice", "attempt", "trace_id", "agent", "rule", "weight", "start_ns"]
    client.insert(DECIDED, columns, judged.lines, uuid.uuid4().hex)
    if judged.gone:
        _add(client, new, terms, judged)
    _tell(client, new, until_ms, Carried(sampler.tallies).to_text())
    if not commit(client, new):
        return None
    finish(client)
    return judged


def _carried(client: ClickHouse) -> tuple[int, str] | None:
    """Return up to when was judged, and the counts of the rules, as the last letting that was committed says."""
    told = client.ask(
        f"SELECT upto_ms, carried FROM {LETTINGS} WHERE (slice, attempt) IN"
        f" (SELECT slice, argMin(attempt, (told, attempt)) FROM {SLICES} GROUP BY slice) ORDER BY slice DESC LIMIT 1"
    ).rows
    return (told[0][0], told[0][1]) if told else None


def _tell(client: ClickHouse, new: Slice, upto_ms: int, carried: str) -> None:
    line = encode([new.number, new.attempt, upto_ms, carried])
    client.insert(LETTINGS, ["slice", "attempt", "upto_ms", "carried"], [line], uuid.uuid4().hex)


def _until(client: ClickHouse, since_ms: int, upto_ms: int, quiet_ms: int) -> int | None:
    """Return up to when is judged next, or None when nothing was stored since that is settled and quiet."""
    near = (
        f"FROM {TRACES} WHERE stored_ms > {since_ms} AND stored_ms <="
        f" least({upto_ms}, toUnixTimestamp64Milli(now64(3)) - {quiet_ms})"
    )
    told = client.ask(
        f"SELECT stored_ms {near} ORDER BY stored_ms LIMIT 1 OFFSET {AT_ONCE - 1}", timeout_s=LOOK_S
    ).rows
    if told:
        return told[0][0]
    last, rows = client.ask(f"SELECT max(stored_ms), count() {near}", timeout_s=LOOK_S).rows[0]
    return last if rows else None


def _judge(
    client: ClickHouse,
    sampler: Sampler,
    group: Callable[[str], str | None],
    new: Slice,
    since_ms: int,
    until_ms: int,
) -> _Judged:
    def ask(sql: str, values: Mapping[str, Any], /) -> list[list[Any]]:
        return client.ask(sql, values, timeout_s=LOOK_S).rows

    within = f"stored_ms > {since_ms} AND stored_ms <= {until_ms}"
    # first by all rows of a trace, which an index tells, then by the one that counts
    mine = f"SELECT trace_id FROM {TRACES} WHERE {within}"
    where = (
        f"{within} AND trace_id IN ({mine}) AND open = 0"
        f" AND trace_id NOT IN (SELECT trace_id FROM {_ALL} WHERE stored_ms > {new.upto_ms})"
        f" AND trace_id NOT IN (SELECT trace_id FROM ({kept()}) AS w WHERE trace_id IN ({mine}))"
    )
    found = {trace: (summary, extra) for trace, summary, extra in traces.judgeable(ask, where)}
    judged = _Judged()
    for trace in ordered(list(found)):
        summary, extra = found[trace]
        names = names_of(summary, extra, group)
        decision = sampler.decide(names)
        if decision.failed is not None:
            judged.failed[decision.rule] += 1
            log.debug("a trace is kept: %s", decision.failed)
        if not decision.keep:
            judged.gone += 1
            judged.spans += summary.spans
            judged.first_ns = min(judged.first_ns, summary.first_ns or 0)
            judged.last_ns = max(judged.last_ns, summary.last_ns)
            judged.models.update(summary.models)
        if decision.counted or not decision.keep:
            judged.lines.append(
                encode([new.number, new.attempt, trace, names["agent"], decision.rule, decision.weight, summary.first_ns])
            )  # fmt: skip
    return judged


def _add(client: ClickHouse, new: Slice, terms: Terms, judged: _Judged) -> None:
    """Write what stays of the traces that go, under the attempt: lines of them, and in the minutes what is in none yet,
    which is the traces, and lost spans."""
    mine = f"SELECT trace_id FROM {DECIDED} WHERE slice = {new.number} AND attempt = {new.attempt} AND weight = 0"
    adding = Adding(
        new, terms.tags(), terms.windows(judged.models), judged.first_ns, judged.last_ns
    )
    lost = (
        f"(SELECT * FROM {_ALL} FINAL WHERE start_ns BETWEEN {judged.first_ns} AND {judged.last_ns}"
        f" AND trace_id IN ({mine}) AND stored_ms <= {new.upto_ms} AND rank = {Rank.LOST.value})"
    )
    adding.spans(client, traces.counted(lost))
    adding.traces(client, f"(SELECT * FROM {TRACES} FINAL WHERE trace_id IN ({mine}))")
    gone.leave(client, new, mine, judged.first_ns, judged.last_ns)
    judged.folded += adding.folded
