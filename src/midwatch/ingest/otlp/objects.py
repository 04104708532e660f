"""OTLP requests from JSON: hex ids, enumerations by number or name, 64-bit numbers as text.

What can be mended is mended before anything is refused: a byte that is no UTF-8, half a surrogate, NaN as a bare
word, values nested by the thousand. So one bad span does not cost its neighbours; only what is no JSON does.
Source: the OpenTelemetry protocol, JSON protobuf encoding.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from pydantic_core import from_json

from midwatch.core.redact import is_secret
from midwatch.core.spans.columns import KINDS, MAX_INT, STATUSES, TEMPORALITIES
from midwatch.core.spans.dialect import Attribute, Event, attribute
from midwatch.core.spans.form import Signal
from midwatch.core.spans.limits import (
    MAX_DEPTH,
    MAX_EVENTS,
    MAX_KEY,
    MAX_LABEL,
    MAX_LINKS,
    MAX_SPAN_BYTES,
    MAX_TEXT,
)
from midwatch.core.spans.values import Value
from midwatch.ingest.bodies import MAX_CONTAINERS, too_large
from midwatch.ingest.otlp.rows import Known, Origin, Rows, resource_of
from midwatch.ingest.otlp.values import MAX_ELEMENTS, MAX_GIVEN, NUL
from midwatch.ingest.redacting import hidden
from midwatch.wire.problem import Refusal

Object = dict[str, Any]

_NESTED: Final = 150
"""Lists and objects within each other that JSON is read with; a value is 32 deep at most, at four a level."""

_PARTS: Final = {
    Signal.SPANS: ("resourceSpans", "scopeSpans", "spans"),
    Signal.POINTS: ("resourceMetrics", "scopeMetrics", "metrics"),
    Signal.LOGS: ("resourceLogs", "scopeLogs", "logRecords"),
}

_WHOLE: Final = re.compile(r"-?[0-9]{1,20}")
_TOKEN: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
"""A text or a bracket. Possessive, and content with a text that never ends: it takes one pass, whatever is sent."""


def parse(body: bytes, rows: Rows) -> Object:
    """Return the request. Raises Refusal 400 for what is no JSON object, 413 for too many lists and objects."""
    if len(body) > MAX_CONTAINERS and body.count(b"[") + body.count(b"{") > MAX_CONTAINERS:
        raise too_large(f"the body has more than {MAX_CONTAINERS} lists and objects")
    try:
        found = from_json(body, allow_inf_nan=True, cache_strings="keys")
    except ValueError:
        found = _mended(body, rows)
    if not isinstance(found, dict):
        raise _refused("expected an object")
    return cast("Object", found)


def _mended(body: bytes, rows: Rows) -> Any:
    text = _shallow(body, rows)
    try:
        plain = text.decode()
    except UnicodeDecodeError:
        rows.lost["utf8"] += 1
        plain = text.decode(errors="replace")
    try:
        return json.loads(plain, strict=False)
    except (ValueError, RecursionError) as error:
        raise _refused(str(error)) from None


def _shallow(body: bytes, rows: Rows) -> bytes:
    """Return JSON with null for whatever is nested too deeply."""
    depth, kept, start = 0, 0, 0
    parts: list[bytes] = []
    for token in _TOKEN.finditer(body):
        mark = token[0]
        if mark in (b"[", b"{"):
            depth += 1
            if depth == _NESTED + 1:
                start = token.start()
        elif mark in (b"]", b"}"):
            if depth == _NESTED + 1:
                parts += (body[kept:start], b"null")
                kept = token.end()
                rows.lost["depth"] += 1
            depth -= 1
    return b"".join((*parts, body[kept:])) if parts else body


def _refused(why: str) -> Refusal:
    return Refusal(400, f"the body is no OTLP request in JSON: {why:.200}", reason="json")


Points = Callable[[Sequence[Object], Known, Rows], None]
"""Reads the metrics of one scope (`object_points.read`)."""


class Objects:
    """Reads requests."""

    def __init__(self, points: Points) -> None:
        self._points = points

    def read(self, signal: Signal, body: bytes, rows: Rows) -> None:
        """Put everything of a request into `rows`. Raises Refusal."""
        request = parse(body, rows)
        groups, scopes, items = _PARTS[signal]
        if groups not in request and request:
            raise _refused(f"no {groups!r} in it")
        size = len(body)
        for group in each(request, groups, rows):
            resource = inner(group, "resource")
            attributes = {one.key: one.value for one in attributes_of(resource, rows)}
            for scoped in each(group, scopes, rows):
                known = _known(group, scoped, attributes, rows)
                found = each(scoped, items, rows)
                if signal is Signal.POINTS:
                    self._points(found, known, rows)
                    continue
                fit = rows.may(len(found))
                origin = rows.origin(known, fit) if fit else None
                if origin is None:
                    continue
                add: Callable[[Object, Origin, Rows], None] = (
                    _span if signal is Signal.SPANS else _log
                )
                for item in found[:fit]:
                    if size <= MAX_SPAN_BYTES or rows.fits(len(json.dumps(item, default=str))):
                        add(item, origin, rows)


def _known(group: Object, scoped: Object, resource: dict[str, Value], rows: Rows) -> Known:
    scope = inner(scoped, "scope")
    said = {one.key: one.value for one in attributes_of(scope, rows)}
    mark, kept = resource_of(
        resource, text(group, "schemaUrl", rows), said, text(scoped, "schemaUrl", rows)
    )
    return Known(resource, label(scope, "name") or "", label(scope, "version") or "", mark, kept)


def _span(span: Object, origin: Origin, rows: Rows) -> None:
    row = rows.span(
        origin,
        (
            hex_id(span, "traceId", rows),
            hex_id(span, "spanId", rows),
            hex_id(span, "parentSpanId", rows),
        ),
        text(span, "name", rows),
        enum(span.get("kind"), KINDS, "SPAN_KIND_"),
        whole(span.get("startTimeUnixNano")) or 0,
        whole(span.get("endTimeUnixNano")) or 0,
        attributes_of(span, rows),
        _events(span, rows),
    )
    if row is None:
        return
    status = inner(span, "status")
    if status:
        rows.status(
            row,
            enum(status.get("code"), STATUSES, "STATUS_CODE_"),
            text(status, "message", rows),
        )
    dropped = {
        f"dropped_{what}_count": whole(span.get(f"dropped{what.title()}Count")) or 0
        for what in ("attributes", "events", "links")
    }
    state = text(span, "traceState", rows)[:512]
    rows.more(row, _links(span, rows), flags(span), {"trace_state": state, **dropped})


def _events(span: Object, rows: Rows) -> list[Event]:
    found = each(span, "events", rows, refuse=False)
    rows.lost["event"] += max(0, len(found) - MAX_EVENTS)
    return [
        Event(
            text(one, "name", rows),
            rows.moment(natural(one.get("timeUnixNano")) or 0),
            attributes_of(one, rows),
        )
        for one in found[:MAX_EVENTS]
    ]


def _links(span: Object, rows: Rows) -> list[Object]:
    given = each(span, "links", rows, refuse=False)
    found: list[Object] = []
    for link in given[:MAX_LINKS]:
        trace_id, span_id = hex_id(link, "traceId", rows), hex_id(link, "spanId", rows)
        if len(trace_id) != 16 or len(span_id) != 8:
            rows.lost["link"] += 1
            continue
        found.append(
            {
                "trace_id": trace_id,
                "span_id": span_id,
                "trace_state": text(link, "traceState", rows)[:512],
                "flags": flags(link),
                "attributes": attributes_of(link, rows),
            }
        )
    rows.lost["link"] += max(0, len(given) - MAX_LINKS)
    return found


def _log(log: Object, origin: Origin, rows: Rows) -> None:
    said: dict[str, Any] = {
        "time_ns": natural(log.get("timeUnixNano")) or None,
        "observed_ns": natural(log.get("observedTimeUnixNano")) or None,
        "severity": enum_number(log.get("severityNumber")) or None,
        "severity_text": label(log, "severityText"),
        "event": label(log, "eventName"),
        "trace_id": hex_id(log, "traceId", rows),
        "span_id": hex_id(log, "spanId", rows),
        "flags": flags(log) or None,
    }
    dropped = natural(log.get("droppedAttributesCount"))
    if dropped:
        said["envelope"] = f'{{"dropped_attributes_count":{dropped}}}'
    body = value(inner(log, "body"), rows, 0, [MAX_ELEMENTS])
    rows.log(
        origin,
        said,
        body.replace("\0", NUL) if isinstance(body, str) else body,
        attributes_of(log, rows),
    )


# -- pieces ----------------------------------------------------------------------------------------


def each(holder: Object, key: str, rows: Rows, *, refuse: bool = True) -> list[Object]:
    """Return the objects of a list; whatever else stands there is refused, or counted as lost."""
    given = holder.get(key)
    if given is None:
        return []
    many = cast("list[Any]", given) if isinstance(given, list) else [given]
    found: list[Object] = [one for one in many if isinstance(one, dict)]
    if len(found) < len(many):
        if refuse:
            rows.refused.add("type", f"{key}: expected a list of objects", len(many) - len(found))
        else:
            rows.lost["type"] += len(many) - len(found)
    return found


def inner(holder: Object, key: str) -> Object:
    """Return an object, an empty one for whatever is none."""
    found = holder.get(key)
    return cast("Object", found) if isinstance(found, dict) else {}


def text(holder: Object, key: str, rows: Rows) -> str:
    """Return text that a store can take, at most MAX_TEXT characters; no text is an empty one."""
    found = holder.get(key)
    if not isinstance(found, str):
        return ""
    if len(found) > MAX_TEXT:
        rows.lost["text"] += 1
        found = found[:MAX_TEXT]
    return _clean(found)


def label(holder: Object, key: str) -> str | None:
    """Return what is counted by, at most MAX_LABEL characters."""
    found = holder.get(key)
    return _clean(found[:MAX_LABEL]) or None if isinstance(found, str) else None


def _clean(found: str) -> str:
    if found.isascii():
        return found.replace("\0", NUL) if "\0" in found else found
    return found.encode(errors="replace").decode().replace("\0", NUL)


def hex_id(holder: Object, key: str, rows: Rows) -> bytes:
    """Return an id; whatever is no hex is no id."""
    found = holder.get(key)
    if not isinstance(found, str) or not found:
        return b""
    try:
        return bytes.fromhex(found) if len(found) <= 64 else b"?"
    except ValueError:
        rows.lost["id"] += 1
        return b"?"


def whole(found: Any) -> int | None:
    """Return a 64-bit number that may have come as text, also an unsigned one; None for what is none."""
    if isinstance(found, bool):
        return None
    if isinstance(found, float):
        number = int(found) if math.isfinite(found) and found.is_integer() else None
    elif isinstance(found, str):
        number = int(found) if _WHOLE.fullmatch(found) else None
    else:
        number = found if isinstance(found, int) else None
    return number if number is not None and -MAX_INT - 1 <= number <= 2 * MAX_INT + 1 else None


def natural(found: Any) -> int | None:
    """Return such a number that is not below 0."""
    number = whole(found)
    return number if number is not None and number >= 0 else None


def flags(holder: Object) -> int:
    """Return OpenTelemetry's flags; 0 for what are none."""
    number = natural(holder.get("flags")) or 0
    return number if number < 2**32 else 0


