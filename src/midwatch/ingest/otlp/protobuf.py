"""OTLP requests from protobuf: one pass, in which nothing is parsed before it is needed.

What is no message at all refuses the request; a group, a scope or a span that is none is refused alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from midwatch.core.spans.dialect import Event
from midwatch.core.spans.form import Signal
from midwatch.core.spans.limits import MAX_EVENTS, MAX_LINKS
from midwatch.ingest.otlp import points, wire
from midwatch.ingest.otlp.rows import MAX_ORIGINS, Known, Origin, Rows, resource_of
from midwatch.ingest.otlp.values import Values
from midwatch.ingest.otlp.wire import DecodeError
from midwatch.wire.problem import Refusal


class Protobuf:
    """Reads requests. One for each thread: it remembers what repeats."""

    def __init__(self) -> None:
        self.values = Values()
        self._origins: dict[tuple[bytes, bytes, bytes, bytes], Known] = {}
        self._statuses: dict[bytes, tuple[int, str]] = {b"": (0, "")}

    def read(self, signal: Signal, body: bytes, rows: Rows) -> None:
        """Put everything of a request into `rows`. Raises Refusal 400 for what is no request."""
        try:
            groups: Sequence[bytes] = wire.Request.FromString(body).groups
        except DecodeError as error:
            raise Refusal(
                400,
                f"the body is no OTLP request for {signal.value}: {error}; see its content-type",
                reason="protobuf",
            ) from None
        each: Callable[[bytes, Origin, Rows], None] = (
            self._span if signal is Signal.SPANS else self._log
        )
        for raw in groups[: rows.looks(len(groups), "resources")]:
            try:
                group = wire.Group.FromString(raw)
            except DecodeError:
                rows.refused.add("broken", "a resource that is no message")
                continue
            scopes: Sequence[bytes] = group.scopes
            for inner in scopes[: rows.looks(len(scopes), "scopes")]:
                self._scope(group, inner, rows, None if signal is Signal.POINTS else each)
        rows.lost.update(self.values.lost)
        self.values.lost.clear()
        rows.redacted["name"] += self.values.hidden
        self.values.hidden = 0

    def _scope(
        self,
        group: Any,
        raw: bytes,
        rows: Rows,
        each: Callable[[bytes, Origin, Rows], None] | None,
    ) -> None:
        """Read one scope; `each` reads one item of it, None its metrics."""
        try:
            found = wire.ScopeGroup.FromString(raw)
            known = self._known(group.resource, group.schema_url, found.scope, found.schema_url)
        except DecodeError:
            rows.refused.add("broken", "a scope or a resource that is no message")
            return
        items: Sequence[bytes] = found.items
        if each is None:
            points.read(items, known, rows, self.values)
            return
        fit = rows.may(len(items))
        if not fit:
            return
        origin = rows.origin(known, fit)
        if origin is None:
            return
        for item in items if fit == len(items) else items[:fit]:
            if rows.fits(len(item)):
                try:
                    each(item, origin, rows)
                except DecodeError:
                    rows.refused.add("broken", "one that is no message")

    def _known(self, resource: bytes, url: bytes, scope: bytes, scope_url: bytes) -> Known:
        what = (resource, url, scope, scope_url)
        known = self._origins.get(what)
        if known is None:
            values = self.values
            attributes = values.plain(wire.Resource.FromString(resource).attributes)
            said = wire.Scope.FromString(scope)
            name, version = values.label(said.name) or "", values.label(said.version) or ""
            mark, text = resource_of(
                attributes, values.name(url), values.plain(said.attributes), values.name(scope_url)
            )
            known = Known(attributes, name, version, mark, text)
            if sum(map(len, what)) < 65_536:
                if len(self._origins) >= MAX_ORIGINS:
                    self._origins = {}
                self._origins[what] = known
        return known

    # -- spans -------------------------------------------------------------------------------

    def _span(self, raw: bytes, origin: Origin, rows: Rows) -> None:
        span = wire.Span.FromString(raw)
        values = self.values
        events: Sequence[bytes] = span.events
        row = rows.span(
            origin,
            (span.trace_id, span.span_id, span.parent_span_id),
            values.name(span.name),
            span.kind,
            span.start,
            span.end,
            values.attributes(span.attributes),
            self._events(events, rows) if events else (),
        )
        if row is None:
            return
        status = span.status
        if status:
            code, message = self._statuses.get(status) or self._status(status)
            rows.status(row, code, message)
        links: Sequence[bytes] = span.links
        flags = span.flags
        state = span.trace_state
        dropped = span.dropped_attributes, span.dropped_events, span.dropped_links
        if links or flags or state or any(dropped):
            rest: dict[str, Any] = {
                "trace_state": values.text(state, 512),
                "dropped_attributes_count": dropped[0],
                "dropped_events_count": dropped[1],
                "dropped_links_count": dropped[2],
            }
            rows.more(row, self._links(links, rows) if links else (), flags, rest)

    def _status(self, raw: bytes) -> tuple[int, str]:
        status = wire.Status.FromString(raw)
        found = status.code, self.values.name(status.message)
        if len(raw) < 16 and len(self._statuses) < 1_000:
            self._statuses[raw] = found
        return found

    def _events(self, raws: Sequence[bytes], rows: Rows) -> list[Event]:
        found: list[Event] = []
        for raw in raws[:MAX_EVENTS]:
            try:
                event = wire.Event.FromString(raw)
            except DecodeError:
                rows.lost["event"] += 1
                continue
            attributes = self.values.attributes(event.attributes)
            time_ns = rows.moment(event.time)
            found.append(Event(self.values.name(event.name), time_ns, attributes))
        rows.lost["event"] += max(0, len(raws) - MAX_EVENTS)
        return found

    def _links(self, raws: Sequence[bytes], rows: Rows) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for raw in raws[:MAX_LINKS]:
            try:
                link = wire.Link.FromString(raw)
            except DecodeError:
                rows.lost["link"] += 1
                continue
            if len(link.trace_id) != 16 or len(link.span_id) != 8:
                rows.lost["link"] += 1
                continue
            found.append(
                {
                    "trace_id": link.trace_id,
                    "span_id": link.span_id,
                    "trace_state": self.values.text(link.trace_state, 512),
                    "flags": link.flags,
                    "attributes": self.values.attributes(link.attributes),
                }
            )
        rows.lost["link"] += max(0, len(raws) - MAX_LINKS)
        return found

    # -- logs --------------------------------------------------------------------------------

    def _log(self, raw: bytes, origin: Origin, rows: Rows) -> None:
        log = wire.Log.FromString(raw)
        values = self.values
        said: dict[str, Any] = {
            "time_ns": log.time or None,
            "observed_ns": log.observed or None,
            "severity": log.severity or None,
            "severity_text": values.label(log.severity_text),
            "event": values.label(log.event),
            "trace_id": log.trace_id,
            "span_id": log.span_id,
            "flags": log.flags or None,
        }
        if log.dropped_attributes:
            said["envelope"] = f'{{"dropped_attributes_count":{log.dropped_attributes}}}'
        rows.log(origin, said, values.body(log.body), values.attributes(log.attributes))
