"""Deleting reaches what waits for other back-ends, too: item by item, by the same selector as in the store.

What waits is OTLP, read here as if it came in now; whose it was stands before each body. A trace is chosen when one of
its spans says so, in a queue, in the store, or on the way from there to here. What a target took already is its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from midwatch.core.access import Caller, Scope
from midwatch.core.spans import form
from midwatch.core.spans.form import LOGS, POINTS, Batch, Row, Signal
from midwatch.core.spans.store import Selector
from midwatch.core.spans.understanding import Interpreter
from midwatch.hub.forwarding.encoding import Encoder
from midwatch.hub.forwarding.queued import Queued
from midwatch.ingest.otlp import wire
from midwatch.ingest.otlp.owners import Sender
from midwatch.ingest.otlp.protobuf import Protobuf
from midwatch.ingest.otlp.rows import Rows


class Everybody:
    """Names for what was taken before: everybody is known."""

    def knows(self, name: str) -> bool:
        del name
        return True

    def in_fleet(self, name: str) -> bool:
        del name
        return True


class Forgetting:
    """One order to delete. `learn` sees every body first, then `change` changes each."""

    def __init__(self, what: Selector) -> None:
        self.removed = 0
        """Spans, points and log records that were taken out."""
        self._what = what
        self._traces = set[bytes]()
        self._interpreter = Interpreter()
        self._protobuf = Protobuf()
        self._encoder = Encoder()

    def know(self, traces: Iterable[bytes]) -> None:
        """Take note of the traces that the store chooses."""
        self._traces.update(traces)

    def see(self, spans: Iterable[Row]) -> None:
        """Take note of the traces that spans choose which come in while the order is carried out."""
        if self._what.by_trace:
            self._traces.update(row[form.TRACE_ID] for row in spans if self._what.chosen_by(row))

    def learn(self, record: bytes) -> bytes:
        """Take note of the traces that a body chooses; return it as it is."""
        if self._what.by_trace:
            queued = Queued.read(record)
            if queued is not None and queued.signal is Signal.SPANS:
                for one in self._each(queued):
                    self.see(one.batch.spans)
        return record

    def change(self, record: bytes) -> bytes | None:
        """Return a body without what is deleted; None when nothing is left. So goes what cannot be read: nobody could say
        that it is not of those."""
        queued = Queued.read(record)
        if queued is None:
            self.removed += 1
            return None
        signal = queued.signal
        gone = signal in self._what.signals
        # contents are a part of what is sent on
        bare = Signal.CONTENTS in self._what.signals and signal in (Signal.SPANS, Signal.LOGS)
        if not (gone or bare):
            return record
        request, whose = wire.Request(), list[tuple[str, str | None]]()
        changed, items = False, 0
        for one in self._each(queued):
            kept = one.item
            if self._meets(signal, one):
                changed = True
                kept = b"" if gone else self._bare(signal, one.batch)
            if not kept:
                self.removed += 1
                continue
            items += 1
            request.groups.append(one.alone(kept))
            whose.append((one.agent, one.run_id))
        if not changed:
            return record
        if not items:
            return None
        return Queued(signal, items, tuple(whose), request.SerializeToString()).record()

    def _bare(self, signal: Signal, batch: Batch) -> bytes:
        for body in self._encoder.bodies(batch, signal, with_contents=False):
            group = wire.Group.FromString(wire.Request.FromString(body.data).groups[0])
            return bytes(wire.ScopeGroup.FromString(group.scopes[0]).items[0])
        return b""  # what cannot be told apart from its contents goes with them

    def _each(self, queued: Queued) -> Iterator[_One]:
        for raw, (agent, run_id) in zip(
            wire.Request.FromString(queued.data).groups, queued.whose, strict=True
        ):
            group = wire.Group.FromString(raw)
            for scoped in group.scopes:
                scope = wire.ScopeGroup.FromString(scoped)
                for item in scope.items:
                    one = _One(agent, run_id, group, scope, bytes(item))
                    self._understand(queued.signal, one)
                    yield one

    def _understand(self, signal: Signal, one: _One) -> None:
        caller = Caller("the hub", frozenset({Scope.NODE, Scope.WRITE}), one.agent, one.run_id)
        rows = Rows(Sender(caller), Everybody(), self._interpreter, _time_of(signal, one.item))
        request = wire.Request(groups=[one.alone(one.item)])
        self._protobuf.read(signal, request.SerializeToString(), rows)
        one.batch = rows.batch

    def _meets(self, signal: Signal, one: _One) -> bool:
        what = self._what
        if what.agents and one.agent not in what.agents:
            return False
        if what.runs and one.run_id not in what.runs:
            return False
        row = next(iter(one.batch.rows(signal)), None)
        # none of what would be refused now: mended bytes may have made it larger than what comes in may be
        trace, time_ns = _plain(signal, one.item) if row is None else _facts(signal, row)
        if what.by_trace and (trace not in self._traces or _hangs_on_none(signal, one.item)):
            return False
        if what.traces and trace not in what.traces:
            return False
        return what.before_ns is None or (time_ns is not None and time_ns < what.before_ns)


class _One:
    """One item of a body, with what stands around it."""

    def __init__(
        self, agent: str, run_id: str | None, group: Any, scope: Any, item: bytes
    ) -> None:  # fmt: skip
        self.agent = agent
        self.run_id = run_id
        self.item = item
        self.batch = Batch()
        self._group = group
        self._scope = scope

    def alone(self, item: bytes) -> bytes:
        """Return the group with nothing but this item."""
        scope = wire.ScopeGroup(
            scope=self._scope.scope, items=[item], schema_url=self._scope.schema_url
        )
        group = wire.Group(
            resource=self._group.resource,
            scopes=[scope.SerializeToString()],
            schema_url=self._group.schema_url,
        )
        return bytes(group.SerializeToString())


def _hangs_on_none(signal: Signal, item: bytes) -> bool:
    """Tell whether it is a log record of no span: by what spans say it is not chosen, in whichever trace it is."""
    return signal is Signal.LOGS and not wire.Log.FromString(item).span_id


def _facts(signal: Signal, row: Row) -> tuple[bytes | None, int | None]:
    if signal is Signal.SPANS:
        return row[form.TRACE_ID], row[form.START_NS]
    if signal is Signal.LOGS:
        return row[LOGS.at["trace_id"]], row[LOGS.at["time_ns"]]
    return None, row[POINTS.at["time_ns"]]


def _plain(signal: Signal, item: bytes) -> tuple[bytes | None, int | None]:
    """Return trace and time (ns) of an item as it stands there."""
    if signal is Signal.SPANS:
        span = wire.Span.FromString(item)
        return bytes(span.trace_id), span.start
    if signal is Signal.LOGS:
        log = wire.Log.FromString(item)
        return bytes(log.trace_id), log.time
    metric = wire.Metric.FromString(item)
    for kind in ("gauge", "sum", "histogram", "exponential_histogram", "summary"):
        if raw := getattr(metric, kind):
            for point in wire.Data.FromString(raw).points:
                return None, wire.Number.FromString(point).time
    return None, None


def _time_of(signal: Signal, item: bytes) -> float:
    """Return when something was, so that it is taken as if it came then."""
    return (_plain(signal, item)[1] or 0) / 1e9
