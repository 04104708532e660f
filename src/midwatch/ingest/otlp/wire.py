"""OTLP's messages with every text as bytes, and each resource, scope, span and attribute as bytes of its own.

The wire is the same. Parsers check what is declared as text, and descend into what is declared as a message: one bad
byte in one name, or one value nested too deeply, would refuse a whole request. Declared as bytes, each part is
parsed alone and refused alone; it is also the fast way, because attributes that repeat are looked up by their bytes.

A body takes at most eight times its size in memory while it is parsed: a field of two bytes becomes a view of 16.
Source: opentelemetry-proto 1.x.
"""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError as DecodeError

_F = descriptor_pb2.FieldDescriptorProto

_BYTES, _DOUBLE, _FIXED32, _FIXED64 = (
    _F.TYPE_BYTES,
    _F.TYPE_DOUBLE,
    _F.TYPE_FIXED32,
    _F.TYPE_FIXED64,
)
_SFIXED64, _INT32, _SINT32, _UINT32 = (
    _F.TYPE_SFIXED64,
    _F.TYPE_INT32,
    _F.TYPE_SINT32,
    _F.TYPE_UINT32,
)
_UINT64, _INT64, _BOOL = _F.TYPE_UINT64, _F.TYPE_INT64, _F.TYPE_BOOL

_MESSAGES: Final[dict[str, dict[str, tuple[int, int, bool]]]] = {
    # the three requests differ only in what their innermost list holds
    "Request": {"groups": (1, _BYTES, True)},
    "Group": {"resource": (1, _BYTES, False), "scopes": (2, _BYTES, True), "schema_url": (3, _BYTES, False)},
    "Resource": {"attributes": (1, _BYTES, True)},
    "ScopeGroup": {"scope": (1, _BYTES, False), "items": (2, _BYTES, True), "schema_url": (3, _BYTES, False)},
    "Scope": {"name": (1, _BYTES, False), "version": (2, _BYTES, False), "attributes": (3, _BYTES, True)},
    "Span": {
        "trace_id": (1, _BYTES, False), "span_id": (2, _BYTES, False), "trace_state": (3, _BYTES, False),
        "parent_span_id": (4, _BYTES, False), "name": (5, _BYTES, False), "kind": (6, _INT32, False),
        "start": (7, _FIXED64, False), "end": (8, _FIXED64, False), "attributes": (9, _BYTES, True),
        "dropped_attributes": (10, _UINT32, False), "events": (11, _BYTES, True),
        "dropped_events": (12, _UINT32, False), "links": (13, _BYTES, True), "dropped_links": (14, _UINT32, False),
        "status": (15, _BYTES, False), "flags": (16, _FIXED32, False),
    },
    "Status": {"message": (2, _BYTES, False), "code": (3, _INT32, False)},
    "Event": {"time": (1, _FIXED64, False), "name": (2, _BYTES, False), "attributes": (3, _BYTES, True)},
    "Link": {
        "trace_id": (1, _BYTES, False), "span_id": (2, _BYTES, False), "trace_state": (3, _BYTES, False),
        "attributes": (4, _BYTES, True), "flags": (6, _FIXED32, False),
    },
    "Log": {
        "time": (1, _FIXED64, False), "severity": (2, _INT32, False), "severity_text": (3, _BYTES, False),
        "body": (5, _BYTES, False), "attributes": (6, _BYTES, True), "dropped_attributes": (7, _UINT32, False),
        "flags": (8, _FIXED32, False), "trace_id": (9, _BYTES, False), "span_id": (10, _BYTES, False),
        "observed": (11, _FIXED64, False), "event": (12, _BYTES, False),
    },
    "Metric": {
        "name": (1, _BYTES, False), "about": (2, _BYTES, False), "unit": (3, _BYTES, False),
        "gauge": (5, _BYTES, False), "sum": (7, _BYTES, False), "histogram": (9, _BYTES, False),
        "exponential_histogram": (10, _BYTES, False), "summary": (11, _BYTES, False),
    },
    "Data": {"points": (1, _BYTES, True), "temporality": (2, _INT32, False), "monotonic": (3, _BOOL, False)},
    "Number": {
        "attributes": (7, _BYTES, True), "start": (2, _FIXED64, False), "time": (3, _FIXED64, False),
        "double": (4, _DOUBLE, False), "int": (6, _SFIXED64, False), "exemplars": (5, _BYTES, True),
        "flags": (8, _UINT32, False),
    },
    "Histogram": {
        "attributes": (9, _BYTES, True), "start": (2, _FIXED64, False), "time": (3, _FIXED64, False),
        "count": (4, _FIXED64, False), "sum": (5, _DOUBLE, False), "bucket_counts": (6, _FIXED64, True),
        "explicit_bounds": (7, _DOUBLE, True), "exemplars": (8, _BYTES, True), "flags": (10, _UINT32, False),
        "min": (11, _DOUBLE, False), "max": (12, _DOUBLE, False),
    },
    "Exponential": {
        "attributes": (1, _BYTES, True), "start": (2, _FIXED64, False), "time": (3, _FIXED64, False),
        "count": (4, _FIXED64, False), "sum": (5, _DOUBLE, False), "scale": (6, _SINT32, False),
        "zero_count": (7, _FIXED64, False), "positive": (8, _BYTES, False), "negative": (9, _BYTES, False),
        "flags": (10, _UINT32, False), "exemplars": (11, _BYTES, True), "min": (12, _DOUBLE, False),
        "max": (13, _DOUBLE, False), "zero_threshold": (14, _DOUBLE, False),
    },
    "Buckets": {"offset": (1, _SINT32, False), "bucket_counts": (2, _UINT64, True)},
    "Summary": {
        "attributes": (7, _BYTES, True), "start": (2, _FIXED64, False), "time": (3, _FIXED64, False),
        "count": (4, _FIXED64, False), "sum": (5, _DOUBLE, False), "quantiles": (6, _BYTES, True),
        "flags": (8, _UINT32, False),
    },
    "Quantile": {"quantile": (1, _DOUBLE, False), "value": (2, _DOUBLE, False)},
    "Exemplar": {
        "attributes": (7, _BYTES, True), "time": (2, _FIXED64, False), "double": (3, _DOUBLE, False),
        "int": (6, _SFIXED64, False), "span_id": (4, _BYTES, False), "trace_id": (5, _BYTES, False),
    },
    # answers
    "Response": {"partial": (1, _BYTES, False)},
    "Partial": {"rejected": (1, _INT64, False), "message": (2, _BYTES, False)},
    "RpcStatus": {"code": (1, _INT32, False), "message": (2, _BYTES, False), "details": (3, _BYTES, True)},
    "Any": {"type_url": (1, _BYTES, False), "value": (2, _BYTES, False)},
    "RetryInfo": {"delay": (1, _BYTES, False)},
    "Duration": {"seconds": (1, _INT64, False), "nanos": (2, _INT32, False)},
}  # fmt: skip


