"""Disks that hang: nobody waits for them for ever, nothing piles up behind them, and what is left out is counted."""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from midwatch.gateway import cached, kept
from midwatch.gateway.cached import Cache
from midwatch.gateway.kept import Kept
from midwatch.gateway.ledger import questions
from midwatch.gateway.ledger.engine import LedgerDown
from midwatch.gateway.ledger.memory import MemoryEngine
from midwatch.gateway.ledger.questions import Questions

LATE_S = 0.05


@pytest.fixture
def hung() -> Iterator[threading.Event]:
    """A disk that answers when the event is set; it is at the end."""
    event = threading.Event()
    yield event
    event.set()


@asynccontextmanager
async def asking(counts: Counter[tuple[str, str]]) -> AsyncIterator[Questions]:
    found = Questions(MemoryEngine(), counts)
    yield found
    found.close()


async def test_a_question_that_takes_too_long_is_given_up_and_nobody_is_sent_behind_it(
    hung: threading.Event,
) -> None:
    counts: Counter[tuple[str, str]] = Counter()
    async with asking(counts) as asked:
        with pytest.raises(LedgerDown, match=r"did not answer a question in 0\.05 s"):
            await asked.ask(hung.wait, LATE_S)
        with pytest.raises(LedgerDown, match="a question has kept the ledger"):
            await asked.ask(lambda: 1, LATE_S)
        assert counts == {("unanswered", "slow"): 1, ("unanswered", "stuck"): 1}
        hung.set()
        assert await asked.ask(lambda: 7) == 7


async def test_questions_that_wait_are_bounded(
    hung: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(questions, "MAX_QUESTIONS", 3)
    counts: Counter[tuple[str, str]] = Counter()
    async with asking(counts) as asked:
        waiting = [asyncio.create_task(asked.ask(hung.wait)) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(LedgerDown, match="3 questions wait"):
            await asked.ask(lambda: 1)
        hung.set()
        assert await asyncio.gather(*waiting) == [True] * 3
        assert await asked.ask(lambda: 1) == 1
    assert counts == {("unanswered", "crowded"): 1}


async def test_a_ledger_that_is_closed_says_so() -> None:
    async with asking(Counter()) as asked:
        pass
    with pytest.raises(LedgerDown, match="closed"):
        await asked.ask(lambda: 1)


async def test_a_document_that_is_not_on_disk_in_time_says_so_and_is_in_force(
    tmp_path: Path, hung: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "SAVED_S", LATE_S)
    document = Kept(tmp_path / "holds.json")
    document.open()
    write = document._write  # pyright: ignore[reportPrivateUsage]

    def slowly(data: bytes) -> None:
        hung.wait()
        write(data)

    monkeypatch.setattr(document, "_write", slowly)
    document.put("inbox", {"kind": "killed"})
    with pytest.raises(OSError, match=r"holds\.json is not on disk after 0\.05 s"):
        await document.saved()
    assert document.entries["inbox"] == {"kind": "killed"}
    hung.set()
    monkeypatch.setattr(kept, "SAVED_S", 30.0)
    await document.saved()
    assert b"killed" in (tmp_path / "holds.json").read_bytes()


async def test_a_lock_that_another_process_never_gives_back_is_told_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept, "LOCK_S", LATE_S)
    monkeypatch.setattr(kept, "SAVED_S", 30.0)
    document = Kept(tmp_path / "keys.json")
    document.open()
    held = os.open(tmp_path / "keys.json.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(held, fcntl.LOCK_EX)
    document.put("ci", {"agent": "ci"})
    with pytest.raises(OSError, match="another process holds its lock"):
        await document.saved()
    assert document.problem is not None
    os.close(held)
    await document.saved()
    assert document.problem is None


def answer(size: int = 1_000) -> cached.Kept:
    return cached.Kept(0.0, 9e9, 200, (), (b"x" * size,), False, "openai", "gpt-4o", 5)


async def test_a_cache_whose_disk_hangs_answers_nothing_in_time_and_keeps_within_its_bounds(
    tmp_path: Path, hung: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cached, "READ_S", LATE_S)
    monkeypatch.setattr(cached, "MAX_UNWRITTEN_BYTES", 10_000)
    counts: Counter[str] = Counter()
    cache = Cache(tmp_path / "answers.db", counts)
    write = cache._write  # pyright: ignore[reportPrivateUsage]

    def slowly(*given: Any) -> None:
        hung.wait()
        write(*given)

    monkeypatch.setattr(cache, "_write", slowly)
    for number in range(20):
        cache.put(str(number), answer())
    assert counts["cache.write_crowded"] == 14, "of 1,512 bytes each, six fit"
    assert await cache.get("7", 1.0) is not None, "from memory"
    assert await cache.get("unknown", 1.0) is None
    assert counts["cache.read_slow"] == 1
    hung.set()
    monkeypatch.setattr(cached, "READ_S", 30.0)
    until = time.monotonic() + 30.0
    while time.monotonic() < until:  # what waited has been written
        cache.put("new", answer())
        if counts["cache.write_crowded"] == 14:
            break
        counts["cache.write_crowded"] = 14
        await asyncio.sleep(0.01)
    else:
        pytest.fail("nothing is written any more")
    await cache.close()
