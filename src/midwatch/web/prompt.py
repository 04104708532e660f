"""What an agent that waits for input shows on its page: the last lines of its screen, as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from midwatch.core.states import State
from midwatch.web import words

KIND: Final = "waiting-for-input"

MAX_LINES: Final = 50


@dataclass(frozen=True, slots=True)
class Prompt:
    """`question` may be empty, and `screen` too, when the agent reads without having printed."""

    question: str
    screen: str


def see(agent: Mapping[str, Any]) -> Prompt | None:
    """Return what an agent asks (in the shape of the API), or None when it does not wait for input."""
    if agent.get("state") != State.WAITING:
        return None
    listed = agent.get("incidents")
    items = cast("list[Any]", listed) if isinstance(listed, list) else []
    for item in items:
        incident = cast("dict[str, Any]", item) if isinstance(item, dict) else {}
        if incident.get("kind") == KIND:
            return _read(incident.get("evidence"))
    return None


def _read(found: object) -> Prompt:
    evidence = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    lines = evidence.get("screen")
    shown = cast("list[Any]", lines)[-MAX_LINES:] if isinstance(lines, list) else []
    text = "\n".join(words.plain(line, 300) for line in shown)
    return Prompt(words.plain(evidence.get("question") or "", 200), text)
