"""Settling over ClickHouse: a slice is counted once, its minutes are added up, its traces are put together anew.

    1. finish      what a hub that died left of the last slice: its verdicts, its traces
    2. part        leave one row of each span that two hubs were given at once under two names or starts
    3. judge       `core.spans.counting`, with what was settled before
    4. add         minutes of the new spans, and differences of older ones that are judged anew
    5. commit      one row: from here on these minutes count, and no others of this slice ever do
    6. apply       verdicts, and the traces that have anything of it; may be repeated. Then all of it is in force
    7. cut         minutes as hours and days, now and then

Spans that are open or lost are in no minute: what may still end is summed while it is asked for.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from midwatch.core.spans.form import Rank, Signal
from midwatch.core.spans.rollup import TAGS_COUNTED
from midwatch.store.clickhouse import traces
from midwatch.store.clickhouse.client import ClickHouse
from midwatch.store.clickhouse.judging import VERDICT, judge
from midwatch.store.clickhouse.levels import cut
from midwatch.store.clickhouse.minutes import Adding
from midwatch.store.clickhouse.rows import COLUMNS, Lines, encode
from midwatch.store.clickhouse.schema import NAMES
from midwatch.store.clickhouse.sifting import Was, gone
from midwatch.store.clickhouse.slices import (
    LOOK_S,
    Slice,
    applied,
    commit,
    committed,
    following,
    mark_applied,
)
from midwatch.store.clickhouse.sweeping import sweep
from midwatch.store.clickhouse.traces import TRACES
from midwatch.store.spans.known import TRACE_NS

ROUND_S: Final = 60.0
"""How long one round of settling goes on with another slice; after a flood the rest waits for the next one."""

DOUBLES: Final = 10_000
"""Spans under several names or starts that are parted at one time."""

LONG_NS: Final = 3_600 * 10**9
"""Traces that began so long before a slice are put together apart: the others are looked for near it."""

JUDGED: Final = "midwatch_judged"
"""Verdicts as an attempt found them, with what the spans counted for before; in force when it is committed."""

DIRTY: Final = "midwatch_dirty"
"""Traces of which something was removed; until they are put together anew, or gone."""

_ALL: Final = NAMES[Signal.SPANS]
_ENDED: Final = f"rank = {Rank.ENDED.value}"


def no_windows(models: Collection[str]) -> Mapping[str, int]:
    """Know of no model."""
    del models
    return {}


@dataclass(frozen=True, slots=True)
class Terms:
    """By what is summed, as the fleet file has it when a slice is settled."""

    windows: Callable[[Collection[str]], Mapping[str, int]] = no_windows
    """Of these models, the tokens of the context."""
    tags: Callable[[], Collection[str]] = lambda: TAGS_COUNTED
    """Names that are counted by."""


@dataclass(slots=True)
class Round:
    """What one round came to."""

    spans: int = 0
    """Ended spans that are counted now."""
    cut_off: Counter[str] = field(default_factory=Counter[str])
    """By reason, what could not be followed to its end."""
    folded: Counter[str] = field(default_factory=Counter[str])
    """By what they are of, values that are summed with others."""


def tables(settings: str) -> list[str]:
    """Return the statements that make the tables of settling."""
    keyed = f"ORDER BY {{}} SETTINGS {settings}"
    return [
        "CREATE TABLE IF NOT EXISTS midwatch_slices (slice UInt64, attempt UInt64, from_ms Int64, upto_ms Int64, spans UInt64,"
        " told Int64 DEFAULT toUnixTimestamp64Nano(now64(9))) ENGINE = MergeTree "
        + keyed.format("slice"),
        "CREATE TABLE IF NOT EXISTS midwatch_applied (one UInt8, slice UInt64, upto_ms Int64)"
        " ENGINE = ReplacingMergeTree(slice) " + keyed.format("one"),
        f"CREATE TABLE IF NOT EXISTS {JUDGED} (slice UInt64, attempt UInt64, agent String, trace_id String, span_id String,"
        " counts UInt8, why String, owner String, session Nullable(String), count_trace String, before Nullable(UInt8),"
        " told DateTime DEFAULT now()) ENGINE = MergeTree ORDER BY (slice, attempt) TTL told + INTERVAL 7 DAY"
        f" SETTINGS {settings}",
        f"CREATE TABLE IF NOT EXISTS {DIRTY} (batch String, trace_id String) ENGINE = MergeTree "
        + keyed.format("(batch, trace_id)"),
    ]


def settle(client: ClickHouse, terms: Terms, lag_ms: int, stopped: Callable[[], bool]) -> Round:
    """Settle what was stored up to `lag_ms` ago. Raises StoreError; what is not done then is done by the next round,
    here or in another hub."""
    done = Round()
    mend(client)
    last = finish(client)
    began = time.monotonic()
    while not stopped() and time.monotonic() - began < ROUND_S:
        new = following(client, last, lag_ms)
        if new is None:
            break
        _part_doubles(client, new)
        spans = _add(client, new, terms, done)
        if not commit(client, new):
            break  # another hub was before us, and applies its own
        done.spans += spans
        last = finish(client)
    if done.spans and last is not None:
        cut(client, last.number)
    return done


def finish(client: ClickHouse) -> Slice | None:
    """Apply the last slice that was committed, unless that is done; return it. Raises StoreError."""
    last = committed(client)
    if last is None:
        return None
    if applied(client) < last.number:
        if not last.lets:
            _apply(client, last)
        mark_applied(client, last)
    if last.lets:
        sweep(client, last)
    return last


# -- adding ------------------------------------------------------------------------------------------


def _add(client: ClickHouse, new: Slice, terms: Terms, done: Round) -> int:
    """Judge a slice and add up its minutes, under its attempt; return how many spans were counted."""
    found = client.ask(
        f"SELECT min(start_ns), max(start_ns), countIf({_ENDED}), groupUniqArrayIf(assumeNotNull(model), model IS NOT NULL)"
        f" FROM {_ALL} FINAL WHERE {new.where}",
        timeout_s=LOOK_S,
    ).rows[0]
    since_ns, until_ns, spans, models = found
    judged = judge(client, new, since_ns, until_ns)
    lines = [
        encode([new.number, new.attempt, agent, ids[:16], ids[16:], v.counts, v.why, v.owner, v.session, v.trace_id,
                judged.before.get((agent, ids))])
        for (agent, ids), v in judged.change.verdicts.items()
    ]  # fmt: skip
    names = ["slice", "attempt", *VERDICT[:-1], "before"]
    client.insert(JUDGED, names, lines, uuid.uuid4().hex)
    adding = Adding(
        new, terms.tags(), terms.windows(models), since_ns - TRACE_NS, until_ns + TRACE_NS
    )
    rows = f"(SELECT * FROM {_ALL} FINAL WHERE {new.where} AND {_ENDED})"
    mine = f"SELECT trace_id FROM {_ALL} WHERE {new.where}"
    adding.spans(client, _by(rows, new, mine) if lines else traces.counted(rows, mine))
    if judged.before:
        near = f"start_ns BETWEEN {since_ns - TRACE_NS} AND {until_ns + TRACE_NS}"
        older = (
            f"(SELECT * FROM {_ALL} FINAL WHERE stored_ms <= {new.from_ms} AND {_ENDED} AND {near})"
        )
        adding.usage(client, _chosen(older, new, "before"), -1)
        adding.usage(client, _chosen(older, new, "counts"), 1)
    done.cut_off += judged.cut_off
    done.folded += adding.folded
    return spans


def _run(client: ClickHouse, text: str, values: Mapping[str, Any]) -> None:
    client.run(text, values, timeout_s=LOOK_S)


def _judged(new: Slice, bits: str) -> str:
    of = f"slice = {new.number} AND attempt = {new.attempt}"
    return f"(SELECT agent, trace_id, span_id, {bits} FROM {JUDGED} WHERE {of})"


def _by(rows: str, new: Slice, of: str) -> str:
    """Return span rows with what they count for: as just judged, else as before, else by default."""
    return (
        f"(SELECT s.* EXCEPT counts, if(n.found = 1, n.bits, s.counts) AS counts FROM {traces.counted(rows, of)} AS s"
        f" LEFT JOIN {_judged(new, 'counts AS bits, 1 AS found')} AS n"
        " ON n.agent = s.agent AND n.trace_id = s.trace_id AND n.span_id = s.span_id)"
    )


def _chosen(rows: str, new: Slice, column: str) -> str:
    """Return those span rows that were counted in an earlier slice and are judged anew, by what they count for."""
    return (
        f"(SELECT s.*, n.bits AS counts FROM {rows} AS s"
        f" INNER JOIN {_judged(new, f'assumeNotNull({column}) AS bits, before AS was')} AS n"
        " ON n.agent = s.agent AND n.trace_id = s.trace_id AND n.span_id = s.span_id WHERE n.was IS NOT NULL)"
    )


# -- applying ----------------------------------------------------------------------------------------


def _apply(client: ClickHouse, done: Slice) -> None:
    of = f"slice = {done.number} AND attempt = {done.attempt}"
    names = ", ".join(VERDICT)
    said = ", ".join(VERDICT[:-1])
    _run(
        client,
        # later than what was in force: of verdicts on one span that of the later slice stays
        f"INSERT INTO midwatch_verdicts ({names}) SELECT {said}, toUnixTimestamp64Nano(now64(9)) FROM {JUDGED} WHERE {of}",
        {},
    )
    _keep(
        client,
        done,
        f"SELECT trace_id FROM {_ALL} WHERE {done.where}"
        f" UNION ALL SELECT arrayJoin([trace_id, count_trace]) AS trace_id FROM {JUDGED} WHERE {of}",
    )


def _keep(client: ClickHouse, done: Slice, chosen: str) -> None:
    """Put the traces of a query together anew. Most are near the slice's own spans; the others are looked for apart."""
    low, high = client.ask(
        f"SELECT min(start_ns), max(start_ns) FROM {_ALL} WHERE {done.where}", timeout_s=LOOK_S
    ).rows[0]
    low, high = low - LONG_NS, high + LONG_NS
    far = client.ask(
        f"SELECT trace_id, min(first_ns), max(last_start_ns) FROM {TRACES} WHERE trace_id IN ({chosen})"
        f" AND (first_ns < {low} OR last_start_ns > {high}) GROUP BY trace_id",
        timeout_s=LOOK_S,
    ).rows
    apart = ", ".join(f"'{trace}'" for trace, _, _ in far)
    near = f"trace_id IN ({chosen}) AND start_ns BETWEEN {low} AND {high}"
    if far:
        near += f" AND trace_id NOT IN ({apart})"
    _run(
        client,
        traces.keep(traces.counted(f"(SELECT * FROM {_ALL} FINAL WHERE {near})", chosen)),
        {},
    )
    if far:
        low, high = min(low, *(row[1] for row in far)), max(high, *(row[2] for row in far))
        where = f"trace_id IN ({apart}) AND start_ns BETWEEN {low} AND {high}"
        _run(
            client,
            traces.keep(traces.counted(f"(SELECT * FROM {_ALL} FINAL WHERE {where})", apart)),
            {},
        )


