"""Sub-agents: what an agent says of the children that it starts, read with suspicion. Pure.

The text comes from the agent and may be anything: a birth that `mw.spawn` told of, what a process says of
itself, or what stands in its environment (`Claim`). A sub-agent is called after its parent
(`inbox:search`), so that nobody speaks for an agent that is not its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from midwatch.core import units
from midwatch.core.plain import number_of, text_of, whole_of
from midwatch.wire.notify import MAX_DEPTH

MAX_CHILDREN: Final = 100
"""Sub-agents of one agent that are followed at one time; more are counted, and live as plain children."""

TOLD_AT_ONCE: Final = 300
"""So many sub-agents may be told of at once, and then TOLD_PER_S: five a second for a minute is honest
work. What is started faster is held to its limits all the same, in silence."""

TOLD_PER_S: Final = 1.0

MAX_RUN_ID: Final = 128
FOREVER_S: Final = 366 * 86_400.0

MAX_CLAIM: Final = 200
"""Bytes of one variable by which a process says who it is; a longer one is cut, and then no name."""

_OWN_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_RUN_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")


class Slight(StrEnum):
    """Why a sub-agent is not followed, or not told of."""

    MALFORMED = "sub_agents_malformed"
    TOO_MANY = "sub_agents_too_many"
    TOO_FAST = "sub_agents_too_fast"
    TOO_DEEP = "sub_agents_too_deep"
    NO_LIMIT = "sub_agents_no_limit"


def said_of(slight: Slight, agent: str) -> str:
    """Return in a sentence what becomes of such sub-agents, and what to do."""
    match slight:
        case Slight.MALFORMED:
            return (
                f"what it said of a sub-agent cannot be true and is ignored; it needs a run id of letters and"
                f" digits that is no other run's, a process below this agent's, and a name that begins with"
                f" {agent + ':'!r} or that of the sub-agent which started it, as mw.spawn gives them"
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
        case Slight.TOO_DEEP:
            return (
                f"a sub-agent is more than {MAX_DEPTH} levels below it, and counts as part of the one above: let"
                " that one do the work itself, or have a higher one start it"
            )
        case Slight.NO_LIMIT:
            return (
                "a sub-agent of it has a limit in its environment that cannot be read, and goes without:"
                " MIDWATCH_TTL is a duration such as 10m, MIDWATCH_MEMORY a size such as 512MiB"
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


@dataclass(frozen=True, slots=True)
class Claim:
    """What a process says of itself in its environment: texts, as they stand there, cut at MAX_CLAIM."""

    agent: str = ""
    ttl: str = ""
    memory: str = ""
    outlive: str = ""


SILENT: Final = Claim()
"""What a process says that says nothing."""


@dataclass(frozen=True, slots=True)
class Born:
    """A sub-agent was started."""

    run_id: str
    agent: str
    ttl_s: float | None
    memory_bytes: int | None
    outlive: bool
    above: str | None = None
    """The run of the sub-agent that started it; None: the agent itself did."""
    itself: bool = False
    """A process of it said so, not its parent: that one does not carry its run id, what it starts does."""
    claimed: bool = False
    """Its environment says so: no process carries its run id, all carry its name."""
    pid: int | None = None
    """The number of that process as it knows it, which is its own matter within walls."""

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
    if not is_below(agent, parent):
        return None
    ttl = number_of(data, "ttl_s")
    memory = whole_of(data, "memory_bytes")
    return Born(
        run_id,
        agent,
        min(ttl, FOREVER_S) if ttl is not None and ttl > 0 else None,
        memory if memory is not None and memory > 0 else None,
        data.get("outlive") is True,
        text_of(data, "parent", MAX_RUN_ID),
        data.get("self") is True,
        pid=whole_of(data, "pid"),
    )


def claim_of(environ: Mapping[bytes, bytes]) -> Claim:
    """Return what an environment says of the process that carries it."""

    def said(name: bytes) -> str:
        return environ.get(name, b"")[:MAX_CLAIM].decode("utf-8", "replace")

    return Claim(
        said(b"MIDWATCH_AGENT"),
        said(b"MIDWATCH_TTL"),
        said(b"MIDWATCH_MEMORY"),
        said(b"MIDWATCH_OUTLIVE"),
    )


def read_claim(claim: Claim, run_id: str, parent: str) -> Born | Slight:
    """Return the sub-agent that a process below `parent` says it is, and that has this run; why not,
    where that cannot be. A limit that makes no sense is none."""
    if not is_below(claim.agent, parent):
        return Slight.MALFORMED
    ttl, memory = _limit(claim.ttl, units.parse_duration), _limit(claim.memory, units.parse_size)
    return Born(
        run_id,
        claim.agent,
        None if ttl is None else min(ttl, FOREVER_S),
        None if memory is None else int(memory),
        claim.outlive.strip().lower() in ("1", "true", "yes", "on"),
        claimed=True,
    )


def unread_limits(claim: Claim) -> bool:
    """Tell whether it declares a limit that `read_claim` cannot make sense of."""
    ttl, memory = _limit(claim.ttl, units.parse_duration), _limit(claim.memory, units.parse_size)
    return (bool(claim.ttl) and ttl is None) or (bool(claim.memory) and memory is None)


def _limit(text: str, parse: Callable[[str], float]) -> float | None:
    """Return a limit above 0: a bare number in the unit itself, otherwise as the fleet file writes it."""
    bare = text.strip()
    try:
        value = float(bare) if bare.isascii() and bare.isdigit() else parse(bare)
    except ValueError:
        return None
    return value if value > 0 else None


def is_below(agent: str, parent: str) -> bool:
    """Tell whether it is a name that a sub-agent of `parent` may have."""
    own = agent.removeprefix(f"{parent}:")
    return own != agent and all(_OWN_NAME.fullmatch(part) for part in own.split(":"))


def depth_of(agent: str) -> int:
    """Return how many levels a sub-agent is below the agent of the fleet: 1 for `inbox:search`."""
    return agent.count(":")


def parent_of(agent: str) -> str | None:
    """Return the name of the agent that a sub-agent is called after: `inbox` for `inbox:search`."""
    head, colon, _ = agent.rpartition(":")
    return head if colon else None
