"""What was acknowledged is there after the process was killed, once, wherever it was."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from midwatch.core.counts import Counts
from midwatch.core.spans.form import Signal
from midwatch.core.spans.store import Selector
from midwatch.store.spans.embedded import EmbeddedSpans
from midwatch.store.spans.manifest import StateManifest
from midwatch.store.state import StateDb

WRITER = str(Path(__file__).with_name("writer.py"))
SPANS = 40
DROP_AT = 60


def run_until_killed(folder: Path, step: str = "", after: int = 0) -> int:
    """Let a writer write; kill it once it has acknowledged so many batches, or wait until it dies of itself.
    Returns the number of the last acknowledged batch, -1 for none."""
    with subprocess.Popen(
        [sys.executable, WRITER, str(folder), step], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        last = -1
        for line in writer.stdout:
            # a line that was cut off by the kill was no acknowledgement that anybody could read
            last = int(line) if line.endswith("\n") else last
            if not step and last >= after:
                writer.kill()
        assert writer.wait(timeout=30) == -9
    return last


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[EmbeddedSpans]:
    state = StateDb(folder / "state.db")
    state.open()
    store = EmbeddedSpans(folder / "spans", StateManifest(state), Counts())
    await store.open()
    yield store
    await store.stop()
    await state.stop()


async def rows(store: EmbeddedSpans, signal: Signal, *names: str) -> list[tuple[Any, ...]]:
    listed = ", ".join(names)
    return await store.read(
        lambda view: view.cursor.execute(f"SELECT {listed} FROM {view.rows(signal)}").fetchall()
    )


def expected(last: int) -> dict[str, int]:
    """Return name → rank of every span up to a batch."""
    found = {f"{n}/{at}": 2 for n in range(last + 1) for at in range(SPANS - 1)}
    found |= {f"{n}/open": 2 for n in range(last)}
    return {**found, f"{last}/open": 0} if last >= 0 else found


async def check(folder: Path, last: int) -> None:
    """Everything up to the last acknowledged batch is there, once; beyond it at most the one that was on its way."""
    async with opened(folder) as store:
        spans = await rows(store, Signal.SPANS, "name", "rank")
        found = dict(spans)
        assert len(found) == len(spans), "a span is there twice"
        assert found == expected(last + 1 if f"{last + 1}/0" in found else last)
        texts = [text for (text,) in await rows(store, Signal.CONTENTS, "text")]
        assert len(texts) == len(set(texts)) >= last + 1
        named = {segment.name for segment in store._engine.layout.segments}
        files = {path.name for path in (folder / "spans" / "segments").glob("*.parquet")}
        if not store._engine.layout.frozen:
            assert files == named


@pytest.mark.parametrize("seed", range(2))
async def test_what_was_acknowledged_is_there_after_a_kill(tmp_path: Path, seed: int) -> None:
    last = run_until_killed(tmp_path, after=random.Random(seed).randint(30, 120))
    await check(tmp_path, last)


async def test_one_store_survives_several_kills(tmp_path: Path) -> None:
    # each writer begins anew at batch 0, so all but the last batches of the longest run are resends
    longest = max(run_until_killed(tmp_path, after=count) for count in (50, 20))
    async with opened(tmp_path) as store:
        spans = await rows(store, Signal.SPANS, "name", "rank")
        assert len({name for name, _ in spans}) == len(spans)
        assert {n for n, _ in spans} >= expected(longest).keys()


@pytest.mark.parametrize("when", ["written", "named", "shown"])
async def test_a_kill_at_any_step_of_sealing_leaves_each_row_once(
    tmp_path: Path, when: str
) -> None:
    last = run_until_killed(tmp_path, f"seal {when}")
    assert last >= 19  # a generation was full
    await check(tmp_path, last)
    await check(tmp_path, last)  # and again, after a start that cleaned up


@pytest.mark.parametrize("when", ["written", "named", "shown"])
async def test_a_drop_that_was_killed_is_finished_by_repeating_it(
    tmp_path: Path, when: str
) -> None:
    last = run_until_killed(tmp_path, f"rewrite {when}")
    assert last == DROP_AT
    of_s1 = {n for n in expected(last) if int(n.split("/")[0]) % 5 == 1}
    async with opened(tmp_path) as store:
        names = [name for (name,) in await rows(store, Signal.SPANS, "name")]
        assert len(names) == len(set(names))
        assert set(names) >= expected(last).keys() - of_s1
        texts = {text for (text,) in await rows(store, Signal.CONTENTS, "text")}
        # contents go first: while their spans are there they can be found by session
        assert "text of 1" not in texts or set(names) == expected(last).keys()
        proof = await store.drop(Selector(sessions=frozenset({"s1"})))
        assert proof.complete
        names = [name for (name,) in await rows(store, Signal.SPANS, "name")]
        assert set(names) == expected(last).keys() - of_s1
        texts = {text for (text,) in await rows(store, Signal.CONTENTS, "text")}
        assert texts == {f"text of {n}" for n in range(last + 1) if n % 5 != 1}
