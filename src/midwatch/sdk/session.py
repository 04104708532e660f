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

MAX_TAGS = 32
"""Tags of one session; the hub takes no more."""

_current: ContextVar[Session | None] = ContextVar("midwatch_session_scope", default=None)


class Session(scope.Scope):
    """One conversation. `id` is None when none was given."""

    __slots__ = ("id", "tags", "user")

    def __init__(self, session_id: object = None, user: object = None, tags: object = None) -> None:
        super().__init__()
        self.id = None if session_id is None else label(session_id)
        self.user = None if user is None else label(user)
        self.tags = _tags(tags)

    def _copy(self) -> Session:
        copy = Session(self.id, self.user)
        copy.tags = self.tags
        return copy

    def _begin(self) -> None:
        if runtime.current is None:
            runtime.missing("session")
            return
        if self.id is None:
            from midwatch.wire.ids import new_id

            self.id = new_id()
        if runtime.current.traces:
            attributes: dict[str, Any] = {"midwatch.span": "session"}
            if self.user is not None:
                attributes["user.id"] = self.user
            self._span = span.Span("session", attributes)
            attributes["gen_ai.conversation.id"] = self.id
            attributes.update(self.tags)

    def _bind(self) -> scope.Bound:
        around = span.labels.get()
        tags = self.tags if around is None else {**around, **self.tags}
        return (
            (_current, _current.set(self)),
            (span.session_id, span.session_id.set(self.id)),
            (span.labels, span.labels.set(tags or None)),
            *super()._bind(),
        )


class Turn(scope.Scope):
    """One pass of the agent over a session. All spans inside carry its id; ids sort by time, to a millisecond."""

    __slots__ = ("id",)

    def __init__(self) -> None:
        super().__init__()
        self.id: str | None = None

    def _begin(self) -> None:
        now = runtime.current
        if now is None:
            runtime.missing("turn")
            return
        from midwatch.wire.ids import new_id

        self.id = new_id()
        if now.traces:
            attributes: dict[str, Any] = {
                "midwatch.span": "turn",
                "gen_ai.operation.name": "invoke_agent",
                "gen_ai.agent.name": now.agent,
            }
            self._span = span.Span(f"invoke_agent {now.agent}", attributes)
            attributes["midwatch.turn"] = self.id

    def _bind(self) -> scope.Bound:
        return ((span.turn_id, span.turn_id.set(self.id)), *super()._bind())


def _tags(given: object) -> dict[str, str]:
    """Return tags as the attributes that they are on every span inside; what is no mapping says nothing."""
    if not isinstance(given, dict):
        if given is not None and runtime.current is not None:
            runtime.current.lose("bad_argument")
        return {}
    found: dict[str, str] = {}
    for name in list(given)[:MAX_TAGS]:  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        value: Any = given[name]  # pyright: ignore[reportUnknownVariableType]
        if value is not None:
            found[f"midwatch.tag.{label(name)}"] = label(value)  # pyright: ignore[reportUnknownArgumentType]
    if len(given) > MAX_TAGS and runtime.current is not None:  # pyright: ignore[reportUnknownArgumentType]
        runtime.current.lose("tags", len(given) - MAX_TAGS)  # pyright: ignore[reportUnknownArgumentType]
    return found


@functools.partial(shielded, instead=Session)
def session(session_id: object = None, *, user: object = None, tags: object = None) -> Session:
    """One conversation: `with session(task.id)`, `async with`, or `@session()`.

    `user` is whom the agent works for. `tags` are names and values that everything inside is counted by, such as
    `{"customer": "acme", "task": "refund"}`; `hub.tags` of the fleet file says which of them have pages.
    """
    return Session(session_id, user, tags)


@functools.partial(shielded, instead=Turn)
def turn(function: Any = None) -> Any:
    """One pass of the agent over a session: `with turn()`, `async with`, or `@turn`."""
    return Turn()(function) if scope.can_decorate(function) else Turn()


def session_now() -> Session | None:
    """Return the session that this task or thread is in."""
    return _current.get()
