"""Counts of what a stretch of work used: tokens, dollars, calls.

Calls may end in several threads at once, so additions hold a lock. A figure that nobody
gave stays unknown: it is left out of the beat and never told as 0.
"""

from __future__ import annotations

import os
import threading

from midwatch.sdk.plain import number, whole

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# reentrant: a signal handler may count while its own thread is counting
_lock = threading.RLock()

_COUNTS = ("tokens", "input_tokens", "output_tokens", "cached_tokens", "model_calls", "tool_calls")


class Tally:
    """Sums; None where nothing was counted."""

    __slots__ = (
        "cached_tokens",
        "cost_usd",
        "input_tokens",
        "items",
        "model_calls",
        "output_tokens",
        "tokens",
        "tool_calls",
        "unmetered_calls",
        "unpriced_calls",
    )

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.tokens: int | None = None
        self.input_tokens: int | None = None
        self.output_tokens: int | None = None
        self.cached_tokens: int | None = None
        self.cost_usd: float | None = None
        self.model_calls: int | None = None
        self.tool_calls: int | None = None
        self.items: int | None = None
        self.unpriced_calls = 0
        self.unmetered_calls = 0

    def add(
        self,
        *,
        tokens: Any = None,
        input_tokens: Any = None,
        output_tokens: Any = None,
        cached_tokens: Any = None,
        cost_usd: Any = None,
        model_calls: Any = None,
        tool_calls: Any = None,
        items: Any = None,
    ) -> int:
        """Add what is a number; return how many of the values given were none."""
        bad = 0
        if tokens is None and (input_tokens is not None or output_tokens is not None):
            tokens = (whole(input_tokens) or 0) + (whole(output_tokens) or 0)
        with _lock:
            for name, value in (
                ("tokens", tokens),
                ("input_tokens", input_tokens),
                ("output_tokens", output_tokens),
                ("cached_tokens", cached_tokens),
                ("model_calls", model_calls),
                ("tool_calls", tool_calls),
                ("items", items),
            ):
                if value is not None:
                    count = whole(value)
                    if count is None:
                        bad += 1
                    else:
                        setattr(self, name, (getattr(self, name) or 0) + count)
            if cost_usd is not None:
                amount = number(cost_usd)
                if amount is None:
                    bad += 1
                else:
                    self.cost_usd = (self.cost_usd or 0.0) + amount
        return bad

    def missed(self, *, unpriced: int = 0, unmetered: int = 0) -> None:
        """Count model calls whose price, or whose usage, is not known."""
        with _lock:
            self.unpriced_calls += unpriced
            self.unmetered_calls += unmetered

    def into(self, item: dict[str, Any], *, tracking: bool, tools: bool) -> None:
        """Write into a beat what is known.

        `tracking`: model calls are counted, so none is 0. `tools`: the same for tool calls.
        """
        for name in _COUNTS:
            value = getattr(self, name)
            if value is not None:
                item[name] = value
        if self.items is not None:
            item["items"] = self.items
        if self.cost_usd is not None:
            item["cost_usd"] = self.cost_usd
        if self.unpriced_calls:
            item["unpriced_calls"] = self.unpriced_calls
        if self.unmetered_calls:
            item["unmetered_calls"] = self.unmetered_calls
        if tracking and self.model_calls is None:
            item["model_calls"] = 0
            item.setdefault("tokens", 0)
            item.setdefault("cost_usd", 0.0)
        if tools and self.tool_calls is None:
            item["tool_calls"] = 0

    def take(self) -> Tally | None:
        """Return what was counted and begin again; None when nothing was."""
        with _lock:
            if self.empty:
                return None
            taken = Tally()
            for name in self.__slots__:
                setattr(taken, name, getattr(self, name))
            self.clear()
        return taken

    @property
    def empty(self) -> bool:
        return (
            self.tokens is None
            and self.cost_usd is None
            and (self.model_calls is None and self.tool_calls is None and self.items is None)
        )


loose = Tally()
"""What was used outside any cycle; the next `mw.beat()` takes it along."""

tracking = False
"""Set when a model client is tracked."""

counting_tools = False
"""Set when a function was made a tool."""


def _after_fork() -> None:
    """The lock may be held by a thread that the child does not have; the count is the parent's."""
    global _lock
    _lock = threading.RLock()
    loose.clear()


os.register_at_fork(after_in_child=_after_fork)
