"""The disk, the file and the server misbehave: calls are refused in time and by reason, and all heals by itself."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest

from midwatch.core.calls.account import Payer
from midwatch.core.calls.budget import Admitted, Limit, Reason, Refused
from midwatch.core.calls.charge import CallState, Charge, Reservation
from midwatch.core.calls.period import Calendar, Window
from midwatch.core.errors import MidwatchError
from midwatch.gateway.ledger import durable
from midwatch.gateway.ledger.books import Books
from midwatch.gateway.ledger.durable import DurableLedger
from midwatch.gateway.ledger.engine import LedgerDown, LedgerUnusable
from midwatch.gateway.ledger.opening import ledger_at
from midwatch.gateway.ledger.orders import Order, Reserve, Settle
from midwatch.gateway.ledger.sqlite import Disk, SqliteEngine
from midwatch.wire.ids import new_id

sys.path.insert(0, str(Path(__file__).parents[2]))
from databases import Postgres, postgres

NOON = 1_774_695_720.0
DOLLAR = 10**9

pytestmark = [pytest.mark.xdist_group("postgres"), pytest.mark.timeout(110)]
DAY = Limit("agent:inbox", Window.DAY, DOLLAR)
PARIS = Calendar(ZoneInfo("Europe/Paris"))
WITHIN_S = 30


def asked(worst: int = DOLLAR // 100) -> Reservation:
    return Reservation(new_id(), Payer("inbox", run="r1"), worst, NOON, NOON + 600, limits=(DAY,))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


@pytest.fixture
async def ledger(path: Path) -> AsyncIterator[DurableLedger]:
    ledger = ledger_at(path, PARIS)
    await ledger.start()
    yield ledger
    await ledger.stop()


async def refused(ledger: DurableLedger) -> str:
    """Return why a call is refused; the ledger must say so within what a call waits."""
    async with asyncio.timeout(durable.ANSWER_S * 5):
        verdict = await ledger.reserve(asked())
    assert isinstance(verdict, Refused)
    assert verdict.reason is Reason.UNAVAILABLE
    assert verdict.retry_after_s is not None
    return verdict.sentence


async def admitted(ledger: DurableLedger) -> Reservation:
    """Wait until calls are admitted again, by asking."""
    deadline = time.monotonic() + WITHIN_S
    while True:
        reservation = asked()
        if isinstance(await ledger.reserve(reservation), Admitted):
            return reservation
        assert time.monotonic() < deadline, "the ledger did not heal"


async def spent(ledger: DurableLedger) -> tuple[int, int]:
    deadline = time.monotonic() + WITHIN_S
    while True:
        try:
            (left,) = await ledger.left([DAY], NOON)
            return left.spent_nusd, left.reserved_nusd
        except LedgerDown:
            assert time.monotonic() < deadline, "the ledger did not heal"


@contextmanager
def full(path: Path) -> Iterator[None]:
    """Let the file grow no more, as a full disk does: through SQLite itself, which checks before it writes."""
    real = SqliteEngine.begin

    def begin(engine: SqliteEngine) -> int:
        engine.rows("PRAGMA max_page_count = 1")
        return real(engine)

    SqliteEngine.begin = begin  # type: ignore[method-assign]
    try:
        yield
    finally:
        SqliteEngine.begin = real  # type: ignore[method-assign]


async def grow(ledger: DurableLedger) -> None:
    """Make calls until one does not fit into the pages that are there."""
    for _ in range(500):
        big = asked(0)
        if isinstance(await ledger.reserve(big), Refused):
            return
        ledger.settle(big.call_id, Charge(0, NOON, usage={"text": "x" * 8000}))
    raise AssertionError("the file found room")


async def test_a_full_disk_refuses_calls_and_loses_no_settlement(
    ledger: DurableLedger, path: Path
) -> None:
    flying = await admitted(ledger)
    with full(path):
        await grow(ledger)
        assert "the disk is full" in await refused(ledger)
        ledger.settle(flying.call_id, Charge(DOLLAR // 200, NOON + 1))
        assert ledger.counts["unavailable", "full"] > 0
    # pages may be added again
    db = ledger._engine
    assert isinstance(db, SqliteEngine)
    db.rows("PRAGMA max_page_count = 1000000")
    await admitted(ledger)
    assert await spent(ledger) == (DOLLAR // 200, DOLLAR // 100)
    was = await ledger.call(flying.call_id)
    assert was is not None
    assert was.state is CallState.SETTLED
    assert await ledger.audit() == {}


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system takes root")
async def test_a_file_system_without_room_refuses_and_heals(tmp_path: Path) -> None:
    place = tmp_path / "small"
    place.mkdir()
    options = ["-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if subprocess.run(["mount", *options], check=False, capture_output=True).returncode:
        pytest.skip("this machine mounts nothing")
    try:
        ledger = ledger_at(place / "ledger.db", PARIS)
        await ledger.start()
        first = await admitted(ledger)
        (place / "filler").write_bytes(b"")
        with (place / "filler").open("ab", buffering=0) as filler:
            while True:
                try:
                    filler.write(b"x" * 4096)
                except OSError:
                    break
        await grow(ledger)
        ledger.settle(first.call_id, Charge(1, NOON + 1))
        (place / "filler").unlink()
        await admitted(ledger)
        assert (await spent(ledger))[0] == 1
        assert await ledger.audit() == {}
        await ledger.stop()
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


async def test_a_lock_that_another_process_keeps_refuses_calls_in_time(
    ledger: DurableLedger, path: Path
) -> None:
    flying = await admitted(ledger)
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        ledger.settle(flying.call_id, Charge(7, NOON + 1))
        assert "lock" in await refused(ledger)
        other.execute("ROLLBACK")
    other.close()
    await admitted(ledger)
    assert (await spent(ledger))[0] == 7


async def test_a_ledger_whose_thread_hangs_refuses_calls_all_the_same(
    ledger: DurableLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go, real = threading.Event(), SqliteEngine.commit

    def hang(engine: SqliteEngine) -> None:
        let_go.wait(WITHIN_S)
        real(engine)

    monkeypatch.setattr(SqliteEngine, "commit", hang)
    verdicts = await asyncio.gather(*(ledger.reserve(asked()) for _ in range(5)))
    assert all(isinstance(v, Refused) and "did not answer in 2 s" in v.sentence for v in verdicts)
    assert ledger.counts["unavailable", "slow"] == 5
    let_go.set()
    monkeypatch.undo()
    # what was committed behind their backs is given back
    deadline = time.monotonic() + WITHIN_S
    while (await spent(ledger))[1]:
        assert time.monotonic() < deadline
    await admitted(ledger)


async def test_a_defect_harms_no_other_order_and_the_ledger_lives_on(
    ledger: DurableLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoiled, sound = await admitted(ledger), await admitted(ledger)
    bad, real = asked(), Books.decide

    def decide(books: Books, order: Order, batch: Any) -> Any:
        if isinstance(order, Reserve) and order.reservation is bad:
            raise KeyError("nobody foresaw it")
        if isinstance(order, Settle) and order.call_id == spoiled.call_id:
            raise IndexError("nor that")
        return real(books, order, batch)

    monkeypatch.setattr(Books, "decide", decide)
    ledger.settle(spoiled.call_id, Charge(1, NOON))
    ledger.settle(sound.call_id, Charge(2, NOON))
    verdicts = await asyncio.gather(*(ledger.reserve(r) for r in (asked(), bad, asked())))
    assert [type(verdict) for verdict in verdicts] == [Admitted, Refused, Admitted]
    assert "a fault of the gateway" in verdicts[1].sentence  # type: ignore[union-attr]
    deadline = time.monotonic() + WITHIN_S
    while not ledger.counts["unwritable", ""]:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    assert ledger.counts["failed", "fault"] == 1 + durable.MAX_FAULTS
    monkeypatch.undo()
    # what could not be settled counts at its worst case
    assert await spent(ledger) == (2, 3 * DOLLAR // 100)
    assert ledger.down is None


async def test_a_caller_that_ends_just_when_its_answer_comes_leaves_no_reservation_behind(
    ledger: DurableLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver = ledger._deliver

    def delivered(*what: Any) -> None:
        deliver(*what)
        task.cancel()

    monkeypatch.setattr(ledger, "_deliver", delivered)
    task = asyncio.create_task(ledger.reserve(asked()))
    with pytest.raises(asyncio.CancelledError):
        await task
    monkeypatch.undo()
    assert await spent(ledger) == (0, 0)
    assert ledger.counts["abandoned", ""] == 1


async def test_a_ledger_without_its_thread_says_so(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = SqliteEngine(path)
    monkeypatch.setattr(DurableLedger, "_run", lambda _: engine.close())
    ledger = DurableLedger(engine, SqliteEngine(path, read_only=True), PARIS)
    await ledger.start()
    deadline = time.monotonic() + WITHIN_S
    while ledger.down is None:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    assert ledger.down == "its thread has ended; restart the gateway"
    await ledger.stop()


async def test_a_damaged_file_refuses_and_a_mended_one_is_taken_up(path: Path) -> None:
    first = ledger_at(path, PARIS)
    await first.start()
    await admitted(first)
    await first.stop()
    good = path.read_bytes()
    path.write_bytes(b"no database" * 1000)
    ledger = ledger_at(path, PARIS)
    await ledger.start()
    assert ledger.down is not None
    assert "no database" in await refused(ledger)
    assert ledger.counts["unavailable", "corrupt"] > 0
    path.write_bytes(good)
    await admitted(ledger)
    assert ledger.down is None
    assert await spent(ledger) == (0, DOLLAR // 50)
    await ledger.stop()


@pytest.mark.parametrize("how", ["removed", "replaced"])
async def test_a_file_that_vanishes_is_noticed_and_what_is_in_flight_is_entered_anew(
    ledger: DurableLedger, path: Path, how: str
) -> None:
    flying = [await admitted(ledger) for _ in range(3)]
    for file in path.parent.glob("ledger.db*"):
        file.rename(file.with_name(f"old-{file.name}"))
    if how == "replaced":
        other = SqliteEngine(path)
        other.open()
        other.close()
    ledger.settle(flying[0].call_id, Charge(5, NOON + 1))
    await admitted(ledger)
    assert await spent(ledger) == (5, 3 * DOLLAR // 100)
    assert {call.call_id for call in await ledger.unsettled()} >= {f.call_id for f in flying[1:]}
    assert await ledger.audit() == {}


async def test_a_directory_that_is_not_there_refuses_until_it_is(tmp_path: Path) -> None:
    ledger = ledger_at(tmp_path / "later" / "ledger.db", PARIS)
    await ledger.start()
    assert "cannot be opened" in await refused(ledger)
    (tmp_path / "later").mkdir()
    await admitted(ledger)
    await ledger.stop()


async def test_tables_of_a_newer_version_are_refused_with_what_to_do(path: Path) -> None:
    engine = SqliteEngine(path)
    engine.open()
    engine.run("UPDATE ledger SET tables = 99")
    engine.close()
    with pytest.raises(
        LedgerUnusable, match="version 99, and this Midwatch knows 2; start the newer"
    ):
        await ledger_at(path, PARIS).start()


async def test_settlements_that_could_not_be_written_before_the_end_are_counted(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(durable, "STOP_S", 0.3)
    ledger = ledger_at(path, PARIS)
    await ledger.start()
    flying = await admitted(ledger)
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        ledger.settle(flying.call_id, Charge(7, NOON + 1))
        await ledger.stop()
        other.execute("ROLLBACK")
    other.close()
    assert ledger.counts["lost", ""] == 1
    assert "stay reserved at their worst case" in caplog.text
    again = ledger_at(path, PARIS)
    await again.start()
    assert await spent(again) == (0, DOLLAR // 100)
    await again.stop()


async def test_a_closed_ledger_refuses(path: Path) -> None:
    ledger = ledger_at(path, PARIS)
    await ledger.start()
    await ledger.stop()
    await ledger.stop()
    assert "closed" in await refused(ledger)
    with pytest.raises(LedgerDown, match="closed"):
        await ledger.call("x")
    ledger.settle("x", Charge(1, NOON))
    assert ledger.counts["lost", ""] == 1


async def test_the_file_is_its_owners_alone(ledger: DurableLedger, path: Path) -> None:
    await admitted(ledger)
    modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert modes == {"ledger.db": 0o600, "ledger.db-wal": 0o600, "ledger.db-shm": 0o600}


def test_the_log_is_carried_into_the_file_behind_the_calls(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("midwatch.gateway.ledger.sqlite.CHECKPOINT_BYTES", 100_000)
    engine, disk = SqliteEngine(path), Disk(path)
    engine.open()
    disk.start()
    log = path.with_name("ledger.db-wal")
    deadline = time.monotonic() + WITHIN_S
    number = 0
    # the log begins anew once all of it has been carried over: so it stays small
    while path.stat().st_size < 400_000:
        assert time.monotonic() < deadline, "nothing was carried over"
        engine.begin()
        number += 1
        engine.run("INSERT INTO told VALUES (?, ?, 'x', 1, 1)", (f"account-{number}", "y" * 2000))
        engine.commit()
        disk.wrote()
        time.sleep(0.002)
    assert log.stat().st_size < 4_000_000
    disk.stop()
    engine.close()
    assert disk.failures == 0


async def test_what_was_committed_outlives_a_kill_of_the_process(path: Path) -> None:
    script = f"""