def real(found: Any) -> float | None:
    """Return a float: a number, or one of `NaN`, `Infinity`, `-Infinity`."""
    if isinstance(found, bool):
        return None
    if isinstance(found, str):
        try:
            return float(found) if len(found) <= 40 else None
        except ValueError:
            return None
    try:
        return float(found) if isinstance(found, int | float) else None
    except OverflowError:
        return None


def enum(found: Any, names: Sequence[str], prefix: str) -> int:
    """Return an enumeration's number, sent as such or by name; -1 for an unknown one."""
    if found is None:
        return 0
    if isinstance(found, str) and not found.isdigit():
        name = found.removeprefix(prefix).lower()
        return names.index(name) if name in names else -1
    number = whole(found)
    return -1 if number is None else number


def temporality(found: Any) -> int:
    """Return an aggregation temporality's number; -1 for an unknown one."""
    return enum(found, TEMPORALITIES, "AGGREGATION_TEMPORALITY_")


_LEVELS: Final = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")


def enum_number(found: Any) -> int:
    """Return a severity's number, sent as such or as `SEVERITY_NUMBER_INFO2`; -1 for an unknown one."""
    if isinstance(found, str) and not found.isdigit():
        name = found.removeprefix("SEVERITY_NUMBER_")
        word = name.rstrip("234")
        place = name[len(word) :]
        if word == "UNSPECIFIED":
            return 0
        if word not in _LEVELS or len(place) > 1:
            return -1
        return 4 * _LEVELS.index(word) + (int(place) if place else 1)
    return enum(found, (), "")


