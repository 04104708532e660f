"""Requests of OTLP with anything in them: what the property tests of the decoders draw."""

from __future__ import annotations

import json
from typing import Any

from google.protobuf import json_format
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from tests.edges import NOW_NS, request

from midwatch.core.spans.form import Signal

TEXTS = st.one_of(
    st.text(max_size=12), st.sampled_from(["gen_ai.request.model", "session.id", "a\0b", "x" * 300])
)


@st.composite
def any_values(draw: st.DrawFn, depth: int = 0) -> AnyValue:
    kinds = ["string", "bool", "int", "double", "bytes", "none"]
    kind = draw(st.sampled_from(kinds if depth > 2 else [*kinds, "array", "map"]))
    value = AnyValue()
    if kind == "string":
        value.string_value = draw(TEXTS)
    elif kind == "bool":
        value.bool_value = draw(st.booleans())
    elif kind == "int":
        value.int_value = draw(st.integers(-(2**63), 2**63 - 1))
    elif kind == "double":
        value.double_value = draw(st.floats())
    elif kind == "bytes":
        value.bytes_value = draw(st.binary(max_size=6))
    elif kind == "array":
        value.array_value.values.extend(draw(st.lists(any_values(depth + 1), max_size=3)))
    elif kind == "map":
        value.kvlist_value.SetInParent()
        for key in draw(st.lists(TEXTS, max_size=3)):
            pair = value.kvlist_value.values.add(key=key)
            pair.value.CopyFrom(draw(any_values(depth + 1)))
    return value


def attribute(draw: st.DrawFn, holder: Any) -> None:
    for key in draw(st.lists(TEXTS, max_size=4)):
        holder.add(key=key).value.CopyFrom(draw(any_values()))


TIMES = st.one_of(
    st.integers(NOW_NS - 10**12, NOW_NS), st.sampled_from([0, 1, 2**64 - 1, 7_289 * 10**15])
)
IDS = st.one_of(st.binary(min_size=16, max_size=16), st.binary(max_size=20))
SHORT = st.one_of(st.binary(min_size=8, max_size=8), st.binary(max_size=10))


@st.composite
def traces(draw: st.DrawFn) -> ExportTraceServiceRequest:
    made = request(service="inbox")
    made.resource_spans[0].schema_url = draw(TEXTS)
    attribute(draw, made.resource_spans[0].scope_spans[0].scope.attributes)
    for _ in range(draw(st.integers(0, 3))):
        one = made.resource_spans[0].scope_spans[0].spans.add(
            trace_id=draw(IDS), span_id=draw(SHORT), parent_span_id=draw(SHORT), name=draw(TEXTS),
            kind=draw(st.integers(0, 5)), start_time_unix_nano=draw(TIMES), end_time_unix_nano=draw(TIMES),
            trace_state=draw(TEXTS), flags=draw(st.integers(0, 2**32 - 1)),
            dropped_attributes_count=draw(st.integers(0, 9)),
        )  # fmt: skip
        attribute(draw, one.attributes)
        for _ in range(draw(st.integers(0, 2))):
            event = one.events.add(name=draw(TEXTS), time_unix_nano=draw(st.integers(0, 2**64 - 1)))
            attribute(draw, event.attributes)
        for _ in range(draw(st.integers(0, 2))):
            link = one.links.add(trace_id=draw(IDS), span_id=draw(SHORT))
            attribute(draw, link.attributes)
        one.status.code = draw(st.integers(0, 2))
        one.status.message = draw(TEXTS)
    return made


@st.composite
def metrics(draw: st.DrawFn) -> ExportMetricsServiceRequest:
    made = ExportMetricsServiceRequest()
    group = made.resource_metrics.add()
    group.resource.attributes.add(key="service.name").value.string_value = "inbox"
    scoped = group.scope_metrics.add()
    for kind in draw(
        st.lists(
            st.sampled_from(["gauge", "sum", "histogram", "exponential_histogram", "summary"]),
            max_size=3,
        )
    ):
        metric = scoped.metrics.add(name=draw(TEXTS), unit="s", description=draw(TEXTS))
        data = getattr(metric, kind)
        data.SetInParent()
        if kind not in ("gauge", "summary"):
            data.aggregation_temporality = draw(st.integers(0, 2))
        point = data.data_points.add(
            start_time_unix_nano=draw(TIMES),
            time_unix_nano=draw(TIMES),
            flags=draw(st.integers(0, 1)),
        )
        attribute(draw, point.attributes)
        _fill(draw, kind, point)
    return made


def _fill(draw: st.DrawFn, kind: str, point: Any) -> None:
    if kind in ("gauge", "sum"):
        if draw(st.booleans()):
            point.as_int = draw(st.integers(-(2**63), 2**63 - 1))
        else:
            point.as_double = draw(st.floats())
        if draw(st.booleans()):
            point.exemplars.add(as_double=draw(st.floats()), trace_id=draw(IDS), time_unix_nano=5)
        return
    point.count = draw(st.integers(0, 2**64 - 1))
    if kind == "summary":
        point.sum = draw(st.floats())
        point.quantile_values.add(quantile=draw(st.floats(0, 1)), value=draw(st.floats()))
        return
    if draw(st.booleans()):
        point.sum, point.min, point.max = (draw(st.floats()) for _ in range(3))
    if kind == "histogram":
        point.bucket_counts.extend(draw(st.lists(st.integers(0, 2**64 - 1), max_size=3)))
        point.explicit_bounds.extend(draw(st.lists(st.floats(), max_size=3)))
    else:
        point.scale, point.zero_count = draw(st.integers(-10, 20)), draw(st.integers(0, 9))
        point.positive.offset = draw(st.integers(-(2**31), 2**31 - 1))
        point.positive.bucket_counts.extend(draw(st.lists(st.integers(0, 9), max_size=3)))


@st.composite
def logs(draw: st.DrawFn) -> ExportLogsServiceRequest:
    made = ExportLogsServiceRequest()
    group = made.resource_logs.add()
    group.resource.attributes.add(key="service.name").value.string_value = "inbox"
    scoped = group.scope_logs.add()
    for _ in range(draw(st.integers(0, 3))):
        log = scoped.log_records.add(
            time_unix_nano=draw(TIMES), observed_time_unix_nano=draw(TIMES),
            severity_number=draw(st.integers(0, 24)), severity_text=draw(TEXTS), event_name=draw(TEXTS),
            trace_id=draw(IDS), span_id=draw(SHORT), flags=draw(st.integers(0, 2**32 - 1)),
        )  # fmt: skip
        log.body.CopyFrom(draw(any_values()))
        attribute(draw, log.attributes)
    return made


MADE: dict[Signal, Any] = {
    Signal.SPANS: traces(),
    Signal.POINTS: metrics(),
    Signal.LOGS: logs(),
}


def as_json(made: Any) -> bytes:
    """Return a request as OTLP has JSON: ids are hex there, where protobuf has base64."""
    plain = json_format.MessageToDict(made)

    def turned(found: Any, key: str = "") -> Any:
        if isinstance(found, dict):
            return {k: turned(v, k) for k, v in found.items()}
        if isinstance(found, list):
            return [turned(v) for v in found]
        if key in ("traceId", "spanId", "parentSpanId"):
            return json_format.base64.b64decode(found).hex()
        return found

    return json.dumps(turned(plain)).encode()
