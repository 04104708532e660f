"""Rows back into OTLP: what came in goes out as it came, with its resource, its scope and its own attributes.

Contents go along, unless the target is not to see them. A body is a whole Export…ServiceRequest in protobuf; several of
one signal behind each other are one request again, because all that a request holds is a repeated field.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

from midwatch.core.spans import contents, form
from midwatch.core.spans.columns import POINT_KINDS
from midwatch.core.spans.dialect import Dialect, load
from midwatch.core.spans.form import LOGS, POINTS, Batch, Rank, Row, Signal
from midwatch.core.spans.understanding import restored, restored_log
from midwatch.core.spans.values import Value, load_all
from midwatch.core.spans.values import load as load_value
from midwatch.ingest.otlp import wire

MAX_BODY: Final = 1024 * 1024
"""Bytes after which another body is begun: back-ends take 4 MiB by default."""

_ENDED: Final = Rank.ENDED.value


class Body(NamedTuple):
    """One request for another back-end, not packed."""

    signal: Signal
    items: int
    """Spans, points or log records in it."""
    data: bytes
    whose: tuple[tuple[str, str | None], ...] = ()
    """Agent and run of each group of the request."""


class Encoder:
    """Writes batches as OTLP."""

    def __init__(self, dialects: Mapping[str, Dialect] | None = None) -> None:
        self._dialects = load() if dialects is None else dialects

    def bodies(self, batch: Batch, signal: Signal, *, with_contents: bool = True) -> Iterator[Body]:
        """Yield the requests for one signal of a batch; none when it has nothing of it.

        Of spans only those that are over: others have no form for what is still open.
        """
        said = _by_span(batch.contents) if with_contents else {}
        if signal is Signal.SPANS:
            rows = [row for row in batch.spans if row[form.RANK] == _ENDED]
            yield from self._parts(batch, signal, rows, _SPAN_FROM, self._span(said))
        elif signal is Signal.LOGS:
            yield from self._parts(
                batch, signal, batch.logs, _LOG_FROM, lambda row: _log(row, said)
            )
        elif signal is Signal.POINTS:
            yield from self._parts(batch, signal, batch.points, _POINT_FROM, _metric)

    def _span(self, said: Mapping[tuple[Any, ...], list[Row]]) -> Callable[[Row], bytes]:
        return lambda row: _span(row, said.get(_span_key(row), ()), self._dialects)

    def _parts(
        self, batch: Batch, signal: Signal, rows: Iterable[Row], at: _From, write: Callable[[Row], bytes]
    ) -> Iterator[Body]:  # fmt: skip
        groups: dict[tuple[Any, ...], list[bytes]] = {}
        count = size = 0
        for row in rows:
            data = write(row)
            groups.setdefault(tuple(row[place] for place in at), []).append(data)
            count, size = count + 1, size + len(data)
            if size >= MAX_BODY:
                yield self._body(signal, count, batch, groups)
                groups, count, size = {}, 0, 0
        if count:
            yield self._body(signal, count, batch, groups)

    def _body(
        self, signal: Signal, count: int, batch: Batch, groups: Mapping[tuple[Any, ...], list[bytes]]
    ) -> Body:  # fmt: skip
        whose = tuple((agent, run_id) for _, _, _, agent, run_id in groups)
        return Body(signal, count, self._request(batch, groups), whose)

    def _request(self, batch: Batch, groups: Mapping[tuple[Any, ...], list[bytes]]) -> bytes:
        request = wire.Request()
        for (resource_id, scope, version, agent, _), items in groups.items():
            text = batch.resources.get(resource_id, "{}") if resource_id is not None else "{}"
            resource, url, scope_attributes, scope_url = _resource(text, agent)
            inner = wire.Scope(attributes=scope_attributes)
            if scope is not None:
                inner.name = _utf8(scope)
            if version is not None:
                inner.version = _utf8(version)
            group = wire.ScopeGroup(
                scope=inner.SerializeToString(), items=items, schema_url=scope_url
            )
            request.groups.append(
                wire.Group(
                    resource=wire.Resource(attributes=resource).SerializeToString(),
                    scopes=[group.SerializeToString()],
                    schema_url=url,
                ).SerializeToString()
            )
        return cast("bytes", request.SerializeToString())


_From = tuple[int, int, int, int, int]
_SPAN_FROM: Final = (form.RESOURCE_ID, form.SCOPE, form.SCOPE_VERSION, form.AGENT, form.RUN_ID)
_L: Final = LOGS.at
_P: Final = POINTS.at
_NAMES: Final = ("resource_id", "scope", "scope_version", "agent", "run_id")
_LOG_FROM: Final = cast("_From", tuple(_L[name] for name in _NAMES))
_POINT_FROM: Final = cast("_From", tuple(_P[name] for name in _NAMES))
_C_AGENT, _C_TRACE, _C_SPAN = (form.CONTENTS.at[n] for n in ("agent", "trace_id", "span_id"))


def _by_span(rows: Iterable[Row]) -> dict[tuple[Any, ...], list[Row]]:
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault((row[_C_AGENT], row[_C_TRACE], row[_C_SPAN]), []).append(row)
    return found


def _span_key(row: Row) -> tuple[Any, ...]:
    return row[form.AGENT], row[form.TRACE_ID], row[form.SPAN_ID]


def _resource(text: str, agent: str) -> tuple[list[bytes], bytes, list[bytes], bytes]:
    """Return what `form.resource_text` wrote, encoded. Who is not named is named as here."""
    parts: dict[str, Any] = json.loads(text)
    attributes = load_all(json.dumps(parts["attributes"])) if "attributes" in parts else {}
    attributes.setdefault("service.name", agent)
    scope = load_all(json.dumps(parts["scope_attributes"])) if "scope_attributes" in parts else {}
    return (
        pairs(attributes),
        _utf8(parts.get("schema_url", "")),
        pairs(scope),
        _utf8(parts.get("scope_schema_url", "")),
    )


# -- spans -----------------------------------------------------------------------------------------


def _span(row: Row, said: Sequence[Row], dialects: Mapping[str, Dialect]) -> bytes:
    rest = load_all(row[form.ENVELOPE])
    start = row[form.START_NS]
    span = wire.Span(
        trace_id=row[form.TRACE_ID],
        span_id=row[form.SPAN_ID],
        name=_utf8(row[form.NAME]),
        kind=row[form.KIND],
        start=start,
        end=start + (row[form.DURATION_NS] or 0),
        attributes=pairs(restored(row, said, dialects)),
        events=_events(row[form.EVENTS], contents.events(said)),
        links=[_link(link) for link in _list(row[form.LINKS])],
    )
    if row[form.PARENT_ID] is not None:
        span.parent_span_id = row[form.PARENT_ID]
    if row[form.STATUS] or row[form.STATUS_MESSAGE]:
        status = wire.Status(code=row[form.STATUS])
        if row[form.STATUS_MESSAGE]:
            status.message = _utf8(row[form.STATUS_MESSAGE])
        span.status = status.SerializeToString()
    if row[form.FLAGS]:
        span.flags = row[form.FLAGS]
    if isinstance(state := rest.get("trace_state"), str):
        span.trace_state = _utf8(state)
    for name in ("dropped_attributes", "dropped_events", "dropped_links"):
        if isinstance(number := rest.get(f"{name}_count"), int):
            setattr(span, name, number)
    return cast("bytes", span.SerializeToString())


def _events(text: str | None, said: Mapping[int, Mapping[str, Value]]) -> list[bytes]:
    found: list[bytes] = []
    for number, event in enumerate(_list(text)):
        attributes = load_all(json.dumps(event["attributes"])) if "attributes" in event else {}
        made = wire.Event(
            time=event["time_ns"],
            name=_utf8(event["name"]),
            attributes=pairs({**attributes, **said.get(number, {})}),
        )
        found.append(made.SerializeToString())
    return found


def _link(link: Mapping[str, Any]) -> bytes:
    made = wire.Link(
        trace_id=bytes.fromhex(link["trace_id"]),
        span_id=bytes.fromhex(link["span_id"]),
        attributes=pairs(load_all(json.dumps(link.get("attributes", {})))),
    )
    if state := link.get("trace_state"):
        made.trace_state = _utf8(state)
    if flags := link.get("flags"):
        made.flags = flags
    return cast("bytes", made.SerializeToString())


# -- logs ------------------------------------------------------------------------------------------


def _log(row: Row, said: Mapping[tuple[Any, ...], list[Row]]) -> bytes:
    key = (row[_L["agent"]], row[_L["trace_id"]], row[_L["span_id"]])
    attributes, body, is_json = restored_log(row, said.get(key, ()))
    log = wire.Log(
        time=row[_L["time_ns"]],
        attributes=pairs(attributes),
    )
    if body is not None:
        log.body = any_value(load_value(body) if is_json else body)
    for column, field in _LOG_FIELDS:
        value = row[_L[column]]
        if value is not None:
            setattr(log, field, _utf8(value) if isinstance(value, str) else value)
    dropped = load_all(row[_L["envelope"]]).get("dropped_attributes_count")
    if isinstance(dropped, int):
        log.dropped_attributes = dropped
    return cast("bytes", log.SerializeToString())


_LOG_FIELDS: Final = (
    ("observed_ns", "observed"),
    ("severity", "severity"),
    ("severity_text", "severity_text"),
    ("event", "event"),
    ("trace_id", "trace_id"),
    ("span_id", "span_id"),
    ("flags", "flags"),
)


# -- points ----------------------------------------------------------------------------------------


def _metric(row: Row) -> bytes:
    """Return a metric with this one point: back-ends put points of one metric together themselves."""
    number: int = row[_P["kind"]]
    kind = POINT_KINDS[number]
    data = wire.Data(points=[_POINTS[kind](row)])
    if kind in ("sum", "histogram", "exponential_histogram"):
        data.temporality = row[_P["temporality"]]
    if kind == "sum":
        data.monotonic = bool(row[_P["monotonic"]])
    metric = wire.Metric(name=_utf8(row[_P["metric"]]))
    for column, field in (("unit", "unit"), ("about", "about")):
        if row[_P[column]]:
            setattr(metric, field, _utf8(row[_P[column]]))
    setattr(metric, kind, data.SerializeToString())
    return cast("bytes", metric.SerializeToString())


def _point(kind: Any, row: Row) -> Any:
    made = kind(time=row[_P["time_ns"]], attributes=pairs(load_all(row[_P["attributes"]])))
    if row[_P["start_ns"]] is not None:
        made.start = row[_P["start_ns"]]
    if row[_P["flags"]]:
        made.flags = row[_P["flags"]]
    return made


def _number(row: Row) -> bytes:
    made = _point(wire.Number, row)
    if row[_P["whole"]] is not None:
        made.int = row[_P["whole"]]
    elif row[_P["value"]] is not None:
        made.double = row[_P["value"]]
    made.exemplars.extend(_exemplars(row))
    return cast("bytes", made.SerializeToString())


def _histogram(row: Row) -> bytes:
    made = _spread(wire.Histogram, row)
    buckets = load_all(row[_P["buckets"]])
    made.explicit_bounds.extend(cast("list[float]", buckets.get("explicit_bounds", [])))
    made.bucket_counts.extend(cast("list[int]", buckets.get("bucket_counts", [])))
    return cast("bytes", made.SerializeToString())


def _exponential(row: Row) -> bytes:
    made = _spread(wire.Exponential, row)
    buckets = load_all(row[_P["buckets"]])
    for name in ("scale", "zero_count", "zero_threshold"):
        if name in buckets:
            setattr(made, name, buckets[name])
    for side in ("positive", "negative"):
        counts = cast("dict[str, Any]", buckets.get(side) or {})
        part = wire.Buckets(offset=counts.get("offset", 0), bucket_counts=counts.get("bucket_counts", []))  # fmt: skip
        setattr(made, side, part.SerializeToString())
    return cast("bytes", made.SerializeToString())


def _spread(kind: Any, row: Row) -> Any:
    made = _point(kind, row)
    for column, field in (("count", "count"), ("sum", "sum"), ("least", "min"), ("most", "max")):
        if row[_P[column]] is not None:
            setattr(made, field, row[_P[column]])
    made.exemplars.extend(_exemplars(row))
    return made


def _summary(row: Row) -> bytes:
    made = _point(wire.Summary, row)
    made.count, made.sum = row[_P["count"]] or 0, row[_P["sum"]] or 0.0
    for one in cast(
        "list[dict[str, Any]]", load_all(row[_P["buckets"]]).get("quantile_values", [])
    ):
        made.quantiles.append(wire.Quantile(**one).SerializeToString())
    return cast("bytes", made.SerializeToString())


def _exemplars(row: Row) -> list[bytes]:
    text = row[_P["exemplars"]]
    found: list[bytes] = []
    for one in cast("list[dict[str, Any]]", load_value(text) if text else []):
        made = wire.Exemplar(attributes=pairs(one.get("filtered_attributes", {})))
        if "time_unix_nano" in one:
            made.time = one["time_unix_nano"]
        if "as_double" in one:
            made.double = one["as_double"]
        if "as_int" in one:
            made.int = one["as_int"]
        for name in ("trace_id", "span_id"):
            if name in one:
                setattr(made, name, bytes.fromhex(one[name]))
        found.append(made.SerializeToString())
    return found


_POINTS: Final[dict[str, Callable[[Row], bytes]]] = {
    "gauge": _number,
    "sum": _number,
    "histogram": _histogram,
    "exponential_histogram": _exponential,
    "summary": _summary,
}


# -- values ----------------------------------------------------------------------------------------


def pairs(attributes: Mapping[str, Value]) -> list[bytes]:
    """Return attributes as KeyValue messages."""
    return [
        _field(1, key.encode(errors="replace")) + _field(2, any_value(value))
        for key, value in attributes.items()
    ]


def any_value(value: Value) -> bytes:
    """Return a value as an AnyValue message (opentelemetry/proto/common/v1)."""
    if isinstance(value, str):
        return _field(1, value.encode(errors="replace"))
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        return b"\x18" + _varint(value & 0xFFFF_FFFF_FFFF_FFFF)
    if isinstance(value, float):
        return b"\x21" + struct.pack("<d", value)
    if isinstance(value, bytes):
        return _field(7, value)
    if isinstance(value, list):
        return _field(5, b"".join(_field(1, any_value(inner)) for inner in value))
    if isinstance(value, dict):
        return _field(6, b"".join(_field(1, pair) for pair in pairs(value)))
    return b""


def _field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _list(text: str | None) -> list[dict[str, Any]]:
    return json.loads(text) if text else []


def _utf8(text: str) -> bytes:
    return text.encode(errors="replace")
