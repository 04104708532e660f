"""Spans into the embedded store, in one process: what it takes once a batch is understood.

Every batch has 256 fresh spans, of about 400 bytes on the wire or of 4 KB with two contents, eight posts at a time or
paced. A batch counts when `append` returned: synced, deduplicated, visible. Then the process is measured, the store
is closed without ceremony and opened again.

    python bench/span_store.py [--seconds 10] [--rate 20000]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parent))
from _table import row
from midwatch.core.counts import Counts
from midwatch.core.spans import form
from midwatch.core.spans.form import CONTENTS, NO_SPAN, Batch, ContentKind, Role, Row, Signal
from midwatch.store.spans.embedded import EmbeddedSpans
from midwatch.store.spans.manifest import StateManifest
from midwatch.store.state import StateDb

POST = 256
AGENTS = 20
CONNECTIONS = 8
WORDS = ["".join(random.Random(i).choices("abcdefghijklmnopqrstuvwxyz", k=3 + i % 7)) for i in range(4000)]  # fmt: skip


class Load:
    """Makes batches: texts and numbers differ from span to span, as those of real agents do."""

    def __init__(self, large: bool) -> None:
        self._large = large
        self._dice = random.Random(1)
        # texts are made before: half a million words a second would be the generator's figure, not the store's
        self._texts = [" ".join(self._dice.choices(WORDS, k=330)) for _ in range(2_000 * large)]
        self._agent = 0

    def batch(self) -> Batch:
        """Return a post of one agent: 16 traces of 16 spans."""
        self._agent += 1
        agent = f"agent-{self._agent % AGENTS}"
        now = time.time_ns()
        made = Batch(resources={agent.encode().ljust(16, b"."): "{}"}, size_bytes=POST * (4_300 if self._large else 390))  # fmt: skip
        ids = os.urandom(8 * POST)
        for at in range(POST):
            if at % 16 == 0:
                trace, top = os.urandom(16), None
            span_id = ids[8 * at : 8 * at + 8]
            made.spans.append(self._span(agent, trace, span_id, top, now))
            top = top or span_id
            if self._large:
                made.contents += self._contents(made.spans[-1])
        return made

    def _span(self, agent: str, trace: bytes, span_id: bytes, parent: bytes | None, now: int) -> Row:  # fmt: skip
        dice, span = self._dice, NO_SPAN[:]
        number = dice.getrandbits(64)
        span[form.AGENT], span[form.TRACE_ID], span[form.SPAN_ID], span[form.PARENT_ID] = agent, trace, span_id, parent  # fmt: skip
        span[form.START_NS] = now - 1_000_000_000 - number % 4_000_000_000
        span[form.DURATION_NS] = number % 1_000_000_000
        span[form.NAME], span[form.KIND], span[form.ROLE] = "chat gpt-4o-mini", 3, Role.CALL.value
        span[form.OPERATION], span[form.PROVIDER] = "chat", "openai"
        span[form.MODEL] = span[form.RESPONSE_MODEL] = "gpt-4o-mini"
        span[form.RESPONSE_ID] = f"chatcmpl-{number:016x}"
        span[form.SESSION] = f"session-{number % 1000}"
        span[form.INPUT_TOKENS], span[form.OUTPUT_TOKENS] = number % 4000, number % 800
        span[form.CACHED_TOKENS], span[form.COST_NUSD], span[form.COST_FROM] = (
            0,
            number % 700_000,
            1,
        )
        span[form.DIALECT], span[form.SCOPE], span[form.PRICE_VERSION] = (
            "gen_ai",
            "bench",
            "2026-11",
        )
        span[form.RESOURCE_ID] = agent.encode().ljust(16, b".")
        span[form.CONTENT_COUNT] = 2 if self._large else 0
        return span

    def _contents(self, span: Row) -> list[Row]:
        return [
            CONTENTS.of(
                agent=span[form.AGENT], trace_id=span[form.TRACE_ID], span_id=span[form.SPAN_ID],
                place=place, start_ns=span[form.START_NS], kind=kind.value, key=key, text=text,
                is_json=True, characters=len(text), hash=span[form.SPAN_ID],
            )
            for place, (kind, key) in enumerate(
                ((ContentKind.INPUT, "gen_ai.input.messages"), (ContentKind.OUTPUT, "gen_ai.output.messages"))
            )
            if (text := self._dice.choice(self._texts))
        ]  # fmt: skip


async def closed(store: EmbeddedSpans, load: Load, seconds: float) -> tuple[int, list[float]]:
    """Append as fast as it goes; return spans and seconds of each append."""
    took: list[float] = []
    until = time.perf_counter() + seconds

    async def one() -> None:
        while time.perf_counter() < until:
            batch = load.batch()
            began = time.perf_counter()
            await store.append(batch)
            took.append(time.perf_counter() - began)

    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))
    return len(took) * POST, took


async def paced(store: EmbeddedSpans, load: Load, seconds: float, rate: float) -> tuple[int, list[float]]:  # fmt: skip
    """Append at a rate, whether or not the last ones are done; times are counted from when each was due."""
    took: list[float] = []
    began = time.perf_counter()

    async def one(due: float) -> None:
        await store.append(load.batch())
        took.append(time.perf_counter() - due)

    async with asyncio.TaskGroup() as group:
        for number in range(int(seconds * rate / POST)):
            due = began + number * POST / rate
            if (pause := due - time.perf_counter()) > 0:
                await asyncio.sleep(pause)
            group.create_task(one(due))
    return len(took) * POST, took


def disk(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


async def watched(process: psutil.Process, seen: list[int]) -> None:
    """Note the memory of the process, in bytes, five times a second."""
    while True:
        seen.append(process.memory_info().rss)
        await asyncio.sleep(0.2)


def made_us(load: Load) -> float:
    """Return the microseconds that making a span takes, which are not the store's."""
    began = time.perf_counter()
    for _ in range(20):
        load.batch()
    return (time.perf_counter() - began) / 20 / POST * 1e6


