"""How long settlements that nobody waits for stay for company in the ledger's process."""

from __future__ import annotations

import socket
from datetime import UTC
from pathlib import Path

from midwatch.core.calls.period import Calendar
from midwatch.core.pace import Pace
from midwatch.gateway.ledger.durable import BURST, LINGER_S
from midwatch.gateway.ledger.keeper import INTERVAL_S, SOON_S, Keeper
from midwatch.gateway.ledger.packing import Frames


class Watched(Keeper):
    """Waits for nothing, and remembers for how long it would have."""

    def __init__(self, folder: Path) -> None:
        ours, self.theirs = socket.socketpair()
        super().__init__(ours, Frames(), folder / "ledger.db", Calendar(UTC))
        self.waits: list[float | None] = []
        self.comes_after = 99

    def lingers(self, pace: Pace) -> list[float | None]:
        self._linger(pace)
        return self.waits

    def _sleep(self, at_most_s: float | None) -> None:
        self.waits.append(at_most_s)
        self._awaited = len(self.waits) >= self.comes_after

    def close(self) -> None:
        self._line.close()
        self.theirs.close()


def test_between_two_calls_they_are_written_at_once(tmp_path: Path) -> None:
    keeper = Watched(tmp_path)
    assert keeper.lingers(Pace(INTERVAL_S, BURST)) == [SOON_S]
    keeper.close()


def test_under_load_they_go_with_the_next_reservation(tmp_path: Path) -> None:
    keeper, busy = Watched(tmp_path), Pace(1e9, BURST)
    busy.step(0.0)
    assert keeper.lingers(busy) == [SOON_S, LINGER_S]
    keeper.close()


def test_a_reservation_that_comes_meanwhile_waits_no_longer(tmp_path: Path) -> None:
    keeper, busy = Watched(tmp_path), Pace(1e9, BURST)
    keeper.comes_after = 1
    busy.step(0.0)
    assert keeper.lingers(busy) == [SOON_S]
    keeper.close()
