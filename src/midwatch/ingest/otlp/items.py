"""OTLP traces, protobuf and JSON, become span items.

Both encodings are read into one plain form first (`Span`), so that every rule exists once. Ids are
lower-case hex. Attributes are kept as they came; the GenAI usage among them is copied into columns.
Source: OpenTelemetry protocol 1.x and the GenAI semantic conventions.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from midwatch.wire.items import BadItem, Item
from midwatch.wire.limits import (
    MAX_COST_USD,
    MAX_FUTURE_S,
    MAX_NAME,
    MAX_NUMBER,
    MAX_PAST_S,
    MAX_TEXT,
    NUSD_PER_USD,
)
from midwatch.wire.problem import Refusal

MAX_ATTRIBUTE: Final = 32_768
"""Characters of one text attribute: prompts are long. Longer text is clipped and counted."""

MAX_SPAN_BYTES: Final = 262_144
"""Encoded size of all attributes, events and links of a span; a larger span is refused."""

MAX_DEPTH: Final = 32
"""Nesting of attribute values."""

KINDS: Final = ("unspecified", "internal", "server", "client", "producer", "consumer")
STATUSES: Final = ("unset", "ok", "error")

_TRACE_ID: Final = re.compile(r"[0-9a-f]{32}")
_SPAN_ID: Final = re.compile(r"[0-9a-f]{16}")

MAX_COST_NUSD: Final = round(MAX_COST_USD * NUSD_PER_USD)

Attributes = dict[str, Any]


@dataclass(slots=True)
class Span:
    """A span in plain values, whatever its encoding was; nothing is checked yet."""

    resource: Attributes
    scope: str
    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: str
    start_ns: int
    end_ns: int
    status: str
    message: str
    attributes: Attributes
    events: list[dict[str, Any]]
    links: list[dict[str, Any]]


# -- protobuf ------------------------------------------------------------------------------------


def from_protobuf(body: bytes) -> Iterator[Span]:
    """Yield the spans of an ExportTraceServiceRequest. Raises Refusal 400."""
    request = ExportTraceServiceRequest()
    try:
        request.ParseFromString(body)
    except (DecodeError, RecursionError) as error:
        raise Refusal(
            400,
            f"the body is not an OTLP ExportTraceServiceRequest: {error}; see the content-type",
            reason="protobuf",
        ) from None
    for group in request.resource_spans:
        resource = _plain_all(group.resource.attributes)
        for scoped in group.scope_spans:
            for span in scoped.spans:
                yield Span(
                    resource,
                    scoped.scope.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.name,
                    _pick(KINDS, span.kind),
                    span.start_time_unix_nano,
                    span.end_time_unix_nano,
                    _pick(STATUSES, span.status.code),
                    span.status.message,
                    _plain_all(span.attributes),
                    [
                        {
                            "name": e.name,
                            "at": e.time_unix_nano / 1e9,
                            **_with(_plain_all(e.attributes)),
                        }
                        for e in span.events
                    ],
                    [
                        {
                            "trace_id": k.trace_id.hex(),
                            "span_id": k.span_id.hex(),
                            **_with(_plain_all(k.attributes)),
                        }
                        for k in span.links
                    ],
                )


def _plain_all(attributes: Any) -> Attributes:
    return {a.key: _plain(a.value) for a in attributes}


def _plain(value: Any, depth: int = 0) -> Any:
    which: str | None = value.WhichOneof("value")
    if which is None or depth > MAX_DEPTH:
        return None
    inner = getattr(value, which)
    if which == "array_value":
        return [_plain(one, depth + 1) for one in inner.values]
    if which == "kvlist_value":
        return {pair.key: _plain(pair.value, depth + 1) for pair in inner.values}
    if which == "bytes_value":
        return base64.b64encode(inner).decode()
    return _finite(inner)


# -- JSON ----------------------------------------------------------------------------------------


def from_json(value: Any) -> Iterator[Span]:
    """Yield the spans of OTLP/JSON: hex ids, enums by number or name, 64-bit numbers as text."""
    if not isinstance(value, dict):
        raise Refusal(400, "expected an OTLP object with the key 'resourceSpans'", reason="otlp")
    for group in _objects(value, "resourceSpans"):  # pyright: ignore[reportUnknownArgumentType]
        resource = _json_all(_object(group, "resource"))
        for scoped in _objects(group, "scopeSpans"):
            scope = _text(_object(scoped, "scope").get("name"))
            for span in _objects(scoped, "spans"):
                yield _json_span(span, resource, scope)


def _json_span(span: dict[str, Any], resource: Attributes, scope: str) -> Span:
    status = _object(span, "status")
    return Span(
        resource,
        scope,
        _text(span.get("traceId")).lower(),
        _text(span.get("spanId")).lower(),
        _text(span.get("parentSpanId")).lower(),
        _text(span.get("name")),
        _pick(KINDS, span.get("kind"), "SPAN_KIND_"),
        _whole(span.get("startTimeUnixNano")),
        _whole(span.get("endTimeUnixNano")),
        _pick(STATUSES, status.get("code"), "STATUS_CODE_"),
        _text(status.get("message")),
        _json_all(span),
        [
            {
                "name": _text(e.get("name")),
                "at": _whole(e.get("timeUnixNano")) / 1e9,
                **_with(_json_all(e)),
            }
            for e in _objects(span, "events")
        ],
        [
            {
                "trace_id": _text(k.get("traceId")).lower(),
                "span_id": _text(k.get("spanId")).lower(),
                **_with(_json_all(k)),
            }
            for k in _objects(span, "links")
        ],
    )


def _json_all(holder: dict[str, Any]) -> Attributes:
    return {
        _text(a.get("key")): _json_value(_object(a, "value"))
        for a in _objects(holder, "attributes")
    }


def _json_value(value: dict[str, Any], depth: int = 0) -> Any:
    if depth > MAX_DEPTH:
        return None
    if "intValue" in value:
        return _whole(value["intValue"])
    if "arrayValue" in value:
        return [_json_value(v, depth + 1) for v in _objects(_object(value, "arrayValue"), "values")]
    if "kvlistValue" in value:
        pairs = _objects(_object(value, "kvlistValue"), "values")
        return {_text(p.get("key")): _json_value(_object(p, "value"), depth + 1) for p in pairs}
    for name in ("stringValue", "boolValue", "doubleValue", "bytesValue"):
        if name in value:
            inner = value[name]
            return _finite(inner) if isinstance(inner, str | bool | int | float) else None
    return None


def _objects(holder: dict[str, Any], key: str) -> list[dict[str, Any]]:
    value = holder.get(key)
    if value is None:
        return []
    found: list[Any] = value if isinstance(value, list) else [None]  # pyright: ignore[reportUnknownVariableType]
    if not all(isinstance(one, dict) for one in found):
        raise Refusal(400, f"{key}: expected a list of objects", reason="otlp")
    return found


def _object(holder: dict[str, Any], key: str) -> dict[str, Any]:
    value = holder.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Refusal(400, f"{key}: expected an object", reason="otlp")
    return value  # pyright: ignore[reportUnknownVariableType]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _whole(value: Any) -> int:
    """Return a 64-bit number that may have come as text; 0 for what is none."""
    if isinstance(value, bool):
        return 0
    if isinstance(value, int):
        number = value
    elif (isinstance(value, float) and abs(value) < 2**63) or (
        isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,20}", value)
    ):
        number = int(value)
    else:
        return 0
    return number if abs(number) < 2**63 else 0


def _pick(names: Sequence[str], value: Any, prefix: str = "") -> str:
    if isinstance(value, str):
        value = value.removeprefix(prefix).lower()
        return value if value in names else names[0]
    return names[value] if isinstance(value, int) and 0 <= value < len(names) else names[0]


def _finite(value: Any) -> Any:
    # JSON has no NaN; as text it stays visible
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return str(value)
    return value


def _with(attributes: Attributes) -> dict[str, Any]:
    return {"attributes": attributes} if attributes else {}


# -- one span --------------------------------------------------------------------------------------


def agent_of(span: Span) -> tuple[str | None, str | None]:
    """Return the agent that the resource names outright, and its service name."""
    agent, service = span.resource.get("midwatch.agent"), span.resource.get("service.name")
    return (
        agent if isinstance(agent, str) and agent else None,
        service if isinstance(service, str) and service else None,
    )


def to_item(span: Span, agent: str, run_id: str | None, now: float) -> tuple[Item, int]:
    """Return the item to store and how many attributes were clipped. Raises BadItem."""
    if not _TRACE_ID.fullmatch(span.trace_id) or not int(span.trace_id, 16):
        raise BadItem("traceId", "id", f"traceId {span.trace_id[:40]!r}: expected 32 hex digits")
    if not _SPAN_ID.fullmatch(span.span_id) or not int(span.span_id, 16):
        raise BadItem("spanId", "id", f"spanId {span.span_id[:40]!r}: expected 16 hex digits")
    start = span.start_ns / 1e9
    if not now - MAX_PAST_S <= start <= now + MAX_FUTURE_S:
        raise BadItem(
            "startTimeUnixNano",
            "time",
            f"startTimeUnixNano {span.start_ns}: more than {MAX_FUTURE_S:.0f} s ahead or 45 days back",
        )
    attributes, clipped = _clip(span.attributes)
    events, more = _clip(span.events)
    resource, _ = _clip(span.resource)
    try:
        size = len(json.dumps([attributes, events, span.links, resource], allow_nan=False))
    except (ValueError, TypeError, RecursionError):
        raise BadItem("attributes", "type", "attributes: not plain values") from None
    if size > MAX_SPAN_BYTES:
        raise BadItem(
            "attributes", "size", f"span of {size} bytes, at most {MAX_SPAN_BYTES}; record less"
        )
    item: Item = {
        "id": span.trace_id + span.span_id,
        "agent": agent,
        "at": start,
        "trace_id": span.trace_id,
        "span_id": span.span_id,
        "name": span.name[:MAX_TEXT],
        "kind": span.kind,
        "duration_s": max(0.0, (span.end_ns - span.start_ns) / 1e9),
        "status": span.status,
        "scope": span.scope[:MAX_NAME],
    }
    optional = {
        "run_id": run_id or _label(span.resource.get("midwatch.run_id")),
        "parent_id": span.parent_id if _SPAN_ID.fullmatch(span.parent_id) else None,
        "service": _label(span.resource.get("service.name")),
        "status_message": span.message[:MAX_TEXT],
        "attributes": attributes,
        "resource": resource,
        "events": events,
        "links": span.links,
        **_usage(span.attributes),
    }
    item.update({k: v for k, v in optional.items() if v not in (None, "", {}, [])})
    return item, clipped + more


_TEXTS: Final = {
    "session": ("midwatch.session", "session.id", "gen_ai.conversation.id"),
    "operation": ("gen_ai.operation.name",),
    "provider": ("midwatch.provider", "gen_ai.provider.name", "gen_ai.system"),
    "model": ("midwatch.model", "gen_ai.response.model", "gen_ai.request.model"),
    "tool": ("gen_ai.tool.name",),
}

_COUNTS: Final = {
    "input_tokens": ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"),
    "output_tokens": ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"),
    "cached_tokens": ("gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cached_tokens"),
}


def _usage(attributes: Attributes) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for column, names in _TEXTS.items():
        found[column] = next((v for n in names if (v := _label(attributes.get(n)))), None)
    for column, names in _COUNTS.items():
        found[column] = next(
            (v for n in names if (v := _tokens(attributes.get(n))) is not None), None
        )
    nusd = attributes.get("midwatch.cost_nusd")
    cost = attributes.get("midwatch.cost_usd")
    if isinstance(nusd, int) and not isinstance(nusd, bool) and 0 <= nusd <= MAX_COST_NUSD:
        found["cost_nusd"] = nusd
    elif isinstance(cost, int | float) and not isinstance(cost, bool) and 0 <= cost <= MAX_COST_USD:
        found["cost_nusd"] = round(cost * NUSD_PER_USD)
    return found


def _label(value: Any) -> str | None:
    return value[:MAX_NAME] if isinstance(value, str) and value else None


def _tokens(value: Any) -> int | None:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 0 <= value <= MAX_NUMBER
    ):
        return None
    return int(value)


def _clip(value: Any) -> tuple[Any, int]:
    """Return the value with long texts cut, and how many were."""
    if isinstance(value, str):
        return (value, 0) if len(value) <= MAX_ATTRIBUTE else (value[:MAX_ATTRIBUTE], 1)
    if isinstance(value, dict):
        named: dict[str, Any] = value  # pyright: ignore[reportUnknownVariableType]
        pairs = {k: _clip(v) for k, v in named.items()}
        return {k[:MAX_NAME]: v[0] for k, v in pairs.items()}, sum(v[1] for v in pairs.values())
    if isinstance(value, list):
        many: list[Any] = value  # pyright: ignore[reportUnknownVariableType]
        each = [_clip(v) for v in many]
        return [v[0] for v in each], sum(v[1] for v in each)
    return value, 0


def response(rejected: int, message: str, *, as_json: bool) -> bytes:
    """Return an ExportTraceServiceResponse in the request's encoding."""
    if as_json:
        partial = {"rejectedSpans": str(rejected), "errorMessage": message}
        return json.dumps({"partialSuccess": partial} if rejected else {}).encode()
    answer = ExportTraceServiceResponse()
    if rejected:
        answer.partial_success.rejected_spans = rejected
        answer.partial_success.error_message = message
    return answer.SerializeToString()


def status_message(detail: str) -> bytes:
    """Return a google.rpc.Status with this message: what OTLP clients expect of an error."""
    text = detail.encode()[:1000]
    size, head = len(text), bytearray(b"\x12")  # field 2, length-delimited
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head) + text
