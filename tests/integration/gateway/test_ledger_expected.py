"""What the ledger's process does when it hears that a reservation is about to come."""

from __future__ import annotations

import contextlib
import itertools
import socket
import sqlite3
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path

import pytest

from midwatch.core.calls.period import Calendar
from midwatch.gateway.ledger import keeper as room
from midwatch.gateway.ledger.keeper import Keeper
from midwatch.gateway.ledger.packing import Frames
from midwatch.gateway.ledger.sqlite import BUSY_S

STEP_S = 0.0003
"""By so much the clock of a test goes on whenever somebody looks at it."""


class Ears:
    """Hears nothing, and remembers how long it was listened for (milliseconds)."""

    def __init__(self) -> None:
        self.waits: list[float | None] = []

    def poll(self, within_ms: float | None) -> list[tuple[int, int]]:
        self.waits.append(within_ms)
        return []


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[tuple[Keeper, Ears]]:
    ours, theirs = socket.socketpair()
    keeper, ears = Keeper(ours, Frames(), folder / "ledger.db", Calendar(UTC)), Ears()
    keeper._engine.open()
    keeper._is_open = True
    ticks = itertools.count()
    keeper._clock = lambda: next(ticks) * STEP_S
    keeper._poll = ears  # type: ignore[assignment]
    try:
        yield keeper, ears
    finally:
        keeper._engine.close()
        ours.close()
        theirs.close()


def test_it_waits_awake_for_a_moment_and_then_sleeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_processors", lambda: 2)
    with opened(tmp_path) as (keeper, ears):
        keeper._take_in({"soon": True})
        keeper._take_in({"soon": True})
        keeper._hear(None)
        *awake, asleep = ears.waits
        assert (set(awake), asleep) == ({0}, None)
        assert 1 < len(awake) <= room.AWAKE_S / STEP_S + 1
        keeper._hear(None)
        assert ears.waits == [*awake, None, None], "one announcement, one moment"


def test_on_one_processor_it_makes_way_for_the_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_processors", lambda: 1)
    with opened(tmp_path) as (keeper, ears):
        keeper._take_in({"soon": True})
        keeper._hear(None)
        assert ears.waits == [0, None]


def test_it_does_not_wait_for_the_transaction_of_another_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        opened(tmp_path) as (keeper, _),
        contextlib.closing(sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)) as other,
    ):
        engine, patience = keeper._engine, []
        begin = engine.begin

        def watched() -> int:
            patience.append(engine.rows("PRAGMA busy_timeout")[0][0])
            return begin()

        monkeypatch.setattr(engine, "begin", watched)
        other.execute("BEGIN IMMEDIATE")
        keeper._take_in({"soon": True})
        keeper._hear(None)
        other.execute("ROLLBACK")
        keeper._books.apply(())
        assert patience == [0, round(BUSY_S * 1e3)]
        assert keeper.down is None
