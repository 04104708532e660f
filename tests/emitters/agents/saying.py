"""What a script of a framework saw, turn by turn: one JSON document in the file that $SAYS names."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WHO = os.environ["WHO"]
"""Stands in every question: no two who ask are asked the same."""

_turns: list[dict[str, Any]] = []


@contextmanager
def turn(name: str) -> Iterator[dict[str, Any]]:
    """Keep what the block notes of one turn, and of the error that ends it what its user gets to see."""
    told: dict[str, Any] = {"turn": name}
    _turns.append(told)
    began = time.monotonic()
    try:
        yield told
    except Exception as error:
        told["error"] = {
            "class": type(error).__name__,
            "status": getattr(error, "status_code", None),
            "says": str(error),
            "seconds": round(time.monotonic() - began, 3),
        }


def over() -> None:
    """Write it all down: whole, or not at all."""
    says = Path(os.environ["SAYS"])
    beside = says.with_suffix(".part")
    beside.write_text(json.dumps(_turns, indent=1))
    beside.rename(says)
