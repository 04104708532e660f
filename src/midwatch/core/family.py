"""Sub-agents: what an agent says of the children that it starts, read with suspicion. Pure.

The text comes from the agent and may be anything. A sub-agent is called after its parent
(`inbox:search`), so that nobody speaks for an agent that is not its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Protocol, TypeVar

from midwatch.core.plain import number_of, text_of, whole_of

MAX_CHILDREN: Final = 100
"""Sub-agents of one agent that are followed at one time; more are counted, and live as plain children."""

TOLD_AT_ONCE: Final = 300
"""So many sub-agents may be told of at once, and then TOLD_PER_S: five a second for a minute is honest
work. What is started faster is held to its limits all the same, in silence."""

TOLD_PER_S: Final = 1.0

MAX_RUN_ID: Final = 128
FOREVER_S: Final = 366 * 86_400.0

_OWN_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_RUN_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Slight(StrEnum):
    """Why a sub-agent is not followed, or not told of."""

    MALFORMED = "sub_agents_malformed"
    TOO_MANY = "sub_agents_too_many"
    TOO_FAST = "sub_agents_too_fast"


def said_of(slight: Slight, agent: str) -> str:
    """Return in a sentence what becomes of such sub-agents, and what to do."""
    match slight:
        case Slight.MALFORMED:
            return (
                f"what it said of a sub-agent cannot be true and is ignored; it needs a run id of letters and"
                f" digits, and a name that begins with {agent + ':'!r}, as mw.spawn gives them"
            )
        case Slight.TOO_MANY:
            return (
                f"it has more than {MAX_CHILDREN} sub-agents at one time; the others are plain children, without"
                " a time or memory of their own: let it wait for some before it starts more"
            )
        case Slight.TOO_FAST:
            return (
                f"it starts sub-agents faster than can be told ({TOLD_AT_ONCE} at once, {TOLD_PER_S:g} a second);"
                " not all are shown, all are held to their limits: let fewer of them do more"
            )


class Ration:
    """How many births may be told of: a token bucket. Each has one end. Times are monotonic seconds."""

    __slots__ = ("_at", "_left")

    def __init__(self, now: float) -> None:
        self._left = float(TOLD_AT_ONCE)
        self._at = now

    def take(self, now: float) -> bool:
        """Tell whether one more may be told of now, and count it."""
        refill = max(0.0, now - self._at) * TOLD_PER_S
        self._left = min(float(TOLD_AT_ONCE), self._left + refill)
        self._at = max(self._at, now)
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class Relative(Protocol):
    """A process of a run's tree, as far as it tells to which sub-agent it belongs."""

    @property
    def pid(self) -> int: ...
    @property
    def parent(self) -> int: ...
    @property
    def state(self) -> str: ...
    @property
    def run_id(self) -> str: ...


R = TypeVar("R", bound=Relative)


@dataclass(frozen=True, slots=True)
class Born:
    """A sub-agent was started."""

    run_id: str
    agent: str
    ttl_s: float | None
    memory_bytes: int | None
    outlive: bool

    @property
    def own_time(self) -> bool:
        """How long it lives was declared with its start; what holds for plain children then does not."""
        return self.ttl_s is not None or self.outlive


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


def processes_of(members: Iterable[R], run_id: str) -> list[R]:
    """Return the living processes of a sub-agent: who carries its run id, and all below; its own first."""
    living = [member for member in members if member.state != "Z"]
    own = {member.pid for member in living if member.run_id == run_id}
    grown = True
    while grown:
        more = {m.pid for m in living if m.parent in own} - own
        grown = bool(more)
        own |= more
    found = [member for member in living if member.pid in own]
    # its own process is the one whose parent is not of the sub-agent
    return sorted(found, key=lambda member: member.parent in own)


def parent_of(agent: str) -> str | None:
    """Return the name of the agent that a sub-agent is called after: `inbox` for `inbox:search`."""
    head, colon, _ = agent.rpartition(":")
    return head if colon else None
