"""One span: a piece of work with a beginning, an end and a parent.

Made in the caller's thread, so it costs next to nothing there: identifiers are drawn only
when the worker renders it. A child keeps a reference to its parent and asks it for its id;
both are rendered by the one worker, so the id is the same for both.
"""

from __future__ import annotations

import os
import threading
import time
from contextvars import ContextVar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from midwatch.sdk.announce import Announcer

INTERNAL = 1
CLIENT = 3

_OK = 1
_ERROR = 2

MAX_MESSAGE = 1_000
"""Characters of an error's text on a span and on a beat."""

current: ContextVar[Span | None] = ContextVar("midwatch_span", default=None)
"""The innermost span of this task or thread: the parent of the next one."""

session_id: ContextVar[str | None] = ContextVar("midwatch_session", default=None)
"""The conversation that is going on: `gen_ai.conversation.id` of all spans in it."""

turn_id: ContextVar[str | None] = ContextVar("midwatch_turn", default=None)
"""The turn of it that is going on: `midwatch.turn` of all spans in it."""

labels: ContextVar[dict[str, str] | None] = ContextVar("midwatch_tags", default=None)
"""What all spans are counted by: attributes `midwatch.tag.NAME`. Never changed, only replaced."""

announcer: Announcer | None = None
"""Who tells the hub of open spans; None: nobody does."""

# reentrant: a signal handler may draw an id while its own thread is drawing one
_drawing = threading.RLock()


class Span:
    """See the module. `attributes` may be written until the span has been ended."""

    __slots__ = (
        "_span_id",
        "_trace_id",
        "attributes",
        "ended_ns",
        "error",
        "events",
        "kind",
        "name",
        "parent",
        "started_ns",
    )

    def __init__(self, name: str, attributes: dict[str, Any], kind: int = INTERNAL) -> None:
        self.name = name
        self.kind = kind
        self.attributes = attributes
        self.parent = current.get()
        self.started_ns = time.time_ns()
        self.ended_ns = 0
        self.error: str | None = None
        self.events: list[dict[str, Any]] | None = None
        self._span_id: str | None = None
        self._trace_id: str | None = None
        conversation = session_id.get()
        if conversation is not None:
            attributes["gen_ai.conversation.id"] = conversation
        turn = turn_id.get()
        if turn is not None:
            attributes["midwatch.turn"] = turn
        tags = labels.get()
        if tags is not None:
            attributes.update(tags)
        if announcer is not None:
            announcer.opened(self)

    @property
    def span_id(self) -> str:
        """8 bytes as hex (W3C Trace Context)."""
        if self._span_id is None:
            # the worker announces what its own thread may be drawing for: both must say the same
            with _drawing:
                if self._span_id is None:
                    self._span_id = os.urandom(8).hex()
        return self._span_id

    @property
    def trace_id(self) -> str:
        """16 bytes as hex, the same for all spans below one root."""
        if self._trace_id is None:
            with _drawing:
                if self._trace_id is None:
                    self._trace_id = (
                        os.urandom(16).hex() if self.parent is None else self.parent.trace_id
                    )
        return self._trace_id

    def render(self, run_id: str | None) -> dict[str, Any]:
        """Return the OTLP span; one that has not ended has neither end nor status. Called by the worker."""
        from midwatch.sdk import otlp

        rendered: dict[str, Any] = {
            "traceId": self.trace_id,
            "spanId": self.span_id,
            "name": self.name,
            "kind": self.kind,
            "startTimeUnixNano": str(self.started_ns),
            # a copy, made in one step: its own thread may be writing
            "attributes": otlp.attributes(self.attributes.copy()),
        }
        if self.ended_ns:
            rendered["endTimeUnixNano"] = str(max(self.ended_ns, self.started_ns))
            rendered["status"] = (
                {"code": _OK} if self.error is None else {"code": _ERROR, "message": self.error}
            )
        if self.events:
            rendered["events"] = [
                {**event, "attributes": otlp.attributes(event["attributes"])}
                for event in self.events
            ]
        if self.parent is not None:
            rendered["parentSpanId"] = self.parent.span_id
        if run_id is not None:
            rendered["_run"] = run_id
        return rendered


def _after_fork() -> None:
    """The lock may be held by a thread that the child does not have."""
    global _drawing
    _drawing = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)
