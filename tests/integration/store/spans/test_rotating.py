"""A rotation that fails refuses nothing that was committed before it, and is tried again."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import duckdb
import pytest

from midwatch.core.counts import Counts
from midwatch.core.spans.form import Signal
from midwatch.store.spans import rotating
from midwatch.store.spans.embedded import Due, EmbeddedSpans
from midwatch.store.spans.manifest import MemoryManifest

sys.path.insert(0, str(Path(__file__).parents[3]))
from spans import batch, span


def spans(first: int, count: int = 10) -> Any:
    return batch(*(span(f"n{at}", f"t{at}") for at in range(first, first + count)))


async def rows(store: EmbeddedSpans) -> int:
    return await store.read(
        lambda view: view.cursor.execute(
            f"SELECT count(*), count(DISTINCT name) FROM {view.rows(Signal.SPANS)}"
        ).fetchall()[0]
    )


@pytest.mark.parametrize(
    "error",
    [
        duckdb.IOException("no space left on device"),  # closes everything
        duckdb.TransactionException("something else"),
        OSError(5, "input/output error"),
    ],
    ids=lambda e: type(e).__name__,
)
@pytest.mark.parametrize("fails", ["before", "after"])
async def test_what_was_committed_before_a_rotation_that_fails_is_kept_and_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, fails: str
) -> None:
    monkeypatch.setattr(rotating, "AGAIN_S", 0.0)
    counts = Counts()
    store = EmbeddedSpans(tmp_path / "spans", MemoryManifest(), counts, due=Due(rows=10))
    await store.open()
    engine, rotate, left = store._engine, store._engine.rotate, 2

    def failing() -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            if fails == "after":
                rotate()
            raise error
        rotate()

    monkeypatch.setattr(engine, "rotate", failing)
    for first in (0, 10, 20, 30):
        assert (await store.append(spans(first))).new == 10
    # sent again because the answer got lost: it is known
    assert (await store.append(spans(0))).duplicates == 10
    assert await rows(store) == (40, 40)
    deadline = asyncio.get_running_loop().time() + 30.0
    while engine.layout.frozen or counts.value("keeping_failures", "rotation") < 2:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)
    assert await rows(store) == (40, 40)
    await store.stop()


async def test_a_rotation_that_failed_is_not_tried_with_each_commit(tmp_path: Path) -> None:
    tried, told = list[int](), list[Exception]()

    def rotate() -> None:
        tried.append(1)
        raise OSError(28, "no space left")

    rotation = rotating.Rotation(Due(rows=0), rotate, told.append)
    hot: Any = type("Hot", (), {"rows": {}, "log_bytes": 0})()
    for _ in range(100):
        rotation.behind(hot)
    assert len(tried) == len(told) < 100
