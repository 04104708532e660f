"""Ledgers on every database, and calls to fill them with: for the suites of the ledger's contract."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from midwatch.core.calls.account import Payer
from midwatch.core.calls.budget import Admitted, Limit
from midwatch.core.calls.charge import Charge, Reservation
from midwatch.core.calls.period import Calendar, Window
from midwatch.gateway.ledger.durable import DurableLedger
from midwatch.gateway.ledger.keeper import Beside
from midwatch.gateway.ledger.memory import MemoryEngine, MemoryLedger
from midwatch.gateway.ledger.opening import ledger_at
from midwatch.wire.ids import new_id

sys.path.insert(0, str(Path(__file__).parent))
from databases import Postgres, postgres

DOLLAR = 10**9
CENT = DOLLAR // 100
DAY_S = 86_400
NOON = datetime(2026, 3, 28, 11, 2, tzinfo=UTC).timestamp()
INBOX = Payer("inbox", group="support", run="r1", session="s1", key="ci", tags={"customer": "acme"})
DAY = Limit("agent:inbox", Window.DAY, DOLLAR)
PARIS = Calendar(ZoneInfo("Europe/Paris"))

AnyLedger = DurableLedger | MemoryLedger
Open = Callable[[], Awaitable[AnyLedger]]


@pytest.fixture(scope="module")  # so before the house counts a test's children
def server() -> Iterator[Postgres]:
    with postgres() as running:
        yield running


_NURSERY = """
import os, signal, socket, sys
from midwatch.gateway.ledger import keeper
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
line = socket.socket(fileno=int(sys.argv[1]))
line.sendall(b"+")
while fds := socket.recv_fds(line, 1, 1)[1]:
    pid = os.fork()
    if not pid:
        line.close()
        try:
            keeper.serve(socket.socket(fileno=fds[0]))
        finally:
            os._exit(0)
    os.close(fds[0])
    line.sendall(pid.to_bytes(4, "big"))
"""


class Nursery:
    """Begins ledgers' processes. The gateway forks its own; a process with threads, as that of tests, must not."""

    def __init__(self) -> None:
        self._line, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-c", _NURSERY, str(theirs.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        assert self._line.recv(1) == b"+"

    def beside(self) -> Beside:
        """Return a process that waits for its ledger."""
        ours, theirs = socket.socketpair()
        with theirs:
            socket.send_fds(self._line, [b"1"], [theirs.fileno()])
        return Born(ours, int.from_bytes(self._line.recv(4), "big"))

    def close(self) -> None:
        self._line.close()
        self._process.wait(60)


class Born(Beside):
    """Somebody else's child."""

    def reap(self, within_s: float = 1.0) -> bool:
        deadline = time.monotonic() + within_s
        while Path(f"/proc/{self.pid}").exists():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True


@pytest.fixture(scope="module")  # so before the house counts a test's children
def nursery() -> Iterator[Nursery]:
    with contextlib.closing(Nursery()) as made:
        yield made


@pytest.fixture(params=["memory", "sqlite", "apart", "postgres"])
def place(request: pytest.FixtureRequest, server: Postgres, tmp_path: Path) -> str:
    places: dict[str, Callable[[], str]] = {
        "memory": lambda: "memory",
        "sqlite": lambda: str(tmp_path / "ledger.db"),
        "apart": lambda: str(tmp_path / "apart.db"),
        "postgres": server.fresh,
    }
    return places[request.param]()


@pytest.fixture
async def another(place: str, nursery: Nursery) -> AsyncIterator[Open]:
    """Opens one more ledger on the same database."""
    opened: list[AnyLedger] = []
    memory = MemoryEngine()
    memory.open()

    async def start() -> AnyLedger:
        apart = nursery.beside() if place.endswith("apart.db") else None
        ledger = (
            MemoryLedger(PARIS, memory) if place == "memory" else ledger_at(place, PARIS, apart)
        )
        await ledger.start()
        opened.append(ledger)
        return ledger

    yield start
    for ledger in opened:
        await ledger.stop()
    memory.close()


@pytest.fixture
async def ledger(another: Open) -> AnyLedger:
    return await another()


def asked(
    worst: int = 10 * CENT, *limits: Limit, payer: Payer = INBOX, at: float = NOON, **more: Any
) -> Reservation:
    values = {"deadline_at": at + 600, "model_asked": "openai/gpt-4o-mini", "gateway": "g1"}
    call_id = new_id(int(at * 1000))
    return Reservation(call_id, payer, worst, at, limits=limits, **{**values, **more})


def charge(cost: int, at: float = NOON + 1, **more: Any) -> Charge:
    return Charge(cost, at, model="openai/gpt-4o-mini", provider="openai", **more)


async def made(ledger: AnyLedger, cost: int, *limits: Limit, **more: Any) -> str:
    """Reserve and settle a call."""
    reservation = asked(cost, *limits, **more)
    assert isinstance(await ledger.reserve(reservation), Admitted)
    ledger.settle(reservation.call_id, charge(cost, reservation.at + 1))
    return reservation.call_id


async def counted(ledger: AnyLedger, *limits: Limit, at: float = NOON) -> list[tuple[int, int]]:
    return [(x.spent_nusd, x.reserved_nusd) for x in await ledger.left(limits, at)]
