"""What the programs share: the drill's directory, notes in it, and the wait until somebody watches.

A failure counts from when it could be seen, so a program misbehaves only once its instance is ready.
"""

import os
import time
from pathlib import Path

WORK = Path(os.environ["DRILL_DIR"])
READY = "ready"
"""The runner makes this file when the private instance is up."""


def wait_until_watched() -> None:
    while not (WORK / READY).exists():
        time.sleep(0.02)


def note(name: str, text: object) -> None:
    """Write a note that the runner reads, whole or not at all."""
    (WORK / f"{name}.new").write_text(str(text))
    (WORK / f"{name}.new").rename(WORK / name)


def evidence(at: float | None = None) -> None:
    """Say that the failure happens now, or happened then (Unix seconds)."""
    note("evidence", time.time() if at is None else at)


def stay() -> None:
    """Do nothing more, and live: an agent that ends would be a failure of its own."""
    while True:
        time.sleep(3600)


def seen(name: str) -> bool:
    """Tell whether this life, or an earlier one, has written the note."""
    return (WORK / name).exists()


def count(name: str) -> int:
    """Add a line to a note and return how many it has: lives, or beats."""
    with (WORK / name).open("a") as lines:
        lines.write(f"{os.getpid()}\n")
    return len((WORK / name).read_text().split())