async def measured(name: str, load: Load, run: Callable[[EmbeddedSpans], Any], target: dict[str, float]) -> list[dict[str, Any]]:  # fmt: skip
    """Run one load on a store of its own and return the table's rows."""
    folder = Path(tempfile.mkdtemp(prefix="midwatch-bench-"))
    process = psutil.Process()
    try:
        state = StateDb(folder / "state.db")
        state.open()
        store = EmbeddedSpans(folder / "spans", StateManifest(state), Counts())
        await store.open()
        before, cpu = process.memory_info().rss, process.cpu_times()
        seen: list[int] = [before]
        watching = asyncio.create_task(watched(process, seen))
        began = time.perf_counter()
        spans, took = await run(store)
        lasted = time.perf_counter() - began
        watching.cancel()
        used = process.cpu_times()
        took.sort()
        # closed as a crash would: what is not sealed is in logs, and found again
        await store._group.stop()
        await asyncio.sleep(0)
        waits = sum(p.stat().st_size for p in (folder / "spans").glob("*.wal"))
        await store.stop()
        began = time.perf_counter()
        again = EmbeddedSpans(folder / "spans", StateManifest(state), Counts())
        await again.open()
        opened_s = time.perf_counter() - began
        found = await again.read(lambda v: v.cursor.execute(f"SELECT count(*) FROM {v.rows(Signal.SPANS)}").fetchone())  # fmt: skip
        async with again._sealer.turn:
            await again._seal_all()
        size = disk(folder / "spans")
        await again.stop()
        await state.stop()
        cores, peak = (used.user + used.system - cpu.user - cpu.system) / lasted, max(seen)
        each = made_us(load)
        print(
            f"{name}: {spans / lasted:,.0f} spans/s, p50 {took[len(took) // 2] * 1e3:.0f} ms, p99 {took[int(len(took) * 0.99)] * 1e3:.0f} ms,"
            f" max {took[-1] * 1e3:.0f} ms; {cores:.2f} cores, the generator {each:.1f} us a span; {(peak - before) / 1e6:.0f} MB more (peak {peak / 1e6:.0f});"
            f" {size / spans:.0f} bytes a span; {waits / 1e6:.0f} MB of logs opened in {opened_s:.2f} s; stored {found[0] - spans:+d};"
            f" load average {os.getloadavg()[0]:.1f}",
            flush=True,
        )
        return [
            row(f"{name}: p99 of an append", took[int(len(took) * 0.99)] * 1e3, "ms", target.get("p99")),
            row(f"{name}: microseconds a span", lasted / spans * 1e6, "us", target.get("us")),
            row(f"{name}: bytes a span on disk", size / spans, "B", target.get("bytes")),
            row(f"{name}: memory", peak / 1e6, "MB", 600.0),
            row(f"{name}: opened again", opened_s, "s", 3.0),
            row(f"{name}: lost or doubled", abs(found[0] - spans), "spans", 0.0),
        ]  # fmt: skip
    finally:
        shutil.rmtree(folder)


