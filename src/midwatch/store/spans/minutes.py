"""Sums by minute, hour and day, made and put together by DuckDB: the numbers of `Rollup`, whose rules these are.

    1. spans are added up by source     minute, agent, model, provider, tags
    2. traces by what each of them says (`traces_said`)
    3. both are split by agent, model, provider and each tag that is counted, as many values as `bounding` lets, and
       added up again
    4. minutes become hours, hours days

No span, trace or sum is ever a Python object: a generation of 250,000 spans that says a tag of its own in each trace
has 80,000 sums by minute. What is corrected comes from a `Rollup`, and is few.

A sketch is two columns: `NAME_total`, and `NAME_buckets`, a list of `{b, n}` (bucket and count, `sketch.SQL`), so
that a question adds up buckets without reading a single sketch itself.
"""

# ruff: noqa: S608  names of tables and columns are ours, values are bound

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import arro3.core as arrow
import duckdb

from midwatch.core.sketch import SQL as BUCKET
from midwatch.core.sketch import Sketch
from midwatch.core.spans.facts import CALL, MONEY, TOKENS
from midwatch.core.spans.form import Rank, Role
from midwatch.core.spans.rollup import DAY_S, HOUR_S, MILLION, MINUTE_S, NUMBERS, SKETCHES, Key, Sum
from midwatch.core.spans.summary import MAX_NAMES, tags_of
from midwatch.store.spans.arrowed import INT, TEXT, table
from midwatch.store.spans.bounding import VALUES, bound, folded

MINUTES: Final = "minutes"
HOURS: Final = "hours"
DAYS: Final = "days"
"""The kinds of segments that hold sums: the same by minute, by hour and by day, so that long times are few rows."""

STEPS: Final[Mapping[str, int]] = {MINUTES: MINUTE_S, HOURS: HOUR_S, DAYS: DAY_S}
"""Kind of sums → seconds of a step, the finest first."""

ORDER: Final = '"by", agent, start_s, name'
"""How sums lie in their files: a question is of one `by`, and mostly of a few agents."""

_MAX: Final = 2**63 - 1
_ERROR: Final = 2
_MINUTE_NS: Final = MINUTE_S * 10**9
SPANS: Final = (
    "agent, trace_id, span_id, parent_id, name, start_ns, duration_ns, rank, status, role, model, provider, tags,"
    " goal_met, outcome, escalated, first_token_ns, input_tokens, cached_tokens, output_tokens, cost_nusd, counts"
)
"""The columns of spans that are looked at here."""

_KEY: Final = 'start_s, agent, "group", "by", name'
_PLACE: Final = 'start_s, agent, "by", name'
_TOOL: Final = f"role = {Role.TOOL.value}"
_TOOL_OVER: Final = f"{_TOOL} AND rank <> {Rank.OPEN.value}"
_PAID: Final = f"counts & {MONEY} <> 0"
_TOLD: Final = f"counts & {TOKENS} <> 0"

OF_SPANS: Final[Mapping[str, str]] = {
    "spans": "count(*)",
    "errors": f"count(*) FILTER (status = {_ERROR})",
    "calls": f"count(*) FILTER (counts & {CALL} <> 0)",
    "told": f"count(*) FILTER ({_TOLD})",
    "tools": f"count(*) FILTER ({_TOOL_OVER})",
    "tool_errors": f"count(*) FILTER ({_TOOL_OVER} AND status = {_ERROR})",
    **{
        name: f"coalesce(sum({name}) FILTER ({_TOLD}), 0)"
        for name in ("input_tokens", "cached_tokens", "output_tokens")
    },
    "cost_nusd": f"coalesce(sum(cost_nusd) FILTER ({_PAID}), 0)",
    "priced": f"count(cost_nusd) FILTER ({_PAID})",
}
"""Numbers of a `Sum` that spans have, and how rows with `counts` are added up to them."""

_OF_TRACES: Final = ("traces", "judged", "goals", "escalated")
assert (*OF_SPANS, *_OF_TRACES) == NUMBERS, "sums have the numbers of a `Sum`"

