"""Tools: the agent's own functions, given a time limit, a span and a count.

What the function raises goes to the caller unchanged. A synchronous function with a limit
runs in a thread of its own, with the caller's context; when the limit passes, the caller
gets `ToolTimeout` and the thread is left behind, because Python cannot end a thread: give
blocking calls inside it limits of their own. Without a limit it runs where it is called.
"""

from __future__ import annotations

import functools
import threading
import time
from contextvars import copy_context

from midwatch.sdk import cycle, runtime, scope, span, usage
from midwatch.sdk.plain import number, whole
from midwatch.sdk.shield import kept, shielded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar, overload

    F = TypeVar("F", bound=Callable[..., Any])

RETRY_FIRST_S = 0.5
RETRY_LAST_S = 8.0
"""Between two tries a tool waits a random part of 0.5, 1, 2, 4, 8 … seconds."""


class ToolTimeout(TimeoutError):
    """A tool took longer than its `timeout_s`. `permanent` is False: it may work next time."""

    permanent = False

    def __init__(self, name: str, timeout_s: float) -> None:
        super().__init__(f"tool {name!r} took longer than its timeout_s={timeout_s:g}")
        self.tool = name
        self.timeout_s = timeout_s


class Plan:
    """What was declared about a tool."""

    __slots__ = ("name", "poll", "retries", "side_effect", "timeout_s")

    def __init__(
        self, name: str, timeout_s: object, retries: object, side_effect: bool, poll: bool
    ) -> None:
        self.name = name
        limit_s = number(timeout_s)
        self.timeout_s = limit_s or None
        self.side_effect = side_effect is not False
        self.retries = 0 if self.side_effect else min(whole(retries) or 0, 100)
        self.poll = poll is True


class _Call(scope.Scope):
    """One call of a tool: its span, its count, and the word to the supervisor."""

    __slots__ = ("_plan", "_told")

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self._plan = plan
        self._told: runtime.Runtime | None = None

    def _copy(self) -> _Call:
        return _Call(self._plan)

    def _begin(self) -> None:
        now = runtime.current
        if now is None:
            return
        plan = self._plan
        cycle.tally_now().add(tool_calls=1)
        if now.traces:
            attributes: dict[str, Any] = {
                "midwatch.span": "tool",
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": plan.name,
                "midwatch.side_effect": plan.side_effect,
            }
            if plan.poll:
                attributes["midwatch.poll"] = True
            self._span = span.Span(f"execute_tool {plan.name}", attributes)
        if now.notifier is not None:
            self._told = now
            if plan.timeout_s is not None:
                now.notifier.call_opened()

    def _finish(self, error: BaseException | None) -> None:
        told, self._told = self._told, None
        if told is not None and told.notifier is not None:
            if self._plan.timeout_s is not None:
                told.notifier.call_done()
            else:  # how long it may be silent was not said; that it came back is a sign of work
                told.notifier.called()
        self._end_span(error)


if TYPE_CHECKING:

    @overload
    def tool(function: F) -> F: ...
    @overload
    def tool(
        *,
        name: str | None = None,
        timeout_s: float | None = None,
        retries: int = 0,
        side_effect: bool = False,
        poll: bool = False,
        **later: object,
    ) -> Callable[[F], F]: ...


def _leave() -> Callable[[Any], Any]:
    """Return a decorator that leaves everything as it is."""

    def unchanged(target: Any) -> Any:
        return target

    return unchanged


@functools.partial(shielded, instead=_leave)
def tool(
    function: Any = None,
    *,
    name: str | None = None,
    timeout_s: float | None = None,
    retries: int = 0,
    side_effect: bool = False,
    poll: bool = False,
    **later: object,
) -> Any:
    """Make a function a tool: `@tool` or `@tool(timeout_s=30, retries=2)`.

    - `timeout_s`: raise `ToolTimeout` after this time. Not for generators.
    - `retries`: try this many times more when it raises, with a growing random pause. A
      tool with a side effect is never tried again. Not for generators.
    - `side_effect`: it changes something outside, such as sending a mail.
    - `poll`: calling it again and again with the same arguments is meant to be.
    - `name`: what it is called in spans; by default the function's name.

    Arguments that this version does not know are accepted and counted, so that an agent
    written for a newer one runs.
    """
    if later and runtime.current is not None:
        runtime.current.lose("unknown_argument", len(later))

    def made(target: Any) -> Any:
        with kept("tool"):
            return _make(target, name, timeout_s, retries, side_effect, poll)
        return target

    return made if function is None else made(function)


