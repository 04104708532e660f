"""The tables on ClickHouse: OpenTelemetry's, with the names that its Collector writes, and our columns in them.

`otel_traces` and `otel_logs` hold each row once, in our columns; the Collector's columns beside are either other names
for the same (ALIAS) or made from it when a row is inserted (DEFAULT), so that any tool that reads what the Collector
writes reads this. `otel_metrics_*` are views. A row is replaced, never changed: of rows with one key the highest
`version` stays, and one that is `gone` takes the others with it. Every question reads with FINAL.

Inserts are synced to the disk before they are answered, and so are merges before their sources go: ClickHouse's own
default is neither.
"""

# ruff: noqa: S608  names of tables and columns are ours

from __future__ import annotations

from typing import Final

from midwatch.core.spans.columns import KINDS, STATUSES
from midwatch.core.spans.form import TABLES, Signal, Table, Type
from midwatch.store.columns import BEATS, EVENTS, SAMPLES
from midwatch.store.columns import Table as Items

VERSION: Final = 4
"""Raised when a table changes in a way that an older hub cannot read."""

NAMES: Final = {
    Signal.SPANS: "otel_traces",
    Signal.CONTENTS: "midwatch_contents",
    Signal.POINTS: "midwatch_points",
    Signal.LOGS: "otel_logs",
}
"""Where the rows of each table of `form` are."""

TIME: Final = {
    Signal.SPANS: "start_ns",
    Signal.CONTENTS: "start_ns",
    Signal.POINTS: "time_ns",
    Signal.LOGS: "time_ns",
}

_TYPES: Final = {
    Type.TRACE_ID: "String",
    Type.SPAN_ID: "String",
    Type.TEXT: "String",
    Type.WORD: "LowCardinality(String)",
    Type.INT: "Int64",
    Type.REAL: "Float64",
    Type.FLAG: "Bool",
    Type.ENUM: "Int8",
    Type.JSON: "String",
}

SETTINGS: Final = (
    "fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1,"
    " min_compressed_bytes_to_fsync_after_merge = 1, non_replicated_deduplication_window = 10000,"
    " old_parts_lifetime = 1, index_granularity = 8192"
)
"""Of every table. Parts that were merged or rewritten go after a second instead of eight minutes: what replaced them is
synced, and what was deleted is to be gone from the disk."""

_MAP: Final = "Map(LowCardinality(String), String)"
_TIME_TYPE: Final = "DateTime64(9)"


def _of_json(column: str) -> str:
    """Return a JSON object as a map of texts: a text as it is, anything else as JSON."""
    pairs = f"JSONExtractKeysAndValuesRaw(ifNull({column}, '{{}}'))"
    return (
        f"mapFromArrays(arrayMap(x -> x.1, {pairs}),"
        f" arrayMap(x -> if(startsWith(x.2, '\"'), JSONExtractString(x.2), x.2), {pairs}))"
    )


_GEN_AI: Final = {
    "gen_ai.operation.name": "operation",
    "gen_ai.provider.name": "provider",
    "gen_ai.request.model": "model",
    "gen_ai.response.model": "response_model",
    "gen_ai.response.id": "response_id",
    "gen_ai.agent.name": "agent_name",
    "gen_ai.conversation.id": "session",
    "gen_ai.tool.name": "tool",
    "gen_ai.tool.call.id": "tool_call_id",
    "gen_ai.usage.input_tokens": "input_tokens",
    "gen_ai.usage.output_tokens": "output_tokens",
    "gen_ai.usage.cache_read.input_tokens": "cached_tokens",
    "gen_ai.usage.cache_creation.input_tokens": "cache_write_tokens",
    "gen_ai.usage.reasoning.output_tokens": "reasoning_tokens",
    "error.type": "error_type",
    "user.id": "user",
    "midwatch.run_id": "run_id",
    "midwatch.call_id": "call_id",
}
"""What is kept in columns of its own, under the name by which OpenTelemetry's tools know it."""


def _span_attributes() -> str:
    names = ", ".join(f"'{name}'" for name in _GEN_AI)
    values = ", ".join(f"ifNull(toString(`{column}`), '')" for column in _GEN_AI.values())
    known = f"mapFilter((k, v) -> v != '', mapFromArrays([{names}], [{values}]))"
    # what the sender wrote himself wins over what we made of it
    return f"mapUpdate({known}, {_of_json('attributes')})"


