"""Read-only SQL of strangers over ClickHouse: one SELECT, over the published views and nothing else.

The server parses the text first (`EXPLAIN AST`, which runs nothing): no table function, no table of another database,
no settings, and of functions only those that work on values. Then it is run as a subquery, read-only, with bounds of
time, memory and rows, in a database that holds views alone. Each of these would be enough; give the hub's user of
the server no rights beyond its database as well.
"""

# ruff: noqa: S608  names of tables and columns are ours; the stranger's text is what this module is about

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from midwatch.core.errors import StoreError
from midwatch.core.spans.facts import CALL, MONEY, TOKENS
from midwatch.core.spans.form import TABLES, Role, Signal, Type
from midwatch.core.spans.questions import BadQuestion, SqlLimits, Table
from midwatch.store.clickhouse.client import ClickHouse
from midwatch.store.clickhouse.schema import NAMES
from midwatch.store.spans.sums import BY_DEFAULT

MAX_TEXT: Final = 64 * 1024
"""Characters of a query."""

MAX_ROW_BYTES: Final = 1024 * 1024
"""Of the last row, that may be over the bound of an answer."""

CATEGORIES: Final = (
    "Aggregate Functions", "Type Conversion", "Dates and Times", "Arrays", "String", "Hash", "String Search", "JSON",
    "Mathematical", "URL", "Arithmetic", "Map", "IP Address", "Comparison", "Tuple", "Distance", "Bitmap", "Bit",
    "Encoding", "UUID", "String Splitting", "String Replacement", "Null", "Rounding", "Time Window", "Conditional",
    "Logical", "Financial",
)  # fmt: skip
"""What functions do that work on values alone, in the server's own list of them."""

_ALWAYS: Final = frozenset(
    {"lambda", "tuple", "array", "multiif", "cast", "exists", "untuple", "count", "in", "notin", "globalin",
     "globalnotin", "row_number", "rank", "dense_rank", "lag", "lead", "laginframe", "leadinframe", "first_value",
     "last_value", "ntile", "currentdatabase"}
)  # fmt: skip
_COMBINATORS: Final = ("if", "distinct", "ornull", "ordefault", "array", "map")

_NODE: Final = re.compile(r"^( *)(\w+)(?: (.*?))?(?: \(alias .*\))?(?: \(children \d+\))?$")


def views(database: str) -> list[str]:
    """Return the statements that make the published views, in a database of their own."""
    own = f"{database}_sql"
    made = [f"CREATE DATABASE IF NOT EXISTS {own}"]
    for signal, table in TABLES.items():
        shown = ["Timestamp AS time"]
        shown += [
            f"arrayElement([{', '.join(map(repr, column.words))}], `{column.name}` + 1) AS `{column.name}`"
            if column.type is Type.ENUM and column.words
            else f"`{column.name}`"
            for column in table.row
        ]
        rows = f"{database}.{NAMES[signal]} FINAL"
        if signal is Signal.SPANS:
            shown.append("counts")
            rows = (
                f"(SELECT s.*, if(v.judged = 1, v.kept, {BY_DEFAULT}) AS counts FROM {rows} AS s LEFT JOIN"
                f" (SELECT agent, trace_id, span_id, counts AS kept, 1 AS judged FROM {database}.midwatch_verdicts FINAL) AS v"
                " ON v.agent = s.agent AND v.trace_id = s.trace_id AND v.span_id = s.span_id)"
            ).replace(f"{rows} AS s", f"(SELECT * FROM {rows}) AS s")
        made.append(
            f"CREATE OR REPLACE VIEW {own}.{signal.value} AS SELECT {', '.join(shown)} FROM {rows}"
        )
    spans = f"{own}.spans"
    made += [
        f"CREATE OR REPLACE VIEW {own}.resources AS SELECT resource_id, text AS resource FROM {database}.midwatch_resources FINAL",
        f"CREATE OR REPLACE VIEW {own}.calls AS SELECT * FROM {spans} WHERE bitAnd(counts, {CALL}) <> 0",
        f"CREATE OR REPLACE VIEW {own}.tools AS SELECT * FROM {spans} WHERE role = '{Role.TOOL.name.lower()}'",
        f"CREATE OR REPLACE VIEW {own}.sessions AS SELECT assumeNotNull(session) AS session, min(s.time) AS time,"
        " arraySort(groupUniqArray(agent)) AS agents, argMaxIf(user, start_ns, user IS NOT NULL) AS user,"
        " max(start_ns + ifNull(duration_ns, 0)) - min(start_ns) AS duration_ns, uniqExact(trace_id) AS traces,"
        " uniqExact(turn) AS turns, count() AS spans, countIf(status = 'error') AS errors,"
        f" countIf(bitAnd(counts, {CALL}) <> 0) AS calls,"
        f" sumIf(ifNull(s.input_tokens, 0), bitAnd(counts, {TOKENS}) <> 0) AS input_tokens,"
        f" sumIf(ifNull(s.output_tokens, 0), bitAnd(counts, {TOKENS}) <> 0) AS output_tokens,"
        f" sumIf(ifNull(s.cost_nusd, 0), bitAnd(counts, {MONEY}) <> 0) AS cost_nusd,"
        " argMaxIf(s.outcome, start_ns, s.outcome IS NOT NULL) AS outcome"
        f" FROM {spans} AS s WHERE s.session IS NOT NULL GROUP BY s.session",
    ]
    return made


