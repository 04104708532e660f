"""A hub whose clocks are what a file says beside the machine's: `jumping_hub.py FILE LINE [arguments of midwatch.hub]`.

In FILE are seconds that the wall clock is ahead, and seconds that all clocks are: time that went by. LINE is an open
socket on which somebody wants to be asked before each fsync, or -1. The clocks are set before anything is imported, so
that whoever keeps `time.time` keeps this one.
"""

import contextlib
import runpy
import selectors
import socket
import sys
import time
from pathlib import Path
from typing import Any

import disks

LOOK_S = 0.05

_real, _monotonic, _kind = time.time, time.monotonic, time.clock_gettime
_file = Path(sys.argv[1])
_read_at, _wall, _gone_by = float("-inf"), 0.0, 0.0


def _look() -> None:
    global _read_at, _wall, _gone_by
    now = _monotonic()
    if now - _read_at >= LOOK_S:
        _read_at = now
        with contextlib.suppress(OSError, ValueError):  # not there yet: as before
            _wall, _gone_by = map(float, _file.read_text().split())


def _jumping() -> float:
    _look()
    return _real() + _wall + _gone_by


def _passing() -> float:
    _look()
    return _monotonic() + _gone_by


def _of_kind(kind: int) -> float:
    _look()
    return _kind(kind) + _gone_by + (_wall if kind == time.CLOCK_REALTIME else 0.0)


class Waking(selectors.DefaultSelector):
    """Looks at the clock now and then: time that goes by at once would be slept through."""

    def select(self, timeout: float | None = None) -> list[Any]:
        return super().select(LOOK_S if timeout is None else min(timeout, LOOK_S))


time.time, time.monotonic, time.clock_gettime = _jumping, _passing, _of_kind
time.time_ns = lambda: round(_jumping() * 1e9)
selectors.DefaultSelector = Waking
line = int(sys.argv[2])
if line >= 0:
    with socket.socket(fileno=line) as asked:
        disks.ask_before_syncing(asked)
sys.argv = ["midwatch.hub", *sys.argv[3:]]
runpy.run_module("midwatch.hub", run_name="__main__")
