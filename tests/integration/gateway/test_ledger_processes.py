"""Several gateways on one ledger, one of them killed in the middle: nothing is lost, nothing is overspent."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from midwatch.core.calls.charge import CallState, Charge
from midwatch.core.calls.period import Calendar
from midwatch.gateway.ledger.opening import ledger_at
from midwatch.gateway.ledger.sqlite import Disk

sys.path.insert(0, str(Path(__file__).parents[2]))
from databases import Postgres, postgres

sys.path.insert(0, str(Path(__file__).parent))
from ledger_worker import LIMIT, NOON

pytestmark = [pytest.mark.xdist_group("postgres"), pytest.mark.timeout(110)]

HERE = Path(__file__).parent
GATEWAYS = 4
PARALLEL = 16
WITHIN_S = 30


@pytest.fixture(scope="module", autouse=True)  # before the house counts a test's children
def server() -> Iterator[Postgres]:
    with postgres() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, server: Postgres, tmp_path: Path) -> str:
    return str(tmp_path / "ledger.db") if request.param == "sqlite" else server.fresh()


def start(place: str, steps: Path, calls: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, HERE / "ledger_worker.py", place, steps, str(PARALLEL), str(calls)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def steps_of(files: list[Path], kind: str) -> dict[str, int]:
    """Return call → amount of the steps that were answered; a line that was cut off counts not."""
    found: dict[str, int] = {}
    for file in files:
        for line in file.read_text().splitlines(keepends=True):
            if line.endswith("\n") and line.startswith(kind):
                _, call_id, amount = line.split()
                found[call_id] = int(amount)
    return found


async def admitted_by(file: Path, calls: int) -> None:
    """Wait until a gateway has made so many calls."""
    deadline = time.monotonic() + 60
    while not file.exists() or len(steps_of([file], "admitted")) < calls:
        assert time.monotonic() < deadline, f"{file.name} made no calls"
        await asyncio.sleep(0.005)


async def test_four_gateways_share_a_budget_and_one_is_killed_in_the_middle(
    place: str, tmp_path: Path
) -> None:
    files = [tmp_path / f"steps-{n}" for n in range(GATEWAYS)]
    # the one that is killed would go on for long
    gateways = [start(place, file, 250 if n else 100_000) for n, file in enumerate(files)]
    for gateway in gateways:
        assert gateway.stdout is not None
        assert gateway.stdout.readline() == "ready\n"
    for gateway in gateways:
        assert gateway.stdin is not None
        gateway.stdin.write("go\n")
        gateway.stdin.flush()
    await admitted_by(files[0], 5)
    gateways[0].send_signal(signal.SIGKILL)
    outs = [gateway.communicate(timeout=60)[0] for gateway in gateways]
    assert [gateway.returncode for gateway in gateways] == [-signal.SIGKILL, 0, 0, 0]
    assert any("in_flight" in out or "budget" in out for out in outs), "the budget was never met"

    ledger = ledger_at(place, Calendar(ZoneInfo("Europe/Paris")))
    await ledger.start()
    try:
        admitted, settled = steps_of(files, "admitted"), steps_of(files, "settling")
        (left,) = await ledger.left([LIMIT], NOON)
        assert left.spent_nusd + left.reserved_nusd <= LIMIT.limit_nusd
        # every answered reservation is there; the killed one may have committed some unanswered
        open_ = {call.call_id: call for call in await ledger.unsettled()}
        for call_id, worst in admitted.items():
            call = open_.get(call_id) or await ledger.call(call_id)
            assert call is not None, "a reservation was lost"
            assert call.reserved_nusd == worst
            if call.state is CallState.SETTLED:
                assert call.cost_nusd == settled[call_id]
        killed = set(steps_of(files[:1], "admitted"))
        others = set(admitted) - killed
        assert not others & set(open_), "a living gateway left a call unsettled"
        assert len(open_) <= 2 * PARALLEL
        assert left.reserved_nusd == sum(call.reserved_nusd for call in open_.values())
        # what the provider tells of the killed one's calls makes the sum exact; the rest expires
        for call_id in set(open_) & set(settled):
            await ledger.reconcile(call_id, Charge(settled[call_id], NOON + 2))
        expired = await ledger.expire(NOON + 600)
        (left,) = await ledger.left([LIMIT], NOON)
        worst = sum(open_[call_id].reserved_nusd for call_id in expired)
        assert left.spent_nusd == sum(settled.values()) + worst
        assert left.reserved_nusd == 0
        assert left.spent_nusd <= LIMIT.limit_nusd
        assert await ledger.audit() == {}
    finally:
        await ledger.stop()


def test_the_end_brings_to_the_disk_what_was_written_while_it_was_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy, go, synced = threading.Event(), threading.Event(), list[int]()
    disk = Disk(tmp_path / "ledger.db")

    def sync() -> None:
        synced.append(1)
        busy.set()
        assert go.wait(WITHIN_S)

    monkeypatch.setattr(disk, "_sync", sync)
    disk.start()
    disk.wrote()
    assert busy.wait(WITHIN_S)
    disk.wrote()
    ending = threading.Thread(target=disk.stop)
    ending.start()
    deadline = time.monotonic() + WITHIN_S
    while not disk._stop:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    go.set()
    ending.join(WITHIN_S)
    assert (ending.is_alive(), len(synced)) == (False, 2)
