"""What stays of a trace that sampling let go, as in the embedded store (`store.spans.gone`): one line, with the columns of a
kept trace (`traces`), what its spans cost by all that cost is asked by, and the gateway's calls in it.

Lines are written under the attempt of a letting, and are in force with the slice that commits it: until then a trace is
told of by its spans, from then on by its line. They stay as long as the spans would have, and go when they are dropped by
name. Times of lines are exact; what they cost is told by the minute.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

from typing import Final

from midwatch.core.calls.news import SCOPE
from midwatch.core.spans.facts import CALL, MONEY, TOKENS
from midwatch.core.spans.form import Signal
from midwatch.core.spans.rollup import MINUTE_S
from midwatch.store.clickhouse import traces
from midwatch.store.clickhouse.client import ClickHouse
from midwatch.store.clickhouse.dialect import ClickHouseWords
from midwatch.store.clickhouse.schema import NAMES
from midwatch.store.clickhouse.slices import LOOK_S, SLICES, Slice

GONE: Final = "midwatch_gone"

MINUTE_NS: Final = MINUTE_S * 10**9
"""What starts are told by, of what is gone."""

_ALL: Final = NAMES[Signal.SPANS]
_SAY: Final = ClickHouseWords()
_CALLED, _TOLD, _PAID = (_SAY.has("counts", bit) for bit in (CALL, TOKENS, MONEY))
_TEXT: Final = "Nullable(String)"
_MINUTE: Final = f"intDiv(start_ns, {MINUTE_NS}) * {MINUTE_NS}"


# -- what it cost ------------------------------------------------------------------------------------

_OF_COSTS: Final = (
    ("agent", "String"), ("model", _TEXT), ("provider", _TEXT), ("tool", _TEXT), ("session", _TEXT), ("tags", _TEXT),
)  # fmt: skip
_COSTS: Final = (
    ("cost_nusd", f"sumIf(toInt128(ifNull(cost_nusd, 0)), {_PAID})"),
    ("calls", f"toInt128(countIf({_CALLED}))"),
    *((n, f"sumIf(toInt128(ifNull({n}, 0)), {_TOLD})") for n in ("input_tokens", "cached_tokens", "output_tokens")),
    ("unpriced", f"toInt128(countIf({_CALLED} AND {_TOLD} AND cost_nusd IS NULL))"),
)  # fmt: skip
COSTS: Final = tuple(name for name, _ in _COSTS)
"""The numbers of what counts, as `Cost` has them."""

_COSTS_TYPE: Final = (("start_ns", "Int64"), *_OF_COSTS, *((name, "Int128") for name in COSTS))

_SAID: Final = "ifNull(attributes, '')"


def _attribute(name: str) -> str:
    return f"nullIf(JSONExtractString({_SAID}, 'midwatch.{name}'), '')"


def _number(name: str) -> str:
    return f"JSONExtractInt({_SAID}, 'midwatch.{name}')"


def _true(name: str) -> str:
    return f"toInt64(JSONExtractRaw({_SAID}, 'midwatch.{name}') = 'true')"


_OF_CALLS: Final = (
    ("agent", "String", "agent"),
    ("run_id", _TEXT, "run_id"),
    ("session", _TEXT, "session"),
    ("model", _TEXT, f"coalesce({_attribute('model')}, response_model, model)"),
    ("provider", _TEXT, f"coalesce({_attribute('provider')}, provider)"),
    ("task", _TEXT, _attribute("task")),
    ("tags", f"Array({_TEXT})", f"JSONExtract({_SAID}, 'midwatch.tags', 'Array({_TEXT})')"),
    ("key", _TEXT, _attribute("virtual_key")),
)
_AMOUNTS: Final = (
    ("cost_nusd", "Nullable(Int64)", "cost_nusd"),
    ("tokens", "Nullable(Int64)", "input_tokens + output_tokens"),
    ("calls", "Int64", "toInt64(1)"),
    ("estimated", "Int64", _true("estimated")),
    ("disputed", "Int64", _true("disputed")),
    ("saved", "Int64", f"toInt64({_number('saved_nusd')} + {_number('cache_saved_nusd')})"),
)
_CARRIED_TYPE: Final = (
    ("start_ns", "Int64"),
    *((name, kind) for name, kind, _ in (*_OF_CALLS, *_AMOUNTS)),
)
_CARRIES: Final = f"scope = '{SCOPE}' AND operation IS NOT NULL"


def calls(rows: str) -> str:
    """Return the calls that the gateway carried, of span rows (a query in parentheses), as a query with `trace_id`,
    `start_ns` and what is asked of them. Models and providers go by what the fleet file calls them."""
    shown = ", ".join(f"{text} AS c_{name}" for name, _, text in (*_OF_CALLS, *_AMOUNTS))
    names = ", ".join(f"c_{name} AS {name}" for name, *_ in (*_OF_CALLS, *_AMOUNTS))
    return f"SELECT trace_id, start_ns, {names} FROM (SELECT trace_id, start_ns, {shown} FROM {rows} AS s WHERE {_CARRIES}) AS c"


# -- written -----------------------------------------------------------------------------------------


def _type(columns: tuple[tuple[str, str], ...]) -> str:
    return f"Array(Tuple({', '.join(f'{name} {kind}' for name, kind in columns)}))"


def table(settings: str) -> str:
    """Return the statement that makes the table."""
    return (
        f"CREATE TABLE IF NOT EXISTS {GONE} (slice UInt64, attempt UInt64, {traces.columns()},"
        f" costs {_type(_COSTS_TYPE)} CODEC(ZSTD(1)), carried {_type(_CARRIED_TYPE)} CODEC(ZSTD(1)),"
        " INDEX by_trace trace_id TYPE bloom_filter(0.001), INDEX by_first first_ns TYPE minmax,"
        " INDEX by_last last_ns TYPE minmax, INDEX by_session sessions TYPE bloom_filter(0.01))"
        " ENGINE = MergeTree PARTITION BY toDate(fromUnixTimestamp64Nano(first_ns)) ORDER BY (slice, attempt, trace_id)"
        f" SETTINGS {settings}"
    )


def leave(client: ClickHouse, new: Slice, mine: str, first_ns: int, last_ns: int) -> None:
    """Write the lines of traces (a query of `trace_id`) whose spans are between these times, under an attempt. Raises
    StoreError."""
    rows = (
        f"(SELECT * FROM {_ALL} FINAL WHERE start_ns BETWEEN {first_ns} AND {last_ns}"
        f" AND stored_ms <= {new.upto_ms} AND trace_id IN ({mine}))"
    )
    counted = traces.counted(rows, mine)
    by = ", ".join(name for name, _ in _OF_COSTS)
    sums = ", ".join(f"{text} AS n_{name}" for name, text in _COSTS)
    costs = _listed(
        "costs", _COSTS_TYPE, ["minute", by, *(f"n_{name}" for name in COSTS)],
        f"SELECT trace_id, {_MINUTE} AS minute, {by}, {sums} FROM {counted} AS s WHERE counts <> 0"
        f" GROUP BY trace_id, minute, {by}",
    )  # fmt: skip
    by = ", ".join(name for name, *_ in _OF_CALLS)
    sums = ", ".join(f"sum({name}) AS n_{name}" for name, *_ in _AMOUNTS)
    carried = _listed(
        "carried", _CARRIED_TYPE, ["minute", by, *(f"n_{name}" for name, *_ in _AMOUNTS)],
        f"SELECT trace_id, {_MINUTE} AS minute, {by}, {sums} FROM ({calls(rows)}) AS s GROUP BY trace_id, minute, {by}",
    )  # fmt: skip
    names = traces.names()
    client.run(
        f"INSERT INTO {GONE} (slice, attempt, {names}, costs, carried)"
        f" SELECT {new.number}, {new.attempt}, {names}, c.costs, g.carried"
        f" FROM (SELECT {names} FROM {traces.TRACES} FINAL WHERE trace_id IN ({mine})) AS k"
        f" LEFT JOIN ({costs}) AS c ON c.t = k.trace_id LEFT JOIN ({carried}) AS g ON g.t = k.trace_id"
        " SETTINGS max_partitions_per_insert_block = 1000",
        timeout_s=LOOK_S,
    )


def _listed(name: str, of: tuple[tuple[str, str], ...], columns: list[str], rows: str) -> str:
    lines = f"groupArray(({', '.join(columns)}))"
    return f"SELECT trace_id AS t, CAST({lines}, '{_type(of)}') AS {name} FROM ({rows}) AS l GROUP BY t"


# -- read --------------------------------------------------------------------------------------------


def in_force(upto: int) -> str:
    """Return the condition for lines and decisions of lettings up to a slice."""
    return (
        f"slice <= {upto} AND (slice, attempt) IN"
        f" (SELECT slice, argMin(attempt, (told, attempt)) FROM {SLICES} GROUP BY slice)"
    )


def lines(upto: int) -> str:
    """Return the lines in force up to a slice, with the columns of kept traces, as a query."""
    return f"SELECT {traces.names()} FROM {GONE} WHERE {in_force(upto)}"


def costs(upto: int, since_ns: int, until_ns: int) -> str:
    """Return what traces that are gone cost in whole minutes of a window, as a query of rows with `start_ns`, agent, model,
    provider, tool, session, tags and COSTS."""
    return _unlisted("costs", _COSTS_TYPE, upto, since_ns, until_ns)


def carried(upto: int, since_ns: int, until_ns: int = 2**63 - 1) -> str:
    """Return the same of the gateway's calls: the columns of `calls` but for `trace_id`."""
    return _unlisted("carried", _CARRIED_TYPE, upto, since_ns, until_ns)


def _unlisted(
    column: str, of: tuple[tuple[str, str], ...], upto: int, since_ns: int, until_ns: int
) -> str:
    first_ns = since_ns // MINUTE_NS * MINUTE_NS
    shown = ", ".join(f"one.{at} AS {name}" for at, (name, _) in enumerate(of, 1))
    return (
        f"SELECT {shown} FROM (SELECT arrayJoin({column}) AS one FROM {GONE} WHERE {in_force(upto)}"
        f" AND last_ns >= {first_ns} AND first_ns < {until_ns}) AS u WHERE one.1 >= {first_ns} AND one.1 < {until_ns}"
    )