async def written(folder: Path, large: bool) -> None:
    """Append until killed, and say how many posts of which numbers were acknowledged: the child of `killed`."""
    state = StateDb(folder / "state.db")
    state.open()
    store = EmbeddedSpans(folder / "spans", StateManifest(state), Counts())
    await store.open()
    load = Load(large)

    async def one() -> None:
        while True:
            batch = load.batch()
            await store.append(batch)
            # one span of each post stands for all: a post is kept whole or not at all
            os.write(1, batch.spans[0][form.TRACE_ID].hex().encode() + b"\n")

    await asyncio.gather(*(one() for _ in range(CONNECTIONS)))


async def killed(times: int, large: bool) -> list[dict[str, Any]]:
    """Kill a writer at random, again and again over one store; return what was lost and how long it took to open."""
    folder = Path(tempfile.mkdtemp(prefix="midwatch-bench-"))
    dice = random.Random()
    acknowledged: set[str] = set()
    opened: list[float] = []
    logs: list[int] = []
    try:
        for _ in range(times):
            child = subprocess.Popen(
                [sys.executable, __file__, "--child", str(folder), *(["--large"] if large else [])],
                stdout=subprocess.PIPE,
                text=True,
            )
            timer = threading.Timer(dice.uniform(3.0, 9.0), child.kill)
            timer.start()
            assert child.stdout is not None
            acknowledged |= {line.strip() for line in child.stdout if line.endswith("\n")}
            child.wait()
            logs.append(sum(p.stat().st_size for p in (folder / "spans").glob("*.wal")))
            state = StateDb(folder / "state.db")
            state.open()
            store = EmbeddedSpans(folder / "spans", StateManifest(state), Counts())
            began = time.perf_counter()
            await store.open()
            opened.append(time.perf_counter() - began)
            found = await store.read(
                lambda v: v.cursor.execute(
                    f"SELECT hex(trace_id), count(*), count(DISTINCT span_id) FROM {v.rows(Signal.SPANS)} GROUP BY 1"
                ).fetchall()
            )
            await store.stop()
            await state.stop()
        whole = {trace.lower() for trace, rows, spans in found if rows == spans == 16}
        lost, doubled = acknowledged - whole, sum(rows != spans for _, rows, spans in found)
        name = "4 KB" if large else "400 B"
        print(
            f"{name}, killed {times} times: {len(acknowledged) * POST:,} spans acknowledged, {len(lost)} posts lost, {doubled} traces doubled;"
            f" opened in at most {max(opened):.2f} s, with {max(logs) / 1e6:.0f} MB of logs; load average {os.getloadavg()[0]:.1f}",
            flush=True,
        )
        return [
            row(f"{name}, killed: lost or doubled", len(lost) + doubled, "", 0.0),
            row(f"{name}, killed: opened again", max(opened), "s", 3.0),
        ]
    finally:
        shutil.rmtree(folder)


async def main() -> int:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--seconds", type=float, default=20.0)
    arguments.add_argument("--rate", type=float, default=20_000.0)
    arguments.add_argument("--only", default="")
    arguments.add_argument("--kills", type=int, default=10)
    arguments.add_argument("--child", type=Path)
    arguments.add_argument("--large", action="store_true")
    asked = arguments.parse_args()
    if asked.child is not None:
        await written(asked.child, asked.large)
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
    rows: list[dict[str, Any]] = []
    runs: list[tuple[str, bool, Callable[[EmbeddedSpans, Load], Any], dict[str, float]]] = [
        ("400 B, closed", False, lambda s, lo: closed(s, lo, asked.seconds), {"us": 50.0}),
        ("400 B, paced", False, lambda s, lo: paced(s, lo, asked.seconds, asked.rate), {"p99": 200.0, "bytes": 150.0}),
        ("4 KB, closed", True, lambda s, lo: closed(s, lo, asked.seconds), {}),
        ("4 KB, paced", True, lambda s, lo: paced(s, lo, asked.seconds, asked.rate / 4), {}),
    ]  # fmt: skip
    for name, large, run, target in runs:
        if asked.only in name:
            load = Load(large)
            rows += await measured(name, load, lambda s, r=run, lo=load: r(s, lo), target)
    for large in (False, True):
        if asked.kills and asked.only in "killed":
            rows += await killed(asked.kills, large)
    print(json.dumps({"bench": "span_store", "rows": rows}))
    return 0 if all(each["ok"] for each in rows) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