import asyncio, os, signal, sys
sys.path[:0] = {sys.path!r}
from test_ledger_faults import *
async def main():
    ledger = ledger_at({str(path)!r}, PARIS)
    await ledger.start()
    for _ in range(20):
        assert isinstance(await ledger.reserve(asked()), Admitted)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", script],
        cwd=Path(__file__).parent,
        timeout=100,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    ledger = ledger_at(path, PARIS)
    await ledger.start()
    assert await spent(ledger) == (0, 20 * DOLLAR // 100)
    await ledger.stop()


# -- PostgreSQL -----------------------------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)  # before the house counts a test's children
def server() -> Iterator[Postgres]:
    with postgres() as running:
        yield running


@pytest.fixture
async def shared(server: Postgres) -> AsyncIterator[DurableLedger]:
    ledger = ledger_at(server.fresh(), PARIS)
    await ledger.start()
    yield ledger
    await ledger.stop()


def cut(server: Postgres) -> int:
    """End every connection of a gateway; return how many there were."""
    with psycopg.connect(server.address, autocommit=True) as db:
        return len(
            db.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'midwatch-gateway'"
            ).fetchall()
        )


async def test_a_server_that_drops_its_connections_is_found_again(
    shared: DurableLedger, server: Postgres
) -> None:
    flying = await admitted(shared)
    assert await shared.call(flying.call_id) is not None
    assert await asyncio.to_thread(cut, server) == 2
    shared.settle(flying.call_id, Charge(7, NOON + 1))
    await admitted(shared)
    assert await spent(shared) == (7, DOLLAR // 100)
    with pytest.raises(LedgerDown):
        await shared.call(flying.call_id)
    assert await shared.call(flying.call_id) is not None


async def test_a_gateway_that_froze_with_the_lock_holds_up_nobody_for_long(
    shared: DurableLedger, server: Postgres
) -> None:
    address = str(shared._engine._dsn)  # type: ignore[attr-defined]
    frozen = await asyncio.to_thread(psycopg.connect, address)
    frozen.execute("SET idle_in_transaction_session_timeout = 5000")
    frozen.execute("UPDATE ledger SET version = version + 1")
    assert "lock" in await refused(shared)
    await admitted(shared)
    with pytest.raises(psycopg.Error):
        frozen.execute("SELECT 1")
    frozen.close()


async def test_an_address_where_nobody_listens_refuses_and_names_no_password() -> None:
    ledger = ledger_at("postgresql://me:hunter2@127.0.0.1:1/ledger", PARIS)
    await ledger.start()
    sentence = await refused(ledger)
    assert "away" in sentence
    assert "hunter2" not in sentence
    await ledger.stop()


def test_a_ledger_on_postgresql_without_its_driver_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "midwatch.gateway.ledger.postgres", None)
    with pytest.raises(MidwatchError, match=r'pip install "midwatch\[server,cluster\]"'):
        ledger_at("postgresql://127.0.0.1/x", PARIS)
