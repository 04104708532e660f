"""A stretch of work: `with`, `async with`, or a decorator of any kind of function.

`Scope` splits what happens once (`_begin`, `_finish`) from what must hold while the agent's
code runs (`_bind`, `_unbind`): a decorated generator is bound only while it is advanced, so
that what it sets never leaks into the code that consumes it. Exceptions of the agent's code
pass through unchanged; those of our own never get out.
"""

from __future__ import annotations

import functools

from midwatch.sdk import runtime, span
from midwatch.sdk.shield import kept

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator
    from contextvars import ContextVar, Token
    from types import TracebackType
    from typing import Any, Self, TypeVar

    F = TypeVar("F", bound=Callable[..., Any])
    Bound = tuple[tuple[ContextVar[Any], Token[Any]], ...]


class Scope:
    """One use at a time; it may be used again after it has ended."""

    __slots__ = ("_bound", "_span")

    def __init__(self) -> None:
        self._bound: Bound = ()
        self._span: span.Span | None = None

    # What subclasses say.

    def _copy(self) -> Scope:
        """Return a fresh one with the same arguments: a decorator needs one for each call."""
        return type(self)()

    def _begin(self) -> None:
        """Start. A scope with a span makes it here."""

    def _bind(self) -> Bound:
        """Make this the current one for the code that runs now."""
        if self._span is None:
            return ()
        return ((span.current, span.current.set(self._span)),)

    def _finish(self, error: BaseException | None) -> None:
        """End. `error` is what the agent's code raised."""
        self._end_span(error)

    # What holds for all of them.

    def _end_span(self, error: BaseException | None) -> None:
        ended, self._span = self._span, None
        now = runtime.current
        if ended is None or now is None:
            return
        if error is not None and failure(error) == "failed":
            ended.error = type(error).__name__
            ended.attributes["error.type"] = type(error).__name__
        now.end_span(ended)

    def __enter__(self) -> Self:
        with kept("enter"):
            self._begin()
            self._bound = self._bind()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        bound, self._bound = self._bound, ()
        with kept("exit"):
            unbind(bound)
            self._finish(error)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, trace)

    def __call__(self, function: F) -> F:
        """Decorate: each call of `function` is a stretch of its own."""
        with kept("decorate"):
            return decorate(function, self._copy)
        return function


def failure(error: BaseException | None) -> str:
    """Say in one word how a stretch ended: ok, failed or cancelled."""
    if error is None or isinstance(error, GeneratorExit):
        return "ok"  # whoever consumed the generator had enough of it
    if isinstance(error, SystemExit):
        return "ok" if error.code in (None, 0) else "failed"
    if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "CancelledError":
        return "cancelled"
    return "failed"


def unbind(bound: Bound) -> None:
    """Undo `_bind`. In another context than it was done in, there is nothing to undo."""
    for variable, token in reversed(bound):
        try:
            variable.reset(token)
        except (ValueError, RuntimeError):
            continue  # a generator that was closed by another task


def decorate(function: Any, make: Callable[[], Scope]) -> Any:
    """Return `function` such that each call runs inside a scope from `make`."""
    import inspect  # whoever decorates has most often loaded it already

    if isinstance(function, staticmethod | classmethod):
        method: Any = function  # pyright: ignore[reportUnknownVariableType]
        return type(method)(decorate(method.__func__, make))
    if not callable(function) or isinstance(function, type):
        return function
    inner: Any = function  # pyright: ignore[reportUnknownVariableType]
    if inspect.isasyncgenfunction(inner):
        # itself an asynchronous generator function: frameworks ask `inspect` what it is
        return functools.wraps(function)(_driving_async(make, inner))
    if inspect.isgeneratorfunction(inner):

        @functools.wraps(function)
        def stepping(*args: Any, **kwargs: Any) -> Any:
            return (yield from _drive(make(), inner(*args, **kwargs)))

        return stepping
    if is_async(inner):

        @functools.wraps(function)
        async def running_async(*args: Any, **kwargs: Any) -> Any:
            with make():
                return await inner(*args, **kwargs)

        return running_async

    @functools.wraps(function)
    def running(*args: Any, **kwargs: Any) -> Any:
        with make():
            return inner(*args, **kwargs)

    return running


def can_decorate(function: object) -> bool:
    """Return whether this is what stands below an `@`, and not a stray argument."""
    return callable(function) or isinstance(function, classmethod)


def is_async(function: Any) -> bool:
    """Return whether calling `function` gives a coroutine: also for objects with `__call__`."""
    import inspect

    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004  # its kind is asked, not whether
    )


def _drive(scope: Scope, source: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """Advance `source`, with `scope` bound only while it runs."""
    _guard(scope._begin)  # pyright: ignore[reportPrivateUsage]
    ended: BaseException | None = None
    step: Callable[[], Any] = functools.partial(source.send, None)
    try:
        while True:
            with _Bound(scope):
                try:
                    item = step()
                except StopIteration as stop:
                    return stop.value
            try:
                step = functools.partial(source.send, (yield item))
            except GeneratorExit:
                with _Bound(scope):
                    source.close()
                raise
            except BaseException as error:  # noqa: BLE001  # it is thrown into the generator
                step = functools.partial(source.throw, error)
    except BaseException as error:
        ended = error
        raise
    finally:
        _guard(scope._finish, ended)  # pyright: ignore[reportPrivateUsage]


def _driving_async(make: Callable[[], Scope], inner: Callable[..., Any]) -> Callable[..., Any]:
    """As `_drive`."""

    async def stepping(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        scope, source = make(), inner(*args, **kwargs)
        _guard(scope._begin)  # pyright: ignore[reportPrivateUsage]
        ended: BaseException | None = None
        step: Callable[[], Any] = functools.partial(source.asend, None)
        try:
            while True:
                with _Bound(scope):
                    try:
                        item = await step()
                    except StopAsyncIteration:
                        return
                try:
                    step = functools.partial(source.asend, (yield item))
                except GeneratorExit:
                    with _Bound(scope):
                        await source.aclose()
                    raise
                except BaseException as error:  # noqa: BLE001  # it is thrown into the generator
                    step = functools.partial(source.athrow, error)
        except BaseException as error:
            ended = error
            raise
        finally:
            _guard(scope._finish, ended)  # pyright: ignore[reportPrivateUsage]

    return stepping


class _Bound:
    """Binds a scope for one step of a generator."""

    __slots__ = ("_bound", "_scope")

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._bound: Bound = ()

    def __enter__(self) -> None:
        self._bound = _guard(self._scope._bind) or ()  # pyright: ignore[reportPrivateUsage]

    def __exit__(self, *_: object) -> None:
        unbind(self._bound)


def _guard(function: Callable[..., Any], *args: Any) -> Any:
    with kept("scope"):
        return function(*args)
    return None
