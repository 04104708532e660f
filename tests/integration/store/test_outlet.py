"""The queue on disk: files, torn ends, damage, and room."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from midwatch.core.errors import StoreError
from midwatch.store.outlet import DiskOutlet

MIB = 1024 * 1024


@pytest.fixture
async def queues(tmp_path: Path) -> AsyncIterator[list[DiskOutlet]]:
    made: list[DiskOutlet] = []
    yield made
    for each in made:
        await each.stop()


async def opened(queues: list[DiskOutlet], folder: Path, limit: int = MIB) -> DiskOutlet:
    while queues:
        await queues.pop().stop()
    queue = DiskOutlet(folder, limit, file_bytes=200)
    await queue.open()
    queues.append(queue)
    return queue


async def test_bodies_that_come_at_one_time_are_all_kept_in_order(
    queues: list[DiskOutlet], tmp_path: Path
) -> None:
    queue = await opened(queues, tmp_path)
    numbers = await asyncio.gather(*(queue.put(b"%d" % n * 20) for n in range(50)))
    assert list(numbers) == sorted(numbers)
    queue = await opened(queues, tmp_path)
    assert [body for _, body in await queue.waiting(100)] == [b"%d" % n * 20 for n in range(50)]


async def test_what_was_sent_is_given_back_to_the_disk(
    queues: list[DiskOutlet], tmp_path: Path
) -> None:
    queue = await opened(queues, tmp_path)
    last = [await queue.put(b"x" * 100) for _ in range(20)][-1]
    assert len(list(tmp_path.glob("*.queue"))) >= 10
    await queue.sent(last)
    assert list(tmp_path.glob("*.queue")) == []
    assert queue.backlog().size_bytes == 0
    assert await queue.put(b"more") > last


@pytest.mark.parametrize("cut", [1, 10, 30, 115])
async def test_a_torn_end_takes_nothing_with_it(
    queues: list[DiskOutlet], tmp_path: Path, cut: int
) -> None:
    queue = await opened(queues, tmp_path)
    for body in (b"a" * 100, b"b" * 100, b"c" * 100):
        await queue.put(body)
    await queues.pop().stop()
    newest = max(tmp_path.glob("*.queue"))
    newest.write_bytes(newest.read_bytes()[:-cut])
    queue = await opened(queues, tmp_path)
    assert [body[:1] for _, body in await queue.waiting(10)] == [b"a", b"b"]
    assert await queue.put(b"d") >= 3
    assert [body[:1] for _, body in await queue.waiting(10)] == [b"a", b"b", b"d"]


async def test_a_damaged_body_is_never_sent(queues: list[DiskOutlet], tmp_path: Path) -> None:
    queue = await opened(queues, tmp_path)
    for body in (b"a" * 100, b"b" * 100, b"c" * 100):
        await queue.put(body)
    await queues.pop().stop()
    first = min(tmp_path.glob("*.queue"))
    first.write_bytes(first.read_bytes().replace(b"aaaa", b"axxa", 1))
    queue = await opened(queues, tmp_path)
    assert [body[:1] for _, body in await queue.waiting(10)] == [b"b", b"c"]


async def test_its_folder_never_takes_more_than_the_limit_and_a_file(
    queues: list[DiskOutlet], tmp_path: Path
) -> None:
    queue = await opened(queues, tmp_path, limit=2_000)
    for number in range(200):
        await queue.put(b"%03d" % number * 30)
        assert sum(p.stat().st_size for p in tmp_path.glob("*.queue")) <= 2_000
    left = [int(body[:3]) for _, body in await queue.waiting(1000)]
    assert left == list(range(200 - len(left), 200))
    assert queue.backlog().dropped == 200 - len(left)


async def test_a_folder_that_cannot_be_used_is_told_in_words(
    queues: list[DiskOutlet], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    queue = DiskOutlet(tmp_path / "file", MIB)
    queues.append(queue)
    with pytest.raises(StoreError, match="cannot be used"):
        await queue.open()


async def test_a_caller_that_goes_away_leaves_the_queue_to_the_others(
    queues: list[DiskOutlet], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = await opened(queues, tmp_path)
    slow = threading.Event()
    monkeypatch.setattr(os, "fdatasync", lambda _: slow.wait(60))
    first = asyncio.create_task(queue.put(b"first"))
    await asyncio.sleep(0.05)
    gone = asyncio.create_task(queue.put(b"gone"))
    await asyncio.sleep(0.05)
    gone.cancel()
    await asyncio.wait([gone])
    slow.set()
    async with asyncio.timeout(30):
        await first
        await queue.put(b"stays")
    assert b"stays" in [body for _, body in await queue.waiting(10)]


async def test_a_body_that_found_no_room_is_not_sent_and_what_comes_later_is_kept(
    queues: list[DiskOutlet], tmp_path: Path
) -> None:
    queue = await opened(queues, tmp_path)
    await queue.put(b"before" * 30)
    (tmp_path / f"{2:016d}.queue").symlink_to("/dev/full")
    async with asyncio.timeout(30):
        found = await asyncio.gather(
            *(queue.put(b"no room" * 5) for _ in range(3)), return_exceptions=True
        )
        assert all(isinstance(each, StoreError) for each in found)
        await queue.put(b"after")
    assert [body for _, body in await queue.waiting(10)] == [b"before" * 30, b"after"]
    queue = await opened(queues, tmp_path)
    assert [body for _, body in await queue.waiting(10)] == [b"before" * 30, b"after"]


async def test_a_queue_that_is_closed_says_so(queues: list[DiskOutlet], tmp_path: Path) -> None:
    queue = await opened(queues, tmp_path)
    await queue.stop()
    queues.clear()
    with pytest.raises(StoreError, match="closed"):
        await queue.put(b"late")


async def test_what_finds_no_room_counts_for_what_it_weighs(
    queues: list[DiskOutlet], tmp_path: Path
) -> None:
    queue = DiskOutlet(tmp_path, 2_000, file_bytes=200, weigh=lambda head: head[0])
    await queue.open()
    queues.append(queue)
    for number in range(1, 41):
        await queue.put(bytes([number]) * 200)
    kept = [body[0] for _, body in await queue.waiting(100)]
    assert 0 < len(kept) < 40
    assert queue.backlog().dropped == sum(range(1, 41)) - sum(kept)


async def _three_in_one_file(folder: Path) -> Path:
    queue = DiskOutlet(folder, MIB)
    await queue.open()
    for name in (b"a", b"b", b"c", b"d"):
        await queue.put(name * 100)
    await queue.stop()
    (file,) = folder.glob("*.queue")
    return file


@pytest.mark.parametrize(
    ("hurt", "left", "dropped"),
    [
        (range(20, 25), b"bcd", 1),  # in a body
        (range(3), b"bcd", 1),  # in a head: how long the body is cannot be known
        (range(10, 300), b"d", 3),  # over several
        (range(125, 127), b"acd", 1),  # in a head between others
        (range(362, 364), b"abc", 1),  # in the head of the last
        (range(440, 450), b"abc", 1),  # in its body
    ],
)
async def test_damage_takes_and_counts_what_it_hit_and_no_more(
    queues: list[DiskOutlet], tmp_path: Path, hurt: range, left: bytes, dropped: int
) -> None:
    file = await _three_in_one_file(tmp_path)
    data = bytearray(file.read_bytes())
    assert len(data) == 4 * 120
    for at in hurt:
        data[at] ^= 0xFF
    file.write_bytes(data)
    queue = await opened(queues, tmp_path)
    assert b"".join(body[:1] for _, body in await queue.waiting(10)) == left
    assert queue.backlog().dropped == dropped
    assert await queue.put(b"more") == (4 if hurt.start == 362 else 5)
    await queue.sent(10)
    # it is not counted again
    assert (await opened(queues, tmp_path)).backlog().dropped == 0


async def test_an_end_that_a_crash_left_is_no_damage(
    queues: list[DiskOutlet], tmp_path: Path
) -> None:
    file = await _three_in_one_file(tmp_path)
    for torn in (file.read_bytes()[:-1], file.read_bytes()[:370] + bytes(4_000)):
        file.write_bytes(torn)
        queue = await opened(queues, tmp_path)
        assert b"".join(body[:1] for _, body in await queue.waiting(10)) == b"abc"
        assert queue.backlog().dropped == 0


async def test_what_was_taken_out_is_in_no_file_and_no_loss(
    queues: list[DiskOutlet], tmp_path: Path
) -> None:
    queue = await opened(queues, tmp_path)
    first = [await queue.put(b"%d-" % at + b"x" * 60) for at in range(12)]
    await queue.sent(first[1])
    await queue.rewrite(
        lambda body: None if body[:2] in (b"4-", b"7-") else body.replace(b"6-", b"six-")
    )
    wanted = [b"2", b"3", b"5", b"six", b"8", b"9", b"10", b"11"]
    assert [body.split(b"-")[0] for _, body in await queue.waiting(99)] == wanted
    assert [n for n, _ in await queue.waiting(2)] == first[2:4]
    await queue.put(b"12-")
    queue = await opened(queues, tmp_path)
    assert [body.split(b"-")[0] for _, body in await queue.waiting(99)] == [*wanted, b"12"]
    assert queue.backlog().dropped == 0
    everything = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"4-x" not in everything
    assert b"0-x" not in everything.replace(b"10-x", b""), "what was sent is not there either"
    await queue.rewrite(lambda _: None)
    assert list(tmp_path.glob("*.queue")) == []
    assert (queue.backlog().entries, queue.backlog().size_bytes) == (0, 0)
    assert await queue.put(b"more") > first[-1]
