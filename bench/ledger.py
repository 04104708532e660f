"""What a reservation costs: latency and processor time of the ledger, in its thread and in the loop, on both databases.

Nobody else's ledger is measured: the peer column is the same work decided in the event loop itself, without a thread,
which is what the thread's safety from a slow disk costs. Each figure is that of the median of one-second windows.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from midwatch.core.calls.account import Payer
from midwatch.core.calls.budget import Admitted, Limit, Refused
from midwatch.core.calls.charge import Charge, Reservation
from midwatch.core.calls.period import Calendar, Window
from midwatch.gateway.ledger.books import Books
from midwatch.gateway.ledger.durable import DurableLedger
from midwatch.gateway.ledger.opening import ledger_at
from midwatch.gateway.ledger.orders import Order, Reserve, Settle
from midwatch.gateway.ledger.sqlite import SqliteEngine
from midwatch.wire.ids import new_id

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from databases import postgres

ROOT = Path(__file__).resolve().parents[1]
WINDOWS = 9
PARIS = Calendar(ZoneInfo("Europe/Paris"))
USAGE = {"input_tokens": 812, "output_tokens": 120, "cached_tokens": 400}


def _payer(number: int) -> tuple[Payer, tuple[Limit, ...]]:
    payer = Payer(
        f"agent{number}", group=f"g{number % 3}", run=f"run{number}", session=f"s{number}"
    )
    account, much = f"agent:agent{number}", 10**15
    return payer, (
        Limit("fleet", Window.MONTH, much),
        Limit(account, Window.CALL, much),
        Limit(account, Window.DAY, much),
        Limit(account, Window.HOUR, much),
        Limit(f"run:run{number}", Window.TOTAL, much),
    )


PAYERS = [_payer(number) for number in range(10)]


class InLoop:
    """The same books on the same database, applied once per turn of the loop, in the loop."""

    def __init__(self, engine: SqliteEngine) -> None:
        self.books = Books(engine, PARIS)
        self.engine = engine
        self.waiting: list[tuple[Order, asyncio.Future[Any] | None]] = []
        self.counts: Counter[tuple[str, str]] = Counter()

    async def start(self) -> None:
        self.engine.open()

    async def stop(self) -> None:
        self.engine.close()

    def put(self, order: Order, future: asyncio.Future[Any] | None) -> None:
        if not self.waiting:
            asyncio.get_running_loop().call_soon(self.flush)
        self.waiting.append((order, future))

    def flush(self) -> None:
        waiting, self.waiting = self.waiting, []
        answers = self.books.apply([order for order, _ in waiting])
        for (_, future), answer in zip(waiting, answers, strict=True):
            if future is not None:
                future.set_result(answer)

    async def reserve(self, reservation: Reservation) -> Admitted | Refused:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.put(Reserve(reservation), future)
        return await future

    def settle(self, call_id: str, charge: Charge) -> None:
        self.put(Settle(call_id, charge), None)


async def _window(ledger: DurableLedger | InLoop | None, rate: int) -> tuple[float, float, float]:
    """Return p50 and p99 in ms, and processor time per call in µs, of one second at a rate."""
    waits: list[float] = []
    tasks: set[asyncio.Task[None]] = set()
    refused: Counter[str] = Counter()

    async def call(number: int) -> None:
        began, now = time.perf_counter(), time.time()
        payer, limits = PAYERS[number % 10]
        asked = Reservation(
            new_id(), payer, 5_000_000, now, now + 600, limits, "openai/gpt-4o-mini"
        )
        if ledger is None:
            await asyncio.sleep(0)
            waits.append(time.perf_counter() - began)
            return
        verdict = await ledger.reserve(asked)
        waits.append(time.perf_counter() - began)
        if not isinstance(verdict, Admitted):
            refused[verdict.reason.value] += 1
            return
        ledger.settle(
            asked.call_id,
            Charge(
                3_000_000,
                time.time(),
                "openai/gpt-4o-mini",
                "openai",
                USAGE,
                812,
                120,
                "2026-03",
                {"first": 3_000_000, "second": 3_000_000},
                attempts=({"model": "openai/gpt-4o-mini", "status": 200},),
            ),
        )

    start, used = time.perf_counter(), time.process_time()
    for number in range(rate):
        ahead = start + number / rate - time.perf_counter()
        if ahead > 0:
            await asyncio.sleep(ahead)
        task = asyncio.create_task(call(number))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    while tasks:
        await asyncio.sleep(0.001)
    used = time.process_time() - used
    waits.sort()
    if refused:
        print(f"  refused: {dict(refused)}", flush=True)
    return waits[rate // 2] * 1e3, waits[int(rate * 0.99)] * 1e3, used / rate * 1e6


def _median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


async def _measure(ledger: DurableLedger | InLoop | None, rate: int) -> dict[str, float]:
    windows = [await _window(ledger, rate) for _ in range(WINDOWS)]
    p50, p99, used = (list(column) for column in zip(*windows, strict=True))
    found = {
        "p50": _median(p50),
        "p99": _median(p99),
        "cpu": _median(used),
        "best_p50": min(p50),
        "best_cpu": min(used),
    }
    shown = ", ".join(f"{name} {value:.2f}" for name, value in found.items())
    print(f"  {rate}/s: {shown}", flush=True)
    return found


async def _both(name: str, ledger: DurableLedger | InLoop | None) -> dict[int, dict[str, float]]:
    print(name, flush=True)
    if ledger is not None:
        await ledger.start()
    found = {rate: await _measure(ledger, rate) for rate in (200, 3000)}
    if ledger is not None:
        await ledger.stop()
    return found


async def main() -> None:
    with tempfile.TemporaryDirectory(dir=ROOT) as folder, postgres() as server:
        alone = await _both("the harness alone", None)
        thread = await _both("in its thread", ledger_at(Path(folder, "thread.db"), PARIS))
        loop = await _both("in the loop", InLoop(SqliteEngine(Path(folder, "loop.db"))))
        path = Path(folder, "each.db")
        each = await _both(
            "in its thread, to the disk at each commit",
            DurableLedger(
                SqliteEngine(path, each_commit=True), SqliteEngine(path, read_only=True), PARIS
            ),
        )
        shared = await _both("PostgreSQL (fsync off)", ledger_at(server.fresh(), PARIS))

    def row(
        what: str, unit: str, ours: float, peer: float, name: str, target: float | None = None
    ) -> dict[str, Any]:
        return {
            "what": what,
            "ours": round(ours, 2),
            "peer": round(peer, 2),
            "peer_name": name,
            "unit": unit,
            "target": None if target is None else f"<= {target} {unit}",
            "ok": target is None or ours <= target,
        }

    def core(found: dict[int, dict[str, float]]) -> float:
        return (found[3000]["cpu"] - alone[3000]["cpu"]) * 3000 / 1e4

    rows = [
        row("reserve at 200/s, p50", "ms", thread[200]["p50"], loop[200]["p50"], "in the loop", 0.4),
        row("reserve at 200/s, p99", "ms", thread[200]["p99"], loop[200]["p99"], "in the loop"),
        row("reserve at 3,000/s, p50", "ms", thread[3000]["p50"], loop[3000]["p50"], "in the loop"),
        row("3,000 reserved and settled a second", "% core", core(thread), core(loop), "in the loop", 35),
        row("reserve at 200/s, to the disk at each commit, p50", "ms", each[200]["p50"], thread[200]["p50"], "in the background"),
        row("reserve at 200/s, PostgreSQL, p50", "ms", shared[200]["p50"], thread[200]["p50"], "SQLite"),
        row("3,000 a second, PostgreSQL", "% core", core(shared), core(thread), "SQLite"),
    ]  # fmt: skip
    machine = f"{os.cpu_count()} CPUs, Python {sys.version.split()[0]}"
    print(json.dumps({"bench": "ledger", "machine": machine, "rows": rows}))


if __name__ == "__main__":
    asyncio.run(main())