# -- what was removed --------------------------------------------------------------------------------


def mark_dirty(client: ClickHouse, chosen: str, values: Mapping[str, Any]) -> None:
    """Note the traces of a query (`trace_id`), of which something is about to be removed. `mend` comes after."""
    batch = uuid.uuid4().hex
    text = f"INSERT INTO {DIRTY} (batch, trace_id) SELECT DISTINCT '{batch}', trace_id FROM ({chosen}) AS c"
    _run(client, text, values)


def mend(client: ClickHouse) -> None:
    """Put traces together anew of which something was removed, and forget those of which nothing is left."""
    if not client.ask(f"SELECT count() FROM {DIRTY}").rows[0][0]:
        return
    batches = [row[0] for row in client.ask(f"SELECT DISTINCT batch FROM {DIRTY}").rows]
    several = {"batches": batches}
    dirty = f"SELECT trace_id FROM {DIRTY} WHERE batch IN {{batches:Array(String)}}"
    gone_ = f"trace_id IN ({dirty}) AND trace_id NOT IN (SELECT trace_id FROM {_ALL} WHERE trace_id IN ({dirty}))"
    for table in (TRACES, "midwatch_verdicts"):
        client.run(
            f"ALTER TABLE {table} DELETE WHERE {gone_} SETTINGS mutations_sync = 1", several, timeout_s=300.0
        )  # fmt: skip
    rows = f"(SELECT * FROM {_ALL} FINAL WHERE trace_id IN ({dirty}))"
    client.run(traces.keep(traces.counted(rows, dirty)), several, timeout_s=300.0)
    client.run(
        f"ALTER TABLE {DIRTY} DELETE WHERE batch IN {{batches:Array(String)}} SETTINGS mutations_sync = 1",
        several,
        timeout_s=300.0,
    )


