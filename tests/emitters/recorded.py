"""Recordings as rows of the normal form, by the understanding alone: no decoder of the hub's, no store."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from midwatch.core.spans import form
from midwatch.core.spans.dialect import Attribute, Event, attribute
from midwatch.core.spans.form import Batch, Row
from midwatch.core.spans.understanding import Interpreter

RECORDINGS = Path(__file__).parent / "recordings"


@dataclass
class Read:
    """One recording: its rows in the order of their beginnings, and what each span came with."""

    rows: list[Row] = field(default_factory=list)
    batch: Batch = field(default_factory=Batch)
    came: dict[bytes, dict[str, Any]] = field(default_factory=dict)
    """Attributes of the spans as they were sent, by the span id they were sent under."""
    sent: dict[bytes, Row] = field(default_factory=dict)


def plain(value: Any) -> Any:
    """Return an AnyValue as Python has it."""
    which = value.WhichOneof("value")
    if which is None:
        return None
    if which == "array_value":
        return [plain(inner) for inner in value.array_value.values]
    if which == "kvlist_value":
        return {inner.key: plain(inner.value) for inner in value.kvlist_value.values}
    return getattr(value, which)


def attributes(pairs: Any) -> list[Attribute]:
    return [attribute(pair.key, plain(pair.value)) for pair in pairs]


def request(name: str, folder: Path = RECORDINGS) -> ExportTraceServiceRequest:
    """Return a recording as it came."""
    packed = (folder / f"{name}.pb.gz").read_bytes()
    return ExportTraceServiceRequest.FromString(gzip.decompress(packed))


def about(name: str, folder: Path = RECORDINGS) -> dict[str, Any]:
    """Return which versions made a recording, and when."""
    return json.loads((folder / f"{name}.json").read_text())


def read(body: ExportTraceServiceRequest, interpreter: Interpreter | None = None) -> Read:
    """Return what becomes of a request. Of a span that came twice, open and ended, the ended one is there."""
    found = Read()
    known = interpreter or Interpreter()
    rows: dict[bytes, Row] = {}
    for group in body.resource_spans:
        resource = {pair.key: plain(pair.value) for pair in group.resource.attributes}
        for scoped in group.scope_spans:
            reading = known.scope(scoped.scope.name, scoped.scope.version, resource)
            for span in scoped.spans:
                row = form.NO_SPAN[:]
                row[form.AGENT] = resource.get("midwatch.agent") or resource["service.name"]
                row[form.TRACE_ID], row[form.SPAN_ID] = span.trace_id, span.span_id
                row[form.PARENT_ID] = span.parent_span_id or None
                row[form.START_NS] = span.start_time_unix_nano
                row[form.DURATION_NS] = span.end_time_unix_nano - span.start_time_unix_nano
                row[form.NAME], row[form.KIND] = span.name, span.kind
                row[form.STATUS] = span.status.code
                row[form.SCOPE] = scoped.scope.name or None
                row[form.SCOPE_VERSION] = scoped.scope.version or None
                given = attributes(span.attributes)
                events = [
                    Event(event.name, event.time_unix_nano, attributes(event.attributes))
                    for event in span.events
                ]
                found.came[span.span_id] = {one.key: one.value for one in given}
                found.sent[span.span_id] = row
                reading.span(row, given, events, found.batch)
                kept = rows.get(row[form.SPAN_ID])
                if kept is None or kept[form.RANK] < row[form.RANK]:
                    rows[row[form.SPAN_ID]] = row
    found.rows = sorted(rows.values(), key=lambda row: row[form.START_NS])
    return found
