"""Who may bring in how much while there is more than can be taken: turns, and room to wait for one.

Two rules. Turns go round: each sender in line is served by bytes, not by requests (deficit round robin), so that a
calm one waits for one round, never for a flood. And whoever waits may take only as much room as is still free
(dynamic thresholds): one flood fills half of it, two a third each, and there is always room for whoever comes next.
Sources: Shreedhar and Varghese 1995; Choudhury and Hahne 1998.

Pure: no clock and no waiting in here. `ingest/admission` does the waiting.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Final

INSIDE_BYTES: Final = 8 * 1024 * 1024
"""What may be decoded and written at one time. More would only wait elsewhere: at 20,000 spans of 400 bytes a
second this is one second, at the usual load a twentieth of it is in use."""

WAITING_BYTES: Final = 64 * 1024 * 1024
"""What may wait for its turn."""

WAITING: Final = 4_096
"""Requests that may wait, however small."""

QUANTUM: Final = 256 * 1024
"""Bytes that a sender may bring in when it is its turn: about two posts of 512 spans."""


class State(Enum):
    WAITS = "waits"
    INSIDE = "inside"
    OVER = "over"


@dataclass(slots=True, eq=False)
class Ticket:
    """One request on its way in."""

    who: str
    size: int
    state: State = State.WAITS


class Shares:
    """Who is inside, and who waits."""

    def __init__(
        self,
        inside_bytes: int = INSIDE_BYTES,
        waiting_bytes: int = WAITING_BYTES,
        waiting: int = WAITING,
        quantum: int = QUANTUM,
    ) -> None:
        self._inside_limit = inside_bytes
        self._waiting_limit = waiting_bytes
        self._most = waiting
        self._quantum = quantum
        self.inside = 0
        """Bytes inside."""
        self.waiting = 0
        """Bytes that wait."""
        self._queues: dict[str, deque[Ticket]] = {}
        self._held: dict[str, int] = {}
        self._credit: dict[str, int] = {}
        self._round: deque[str] = deque()
        self._count = 0

    def ask(self, who: str, size: int) -> Ticket | None:
        """Return a ticket that is inside or waits, or None: its share of the room is taken.

        Something larger than all of the inside goes in alone.
        """
        ticket = Ticket(who, size)
        if not self._round and self._fits(size):
            self._enter(ticket)
            return ticket
        free = self._waiting_limit - self.waiting
        if self._count >= self._most or self._held.get(who, 0) + size > free:
            return None
        if who not in self._queues:
            self._queues[who] = deque()
            self._credit[who] = self._quantum
            self._round.append(who)
        self._queues[who].append(ticket)
        self._held[who] = self._held.get(who, 0) + size
        self.waiting += size
        self._count += 1
        return ticket

    def enter(self) -> list[Ticket]:
        """Return those whose turn it is now; they are inside."""
        called: list[Ticket] = []
        while self._round:
            who = self._round[0]
            ticket = self._queues[who][0]
            if self._credit[who] < ticket.size:
                self._credit[who] += self._quantum
                self._round.rotate(-1)
                continue
            if not self._fits(ticket.size):
                break
            self._credit[who] -= ticket.size
            self._unwait(ticket)
            self._enter(ticket)
            called.append(ticket)
        return called

    def leave(self, ticket: Ticket) -> None:
        """Note that a request is done, or went away while it waited. Ask `enter` whose turn it is then."""
        if ticket.state is State.WAITS:
            self._unwait(ticket)
        elif ticket.state is State.INSIDE:
            self.inside -= ticket.size
        ticket.state = State.OVER

    @property
    def senders(self) -> int:
        """How many senders wait."""
        return len(self._round)

    def _fits(self, size: int) -> bool:
        return self.inside == 0 or self.inside + size <= self._inside_limit

    def _enter(self, ticket: Ticket) -> None:
        ticket.state = State.INSIDE
        self.inside += ticket.size

    def _unwait(self, ticket: Ticket) -> None:
        queue = self._queues[ticket.who]
        queue.remove(ticket)
        self.waiting -= ticket.size
        self._held[ticket.who] -= ticket.size
        self._count -= 1
        if not queue:
            # who has nothing to bring saves up nothing
            self._round.remove(ticket.who)
            del self._queues[ticket.who], self._held[ticket.who], self._credit[ticket.who]
