"""Sessions and turns: which conversation a stretch of work belongs to.

A session is one task, ticket or conversation; a turn is one pass of the agent over it. Both
are spans; every span inside carries the session's id as `gen_ai.conversation.id`.
"""

from __future__ import annotations

import functools
from contextvars import ContextVar

from midwatch.sdk import runtime, scope, span
from midwatch.sdk.cycle import label
from midwatch.sdk.shield import shielded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_current: ContextVar[Session | None] = ContextVar("midwatch_session_scope", default=None)


class Session(scope.Scope):
    """One conversation. `id` is None when none was given."""

    __slots__ = ("id",)

    def __init__(self, session_id: object = None) -> None:
        super().__init__()
        self.id = None if session_id is None else label(session_id)

    def _copy(self) -> Session:
        return Session(self.id)

    def _begin(self) -> None:
        if runtime.current is None:
            runtime.missing("session")
            return
        if self.id is None:
            from midwatch.wire.ids import new_id

            self.id = new_id()
        if runtime.current.traces:
            self._span = span.Span("session", {"midwatch.span": "session"})
            self._span.attributes["gen_ai.conversation.id"] = self.id

    def _bind(self) -> scope.Bound:
        return (
            (_current, _current.set(self)),
            (span.session_id, span.session_id.set(self.id)),
            *super()._bind(),
        )

    def ends_as(self, status: str, goal_met: bool | None) -> None:
        """Write the outcome onto the session's span."""
        if self._span is not None:
            self._span.attributes["midwatch.outcome"] = status
            self._span.attributes["midwatch.goal_met"] = goal_met


class Turn(scope.Scope):
    """One pass of the agent over a session."""

    __slots__ = ()

    def _begin(self) -> None:
        now = runtime.current
        if now is None:
            runtime.missing("turn")
        elif now.traces:
            self._span = span.Span(
                f"invoke_agent {now.agent}",
                {
                    "midwatch.span": "turn",
                    "gen_ai.operation.name": "invoke_agent",
                    "gen_ai.agent.name": now.agent,
                },
            )


@functools.partial(shielded, instead=Session)
def session(session_id: object = None) -> Session:
    """One conversation: `with session(task.id)`, `async with`, or `@session()`."""
    return Session(session_id)


@functools.partial(shielded, instead=Turn)
def turn(function: Any = None) -> Any:
    """One pass of the agent over a session: `with turn()`, `async with`, or `@turn`."""
    return Turn()(function) if scope.can_decorate(function) else Turn()


def session_now() -> Session | None:
    """Return the session that this task or thread is in."""
    return _current.get()