_NAME: Final = 'agent, "by", name'
_BUCKET: Final = "sketch, b, n, total"
_AT: Final = {name: f"{at}::TINYINT" for at, name in enumerate(SKETCHES)}
_TRACE_NUMBERS: Final = (
    "(SELECT *, 1::BIGINT AS traces, (goal IS NOT NULL)::BIGINT AS judged, coalesce(goal, false)::BIGINT AS goals,"
    " coalesce(went, false)::BIGINT AS escalated FROM settled_traces)"
)
_NUMBERS: Final = ", ".join(NUMBERS)
_ADDED: Final = ", ".join(
    f"greatest(least(coalesce(sum({name}), 0), {_MAX}), -{_MAX})::BIGINT AS {name}"
    for name in NUMBERS
)


def total_of(sketch: str) -> str:
    """Return the column that holds the sum of a sketch's values."""
    return f"{sketch}_total"


def buckets_of(sketch: str) -> str:
    """Return the column that holds a sketch's buckets."""
    return f"{sketch}_buckets"


# -- made ------------------------------------------------------------------------------------------


class Terms:
    """By what spans are added up: `groups` is agent → group, `windows` model → tokens of its context, `tags` the
    names that are counted by."""

    def __init__(self, groups: Mapping[str, str], windows: Mapping[str, int], tags: Collection[str]) -> None:  # fmt: skip
        self.groups = groups
        self.windows = {model: window for model, window in windows.items() if window > 0}
        self.tags = frozenset(tags)


def read_tags(cursor: duckdb.DuckDBPyConnection, counted: str, terms: Terms) -> str:
    """Take apart the tags of these spans; return the query of traces that say more models or tags than a summary
    keeps, which `add_up` does not know how to bound: leave them out of `traces`."""
    texts = [row[0] for row in cursor.execute(f"SELECT DISTINCT tags FROM {counted} AS c WHERE tags IS NOT NULL").fetchall()]  # fmt: skip
    rows: list[tuple[str, str, str]] = []
    sizes: list[int] = []
    for text in texts:
        said = tags_of(text)
        sizes.append(len(said))
        rows += [(text, f"tag:{name}", said[name]) for name in said if name in terms.tags]
    cursor.register("settled_tags", _texts(("tags", "by", "name"), rows))
    cursor.register("settled_tagged", table([("tags", TEXT, texts), ("names", INT, sizes)]))
    many = [f"SELECT trace_id FROM {counted} AS c WHERE model IS NOT NULL GROUP BY trace_id HAVING count(DISTINCT model) > {MAX_NAMES}"]  # fmt: skip
    if sum(sizes) > MAX_NAMES:
        many.append(
            f"SELECT trace_id FROM (SELECT DISTINCT trace_id, tags FROM {counted} AS c) AS c JOIN settled_tagged USING (tags)"
            f" GROUP BY trace_id HAVING sum(names) > {MAX_NAMES}"
        )
    return " UNION ALL ".join(many)


def add_up(
    cursor: duckdb.DuckDBPyConnection,
    counted: str,
    traces: str,
    terms: Terms,
    more: Mapping[Key, Sum],
    generation: int,
    days: str | None = None,
) -> dict[str, str]:
    """Add up spans, and those of whole traces, and what is corrected; return by kind the query of the sums.

    `counted` and `traces` are rows as `sums.counted` gives them, as queries in parentheses; `read_tags` comes first.
    `days` are the sums by day that are kept: what names they have stay, see `bounding`. Tables are made on this cursor, in its transaction.
    """
    _make(cursor, "settled_sources", _sources(counted))
    _make(cursor, "settled_traces", traces_said(traces))
    _make(cursor, "settled_said", _tags_said(traces))
    cursor.register("settled_more", _numbers_of(more))
    cursor.register("settled_more_buckets", _buckets_of(more))
    cursor.register("settled_groups", _texts(("agent", "group"), sorted(terms.groups.items())))
    numbers = " UNION ALL BY NAME ".join(
        [
            *_split("settled_sources", ", ".join(OF_SPANS), "settled_tags USING (tags)"),
            *_split(_TRACE_NUMBERS, ", ".join(_OF_TRACES), "settled_said USING (trace_id)"),
            f"SELECT {_PLACE}, {_NUMBERS} FROM settled_more",
        ]
    )
    buckets = " UNION ALL ".join(
        [
            *_split(_span_values(counted, terms.windows), _BUCKET, "settled_tags USING (tags)"),
            *_split(_trace_values(), _BUCKET, "settled_said USING (trace_id)"),
            f"SELECT {_PLACE}, sketch, b, n, total::HUGEINT AS total FROM settled_more_buckets",
        ]
    )
    # numbers stand for names from here on: what is grouped and joined are whole numbers, not texts
    named = VALUES
    if bound(cursor, numbers, days):
        numbers, buckets = folded(numbers), folded(buckets)
        named = f"({folded(f'SELECT day AS start_s, {_NAME} FROM {VALUES}')})"
    _make(cursor, "settled_names", f"SELECT row_number() OVER () AS id, * FROM (SELECT DISTINCT {_NAME} FROM {named} AS n)")  # fmt: skip
    numbers, buckets = (f"({rows}) AS r JOIN settled_names USING ({_NAME})" for rows in (numbers, buckets))  # fmt: skip
    found: dict[str, str] = {}
    for kind, step_s in STEPS.items():
        at = f"start_s // {step_s} * {step_s} AS start_s, id"
        _make(cursor, f"settled_{kind}_numbers", f"SELECT {at}, {_ADDED} FROM {numbers} GROUP BY ALL")  # fmt: skip
        _make(
            cursor,
            f"settled_{kind}_buckets",
            f"SELECT {at}, sketch, b, sum(n)::BIGINT AS n, sum(total) AS total FROM {buckets} GROUP BY ALL",
        )
        numbers, buckets = f"settled_{kind}_numbers", f"settled_{kind}_buckets"
        found[kind] = _whole(kind, generation)
    for name in ("spans", "sources", "traces", "said"):
        # what follows needs the room: spans are sorted when they are written
        cursor.execute(f"DROP TABLE IF EXISTS temp.settled_{name}")
    return found


