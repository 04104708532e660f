"""What the tests of the telemetry's edges share: a roster, an intake over a store in memory, requests to send."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from midwatch.core.access import Caller, Scope
from midwatch.core.counts import Counts
from midwatch.core.spans.digest import Digest
from midwatch.ingest.admission import Admission
from midwatch.ingest.otlp.intake import OtlpIntake
from midwatch.ingest.otlp.owners import Sender
from midwatch.store.spans.memory import MemorySpans
from midwatch.wire.problem import Refusal

NOW = 1_800_000_000.0
NOW_NS = int(NOW * 1e9)
WRITER = Sender(Caller("writer", frozenset({Scope.WRITE})))
NODE = Sender(Caller("node n1", frozenset({Scope.WRITE, Scope.READ, Scope.NODE})))
RUN = Sender(Caller("run r1", frozenset({Scope.WRITE}), "inbox", "r1"))
ANYBODY = Sender(Caller("local", frozenset({Scope.WRITE})), tokenless=True)


@dataclass
class Names:
    """A roster in memory: `fleet` is the fleet file's, `registered` everybody else, of whom there may be `most`."""

    fleet: set[str] = field(default_factory=lambda: {"inbox", "search"})
    registered: set[str] = field(default_factory=set)
    most: int = 3

    def knows(self, name: str) -> bool:
        return name in self.fleet or name in self.registered

    def in_fleet(self, name: str) -> bool:
        return name in self.fleet

    async def register(self, name: str, by: str) -> None:
        if len(self.registered) >= self.most:
            raise Refusal(429, f"{self.most} agents have registered already", reason="registered")
        self.registered.add(name)


@dataclass
class Watched:
    """An observer that remembers, and fails when told to."""

    seen: list[Digest] = field(default_factory=list)
    broken: bool = False

    async def see(self, digest: Digest) -> None:
        if self.broken:
            raise RuntimeError("a detector's fault")
        self.seen.append(digest)


class Edge:
    """An intake with everything around it, in memory."""

    def __init__(
        self,
        admission: Admission | None = None,
        store: MemorySpans | None = None,
        clock: Callable[[], float] = lambda: NOW,
    ) -> None:
        self.store = MemorySpans() if store is None else store
        self.shelf = self.store.shelf
        self.names = Names()
        self.watch = Watched()
        self.counts = Counts()
        self.admission = admission or Admission()
        self.intake = OtlpIntake(
            self.store, self.names, self.watch, self.admission, self.counts, clock
        )


def span(n: int = 1, **more: Any) -> Span:
    """Return a span of a second that ended just now; `n` makes its id."""
    values: dict[str, Any] = {
        "trace_id": b"t" * 16,
        "span_id": n.to_bytes(8, "big"),
        "name": f"span {n}",
        "kind": 3,
        "start_time_unix_nano": NOW_NS - 2 * 10**9,
        "end_time_unix_nano": NOW_NS - 10**9,
        **more,
    }
    return Span(**values)


def request(*spans: Span, service: str = "inbox", scope: str = "test") -> ExportTraceServiceRequest:
    """Return a request with these spans of one service."""
    made = ExportTraceServiceRequest()
    group = made.resource_spans.add()
    group.resource.attributes.add(key="service.name").value.string_value = service
    scoped = group.scope_spans.add()
    scoped.scope.name, scoped.scope.version = scope, "1.2"
    scoped.spans.extend(spans)
    return made


def body(*spans: Span, service: str = "inbox", scope: str = "test") -> bytes:
    return request(*spans, service=service, scope=scope).SerializeToString()


def many(count: int, seed: int = 0, service: str = "inbox", at_ns: int = NOW_NS) -> bytes:
    """Return a request with so many spans, none of which another seed has."""
    made = random.Random(seed)
    times = {"start_time_unix_nano": at_ns - 1, "end_time_unix_nano": at_ns}
    return body(
        *(
            span(made.getrandbits(63) + 1, trace_id=made.randbytes(16), **times)
            for _ in range(count)
        ),
        service=service,
    )
