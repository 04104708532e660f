"""The one place where the SDK swallows exceptions.

A fault in telemetry must never become a fault of the agent: every public function goes
through `shielded` or `kept`. Only `Exception` is caught, so that Ctrl-C, SystemExit and cancellation
pass. Each swallowed exception is counted by where it happened and by its type. Nothing is
said in the caller's thread (a full stderr pipe would make it wait): the worker complains.
"""

from __future__ import annotations

import functools
import time
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any, TypeVar

    F = TypeVar("F", bound=Callable[..., Any])

RAISE = False
"""Our own tests set this: what would be swallowed is raised, so that no bug hides here."""

COMPLAINT_INTERVAL_S = 60.0
"""At most one line on stderr in this time, however much goes wrong."""

MAX_REASONS = 100
"""Distinct places of swallowed exceptions that are counted by name; the rest share one."""

swallowed: dict[str, int] = {}
"""How many exceptions were swallowed, by `where:Type`."""

_complaints: deque[str] = deque(maxlen=20)
_last_complaint = float("-inf")


def shielded(function: F, instead: Callable[[], Any] | None = None) -> F:
    """Return `function` guarded: when it fails, that is counted and `instead()` is returned."""

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        with kept(function.__name__):
            return function(*args, **kwargs)
        return None if instead is None else instead()

    return guarded  # pyright: ignore[reportReturnType]


class kept:  # noqa: N801  # reads as a clause: with kept("worker")
    """Guards a block: an exception in it is counted and kept from the agent."""

    __slots__ = ("failed", "where")

    def __init__(self, where: str) -> None:
        self.where = where
        self.failed = False

    def __enter__(self) -> kept:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        self.failed = True
        if RAISE:
            return False
        _count(self.where, error)
        return True


def _count(where: str, error: Exception) -> None:
    name = f"{where}:{type(error).__name__}"
    if name not in swallowed and len(swallowed) >= MAX_REASONS:
        name = "other"
    swallowed[name] = swallowed.get(name, 0) + 1
    complain(f"an error inside midwatch was kept from the agent ({name})")


def complain(message: str) -> None:
    """Queue one line for the worker to log."""
    _complaints.append(message)


def log_complaints() -> None:
    """Log what was queued, at most one line a minute. Called by the worker only."""
    global _last_complaint
    if not _complaints or time.monotonic() - _last_complaint < COMPLAINT_INTERVAL_S:
        return
    _last_complaint = time.monotonic()
    more = len(_complaints) - 1
    message = _complaints.popleft()
    _complaints.clear()
    import logging  # 6 modules that an agent in good health never needs

    suffix = f" (and {more} more)" if more else ""
    logging.getLogger("midwatch").warning("%s%s", message, suffix)


def reset() -> None:
    """Forget counts and complaints: for tests, and for a forked child."""
    global _last_complaint
    swallowed.clear()
    _complaints.clear()
    _last_complaint = float("-inf")