def _make(cursor: duckdb.DuckDBPyConnection, name: str, query: str) -> None:
    cursor.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {query}")


def _sources(counted: str) -> str:
    numbers = ", ".join(f"{text} AS {name}" for name, text in OF_SPANS.items())
    return (
        f"SELECT start_ns // {_MINUTE_NS} * {MINUTE_S} AS start_s, agent, model, provider, tags, {numbers}"
        f" FROM {counted} AS c GROUP BY ALL"
    )


def _split(rows: str, values: str, said: str) -> list[str]:
    """Return the queries that say what rows with agent, model and provider come to by each, and by their tags."""
    by = [
        f"SELECT start_s, agent, '{name}' AS \"by\", {name} AS name, {values} FROM {rows} AS r WHERE {name} IS NOT NULL"
        for name in ("agent", "model", "provider")
    ]
    return [*by, f'SELECT start_s, agent, "by", name, {values} FROM {rows} AS r JOIN {said}']


def _bucket(value: str) -> str:
    return f"({BUCKET.format(value)})::SMALLINT"


def _bounded(value: str) -> str:
    """Return what a sketch counts of a value."""
    return f"least(greatest({value}, 0), {_MAX})::BIGINT"


def _span_values(counted: str, windows: Mapping[str, int]) -> str:
    """Return what sketches of spans count, by source."""
    parts = [f"SELECT {_AT['first_token']} AS sketch, first_token_ns AS v, * FROM {counted} AS c WHERE first_token_ns IS NOT NULL"]  # fmt: skip
    if windows:
        cases = " ".join(f"WHEN {_quoted(m)} THEN {int(w)}" for m, w in windows.items())
        fill = f"(input_tokens * {MILLION} // (CASE model {cases} END))"
        both = CALL | TOKENS
        parts.append(
            f"SELECT {_AT['context_fill']} AS sketch, {fill} AS v, * FROM {counted} AS c"
            f" WHERE counts & {both} = {both} AND {fill} IS NOT NULL"
        )
    rows = " UNION ALL ".join(
        f"SELECT start_ns // {_MINUTE_NS} * {MINUTE_S} AS start_s, agent, model, provider, tags, sketch,"
        f" {_bounded('v')} AS v FROM ({part}) AS p"
        for part in parts
    )
    return (
        f"(SELECT start_s, agent, model, provider, tags, sketch, {_bucket('v')} AS b, count(*) AS n, sum(v) AS total"
        f" FROM ({rows}) AS v GROUP BY ALL)"
    )


_VALUES: Final[Mapping[str, tuple[str, str]]] = {
    "trace_latency": ("last_ns - first_ns", "opened = 0"),
    "cost_per_trace": ("cost_nusd", "priced > 0"),
    "tokens_per_task": ("tokens", "ended"),
    "chain_length": ("length", "length > 0"),
}
"""Of a trace: what is observed, and whether anything is."""


