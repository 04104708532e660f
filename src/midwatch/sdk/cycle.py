"""The work loop: `cycle` is one pass of it, and its end is the beat.

A beat is evidence that the loop came round. It comes from the loop alone and never from a
timer, so that a loop that hangs is silent. `beat()` outside a cycle is a whole cycle, from
the beat before to this one; inside a cycle it is a sign of life that adds to the cycle.
"""

from __future__ import annotations

import functools
import os
import time
from contextvars import ContextVar

from midwatch.sdk import runtime, scope, span, usage
from midwatch.sdk.plain import number, plain, text
from midwatch.sdk.shield import shielded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar, overload

    F = TypeVar("F", bound=Callable[..., Any])

MAX_LABEL = 128
"""Characters of a name on a beat: the unit, the result."""

_current: ContextVar[Cycle | None] = ContextVar("midwatch_cycle", default=None)
_open: set[Cycle] = set()
"""The cycles of this process that have not ended."""


class Cycle(scope.Scope):
    """One pass of the work loop. What was counted inside it is in `tally`."""

    __slots__ = ("_at", "_error", "_result", "_running", "_started", "_unit", "tally")

    def __init__(self) -> None:
        super().__init__()
        self.tally = usage.Tally()
        self._running = False
        self._clear()

    def _clear(self) -> None:
        self._started = 0.0
        self._at = 0.0
        self._unit: str | None = None
        self._result: str | None = None
        self._error: str | None = None

    @shielded
    def usage(
        self,
        *,
        tokens: int | None = None,
        cost_usd: float | None = None,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        cached_tokens: int | None = None,
        model_calls: int | None = None,
        tool_calls: int | None = None,
    ) -> None:
        """Add what was not counted by itself. Nothing is added once the cycle has ended."""
        if not self._running:
            return
        bad = self.tally.add(
            tokens=tokens,
            cost_usd=cost_usd,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            cached_tokens=cached_tokens,
            model_calls=model_calls,
            tool_calls=tool_calls,
        )
        _lose_bad(bad)

    @shielded
    def done(self, items: int = 1, unit: str | None = None) -> None:
        """Add pieces of work completed; `unit` says what they are, in the plural: mails."""
        if not self._running:
            return
        _lose_bad(self.tally.add(items=items))
        if unit is not None:
            self._unit = label(unit)

    @shielded
    def fail(self, reason: object = "") -> None:
        """Say that this pass failed although nothing was raised."""
        self._result = "failed"
        self._error = text(reason, span.MAX_MESSAGE)

    def _begin(self) -> None:
        if runtime.current is None:
            runtime.missing("cycle")
            return
        if self._running:
            raise RuntimeError("this cycle is running already; make one for each pass")
        self.tally.clear()
        self._clear()
        self._running = True
        self._at = time.time()
        self._started = time.monotonic()
        if runtime.current.traces:
            self._span = span.Span("cycle", {"midwatch.span": "cycle"})
        _open.add(self)

    def _bind(self) -> scope.Bound:
        return ((_current, _current.set(self)), *super()._bind())

    def _finish(self, error: BaseException | None) -> None:
        if not self._running:
            return
        self._running = False
        _open.discard(self)
        now = runtime.current
        if now is None:
            return
        ended = time.monotonic()
        result = scope.failure(error)
        if error is not None and result != "ok":
            self._error = f"{type(error).__name__}: {text(error, span.MAX_MESSAGE)}"
        if error is None and self._result is not None:
            result = self._result
        item: dict[str, Any] = {
            "at": time.time(),
            "duration_s": ended - self._started,
            "result": result,
        }
        self.tally.into(item, tracking=usage.tracking, tools=usage.counting_tools)
        if self._error is not None:
            item["error"] = self._error
        if self._unit is not None:
            item["unit"] = self._unit
        if now.draining:
            item["draining"] = True
        if self._span is not None:
            for name in ("tokens", "cost_usd", "tool_calls", "items", "result"):
                if name in item:
                    self._span.attributes[f"midwatch.{name}"] = item[name]
            if result == "failed" and error is None:
                self._span.error = "failed"
        now.beat_at = ended
        now.beat()
        now.submit("beat", item)
        self._end_span(error)


if TYPE_CHECKING:

    @overload
    def cycle(function: F) -> F: ...
    @overload
    def cycle() -> Cycle: ...


