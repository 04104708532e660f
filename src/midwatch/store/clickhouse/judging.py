"""Counting once over ClickHouse: verdicts on what a slice holds, together with what it depends on.

The rules are `core.spans.counting`'s, what to fetch `store.spans.settling`'s.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from midwatch.core.calls.news import SCOPE as GATEWAY
from midwatch.core.spans.answers import MAX_SHARED
from midwatch.core.spans.counting import Verdict, Why
from midwatch.core.spans.facts import Fact, Key
from midwatch.core.spans.form import Signal
from midwatch.store.clickhouse.client import ClickHouse
from midwatch.store.clickhouse.schema import NAMES
from midwatch.store.clickhouse.slices import LOOK_S, Slice
from midwatch.store.clickhouse.traces import TRACES
from midwatch.store.spans.known import ANSWER_NS, IN_CALLS, TELLS, TRACE_NS
from midwatch.store.spans.settling import Counted, Time, count

IDS_AT_ONCE: Final = 10_000

_SPANS: Final = f"{NAMES[Signal.SPANS]} FINAL"
_FACTS: Final = ", ".join(f"`{name}`" for name in Fact._fields)
_FAMILY: Final = "splitByChar(':', agent)[1]"
VERDICT: Final = ["agent", "trace_id", "span_id", "counts", "why", "owner", "session", "count_trace", "told"]  # fmt: skip
"""The columns of `midwatch_verdicts`."""

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
    """`settling.Known` over what was stored by then, for spans that began from `since_ns` to `until_ns`."""

    def __init__(self, client: ClickHouse, since_ns: int, until_ns: int, upto_ms: int) -> None:
        self._client = client
        stored = f"stored_ms <= {upto_ms} AND start_ns BETWEEN"
        self.close = f"{stored} {since_ns - ANSWER_NS} AND {until_ns + ANSWER_NS}"
        self._near = f"{stored} {since_ns - TRACE_NS} AND {until_ns + TRACE_NS}"

    def _ask(self, sql: str, values: Mapping[str, Any] | None = None) -> list[list[Any]]:
        return self._client.ask(sql, values, timeout_s=LOOK_S).rows

    def of_traces(self, traces: Collection[bytes]) -> Iterable[Fact]:
        for some in _listed(traces):
            yield from _facts(
                self._ask(
                    f"SELECT {_FACTS} FROM {_SPANS} WHERE {self._near} AND trace_id IN ({some})"
                )
            )

    def traces_of(self, names: Collection[str]) -> Iterable[bytes]:
        rows = self._ask(
            "SELECT id, groupUniqArray(trace_id) FROM (SELECT trace_id,"
            " arrayJoin([call_id, response_id, first_response_id]) AS id"
            f" FROM {_SPANS} WHERE {self.close} AND {IN_CALLS})"
            f" WHERE id IN {{names:Array(String)}} GROUP BY id HAVING uniqExact(trace_id) <= {MAX_SHARED}",
            {"names": sorted(names)},
        )
        return {bytes.fromhex(trace) for _, traces in rows for trace in traces}

    def traces_beside(self, times: Sequence[Time]) -> Iterable[bytes]:
        # only what a gateway carried is matched by its time
        carried = {
            row[0]
            for row in self._ask(
                f"SELECT DISTINCT {_FAMILY} FROM {_SPANS} WHERE {self.close} AND scope = '{GATEWAY}' AND {IN_CALLS}"
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
            f" FROM {_SPANS} WHERE {self.close} AND {TELLS} AND family IN {{families:Array(String)}}",
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


def judge(client: ClickHouse, new: Slice, since_ns: int, until_ns: int) -> Counted:
    """Return what a slice changes; its spans began from `since_ns` to `until_ns`. Raises StoreError.

    It may be asked again, here or in another hub: until the slice is committed it gives the same.
    """
    known = Stored(client, since_ns, until_ns, new.upto_ms)
    rows = client.ask(
        f"SELECT {_FACTS} FROM {_SPANS} WHERE {new.where} AND trace_id IN ({_hard(new, known.close)})",
        timeout_s=LOOK_S,
    ).rows
    return count(list(_facts(rows)), known)


def _hard(new: Slice, close: str) -> str:
    """Return the query of those traces of a slice that must be judged span by span: of most, what calls say of
    themselves is all there is, and counts by default. As `store.spans.settled` chooses them."""
    mine = f"(SELECT * FROM {_SPANS} WHERE {new.where})"
    ids = (
        "(SELECT DISTINCT trace_id, span_id, id FROM (SELECT trace_id, span_id,"
        f" arrayJoin([call_id, response_id, first_response_id]) AS id FROM {{}} AS r WHERE {IN_CALLS}) AS n"
        " WHERE id IS NOT NULL AND id <> '')"
    )
    before = f"(SELECT * FROM {_SPANS} WHERE {close} AND stored_ms <= {new.from_ms})"
    carried = f"SELECT {_FAMILY} FROM {_SPANS} WHERE {close} AND scope = '{GATEWAY}' AND {IN_CALLS}"
    parts = [
        # somebody but a call tells usage, or has a name of its own, to which usage belongs
        f"SELECT trace_id FROM {mine} AS s WHERE NOT ({IN_CALLS}) AND ({TELLS} OR ifNull(agent_name <> agent, 0))",
        # calls that have anything below them
        f"SELECT m.trace_id FROM {mine} AS m INNER JOIN (SELECT trace_id, span_id FROM {mine} AS s WHERE {IN_CALLS}) AS p"
        " ON p.trace_id = m.trace_id AND p.span_id = assumeNotNull(m.parent_id) WHERE m.parent_id IS NOT NULL",
        # several agents at work
        f"SELECT trace_id FROM {mine} AS s GROUP BY trace_id HAVING min(agent) <> max(agent)",
        # an answer that several spans tell of, here or before
        f"SELECT trace_id FROM {ids.format(mine)} AS i WHERE id IN (SELECT id FROM {ids.format(mine)} AS j GROUP BY id"
        f" HAVING count() BETWEEN 2 AND {MAX_SHARED})",
        f"SELECT trace_id FROM {ids.format(mine)} AS i WHERE id IN (SELECT id FROM {ids.format(before)} AS k)",
        # a trace that began before
        f"SELECT trace_id FROM {TRACES} WHERE trace_id IN (SELECT trace_id FROM {mine} AS s)",
        # what a gateway carried is matched by its time, too
        f"SELECT trace_id FROM {mine} AS s WHERE {_FAMILY} IN ({carried})",
    ]
    return " UNION ALL ".join(parts)