def _words(column: str, words: tuple[str, ...]) -> str:
    listed = ", ".join(f"'{word.capitalize()}'" for word in words)
    return f"[{listed}][{column} + 1]"


def _each(column: str, of_x: str) -> str:
    return f"arrayMap(x -> {of_x}, JSONExtractArrayRaw(ifNull({column}, '[]')))"


_ATTRIBUTES_OF_X: Final = _of_json("JSONExtractRaw(x, 'attributes')").replace(
    "ifNull(JSONExtractRaw(x, 'attributes'), '{}')",
    "if(JSONExtractRaw(x, 'attributes') = '', '{}', JSONExtractRaw(x, 'attributes'))",
)

_SPANS_BESIDE: Final = (
    f"Timestamp {_TIME_TYPE} DEFAULT fromUnixTimestamp64Nano(start_ns) CODEC(Delta(8), ZSTD(1))",
    "TraceId String ALIAS trace_id",
    "SpanId String ALIAS span_id",
    "ParentSpanId String ALIAS ifNull(parent_id, '')",
    "TraceState String ALIAS JSONExtractString(ifNull(envelope, ''), 'trace_state')",
    "SpanName LowCardinality(String) ALIAS name",
    f"SpanKind LowCardinality(String) ALIAS {_words('kind', KINDS)}",
    "ServiceName LowCardinality(String) ALIAS agent",
    f"ResourceAttributes {_MAP} CODEC(ZSTD(1))",
    "ScopeName String ALIAS ifNull(scope, '')",
    "ScopeVersion String ALIAS ifNull(scope_version, '')",
    f"SpanAttributes {_MAP} DEFAULT {_span_attributes()} CODEC(ZSTD(1))",
    "Duration UInt64 ALIAS toUInt64(greatest(0, ifNull(duration_ns, 0)))",
    f"StatusCode LowCardinality(String) ALIAS {_words('status', STATUSES)}",
    "StatusMessage String ALIAS ifNull(status_message, '')",
    f"`Events.Timestamp` Array({_TIME_TYPE}) ALIAS "
    + _each("events", "fromUnixTimestamp64Nano(JSONExtractInt(x, 'time_ns'))"),
    f"`Events.Name` Array(LowCardinality(String)) ALIAS {_each('events', 'JSONExtractString(x, {n})')}".replace(
        "{n}", "'name'"
    ),
    f"`Events.Attributes` Array({_MAP}) ALIAS {_each('events', _ATTRIBUTES_OF_X)}",
    "`Links.TraceId` Array(String) ALIAS " + _each("links", "JSONExtractString(x, 'trace_id')"),
    "`Links.SpanId` Array(String) ALIAS " + _each("links", "JSONExtractString(x, 'span_id')"),
    "`Links.TraceState` Array(String) ALIAS "
    + _each("links", "JSONExtractString(x, 'trace_state')"),
    f"`Links.Attributes` Array({_MAP}) ALIAS {_each('links', _ATTRIBUTES_OF_X)}",
    "stored_ms Int64 DEFAULT toUnixTimestamp64Milli(now64(3)) CODEC(Delta(8), ZSTD(1))",
    "INDEX by_stored stored_ms TYPE minmax GRANULARITY 1",
    "INDEX by_trace trace_id TYPE bloom_filter(0.001) GRANULARITY 1",
    "INDEX by_start start_ns TYPE minmax GRANULARITY 1",
    "INDEX by_rank rank TYPE set(3) GRANULARITY 1",
    "INDEX by_session session TYPE bloom_filter(0.01) GRANULARITY 4",
    "INDEX by_run run_id TYPE bloom_filter(0.01) GRANULARITY 4",
    "INDEX by_attribute mapKeys(SpanAttributes) TYPE bloom_filter(0.01) GRANULARITY 1",
)