class Guard:
    """What one server has: functions that may be used, databases that may not be named."""

    def __init__(self, client: ClickHouse) -> None:
        listed = ", ".join(f"'{one}'" for one in CATEGORIES)
        told = client.ask(
            f"SELECT lower(name) FROM system.functions WHERE origin = 'System' AND (is_aggregate OR categories IN ({listed})"
            " OR alias_to IN (SELECT name FROM system.functions WHERE origin = 'System' AND"
            f" (is_aggregate OR categories IN ({listed}))))"
        )
        self._functions = _ALWAYS | {name for (name,) in told.rows}
        found = client.ask("SELECT lower(name) FROM system.databases").rows
        self._databases = {"system", "information_schema", *(name for (name,) in found)}

    def check(self, nodes: Iterator[tuple[int, str, str]]) -> None:
        """Raise BadQuestion for what a stranger may not do."""
        tables_at: int | None = None
        for depth, kind, name in nodes:
            if kind == "Set":
                raise BadQuestion("settings are not taken; ask without SETTINGS")
            if kind == "ColumnsApplyTransformer":
                # the parser does not tell which function it applies
                raise BadQuestion("APPLY is not answered; name the columns and call the function")
            if kind == "TableExpression":
                tables_at = depth
            elif kind == "Function":
                if tables_at is not None and depth == tables_at + 1:
                    raise BadQuestion(f"the table function {name!r} is not answered")
                if not self._knows(name.lower()):
                    raise BadQuestion(f"the function {name!r} is not answered")
            elif kind in ("TableIdentifier", "Identifier"):
                first, dot, _ = name.partition(".")
                if dot and (kind == "TableIdentifier" or first.lower() in self._databases):
                    raise BadQuestion(f"{name!r} is not answered: name a table without its database")  # fmt: skip
            if kind != "TableExpression" and tables_at is not None and depth <= tables_at:
                tables_at = None

    def _knows(self, name: str) -> bool:
        if name in self._functions:
            return True
        shorter = next((name.removesuffix(end) for end in _COMBINATORS if name.endswith(end)), name)
        return shorter != name and self._knows(shorter)


def nodes_of(told: list[list[Any]]) -> Iterator[tuple[int, str, str]]:
    """Yield depth, kind and name of each line of a parsed statement."""
    for (line,) in told:
        found = _NODE.match(line)
        if found is not None:
            yield len(found.group(1)), found.group(2), found.group(3) or ""


def answer(client: ClickHouse, guard: Guard, text: str, limits: SqlLimits) -> Table:
    """Return the rows of one SELECT. Raises BadQuestion, or StoreError when it takes too long."""
    if len(text) > MAX_TEXT:
        raise BadQuestion(f"the query has {len(text)} characters; {MAX_TEXT} are answered")
    whole = f"SELECT * FROM (\n{text}\n)"
    try:
        guard.check(nodes_of(client.ask(f"EXPLAIN AST {whole}").rows))
        found = client.ask(
            whole,
            timeout_s=limits.timeout_s,
            database=f"{client.database}_sql",
            settings={
                "readonly": "1",
                "limit": str(limits.rows + 1),
                "max_memory_usage": str(limits.memory_bytes),
                "max_result_bytes": str(limits.result_bytes + MAX_ROW_BYTES),
                "result_overflow_mode": "break",
                "query_plan_remove_redundant_sorting": "0",
            },
        )
    except StoreError as error:
        if "took too long" in str(error) or "no answer in" in str(error):
            raise StoreError(
                f"the query took longer than {limits.timeout_s:g} s; ask for less"
            ) from None
        if "cannot reach" in str(error):
            raise
        raise BadQuestion(f"the query cannot be answered: {error}") from None
    rows: list[list[Any]] = []
    size = 0
    for row in found.rows:
        size += len(str(row))
        if len(rows) >= limits.rows or size > limits.result_bytes:
            return Table(found.names, rows, truncated=True)
        rows.append(row)
    return Table(found.names, rows)
