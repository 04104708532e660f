"""Counting once over ClickHouse: verdicts on what was stored since the last look, together with what it depends on.

The rules are `core.spans.counting`'s, what to fetch `store.spans.settling`'s. Nothing is summed here: questions add up
spans by the verdicts in force. A look may be repeated, and may be taken by another hub: it gives the same.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from midwatch.core.calls.news import SCOPE as GATEWAY
from midwatch.core.spans.answers import MAX_SHARED
from midwatch.core.spans.counting import Verdict, Why
from midwatch.core.spans.facts import Fact, Key
from midwatch.core.spans.form import Signal
from midwatch.store.clickhouse.client import ClickHouse
from midwatch.store.clickhouse.rows import encode
from midwatch.store.clickhouse.schema import NAMES
from midwatch.store.spans.known import ANSWER_NS, IN_CALLS, TELLS
from midwatch.store.spans.settling import Time, count

AT_ONCE: Final = 50_000
"""Spans of one look."""

LOOKS: Final = 4
"""Looks of one round of settling: after a flood the rest waits for the next one."""

BACK_MS: Final = 10_000
"""How far a look goes back behind the last one: an insert may be seen later than its time."""

LOOK_S: Final = 60.0
"""How long one question of a look may take."""

IDS_AT_ONCE: Final = 10_000

_SPANS: Final = f"{NAMES[Signal.SPANS]} FINAL"
_FACTS: Final = ", ".join(f"`{name}`" for name in Fact._fields)
_FAMILY: Final = "splitByChar(':', agent)[1]"
_COLUMNS: Final = ["agent", "trace_id", "span_id", "counts", "why", "owner", "session", "count_trace", "told"]  # fmt: skip

_IDS_AT: Final = tuple(Fact._fields.index(name) for name in ("trace_id", "span_id", "parent_id"))


def _facts(rows: Iterable[list[Any]]) -> Iterator[Fact]:
    for row in rows:
        for at in _IDS_AT:
            if row[at] is not None:
                row[at] = bytes.fromhex(row[at])
        yield Fact._make(row)


def _listed(ids: Collection[bytes]) -> Iterator[str]:
    several = sorted(ids)
    for at in range(0, len(several), IDS_AT_ONCE):
        yield ", ".join(f"'{one.hex()}'" for one in several[at : at + IDS_AT_ONCE])


class Stored:
    """`settling.Known` over everything that is stored, for spans that began from `since_ns` to `until_ns`."""

    def __init__(self, client: ClickHouse, since_ns: int, until_ns: int) -> None:
        self._client = client
        self._close = f"start_ns BETWEEN {since_ns - ANSWER_NS} AND {until_ns + ANSWER_NS}"

    def _ask(self, sql: str, values: Mapping[str, Any] | None = None) -> list[list[Any]]:
        return self._client.ask(sql, values, timeout_s=LOOK_S).rows

    def of_traces(self, traces: Collection[bytes]) -> Iterable[Fact]:
        for some in _listed(traces):
            yield from _facts(
                self._ask(f"SELECT {_FACTS} FROM {_SPANS} WHERE trace_id IN ({some})")
            )

    def traces_of(self, names: Collection[str]) -> Iterable[bytes]:
        rows = self._ask(
            "SELECT id, groupUniqArray(trace_id) FROM (SELECT trace_id,"
            " arrayJoin([call_id, response_id, first_response_id]) AS id"
            f" FROM {_SPANS} WHERE {self._close} AND {IN_CALLS})"
            f" WHERE id IN {{names:Array(String)}} GROUP BY id HAVING uniqExact(trace_id) <= {MAX_SHARED}",
            {"names": sorted(names)},
        )
        return {bytes.fromhex(trace) for _, traces in rows for trace in traces}

    def traces_beside(self, times: Sequence[Time]) -> Iterable[bytes]:
        # only what a gateway carried is matched by its time
        carried = {
            row[0]
            for row in self._ask(
                f"SELECT DISTINCT {_FAMILY} FROM {_SPANS} WHERE {self._close} AND scope = '{GATEWAY}' AND {IN_CALLS}"
            )
        }
        asked: dict[str, list[Time]] = {}
        for one in times:
            if one.family in carried:
                asked.setdefault(one.family, []).append(one)
        if not asked:
            return ()
        rows = self._ask(
            f"SELECT DISTINCT {_FAMILY} AS family, trace_id, start_ns, start_ns + ifNull(duration_ns, 0)"
            f" FROM {_SPANS} WHERE {self._close} AND {TELLS} AND family IN {{families:Array(String)}}",
            {"families": sorted(asked)},
        )
        return {
            bytes.fromhex(trace)
            for family, trace, start_ns, end_ns in rows
            if any(start_ns <= t.until_ns and end_ns >= t.since_ns for t in asked[family])
        }

    def verdicts(self, traces: Collection[bytes]) -> Mapping[Key, Verdict]:
        found: dict[Key, Verdict] = {}
        for some in _listed(traces):
            for agent, trace, span, counts, why, owner, session, where in self._ask(
                "SELECT agent, trace_id, span_id, counts, why, owner, session, count_trace"
                f" FROM midwatch_verdicts FINAL WHERE trace_id IN ({some}) OR count_trace IN ({some})"
            ):
                key = agent, bytes.fromhex(trace + span)
                found[key] = Verdict(counts, Why(why), owner, session, bytes.fromhex(where))
        return found


def judge_new(client: ClickHouse, stopped: Callable[[], bool]) -> Counter[str]:
    """Keep verdicts on what was stored since the last look; return, by reason, what could not be followed to its end.

    Raises StoreError. What is not done when `stopped` says so is done by the next look.
    """
    cut_off: Counter[str] = Counter()
    mark = client.ask("SELECT max(upto_ms) FROM midwatch_settled").rows[0][0] or 0
    now = client.ask("SELECT toUnixTimestamp64Milli(now64(3))").rows[0][0]
    after: tuple[int, str] = (mark - BACK_MS, "")
    for _ in range(LOOKS):
        if stopped():
            break
        rows = client.ask(
            f"SELECT stored_ms, span_id, {_FACTS} FROM {_SPANS} WHERE stored_ms <= {{now:Int64}}"
            " AND (stored_ms, span_id) > ({at:Int64}, {span:String})"
            f" ORDER BY stored_ms, span_id LIMIT {AT_ONCE}",
            {"now": now, "at": after[0], "span": after[1]},
            timeout_s=LOOK_S,
        ).rows
        if rows:
            cut_off += _judge(client, list(_facts(row[2:] for row in rows)))
            after = rows[-1][0], rows[-1][1]
        done = len(rows) < AT_ONCE
        upto = now if done else after[0]
        line = encode([1, max(mark, upto)])
        client.insert("midwatch_settled", ["one", "upto_ms"], [line], uuid.uuid4().hex)
        if done:
            break
    return cut_off


def _judge(client: ClickHouse, fresh: list[Fact]) -> Counter[str]:
    since = min(one.start_ns for one in fresh)
    until = max(one.start_ns for one in fresh)
    counted = count(fresh, Stored(client, since, until))
    told = time.time_ns()
    lines = [
        encode([agent, ids[:16], ids[16:], v.counts, v.why, v.owner, v.session, v.trace_id, told])
        for (agent, ids), v in counted.change.verdicts.items()
    ]
    client.insert("midwatch_verdicts", _COLUMNS, lines, uuid.uuid4().hex)
    return counted.cut_off
