"""A store that nobody writes to for thirty days: only probes and rounds of keeping, on a clock of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil

from midwatch.core.counts import Counts
from midwatch.core.telemetry import Keep, SampleRule
from midwatch.hub.keeping.keeper import Keeper
from midwatch.store.spans.embedded import Due, EmbeddedSpans
from midwatch.store.spans.manifest import MemoryManifest

sys.path.insert(0, str(Path(__file__).parents[3]))
from spans import NOON_S, batch, content, span

DAYS, ROUNDS = 30, 4
"""Days, and rounds of each: more would take minutes and show the same."""

GROWS_BYTES = 16 * 1024 * 1024


async def test_disk_and_memory_stay_flat_for_thirty_idle_days(tmp_path: Path) -> None:
    now = float(NOON_S)
    manifest = MemoryManifest()
    # a log of probes is let go at 16 KiB instead of a megabyte: the same in less time
    due = Due(age_s=0.0, idle_bytes=16 * 1024)
    store = EmbeddedSpans(tmp_path / "spans", manifest, Counts(), due=due, clock=lambda: now)
    await store.open()
    rules = [SampleRule(keep=0.5)]
    keeper = Keeper(
        store,
        lambda: Keep(spans=None),
        Counts(),
        lambda: now,
        sampling=store.letting(lambda: rules, lambda _: None),
    )
    rows = [span(f"n{n}", f"t{n}") for n in range(200)]
    await keeper.round(now)
    await store.append(batch(*rows, contents=[content(rows[0], "a", "words " * 100)]))
    sizes: list[int] = []
    memory: list[int] = []
    files: list[int] = []
    process = psutil.Process()
    for _ in range(DAYS):
        for _ in range(ROUNDS):
            now += 86_400.0 / ROUNDS
            await store.probe()
            await keeper.round(now)
        held = await store.footprint()
        sizes.append(held.size_bytes)
        memory.append(process.memory_info().rss)
        files.append(sum(1 for path in tmp_path.rglob("*") if path.is_file()))
    await store.stop()
    settled = sizes[2:]
    assert max(settled) - min(settled) <= 2 * due.idle_bytes, sizes
    assert settled[-1] - settled[0] <= due.idle_bytes, sizes
    assert max(files) <= files[2], files
    assert memory[-1] - memory[4] <= GROWS_BYTES, memory
    assert manifest.named.number < 20, "nothing is written anew for nothing"