_LOGS_BESIDE: Final = (
    f"Timestamp {_TIME_TYPE} DEFAULT fromUnixTimestamp64Nano(time_ns) CODEC(Delta(8), ZSTD(1))",
    "TimestampTime DateTime ALIAS toDateTime(Timestamp)",
    "TraceId String ALIAS ifNull(trace_id, '')",
    "SpanId String ALIAS ifNull(span_id, '')",
    "TraceFlags UInt8 ALIAS toUInt8(bitAnd(ifNull(flags, 0), 255))",
    "SeverityText LowCardinality(String) ALIAS ifNull(severity_text, '')",
    "SeverityNumber UInt8 ALIAS toUInt8(ifNull(severity, 0))",
    "ServiceName LowCardinality(String) ALIAS agent",
    "Body String ALIAS ifNull(body, '')",
    "ResourceSchemaUrl LowCardinality(String) ALIAS ''",
    f"ResourceAttributes {_MAP} CODEC(ZSTD(1))",
    "ScopeSchemaUrl LowCardinality(String) ALIAS ''",
    "ScopeName String ALIAS ifNull(scope, '')",
    "ScopeVersion LowCardinality(String) ALIAS ifNull(scope_version, '')",
    f"ScopeAttributes {_MAP} ALIAS mapFromArrays(emptyArrayString(), emptyArrayString())",
    f"LogAttributes {_MAP} ALIAS {_of_json('attributes')}",
    "EventName String ALIAS ifNull(event, '')",
    "INDEX by_trace trace_id TYPE bloom_filter(0.001) GRANULARITY 1",
    "INDEX by_time time_ns TYPE minmax GRANULARITY 1",
)

_POINTS_BESIDE: Final = (
    f"Timestamp {_TIME_TYPE} DEFAULT fromUnixTimestamp64Nano(time_ns) CODEC(Delta(8), ZSTD(1))",
    f"ResourceAttributes {_MAP} CODEC(ZSTD(1))",
    "INDEX by_time time_ns TYPE minmax GRANULARITY 1",
)

_CONTENTS_BESIDE: Final = (
    f"Timestamp {_TIME_TYPE} DEFAULT fromUnixTimestamp64Nano(start_ns) CODEC(Delta(8), ZSTD(1))",
)

_LAYOUT: Final = {
    # the Collector's order, then what makes a span one
    Signal.SPANS: (_SPANS_BESIDE, "(agent, name, toDateTime(Timestamp), trace_id, span_id)"),
    Signal.CONTENTS: (_CONTENTS_BESIDE, "(trace_id, span_id, agent, key)"),
    Signal.POINTS: (_POINTS_BESIDE, "(agent, metric, toDateTime(Timestamp), point_id)"),
    Signal.LOGS: (_LOGS_BESIDE, "(agent, toDateTime(Timestamp), log_id)"),
}

WITH_RESOURCE: Final = frozenset({Signal.SPANS, Signal.POINTS, Signal.LOGS})
"""Tables whose rows have `ResourceAttributes` beside them."""


def _column(table: Table, at: int) -> str:
    column = table.row[at]
    kind = _TYPES[column.type]
    if not column.required:
        kind = (
            "LowCardinality(Nullable(String))" if column.type is Type.WORD else f"Nullable({kind})"
        )
    codec = (
        " CODEC(Delta(8), ZSTD(1))" if column.name in ("start_ns", "time_ns") else " CODEC(ZSTD(1))"
    )
    if column.name == "name" and table.name is Signal.SPANS:
        kind = "LowCardinality(String)"
    return f"`{column.name}` {kind}{codec}"


def _table(signal: Signal) -> str:
    table = TABLES[signal]
    beside, order = _LAYOUT[signal]
    columns = [_column(table, at) for at in range(len(table.row))]
    columns += ["version UInt8 DEFAULT 2", "gone UInt8 DEFAULT 0", *beside]
    return (
        f"CREATE TABLE IF NOT EXISTS {NAMES[signal]} ({', '.join(columns)})"
        f" ENGINE = ReplacingMergeTree(version, gone) PARTITION BY toDate(Timestamp)"
        f" ORDER BY {order} SETTINGS {SETTINGS}"
    )


def _keyed(name: str, columns: str, order: str, version: str = "") -> str:
    return (
        f"CREATE TABLE IF NOT EXISTS {name} ({columns}) ENGINE = ReplacingMergeTree({version})"
        f" ORDER BY {order} SETTINGS {SETTINGS}"
    )


_SHARED: Final = (
    "ResourceAttributes, '' AS ResourceSchemaUrl, ifNull(scope, '') AS ScopeName,"
    " ifNull(scope_version, '') AS ScopeVersion, agent AS ServiceName, metric AS MetricName,"
    " ifNull(about, '') AS MetricDescription, ifNull(unit, '') AS MetricUnit,"
    f" {_of_json('attributes')} AS Attributes,"
    " fromUnixTimestamp64Nano(ifNull(start_ns, 0)) AS StartTimeUnix, Timestamp AS TimeUnix,"
    " toUInt32(ifNull(flags, 0)) AS Flags"
)
_TEMPORAL: Final = "toInt32(temporality) AS AggregationTemporality"
_VALUE: Final = "ifNull(value, toFloat64(ifNull(whole, 0))) AS Value"
_DISTRIBUTION: Final = (
    "toUInt64(greatest(0, ifNull(count, 0))) AS Count, ifNull(sum, 0) AS Sum,"
    " ifNull(least, 0) AS Min, ifNull(most, 0) AS Max"
)


