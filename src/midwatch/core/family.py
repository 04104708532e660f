"""Sub-agents: what an agent says of the children that it starts, read with suspicion. Pure.

The text comes from the agent and may be anything. A sub-agent is called after its parent
(`inbox:search`), so that nobody speaks for an agent that is not its own.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final

from midwatch.core.plain import number_of, text_of, whole_of

MAX_CHILDREN: Final = 100
"""Sub-agents of one run that are followed at one time; more are counted, and live as plain children."""

MAX_RUN_ID: Final = 128
FOREVER_S: Final = 366 * 86_400.0

_OWN_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_RUN_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")


@dataclass(frozen=True, slots=True)
class Born:
    """A sub-agent was started."""

    run_id: str
    agent: str
    ttl_s: float | None
    memory_bytes: int | None
    outlive: bool


@dataclass(frozen=True, slots=True)
class Ended:
    """A sub-agent ended; its parent took its status. Negative: ended by that signal."""

    run_id: str
    code: int


def read_child(text: str, parent: str) -> Born | Ended | None:
    """Return what an agent said of a child, or None for what cannot be believed."""
    try:
        said: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    data: dict[str, Any] = said  # pyright: ignore[reportUnknownVariableType]
    run_id, agent = text_of(data, "run", MAX_RUN_ID), text_of(data, "agent", MAX_RUN_ID)
    if run_id is None or _RUN_ID.fullmatch(run_id) is None:
        return None
    if agent is None:
        code = data.get("code")
        whole = isinstance(code, int) and not isinstance(code, bool) and -128 <= code <= 255
        return Ended(run_id, code) if whole else None  # pyright: ignore[reportArgumentType]
    own = agent.removeprefix(f"{parent}:")
    if own == agent or any(_OWN_NAME.fullmatch(part) is None for part in own.split(":")):
        return None
    ttl = number_of(data, "ttl_s")
    memory = whole_of(data, "memory_bytes")
    return Born(
        run_id,
        agent,
        min(ttl, FOREVER_S) if ttl is not None and ttl > 0 else None,
        memory if memory is not None and memory > 0 else None,
        data.get("outlive") is True,
    )


def parent_of(agent: str) -> str | None:
    """Return the name of the agent that a sub-agent is called after: `inbox` for `inbox:search`."""
    head, colon, _ = agent.rpartition(":")
    return head if colon else None
