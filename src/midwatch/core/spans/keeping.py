"""What telemetry may stay, and whether more may come: ages, sizes, and the room that is left on the disk.

Everything goes by time, the oldest first, so that what stays of an agent is whole from some moment on. Sizes cut at
the end of a piece (a segment, a part): it is given back to the disk as it is, without being written anew.

Telemetry fails open, but not into a full disk: below `hub.keep.free` it is refused, so that what must be written
(sealing, which frees; incidents; the ledger) still finds room. Warned is at twice as much.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol, runtime_checkable

from midwatch.core.ports import Room
from midwatch.core.spans.form import Signal
from midwatch.core.spans.store import Footprint, Piece, Settled
from midwatch.core.telemetry import Keep, SampleRule
from midwatch.core.units import show_size

NEVER: Final = -(2**63)
"""Nothing is older than this."""

BACK: Final = 1.1
"""A level is left when there is a tenth more room than where it began: a disk at the border must not flap."""


@dataclass(frozen=True, slots=True)
class Expiry:
    """From when on rows stay: what began before goes. Nanoseconds since 1970."""

    usual: Mapping[Signal, int] = field(default_factory=dict[Signal, int])
    agents: Mapping[str, Mapping[Signal, int]] = field(
        default_factory=dict[str, Mapping[Signal, int]]
    )
    """Of agents for which something else holds; all of their signals."""
    sums_since_s: Mapping[str, int] = field(default_factory=dict[str, int])
    """By kind of sums (`minutes`, `hours`, `days`), from when on they stay: Unix seconds, whole; left out: for ever."""

    def before_ns(self, signal: Signal, agent: str) -> int:
        """Return what an agent's rows must not be older than."""
        return self.agents.get(agent, self.usual).get(signal, NEVER)

    @property
    def lets_go(self) -> bool:
        """Tell whether anything may go at all."""
        return any(
            at != NEVER for each in (self.usual, *self.agents.values()) for at in each.values()
        )


@runtime_checkable
class Expires(Protocol):
    """A store that can let go by agent and signal in one step. One that cannot is told to `drop`."""

    async def expire(self, expiry: Expiry) -> Settled:
        """Remove what is older; `expired` and `freed_bytes` say what went. Of a segment that is not old as a whole
        a day may stay. Raises StoreError."""
        ...


class Sampling(Protocol):
    """Who lets traces go that are over."""

    async def round(self, now: float) -> int:
        """Judge what has become quiet; return how many spans went. `now` is the time that is believed, whatever the
        wall clock says. Raises StoreError."""
        ...


@runtime_checkable
class Samples(Protocol):
    """A store that lets traces go by rules."""

    def letting(
        self, rules: Callable[[], Sequence[SampleRule]], group: Callable[[str], str | None]
    ) -> Sampling:
        """Return who does. `rules` and `group` (of an agent) return what the fleet file says at the time."""
        ...


def due(keep: Keep, held: Footprint, now: float) -> Expiry:
    """Return what ages and sizes let go of what a store holds, at `now` (Unix seconds)."""
    whole = NEVER
    if keep.size is not None:
        whole = cut(held.pieces, held.size_bytes - keep.size)
    usual = {signal: max(whole, _oldest(keep, "", signal, now)) for signal in Signal}
    agents: dict[str, Mapping[Signal, int]] = {}
    for agent, own in keep.agents.items():
        least = whole
        if own.size is not None:
            mine = [of for piece in held.pieces if (of := piece.of(agent)) is not None]
            size = sum(part.size_bytes for part in held.agents.get(agent, {}).values())
            least = max(whole, cut(mine, size - own.size))
        agents[agent] = {signal: max(least, _oldest(keep, agent, signal, now)) for signal in Signal}
    return Expiry(usual, agents, _sums(keep, [usual, *agents.values()], now))


def _sums(keep: Keep, kept: Iterable[Mapping[Signal, int]], now: float) -> dict[str, int]:
    """Return from when on sums stay: those by minute as long as the spans of anybody, the others by their own age."""
    found: dict[str, int] = {}
    if keep.sums is not None:
        found = dict.fromkeys(("hours", "days"), round(now - keep.sums))
    oldest = min(each[Signal.SPANS] for each in kept)
    if oldest != NEVER:
        found["minutes"] = oldest // 10**9
    return found


def _oldest(keep: Keep, agent: str, signal: Signal, now: float) -> int:
    age_s = keep.age_s(agent, signal.value)
    return NEVER if age_s is None else round((now - age_s) * 1e9)


def cut(pieces: Iterable[Piece], excess_bytes: int) -> int:
    """Return before when all must go so that at least so many bytes are freed; NEVER when nothing need go."""
    at = NEVER
    for piece in sorted(pieces, key=lambda each: each.to_ns):
        if excess_bytes <= 0:
            break
        excess_bytes -= piece.size_bytes
        at = piece.to_ns + 1
    return at


class Level(StrEnum):
    """How the disk is."""

    FINE = "fine"
    LOW = "low"
    """Telemetry is taken, people are warned."""
    FULL = "full"
    """Telemetry is refused."""


@dataclass(frozen=True, slots=True)
class Guarded:
    """How the disk is, and why."""

    level: Level
    reason: str
    free_bytes: int
    limit_bytes: int
    """Below it telemetry is refused."""


def guard(room: Room, free_bytes: int, before: Level = Level.FINE) -> Guarded:
    """Return how a disk is of which `free_bytes` are to be left alone; `before` is how it was."""
    free = room.free_bytes
    full = free_bytes * (BACK if before is Level.FULL else 1)
    low = 2 * free_bytes * (1 if before is Level.FINE else BACK)
    left = f"{show_size(free)} of {show_size(room.total_bytes)} are free on the hub's disk"
    if free < full:
        level = Level.FULL
        reason = (
            f"{left}, fewer than hub.keep.free ({show_size(free_bytes)}): telemetry is refused until there is room;"
            " free some, or keep less (hub.keep.size, midwatch forget)"
        )
    elif free < low:
        level = Level.LOW
        reason = f"{left}; below {show_size(free_bytes)} telemetry is refused: free some, or keep less (hub.keep.size)"
    else:
        level, reason = Level.FINE, left
    return Guarded(level, reason, free, free_bytes)
