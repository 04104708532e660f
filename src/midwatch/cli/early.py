"""Hears who asks us to end while the command line is still being loaded: the first thing that is done.

Loading takes a fifth of a second. Whoever stops a container in that time is answered by nobody: the
kernel drops what process 1 has no handler for, and the container is killed after its grace.
"""

from __future__ import annotations

import signal
from typing import Any

heard: list[int] = []
"""Signals that came, in order."""

_before: dict[int, Any] = {}


def listen() -> None:
    """Remember SIGTERM and SIGQUIT from now on."""
    for number in (signal.SIGTERM, signal.SIGQUIT):
        ignored = signal.getsignal(number) is signal.SIG_IGN
        if number not in _before and (number is signal.SIGTERM or not ignored):
            _before[number] = signal.signal(number, _hear)


def cease() -> None:
    """Let the signals do again what they did before, and forget what came."""
    while _before:
        number, handler = _before.popitem()
        signal.signal(number, handler)
    heard.clear()


def _hear(number: int, _frame: object) -> None:
    heard.append(number)