@functools.partial(shielded, instead=Cycle)
def cycle(function: Any = None) -> Any:
    """One pass of the work loop: `with cycle() as c`, `async with`, or `@cycle`.

    It ends with a beat: duration, what was used inside, and whether it raised. The
    exception goes on to the agent.
    """
    return Cycle()(function) if scope.can_decorate(function) else Cycle()


@shielded
def beat(
    *,
    tokens: int | None = None,
    cost_usd: float | None = None,
    input_tokens: int | None = None,
    output_tokens: int | None = None,
    cached_tokens: int | None = None,
    model_calls: int | None = None,
    tool_calls: int | None = None,
    items: int | None = None,
    unit: str | None = None,
    duration_s: float | None = None,
    result: str | None = None,
    error: str | None = None,
    **more: object,
) -> None:
    """Say that the work loop has come round; the figures are those of this pass.

    Outside a cycle it is a whole cycle of its own, which began at the beat before; it takes
    along what tracked clients and tools used meanwhile. Inside a cycle it is a sign of
    life, adds its figures to the cycle and does not end it.
    """
    now = runtime.current
    if now is None:
        runtime.missing("beat")
        return
    within = _current.get()
    if within is not None and within._running:  # pyright: ignore[reportPrivateUsage]
        tally = within.tally
        if unit is not None:
            within.done(0, unit)
    else:
        within = None
        tally = usage.loose.take() or usage.Tally()
    bad = tally.add(
        tokens=tokens,
        cost_usd=cost_usd,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cached_tokens=cached_tokens,
        model_calls=model_calls,
        tool_calls=tool_calls,
        items=items,
    )
    now.beat()
    if bad:
        _lose_bad(bad)
    if within is not None:
        return
    item: dict[str, Any] = plain(more)[0] if more else {}
    _fill(item, now, tally, duration_s, result, error)
    if unit is not None:
        item["unit"] = label(unit)
    now.submit("beat", item)


def _fill(
    item: dict[str, Any],
    now: runtime.Runtime,
    tally: usage.Tally,
    duration_s: float | None,
    result: str | None,
    error: str | None,
) -> None:
    """Complete the beat of a cycle that ends here and began at the beat before."""
    ended = time.monotonic()
    lasted_s = number(duration_s) if duration_s is not None else None
    item["at"] = time.time()
    item["duration_s"] = ended - now.beat_at if lasted_s is None else lasted_s
    item["result"] = "ok" if result is None and error is None else label(result or "failed")
    tally.into(item, tracking=usage.tracking, tools=usage.counting_tools)
    if error is not None:
        item["error"] = text(error, span.MAX_MESSAGE)
    if now.draining:
        item["draining"] = True
    now.beat_at = ended


def tally_now() -> usage.Tally:
    """Return where a model or tool call that happens now is counted.

    The cycle of this task or thread; or else the only one that is open in the process (a
    thread that was started inside a cycle does not inherit its context); or else the loose
    count that the next beat takes along.
    """
    within = _current.get()
    if within is not None and within._running:  # pyright: ignore[reportPrivateUsage]
        return within.tally
    if len(_open) == 1:
        for only in tuple(_open):
            return only.tally
    return usage.loose


def inside() -> bool:
    """Return whether this task or thread is in a cycle."""
    within = _current.get()
    return within is not None and within._running  # pyright: ignore[reportPrivateUsage]


def span_now() -> span.Span | None:
    """Return the span of the cycle that this task or thread is in."""
    within = _current.get()
    return within._span if within is not None and within._running else None  # pyright: ignore[reportPrivateUsage]


def label(value: object) -> str:
    """Return `value` as a name that the hub accepts: short, printable, not empty."""
    name = text(value, MAX_LABEL)
    if not name.isprintable():
        name = "".join(sign if sign.isprintable() else "?" for sign in name)
    return name or "unnamed"


def _lose_bad(count: int) -> None:
    if count and runtime.current is not None:
        runtime.current.lose("bad_argument", count)


def _after_fork() -> None:
    """A cycle that was open at the fork ends in the parent, once; the child begins outside of any."""
    for cycle_of_parent in tuple(_open):
        cycle_of_parent._running = False  # pyright: ignore[reportPrivateUsage]
    _open.clear()


os.register_at_fork(after_in_child=_after_fork)