def _trace_values() -> str:
    rows = " UNION ALL ".join(
        f"SELECT *, {_AT[name]} AS sketch, {_bounded(value)} AS v FROM settled_traces WHERE {there}"
        for name, (value, there) in _VALUES.items()
    )
    return (
        f"(SELECT *, {_bucket('v')} AS b, 1::BIGINT AS n, v::HUGEINT AS total FROM ({rows}) AS v)"
    )


def traces_said(rows: str) -> str:
    """Return the query of what each trace comes to as a whole: what `Rollup.add_trace` looks at."""
    model = (
        "SELECT trace_id, min_by({m: model, p: provider}, {c: -cost, t: -tokens, m: model}) AS best FROM ("
        f"SELECT trace_id, model, min(provider) AS provider, coalesce(sum(cost_nusd) FILTER ({_PAID}), 0) AS cost,"
        f" coalesce(sum(coalesce(input_tokens, 0) + coalesce(output_tokens, 0)) FILTER ({_TOLD}), 0) AS tokens"
        f" FROM {rows} AS m WHERE model IS NOT NULL AND counts <> 0 GROUP BY trace_id, model) AS m GROUP BY trace_id"
    )
    main = (
        "SELECT trace_id, min(start_ns) AS first_ns,"
        " greatest(0, max(start_ns + coalesce(duration_ns, 0))) AS last_ns,"
        " min({p: parent_id IS NOT NULL, s: start_ns, i: span_id, n: name, a: agent}).a AS agent,"
        f" count(*) FILTER (rank = {Rank.OPEN.value}) AS opened,"
        " max({s: start_ns, i: span_id, v: goal_met}) FILTER (goal_met IS NOT NULL).v AS goal,"
        " bool_or(escalated) AS went, count(outcome) > 0 AS ended,"
        f" coalesce(sum(cost_nusd) FILTER ({_PAID}), 0) AS cost_nusd, count(cost_nusd) FILTER ({_PAID}) AS priced,"
        f" coalesce(sum(coalesce(input_tokens, 0) + coalesce(output_tokens, 0)) FILTER ({_TOLD}), 0) AS tokens,"
        f" count(*) FILTER (counts & {CALL} <> 0) + count(*) FILTER ({_TOOL}) AS length"
        f" FROM {rows} AS s GROUP BY trace_id"
    )
    return (
        f"SELECT t.*, first_ns // {_MINUTE_NS} * {MINUTE_S} AS start_s, b.best.m AS model, b.best.p AS provider"
        f" FROM ({main}) AS t LEFT JOIN ({model}) AS b USING (trace_id)"
    )


def _tags_said(rows: str) -> str:
    """Return the query of the tags of each trace: of several values of one the latest."""
    latest = f"SELECT trace_id, tags, max({{s: start_ns, i: span_id}}) AS w FROM {rows} AS s WHERE tags IS NOT NULL GROUP BY trace_id, tags"
    return (
        'SELECT trace_id, "by", max_by(name, w) AS name FROM'
        f' ({latest}) AS l JOIN settled_tags USING (tags) GROUP BY trace_id, "by"'
    )


def _whole(kind: str, generation: int) -> str:
    """Return the query of the sums of one kind, as they are kept."""
    sketches = ", ".join(
        f"(sum(total) FILTER (sketch = {at}))::DECIMAL(38, 0) AS {total_of(name)},"
        f" list({{b: b, n: n}}) FILTER (sketch = {at} AND n <> 0) AS {buckets_of(name)}"
        for at, name in enumerate(SKETCHES)
    )
    made = ", ".join(f"b.{of(name)}" for name in SKETCHES for of in (total_of, buckets_of))
    return (
        f'SELECT start_s, s.agent, coalesce(g."group", \'\') AS "group", s."by", s.name, {_NUMBERS}, {made},'
        f" {generation}::BIGINT AS generation"
        f" FROM settled_{kind}_numbers AS n JOIN settled_names AS s USING (id)"
        f" LEFT JOIN (SELECT start_s, id, {sketches} FROM settled_{kind}_buckets GROUP BY start_s, id) AS b"
        f" USING (start_s, id) LEFT JOIN settled_groups AS g ON g.agent = s.agent ORDER BY {ORDER}"
    )


def known(table: str) -> str:
    """Return these sums with all sketches' columns: files from before buckets were columns have numbers alone."""
    none = ", ".join(
        f"NULL::DECIMAL(38, 0) AS {total_of(name)}, NULL::STRUCT(b SMALLINT, n BIGINT)[] AS {buckets_of(name)}"
        for name in SKETCHES
    )
    return f"(SELECT * FROM {table} UNION ALL BY NAME SELECT {none} WHERE false)"