# -- doubles -----------------------------------------------------------------------------------------


def _part_doubles(client: ClickHouse, new: Slice) -> None:
    """Leave one row of each span that two hubs stored at once, before any of them is counted: the highest, of equal
    ones the one that was stored first, which may be counted already."""
    near = f"SELECT trace_id FROM {_ALL} WHERE stored_ms > {new.from_ms}"
    bounds = client.ask(
        f"SELECT min(start_ns), max(start_ns) FROM {_ALL} WHERE stored_ms > {new.from_ms}",
        timeout_s=LOOK_S,
    ).rows[0]
    told = client.ask(
        "SELECT agent, trace_id, span_id, arraySort(x -> (-x.1, x.4, x.2, x.3), groupArray((rank, name, start_ns, stored_ms)))"
        f" FROM {_ALL} FINAL WHERE start_ns BETWEEN {bounds[0]} AND {bounds[1]} AND trace_id IN ({near})"
        f" GROUP BY 1, 2, 3 HAVING count() > 1 LIMIT {DOUBLES}",
        timeout_s=LOOK_S,
    )
    lines = Lines({})
    made = [
        gone(lines, (agent, bytes.fromhex(trace + span)), Was(*was[:3]))
        for agent, trace, span, rows in told.rows
        for was in rows[1:]
    ]
    client.insert(_ALL, COLUMNS[Signal.SPANS], made, uuid.uuid4().hex)