def _built() -> dict[str, Any]:
    # proto2: there a field knows whether it was sent, which a histogram's sum needs
    file = descriptor_pb2.FileDescriptorProto(
        name="midwatch/otlp.proto", package="midwatch.otlp", syntax="proto2"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, kind, many) in fields.items():
            label = _F.LABEL_REPEATED if many else _F.LABEL_OPTIONAL
            message.field.add(name=field, number=number, type=kind, label=label)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    found: dict[str, Any] = {}
    for name in _MESSAGES:
        descriptor: Any = pool.FindMessageTypeByName(f"midwatch.otlp.{name}")
        found[name] = message_factory.GetMessageClass(descriptor)
    return found


_CLASSES: Final = _built()

Request: Final = _CLASSES["Request"]
Group: Final = _CLASSES["Group"]
Resource: Final = _CLASSES["Resource"]
ScopeGroup: Final = _CLASSES["ScopeGroup"]
Scope: Final = _CLASSES["Scope"]
Span: Final = _CLASSES["Span"]
Status: Final = _CLASSES["Status"]
Event: Final = _CLASSES["Event"]
Link: Final = _CLASSES["Link"]
Log: Final = _CLASSES["Log"]
Metric: Final = _CLASSES["Metric"]
Data: Final = _CLASSES["Data"]
Number: Final = _CLASSES["Number"]
Histogram: Final = _CLASSES["Histogram"]
Exponential: Final = _CLASSES["Exponential"]
Buckets: Final = _CLASSES["Buckets"]
Summary: Final = _CLASSES["Summary"]
Quantile: Final = _CLASSES["Quantile"]
Exemplar: Final = _CLASSES["Exemplar"]
Response: Final = _CLASSES["Response"]
Partial: Final = _CLASSES["Partial"]
RpcStatus: Final = _CLASSES["RpcStatus"]
Any_: Final = _CLASSES["Any"]
RetryInfo: Final = _CLASSES["RetryInfo"]
Duration: Final = _CLASSES["Duration"]
