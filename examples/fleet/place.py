"""Where the sample fleet keeps what it makes, how it waits, and how it is asked to stop."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

HERE = Path(__file__).resolve().parent
OUT = Path(os.environ.get("OUT_DIR") or HERE / "out")
FAST = bool(os.environ.get("FAST"))

stopping = threading.Event()


def stop_on_signals() -> None:
    """On SIGTERM (Midwatch) and SIGINT (Ctrl-C) only a flag is set: the loop ends after its item."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())


def pause(seconds: float) -> None:
    """Wait so that a person can follow; ends at once when the agent is asked to stop."""
    stopping.wait(0.01 if FAST else seconds)


def write_whole(path: Path, text: str) -> None:
    """Write a file so that whoever looks, at any time, sees all of it or none of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)