# -- put together ----------------------------------------------------------------------------------


def joined(table: str) -> str:
    """Return the query of these sums with one row for each key: those of many generations as one."""
    rows = f"SELECT {_KEY}, unnest(s) AS s FROM (SELECT {_KEY}, [{_sketches()}] AS s FROM {table} AS j) AS j"
    buckets = (
        f"SELECT {_KEY}, sketch, b, sum(n)::BIGINT AS n FROM (SELECT {_KEY}, s.k AS sketch, unnest(s.l, recursive := true)"
        f" FROM ({rows}) AS r) AS u GROUP BY ALL HAVING sum(n) <> 0"
    )
    lists = ", ".join(
        f"list({{b: b, n: n}}) FILTER (sketch = '{name}') AS {buckets_of(name)}"
        for name in SKETCHES
    )
    totals = ", ".join(
        f"sum({total_of(name)})::DECIMAL(38, 0) AS {total_of(name)}" for name in SKETCHES
    )
    made = ", ".join(f"{column}{of(name)}" for name in SKETCHES for column, of in (("n.", total_of), ("b.", buckets_of)))  # fmt: skip
    return (
        f'SELECT n.start_s, n.agent, n."group", n."by", n.name, {_NUMBERS}, {made}, n.generation'
        f" FROM (SELECT {_KEY}, {_ADDED}, {totals}, max(generation) AS generation FROM {table} AS j GROUP BY {_KEY}) AS n"
        f" LEFT JOIN (SELECT {_KEY}, {lists} FROM ({buckets}) AS u GROUP BY {_KEY}) AS b USING ({_KEY}) ORDER BY {ORDER}"
    )


def _sketches() -> str:
    return ", ".join(f"{{k: '{name}', l: {buckets_of(name)}}}" for name in SKETCHES)


# -- read ------------------------------------------------------------------------------------------

COLUMNS: Final = ", ".join([_KEY, *NUMBERS, *(of(n) for n in SKETCHES for of in (total_of, buckets_of))])  # fmt: skip


def read(row: Sequence[Any]) -> tuple[Key, Sum]:
    """Return a row of COLUMNS as a sum."""
    made = Sum()
    for name, value in zip(NUMBERS, row[5:], strict=False):
        setattr(made, name, value)
    sketches = row[5 + len(NUMBERS) :]
    for at, name in enumerate(SKETCHES):
        total, buckets = sketches[2 * at : 2 * at + 2]
        if total is not None or buckets:
            counts = {one["b"]: one["n"] for one in buckets or ()}
            setattr(made, name, Sketch(counts, int(total or 0)))
    return Key(*row[:5]), made


# -- tables ----------------------------------------------------------------------------------------


def _texts(names: Sequence[str], rows: Sequence[Sequence[str]]) -> arrow.Table:
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    return table((n, TEXT, values) for n, values in zip(names, columns, strict=True))


def _places(keys: Sequence[Key]) -> list[tuple[str, Any, Sequence[Any]]]:
    return [
        ("start_s", INT, [key.start_s for key in keys]),
        ("agent", TEXT, [key.agent for key in keys]),
        ("by", TEXT, [key.by for key in keys]),
        ("name", TEXT, [key.name for key in keys]),
    ]


def _numbers_of(more: Mapping[Key, Sum]) -> arrow.Table:
    numbers = [(name, INT, [getattr(one, name) for one in more.values()]) for name in NUMBERS]
    return table([*_places(list(more)), *numbers])


def _buckets_of(more: Mapping[Key, Sum]) -> arrow.Table:
    rows: list[tuple[Key, int, int, int, str]] = []
    for key, one in more.items():
        for at, name in enumerate(SKETCHES):
            sketch: Sketch = getattr(one, name)
            rows += [(key, at, bucket, n, "0") for bucket, n in sketch.counts.items()]
            if sketch.total:
                # the sum of all beside no count: it may be beyond 64 bits, hence as text
                rows.append((key, at, 0, 0, str(sketch.total)))
    return table(
        [
            *_places([row[0] for row in rows]),
            ("sketch", arrow.DataType.int8(), [row[1] for row in rows]),
            ("b", arrow.DataType.int16(), [row[2] for row in rows]),
            ("n", INT, [row[3] for row in rows]),
            ("total", TEXT, [row[4] for row in rows]),
        ]
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
