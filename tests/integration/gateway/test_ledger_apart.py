"""The ledger's process ends before its gateway, or its gateway before it: no money is lost, and nothing hangs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from midwatch.core.calls.budget import Admitted, Limit, Reason, Refused
from midwatch.core.calls.charge import CallQuery, CallState
from midwatch.core.calls.period import Window
from midwatch.gateway.ledger import packing
from midwatch.gateway.ledger.apart import ApartLedger
from midwatch.gateway.ledger.engine import LedgerUnusable
from midwatch.gateway.ledger.keeper import Beside

from .conftest import HELLO, Running, until  # noqa: TID252  there is no tests package

sys.path.insert(0, str(Path(__file__).parents[2]))
from ledgers import CENT, DAY, DOLLAR, PARIS, Nursery, asked, charge, counted, nursery

__all__ = ["nursery"]

WITHIN_S = 40.0


@pytest.fixture
def process(nursery: Nursery) -> Beside:
    return nursery.beside()


@pytest.fixture
async def ledger(tmp_path: Path, process: Beside) -> AsyncIterator[ApartLedger]:
    ledger = ApartLedger(tmp_path / "ledger.db", PARIS, process)
    await ledger.start()
    yield ledger
    await ledger.stop()


async def come_true(holds: Any) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not holds():
            await asyncio.sleep(0.01)


async def stopped(process: Beside) -> None:
    """Stop it, and return when it is: on a busy machine what comes in between would still be heard."""
    os.kill(process.pid, signal.SIGSTOP)
    stat = Path(f"/proc/{process.pid}/stat")
    await come_true(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")


async def admitted(ledger: ApartLedger) -> str:
    """Reserve ten cents, as soon as the ledger takes it."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            reservation = asked(10 * CENT, DAY)
            if isinstance(await ledger.reserve(reservation), Admitted):
                return reservation.call_id


async def test_a_killed_process_costs_neither_a_settlement_nor_the_next_call(
    ledger: ApartLedger, process: Beside
) -> None:
    first = await admitted(ledger)
    await stopped(process)
    ledger.settle(first, charge(7 * CENT))
    waiting = asyncio.ensure_future(ledger.reserve(asked(10 * CENT, DAY)))
    await asyncio.sleep(0)
    os.kill(process.pid, signal.SIGKILL)
    verdict = await waiting
    assert isinstance(verdict, Refused)
    assert verdict.reason is Reason.UNAVAILABLE
    second = await admitted(ledger)
    assert await counted(ledger, DAY) == [(7 * CENT, 10 * CENT)]
    assert (ledger.carries(first), ledger.carries(second)) == (False, True)
    assert ledger.down is None
    assert await ledger.audit() == {}


async def test_a_settlement_that_the_killed_process_had_written_counts_once(
    ledger: ApartLedger, process: Beside
) -> None:
    first = await admitted(ledger)
    ledger.settle(first, charge(7 * CENT))
    assert await counted(ledger, DAY) == [(7 * CENT, 0)]
    os.kill(process.pid, signal.SIGKILL)
    await come_true(lambda: ledger.counts["failed", "ended"])
    ledger.settle(first, charge(7 * CENT))
    await admitted(ledger)
    assert await counted(ledger, DAY) == [(7 * CENT, 10 * CENT)]


async def test_who_waits_for_a_frozen_process_is_refused_in_time_and_leaves_nothing_reserved(
    ledger: ApartLedger, process: Beside
) -> None:
    await stopped(process)
    try:
        verdict = await asyncio.wait_for(ledger.reserve(asked(10 * CENT, DAY)), WITHIN_S)
    finally:
        os.kill(process.pid, signal.SIGCONT)
    assert isinstance(verdict, Refused)
    assert verdict.reason is Reason.UNAVAILABLE
    await come_true(lambda: ledger.counts["settled", "released"])
    assert await counted(ledger, DAY) == [(0, 0)]
    assert ledger.in_flight == 0


