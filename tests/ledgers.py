"""Ledgers on every database, and calls to fill them with: for the suites of the ledger's contract."""

from __future__ import annotations

import sys
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


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def place(request: pytest.FixtureRequest, server: Postgres, tmp_path: Path) -> str:
    places: dict[str, Callable[[], str]] = {
        "memory": lambda: "memory",
        "sqlite": lambda: str(tmp_path / "ledger.db"),
        "postgres": server.fresh,
    }
    return places[request.param]()


@pytest.fixture
async def another(place: str) -> AsyncIterator[Open]:
    """Opens one more ledger on the same database."""
    opened: list[AnyLedger] = []
    memory = MemoryEngine()
    memory.open()

    async def start() -> AnyLedger:
        ledger = MemoryLedger(PARIS, memory) if place == "memory" else ledger_at(place, PARIS)
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