def _numbers(name: str, kind: str) -> str:
    return f"JSONExtract(ifNull(buckets, ''), '{name}', 'Array({kind})')"


_METRICS: Final = (
    ("gauge", _VALUE),
    ("sum", f"{_VALUE}, {_TEMPORAL}, ifNull(monotonic, false) AS IsMonotonic"),
    (
        "histogram",
        f"{_DISTRIBUTION}, {_TEMPORAL}, {_numbers('bucket_counts', 'UInt64')} AS BucketCounts,"
        f" {_numbers('explicit_bounds', 'Float64')} AS ExplicitBounds",
    ),
    (
        "exponential_histogram",
        f"{_DISTRIBUTION}, {_TEMPORAL}, toInt32(JSONExtractInt(ifNull(buckets, ''), 'scale')) AS Scale,"
        " toUInt64(JSONExtractUInt(ifNull(buckets, ''), 'zero_count')) AS ZeroCount",
    ),
    (
        "summary",
        "toUInt64(greatest(0, ifNull(count, 0))) AS Count, ifNull(sum, 0) AS Sum",
    ),
)
"""In the order of `columns.POINT_KINDS`."""


ITEMS: Final = {each.name: f"midwatch_{each.name}" for each in (BEATS, EVENTS, SAMPLES)}
"""Where beats, events and samples are."""

_ITEM_TYPES: Final = {
    "VARCHAR": "Nullable(String)",
    "BIGINT": "Nullable(Int64)",
    "DOUBLE": "Nullable(Float64)",
    "BOOLEAN": "Nullable(Bool)",
    "JSON": "Nullable(String)",
}


def _items(table: Items) -> str:
    """Return the statement for a table of `store.columns`; times are whole microseconds, as `Table.item` reads them.

    The key has no time: an item without one of its own is given that of each hub it reaches, and is one nevertheless.
    """
    types = dict.fromkeys(table.common, "Nullable(String)")
    types |= {"id": "String", "agent": "LowCardinality(String)", "ts": "Int64", "received": "Int64"}
    types |= {name: _ITEM_TYPES[kind] for name, kind in table.fields.items()}
    types["extra"] = "Nullable(String)"
    columns = ", ".join(f"`{name}` {kind} CODEC(ZSTD(1))" for name, kind in types.items())
    return (
        f"CREATE TABLE IF NOT EXISTS {ITEMS[table.name]} ({columns},"
        " Timestamp DateTime64(6) ALIAS fromUnixTimestamp64Micro(ts), INDEX by_time ts TYPE minmax GRANULARITY 1)"
        " ENGINE = ReplacingMergeTree PARTITION BY toYYYYMM(toDateTime(intDiv(ts, 1000000), 'UTC'))"
        f" ORDER BY (agent, id) SETTINGS {SETTINGS}"
    )


MARKS: Final = _keyed("midwatch_schema", "one UInt8, version UInt32", "one", "version")
"""Where the version is told that a database was brought to."""


def statements() -> list[str]:
    """Return what makes a database this version's, in order; each may be repeated."""
    made = [_table(signal) for signal in Signal]
    made += [_items(each) for each in (BEATS, EVENTS, SAMPLES)]
    made += [
        _keyed(
            "midwatch_resources", "resource_id String, text String CODEC(ZSTD(3))", "resource_id"
        ),
        _keyed(
            "midwatch_verdicts",
            "agent String, trace_id String, span_id String, counts UInt8, why String, owner String,"
            " session Nullable(String), count_trace String, told UInt64",
            "(trace_id, span_id, agent)",
            "told",
        ),
        _keyed("midwatch_lost", "run_id String, at_ns Int64, told UInt64", "run_id", "told"),
        _keyed("midwatch_probe", "holder String, written Int64", "holder", "written"),
    ]
    made += [
        f"CREATE OR REPLACE VIEW otel_metrics_{name} AS SELECT {_SHARED}, {own}"
        f" FROM midwatch_points FINAL WHERE kind = {number}"
        for number, (name, own) in enumerate(_METRICS)
    ]
    return made