async def test_what_its_gateway_settled_is_written_after_the_gateways_end_and_nothing_more(
    tmp_path: Path, process: Beside
) -> None:
    ledger = ApartLedger(tmp_path / "ledger.db", PARIS, process)
    await ledger.start()
    first = await admitted(ledger)
    await stopped(process)
    ledger.settle(first, charge(7 * CENT))
    waiting = asyncio.ensure_future(ledger.reserve(asked(50 * CENT, DAY)))
    await asyncio.sleep(0.05)
    ledger._stopping = True
    assert ledger._line is not None
    ledger._line.close()
    await come_true(lambda: ledger._line is None)
    os.kill(process.pid, signal.SIGCONT)
    assert await asyncio.to_thread(process.reap, WITHIN_S)
    assert isinstance(await waiting, Refused)
    await ledger.stop()
    with contextlib.closing(sqlite3.connect(tmp_path / "ledger.db")) as db:
        rows = db.execute("select id, state, cost_nusd from calls").fetchall()
    assert rows == [(first, CallState.SETTLED, 7 * CENT)]


async def test_an_announcement_changes_nothing_whether_a_reservation_follows_or_not(
    ledger: ApartLedger,
) -> None:
    ledger.expect()
    first = await admitted(ledger)
    for _ in range(20):
        ledger.expect()
    ledger.settle(first, charge(7 * CENT))
    ledger.expect()
    second = await admitted(ledger)
    ledger.expect()
    calls = {call.call_id: (call.state, call.cost_nusd) for call in await ledger.calls(CallQuery())}
    assert calls == {first: (CallState.SETTLED, 7 * CENT), second: (CallState.OPEN, 0)}
    assert ledger.down is None


async def test_a_ledger_of_a_newer_midwatch_is_refused_in_the_same_words(
    tmp_path: Path, process: Beside
) -> None:
    path = tmp_path / "ledger.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE ledger (one INTEGER PRIMARY KEY, tables INTEGER, version INTEGER)")
        db.execute("INSERT INTO ledger VALUES (1, 99, 0)")
        db.commit()
    ledger = ApartLedger(path, PARIS, process)
    with pytest.raises(LedgerUnusable, match="version 99"):
        await ledger.start()
    await ledger.stop()


async def test_a_value_that_no_process_can_be_told_harms_no_other_order(
    ledger: ApartLedger,
) -> None:
    first, second = await admitted(ledger), await admitted(ledger)
    ledger.settle(first, charge(CENT, usage={"odd": object()}))
    ledger.settle(second, charge(2 * CENT))
    assert await counted(ledger, DAY) == [(2 * CENT, 10 * CENT)]
    assert ledger.counts["unwritable", "fault"] == 1


async def test_more_sets_of_limits_than_are_remembered_are_all_judged_by_their_own(
    ledger: ApartLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "MAX_LIMITS", 100)
    for number in range(1, 300):
        limit = Limit("agent:inbox", Window.TOTAL, number * DOLLAR)
        verdict = await ledger.reserve(asked(0, limit))
        assert isinstance(verdict, Admitted)
        assert (verdict.left_nusd, verdict.limit) == (number * DOLLAR, limit)


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(one) for one in found]


def ended(pid: int) -> bool:
    """Tell whether a process is no more; whoever its parent is now may not have looked yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2 if hasattr(os, "sched_getaffinity") else True,
    reason="with one processor a gateway keeps its books itself",
)
def test_a_gateway_carries_on_without_its_ledgers_process_and_takes_it_along_at_its_own_end(
    stopped: Running,
) -> None:
    stopped.fleet(agents={"inbox": {"command": ["x"], "budget": {"total": "$1"}}})
    stopped.start()
    assert stopped.process is not None
    (keeper,) = children(stopped.process.pid)
    assert Path(f"/proc/{keeper}/comm").read_text().strip() == "midwatch ledger"
    shown = Path(f"/proc/{keeper}/cmdline").read_bytes()
    assert shown.rstrip(b"\0") == b"midwatch ledger", "nobody takes it for the gateway"
    assert stopped.ask("POST", "/v1/chat/completions", HELLO).status == 200
    os.kill(keeper, signal.SIGKILL)
    until(lambda: stopped.ask("POST", "/v1/chat/completions", HELLO).status == 200, "it goes on")
    assert until(lambda: not children(stopped.process.pid) if stopped.process else False)
    assert stopped.end() == 0
    stopped.start()
    (keeper,) = children(stopped.process.pid)
    stopped.end(signal.SIGKILL)
    until(lambda: ended(keeper), "the ledger's process ends")