def attributes_of(holder: Object, rows: Rows, key: str = "attributes") -> list[Attribute]:
    """Return attributes in the order they came; what is none is dropped and counted."""
    given = each(holder, key, rows, refuse=False)
    found: list[Attribute] = []
    for pair in given[:MAX_GIVEN]:
        # what is empty is left out of JSON
        name = pair.get("key", "")
        if not isinstance(name, str):
            rows.lost["broken_attribute"] += 1
        elif len(name) > MAX_KEY:
            rows.lost["attribute_key"] += 1
        else:
            read = value(inner(pair, "value"), rows, 0, [MAX_ELEMENTS])
            found.append(attribute(_surrogates(name), _shown(name, read, rows)))
    rows.lost["attribute"] += max(0, len(given) - MAX_GIVEN)
    return found


def _shown(name: str, read: Value, rows: Rows) -> Value:
    """Return an attribute's value, hidden where the name is a secret's."""
    if not is_secret(name[-MAX_KEY:]):
        return read
    shown = hidden(read)
    rows.redacted["name"] += shown != read
    return shown


def _surrogates(found: str) -> str:
    return found if found.isascii() else found.encode(errors="replace").decode()


def value(given: Object, rows: Rows, depth: int, left: list[int]) -> Value:
    """Return an AnyValue; null for what is none, and for what lies too deep."""
    if "stringValue" in given:
        said = given["stringValue"]
        return _surrogates(said) if isinstance(said, str) else None
    if "intValue" in given:
        number = whole(given["intValue"])
        return number if number is not None and number <= MAX_INT else None
    if "boolValue" in given:
        return given["boolValue"] if isinstance(given["boolValue"], bool) else None
    if "doubleValue" in given:
        return real(given["doubleValue"])
    if "bytesValue" in given:
        try:
            return base64.b64decode(str(given["bytesValue"]), validate=True)
        except (binascii.Error, ValueError):
            rows.lost["base64"] += 1
            return None
    if "arrayValue" in given or "kvlistValue" in given:
        return _nested(given, rows, depth, left)
    return None


def _nested(given: Object, rows: Rows, depth: int, left: list[int]) -> Value:
    if depth >= MAX_DEPTH:
        rows.lost["depth"] += 1
        return None
    is_map = "kvlistValue" in given
    holder = inner(given, "kvlistValue" if is_map else "arrayValue")
    many = each(holder, "values", rows, refuse=False)
    if len(many) > left[0]:
        rows.lost["elements"] += 1
        many = many[: max(0, left[0])]
    left[0] -= len(many)
    if not is_map:
        return [value(one, rows, depth + 1, left) for one in many]
    found: dict[str, Value] = {}
    for one in many:
        name = _surrogates(str(one.get("key", "")))
        found[name] = _shown(name, value(inner(one, "value"), rows, depth + 1, left), rows)
    return found
