"""What the loop breaker finds of a call: how far it has come, and the words for it."""

from __future__ import annotations

from dataclasses import field
from enum import IntEnum
from typing import Any, Final

from midwatch.core.sealed import sealed


class Level(IntEnum):
    """How far it has come."""

    FINE = 0
    WARN = 1
    LOOP = 2


@sealed
class Judgement:
    """What one call, or its end, shows."""

    level: Level = Level.FINE
    kind: str = ""
    """The incident's kind: runaway-loop, same-call-loop or prompt-growth."""
    sentence: str = ""
    """`41,200 tokens within 60 s, usual 190`, without the agent's name."""
    evidence: dict[str, Any] = field(default_factory=dict[str, Any])


FINE: Final = Judgement()