def _make(target: Any, name: object, *declared: Any) -> Any:
    import inspect

    if isinstance(target, staticmethod | classmethod):
        method: Any = target  # pyright: ignore[reportUnknownVariableType]
        return type(method)(_make(method.__func__, name, *declared))
    if not callable(target) or isinstance(target, type):
        return target
    given = name if name is not None else getattr(target, "__name__", type(target).__name__)
    plan = Plan(cycle.label(given), *declared)
    usage.counting_tools = True
    call = _Call(plan)
    if inspect.isgeneratorfunction(target) or inspect.isasyncgenfunction(target):
        return scope.decorate(target, call._copy)  # pyright: ignore[reportPrivateUsage]
    if scope.is_async(target):
        return _retrying_async(scope.decorate(_limited_async(target, plan), call._copy), plan)  # pyright: ignore[reportPrivateUsage]
    return _retrying(scope.decorate(_limited(target, plan), call._copy), plan)  # pyright: ignore[reportPrivateUsage]


def _limited(target: Any, plan: Plan) -> Any:
    """Return `target` with its time limit, or itself when it has none."""
    timeout_s = plan.timeout_s
    if timeout_s is None:
        return target

    @functools.wraps(target)
    def limited(*args: Any, **kwargs: Any) -> Any:
        ended = threading.Event()
        outcome: list[tuple[bool, Any]] = []
        context = copy_context()

        def work() -> None:
            try:
                outcome.append((True, context.run(target, *args, **kwargs)))
            except BaseException as error:  # noqa: BLE001  # it is raised again in the caller
                outcome.append((False, error))
            finally:
                ended.set()

        try:
            threading.Thread(target=work, name=f"tool-{plan.name}", daemon=True).start()
        except RuntimeError:  # no thread to be had: better without a limit than not at all
            if runtime.current is not None:
                runtime.current.lose("tool_unlimited")
            return target(*args, **kwargs)
        if not ended.wait(timeout_s) and not outcome:
            raise ToolTimeout(plan.name, timeout_s)
        fine, value = outcome[0]
        if fine:
            return value
        try:
            raise value
        finally:
            outcome.clear()  # the exception's frames refer to this list

    return limited


def _limited_async(target: Any, plan: Plan) -> Any:
    """As `_limited`, by cancelling. Event loops other than asyncio's are left alone."""
    timeout_s = plan.timeout_s
    if timeout_s is None:
        return target

    @functools.wraps(target)
    async def limited(*args: Any, **kwargs: Any) -> Any:
        import asyncio

        if not _under_asyncio():
            return await target(*args, **kwargs)
        limit = asyncio.timeout(timeout_s)
        try:
            async with limit:
                return await target(*args, **kwargs)
        except TimeoutError as error:
            if limit.expired() and not isinstance(error, ToolTimeout):
                raise ToolTimeout(plan.name, timeout_s) from None
            raise

    return limited


def _under_asyncio() -> bool:
    import asyncio

    try:
        return asyncio.current_task() is not None
    except RuntimeError:
        return False


def _retrying(target: Any, plan: Plan) -> Any:
    if not plan.retries:
        return target

    @functools.wraps(target)
    def retrying(*args: Any, **kwargs: Any) -> Any:
        for attempt in range(plan.retries):
            try:
                return target(*args, **kwargs)
            except Exception as error:
                if getattr(error, "permanent", False) is True:
                    raise
            time.sleep(_pause_s(attempt))
        return target(*args, **kwargs)

    return retrying


def _retrying_async(target: Any, plan: Plan) -> Any:
    if not plan.retries:
        return target

    @functools.wraps(target)
    async def retrying(*args: Any, **kwargs: Any) -> Any:
        import asyncio

        for attempt in range(plan.retries):
            try:
                return await target(*args, **kwargs)
            except Exception as error:
                if getattr(error, "permanent", False) is True:
                    raise
            if _under_asyncio():
                await asyncio.sleep(_pause_s(attempt))
        return await target(*args, **kwargs)

    return retrying


def _pause_s(attempt: int) -> float:
    import random

    return random.uniform(0, min(RETRY_LAST_S, RETRY_FIRST_S * 2.0**attempt))
