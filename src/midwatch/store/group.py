"""Group commit: what arrives within a few milliseconds shares one transaction.

Invariant: a batch is answered only after it is committed and after `after` has seen it, and it is
seen in the order of the commits. A caller that goes away (its connection dropped) takes nothing
with it: its batch is committed and seen all the same.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from midwatch.core.counts import Counts
from midwatch.core.errors import StoreError
from midwatch.core.pace import Pace

INTERVAL_S = 0.2
"""Distance of commits while the load lasts. A commit costs 4 ms of CPU however small it is; an item is
to be visible within 500 ms."""

BURST = 10
"""Commits that go at once before the distance holds: who sends now and then never waits."""

MAX_PENDING = 50_000
"""Items that may wait for their commit; more are answered with 503 and Retry-After."""

MAX_PENDING_BYTES = 64 * 1024 * 1024
"""Bytes of the bodies that may wait for their commit: bounds memory when items are large."""

MAX_GROUP = 20_000
"""Items of one transaction: keeps a commit short, so that small batches do not wait for large ones."""

AFTER_S = 2.0
"""How long an answer waits for `after`. It goes on behind the answer; the items are safe."""

log = logging.getLogger(__name__)

Batch = TypeVar("Batch")
Result = TypeVar("Result")


@dataclass(slots=True)
class _Waiting(Generic[Batch, Result]):
    batch: Batch
    count: int
    size: int
    since: float
    done: asyncio.Future[Result]


class GroupCommit(Generic[Batch, Result]):
    """Collects batches, writes them in one thread, and answers each of them.

    `write` runs in the store's only writing thread, takes a group, and returns for each batch its
    result or the StoreError that it met. It raises StoreError when the whole group failed.
    """

    def __init__(
        self,
        name: str,
        write: Callable[[list[Batch]], Sequence[Result | StoreError]],
        thread: ThreadPoolExecutor,
        counts: Counts,
        after: Callable[[list[Result]], Coroutine[Any, Any, None]] | None = None,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self.after = after
        self._interval_s = interval_s
        self._name = name
        self._write = write
        self._thread = thread
        self._counts = counts
        self._waiting: list[_Waiting[Batch, Result]] = []
        self._count = 0
        self._size = 0
        self._arrived = asyncio.Event()
        self._closing = False
        self._task: asyncio.Task[None] | None = None
        self._seeing: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to write. Call it inside the running loop."""
        self._task = asyncio.create_task(self._run(), name=f"{self._name} group commit")

    async def stop(self) -> None:
        """Write what waits, then end."""
        self._closing = True
        self._arrived.set()
        if self._task is not None:
            await self._task
        if self._seeing:
            await asyncio.wait(self._seeing, timeout=AFTER_S)

    @property
    def waiting(self) -> int:
        """Items that wait for their commit."""
        return self._count

    async def submit(self, batch: Batch, count: int, size: int) -> Result:
        """Return the batch's result after its commit. Raises StoreError; not permanent when full."""
        if self._closing or self._task is None or self._task.done():
            raise StoreError("the hub is shutting down; send it again in a moment")
        if self._count + count > MAX_PENDING or self._size + size > MAX_PENDING_BYTES:
            raise StoreError(
                f"{self._count} items wait to be written to the {self._name}; send it again in a moment"
            )
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(batch, count, size, time.monotonic(), done))
        self._count += count
        self._size += size
        self._arrived.set()
        return await done

    async def _run(self) -> None:
        pace = Pace(self._interval_s, BURST)
        while True:
            await self._arrived.wait()
            if not self._waiting and self._closing:
                return
            pause = pace.pause(time.monotonic())
            if pause > 0 and not self._closing:
                await asyncio.sleep(pause)
            pace.step(time.monotonic())
            await self._commit(self._take())

    def _take(self) -> list[_Waiting[Batch, Result]]:
        cut, count = 0, 0
        for one in self._waiting:
            if cut and count + one.count > MAX_GROUP:
                break
            cut, count = cut + 1, count + one.count
        group, self._waiting = self._waiting[:cut], self._waiting[cut:]
        self._count -= count
        self._size -= sum(one.size for one in group)
        if not self._waiting and not self._closing:
            self._arrived.clear()
        return group

    async def _commit(self, group: list[_Waiting[Batch, Result]]) -> None:
        if not group:
            return
        loop = asyncio.get_running_loop()
        try:
            results = await loop.run_in_executor(
                self._thread, self._write, [one.batch for one in group]
            )
        except StoreError as error:
            self._fail(group, error)
            return
        except Exception as error:
            log.exception("the %s could not write a group of %d", self._name, len(group))
            self._fail(group, StoreError(f"the {self._name} failed: {type(error).__name__}"))
            return
        self._counts.add("commits", self._name)
        good = [r for r in results if not isinstance(r, StoreError)]
        if self.after is not None and good:
            await self._see(self.after(good))
        now = time.monotonic()
        for one, result in zip(group, results, strict=True):
            self._counts.time_append(now - one.since)
            if one.done.done():
                continue
            if isinstance(result, StoreError):
                self._counts.add("commit_failures", self._name)
                one.done.set_exception(result)
            else:
                one.done.set_result(result)

    async def _see(self, after: Coroutine[Any, Any, None]) -> None:
        seeing = asyncio.create_task(after, name=f"{self._name} after commit")
        self._seeing.add(seeing)
        seeing.add_done_callback(self._seen)
        _, late = await asyncio.wait([seeing], timeout=AFTER_S)
        if late:
            self._counts.add("watch_slow")

    def _seen(self, seeing: asyncio.Task[None]) -> None:
        self._seeing.discard(seeing)
        if not seeing.cancelled() and seeing.exception() is not None:
            log.error("what follows a commit failed", exc_info=seeing.exception())

    def _fail(self, group: list[_Waiting[Batch, Result]], error: StoreError) -> None:
        self._counts.add("commit_failures", self._name)
        for one in group:
            if not one.done.done():
                one.done.set_exception(StoreError(str(error), permanent=error.permanent))
                one.done.exception()  # seen: a caller that went away must not make asyncio complain
