"""One span: a piece of work with a beginning, an end and a parent.

Made in the caller's thread, so it costs next to nothing there: identifiers are drawn only
when the worker renders it. A child keeps a reference to its parent and asks it for its id;
both are rendered by the one worker, so the id is the same for both.
"""

from __future__ import annotations

import os
import time
from contextvars import ContextVar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

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


class Span:
    """See the module. `attributes` may be written until the span has been ended."""

    __slots__ = (
        "_span_id",
        "_trace_id",
        "attributes",
        "ended_ns",
        "error",
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
        self._span_id: str | None = None
        self._trace_id: str | None = None
        conversation = session_id.get()
        if conversation is not None:
            attributes["gen_ai.conversation.id"] = conversation

    @property
    def span_id(self) -> str:
        """8 bytes as hex (W3C Trace Context)."""
        if self._span_id is None:
            self._span_id = os.urandom(8).hex()
        return self._span_id

    @property
    def trace_id(self) -> str:
        """16 bytes as hex, the same for all spans below one root."""
        if self._trace_id is None:
            if self.parent is not None:
                self._trace_id = self.parent.trace_id
            else:
                self._trace_id = os.urandom(16).hex()
        return self._trace_id

    def render(self, run_id: str | None) -> dict[str, Any]:
        """Return the OTLP span. Called by the worker."""
        from midwatch.sdk import otlp

        rendered: dict[str, Any] = {
            "traceId": self.trace_id,
            "spanId": self.span_id,
            "name": self.name,
            "kind": self.kind,
            "startTimeUnixNano": str(self.started_ns),
            "endTimeUnixNano": str(max(self.ended_ns, self.started_ns)),
            "attributes": otlp.attributes(self.attributes),
            "status": {"code": _OK}
            if self.error is None
            else {"code": _ERROR, "message": self.error},
        }
        if self.parent is not None:
            rendered["parentSpanId"] = self.parent.span_id
        if run_id is not None:
            rendered["_run"] = run_id
        return rendered
