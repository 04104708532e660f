"""What was stored for the first time goes on to other back-ends; what they cannot take waits on the disk.

    see: encode → queue on disk (synced)            ⇒ oldest first → one request at a time → taken, repeated, let go

A post is answered once its telemetry is stored *and* queued, so that a hub that is killed forwards it after its start.
A target that is down costs nobody else anything: each has its own queue, bounded, the oldest dropped and counted.
At least once: after a crash a request may be sent again; back-ends know spans by their ids.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from midwatch.core.counts import Counts
from midwatch.core.errors import SetupError, StoreError
from midwatch.core.ports import Backlog, Outlet
from midwatch.core.spans.form import TABLES, Batch, Signal
from midwatch.core.telemetry import ForwardTarget
from midwatch.hub.forwarding.encoding import MAX_BODY, Body, Encoder
from midwatch.hub.forwarding.forgetting import Forgetting
from midwatch.hub.forwarding.pacing import Answer, Then, step
from midwatch.hub.forwarding.queued import SIGNALS, Queued, weight
from midwatch.hub.forwarding.target import HttpTarget, Target
from midwatch.store.outlet import DiskOutlet

TOGETHER: Final = 64
"""Bodies that go in one request, as long as they are small."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class State:
    """How it stands with one target, for people and `/metrics`."""

    name: str
    backlog: Backlog
    sent: int = 0
    """Spans, points and log records that it took since the hub started."""
    failures: int = 0
    """Attempts in a row that failed."""
    reason: str = ""
    """Why the last one did."""


class Lane:
    """One target with its queue."""

    def __init__(
        self,
        name: str,
        config: ForwardTarget,
        outlet: Outlet,
        target: Target,
        counts: Counts,
        *,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.config = config
        self.state = State(name, outlet.backlog())
        self._outlet = outlet
        self._target = target
        self._counts = counts
        self._clock = clock
        self._sleep = sleep
        self._chance = chance
        self._signals = frozenset(config.signals)
        self._dropped = outlet.backlog().dropped
        self._more = asyncio.Event()
        self._turn = asyncio.Lock()
        """Whose holder alone takes out of the queue."""
        self._task: asyncio.Task[None] | None = None

    # -- in ----------------------------------------------------------------------------------

    async def put(self, encoder: Encoder, batch: Batch) -> None:
        """Queue what the target is to have of a batch. What cannot be queued is counted."""
        mine = self._of(batch)
        for signal in SIGNALS:
            if signal.value not in self._signals:
                continue
            for body in await self._encoded(encoder, mine, signal):
                await self._keep(body)

    def _of(self, batch: Batch) -> Batch:
        patterns = self.config.agents
        if not patterns:
            return batch
        found = Batch(resources=batch.resources)
        for signal, table in TABLES.items():
            at = table.at["agent"]
            found.rows(signal).extend(
                row for row in batch.rows(signal) if any(fnmatchcase(row[at], p) for p in patterns)
            )
        return found

    async def _encoded(self, encoder: Encoder, batch: Batch, signal: Signal) -> Sequence[Body]:
        if not batch.rows(signal):
            return ()

        def work() -> list[Body]:
            return list(encoder.bodies(batch, signal, with_contents=self.config.contents))

        return await asyncio.to_thread(work)

    async def _keep(self, body: Body) -> None:
        try:
            await self._outlet.put(Queued(*body[:2], body.whose, body.data).record())
        except StoreError as error:
            log.error("not forwarded to %s: %s", self.state.name, error)  # noqa: TRY400  words suffice
            self._counts.add("forward_dropped", self.state.name, body.items)
        else:
            self._more.set()
        self._note_dropped()

    def _note_dropped(self) -> None:
        backlog = self._outlet.backlog()
        if backlog.dropped > self._dropped:
            self._counts.add("forward_dropped", self.state.name, backlog.dropped - self._dropped)
            self._dropped = backlog.dropped
        self.state = replace(self.state, backlog=backlog)

    # -- out ---------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to send; call inside the running loop."""
        self._task = asyncio.create_task(self._run(), name=f"forward {self.state.name}")

    async def stop(self) -> None:
        """Stop sending; what waits stays."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _run(self) -> None:
        while True:
            try:
                wait_s = await self.send_once()
            except StoreError as error:
                wait_s = self._failed(str(error))
            except Exception:  # the top of a long-lived loop: what waits is tried again
                log.exception("forwarding to %s failed", self.state.name)
                wait_s = self._failed("a fault of the hub; its log has more")
            if wait_s is None:
                self._more.clear()
                if not self._outlet.backlog().entries:
                    await self._more.wait()
            elif wait_s > 0:
                await self._sleep(wait_s)

    def _failed(self, reason: str) -> float:
        self.state = replace(self.state, failures=self.state.failures + 1, reason=reason)
        return 5.0

    async def send_once(self) -> float | None:
        """Send the oldest that waits; return how long to wait then, or None when nothing waits. Raises StoreError."""
        async with self._turn:
            return await self._send()

    async def forget(self, work: Callable[[bytes], bytes | None]) -> None:
        """Change what waits by `work`, once what is being sent has been. Raises StoreError."""
        async with self._turn:
            await self._outlet.rewrite(work)
            self.state = replace(self.state, backlog=self._outlet.backlog())

    async def _send(self) -> float | None:
        waiting = await self._outlet.waiting(TOGETHER)
        if not waiting:
            return None
        upto, signal, items, data = _gathered(waiting)
        if signal is None:
            await self._outlet.sent(upto)
            log.error("a body in the queue of %s cannot be read and is not sent", self.state.name)
            self._counts.add("forward_dropped", self.state.name, items)
            return 0.0
        answer = await self._target.send(signal, data)
        then = step(answer, self.state.failures, self._clock(), self._chance())
        if then.then is Then.AGAIN:
            self._counts.add("forward_retries", self.state.name)
            self.state = replace(self.state, failures=self.state.failures + 1, reason=then.reason)
            return then.wait_s
        await self._outlet.sent(upto)
        self._note(answer, then.then, items, then.reason)
        return 0.0

    def _note(self, answer: Answer, then: Then, items: int, reason: str) -> None:
        name = self.state.name
        lost = items if then is Then.LET_GO else min(items, answer.rejected)
        if lost:
            log.warning("%s refused %d of %d items: %s", name, lost, items, reason)
            self._counts.add("forward_dropped", name, lost)
        if items > lost:
            self._counts.add("forwarded", name, items - lost)
        self.state = replace(
            self.state,
            backlog=self._outlet.backlog(),
            sent=self.state.sent + items - lost,
            failures=0,
            reason="" if then is Then.TAKEN else reason,
        )


def _gathered(waiting: Sequence[tuple[int, bytes]]) -> tuple[int, Signal | None, int, bytes]:
    """Return as many of the oldest bodies as go in one request: the last number, signal, items, data. The signal is
    None for one that cannot be read."""
    first: Signal | None = None
    parts: list[bytes] = []
    upto, items, size = 0, 0, 0
    for number, body in waiting:
        queued = Queued.read(body)
        signal = queued.signal if queued is not None else None
        if parts and (signal is not first or size + len(body) > MAX_BODY):
            break
        if queued is None:
            return (number, None, 1, b"") if not parts else (upto, first, items, b"".join(parts))
        first = signal
        parts.append(queued.data)
        upto, items, size = number, items + queued.items, size + len(body)
    return upto, first, items, b"".join(parts)


class Forwarding:
    """All targets of the fleet file."""

    def __init__(
        self,
        folder: Path,
        counts: Counts,
        clock: Callable[[], float] = time.time,
        make: Callable[[ForwardTarget], Target] = HttpTarget,
    ) -> None:
        """`folder` is where queues are, one below it for each target."""
        self._folder = folder
        self._counts = counts
        self._clock = clock
        self._make = make
        self._encoder = Encoder()
        self._lanes: dict[str, tuple[Lane, DiskOutlet]] = {}
        self._named: frozenset[str] | None = None
        """Targets of the fleet file; None before it was read."""
        self._queues = asyncio.Lock()
        """Whose holder alone opens and closes queues: none is ever open twice."""

    @property
    def states(self) -> list[State]:
        """How it stands with each target, by name."""
        return [self._lanes[name][0].state for name in sorted(self._lanes)]

    async def set(self, targets: Mapping[str, ForwardTarget]) -> None:
        """Forward to these from now on. One that cannot be set up is left out, and told of in the log.

        The queue of a target that is no longer named stays on the disk for a week: named again, it goes on.
        """
        async with self._queues:
            self._named = frozenset(targets)
            await self._close(targets)
            for name, config in targets.items():
                if name in self._lanes:
                    continue
                try:
                    await self._add(name, config)
                except (SetupError, StoreError) as error:
                    log.error("nothing is forwarded to %s: %s", name, error)  # noqa: TRY400  its words suffice

    async def _close(self, targets: Mapping[str, ForwardTarget]) -> None:
        """Close what is not, or not like this, among the targets."""
        for name in list(self._lanes):
            lane, outlet = self._lanes[name]
            if targets.get(name) != lane.config:
                del self._lanes[name]
                await lane.stop()
                await outlet.stop()

    async def _add(self, name: str, config: ForwardTarget) -> None:
        target = self._make(config)
        outlet = DiskOutlet(
            self._folder / _folder_name(name),
            config.queue,
            weigh=weight,
        )
        await outlet.open()
        with contextlib.suppress(OSError):  # as long as it is named, nobody reads it
            (self._folder / _folder_name(name) / "unnamed").unlink(missing_ok=True)
        if damaged := outlet.backlog().dropped:
            log.warning("%d bodies in the queue of %s were damaged and are not sent", damaged, name)
            self._counts.add("forward_dropped", name, damaged)
        lane = Lane(name, config, outlet, target, self._counts, clock=self._clock)
        self._lanes[name] = lane, outlet
        lane.start()

    async def see(self, batch: Batch) -> None:
        """Queue what was stored for the first time. Never raises: it is stored, whatever becomes of this."""
        for lane, _ in list(self._lanes.values()):
            try:
                await lane.put(self._encoder, batch)
            except (
                Exception
            ):  # a row that cannot be written as OTLP must not refuse facts that are stored
                self._counts.add("forward_dropped", lane.state.name, len(batch))
                log.exception("%d items are not forwarded to %s", len(batch), lane.state.name)

    @property
    def waits(self) -> bool:
        """Tell whether anything may wait for any target."""
        return bool(self._idle()) or any(o.backlog().entries for _, o in self._lanes.values())

    async def forget(self, order: Forgetting) -> None:
        """Delete from every queue what an order names. Raises StoreError."""
        async with self._queues:
            await self._forget(order)

    async def _forget(self, order: Forgetting) -> None:
        idle: dict[str, DiskOutlet] = {}
        try:
            for name, folder in self._idle().items():
                idle[name] = await _opened(folder)
            rewriting = {name: queue.rewrite for name, queue in idle.items()}
            rewriting |= {name: lane.forget for name, (lane, _) in self._lanes.items()}
            for rewrite in rewriting.values():
                await rewrite(order.learn)
            for name, rewrite in rewriting.items():
                before = order.removed
                await rewrite(order.change)
                if order.removed > before:
                    self._counts.add("forward_forgotten", name, order.removed - before)
        finally:
            for queue in idle.values():
                await queue.stop()

    async def stop(self) -> None:
        """Send no more; what waits is sent after the next start."""
        async with self._queues:
            await self._close({})

    # -- queues without a target -------------------------------------------------------------

    async def sweep(self, now: float) -> None:
        """Let go of queues whose targets have not been named for UNNAMED_S, at `now` (Unix seconds); what is in them
        is counted. Raises StoreError."""
        async with self._queues:
            for name, folder in self._idle().items():
                await self._sweep(name, folder, now)

    async def _sweep(self, name: str, folder: Path, now: float) -> None:
        mark = folder / "unnamed"
        try:
            if self._named is None:
                return
            if name in self._named:
                mark.unlink(missing_ok=True)  # only its set-up failed
                return
            since = _time_in(mark)
            if since is None or since > now:
                mark.write_text(f"{now}\n")
                log.warning(
                    "hub.forward names %s no more: what waits for it is removed after a week, unless it is named again", name
                )  # fmt: skip
                return
        except OSError as error:
            raise StoreError(f"the queue in {folder} cannot be used: {error.strerror}") from None
        if now - since >= UNNAMED_S:
            queue = await _opened(folder)
            try:
                items = await queue.clear()
            finally:
                await queue.stop()
            log.warning("hub.forward has not named %s for a week: %d items that waited for it are gone", name, items)  # fmt: skip
            if items:
                self._counts.add("forward_dropped", name, items)

    def _idle(self) -> dict[str, Path]:
        """Return the queues on the disk that no lane has open, by their targets."""
        if not self._folder.is_dir():
            return {}
        open_ = {_folder_name(name) for name in self._lanes}
        return {
            _name_of(path.name): path
            for path in sorted(self._folder.iterdir())
            if path.is_dir() and path.name not in open_
        }


UNNAMED_S: Final = 7 * 86_400.0
"""How long the queue of a target stays that the fleet file names no more."""


async def _opened(folder: Path) -> DiskOutlet:
    queue = DiskOutlet(folder, 2**62, weigh=weight)
    await queue.open()
    return queue


def _time_in(mark: Path) -> float | None:
    try:
        return float(mark.read_text())
    except (FileNotFoundError, ValueError):
        return None


def _folder_name(name: str) -> str:
    """Return a target's name as a folder's: two different ones never meet in one."""
    return "".join(
        c if c.isascii() and (c.isalnum() or c in "-_") else f"%{ord(c):x}%" for c in name
    )


def _name_of(folder: str) -> str:
    """Return the target whose queue a folder is."""
    return re.sub("%([0-9a-f]{1,6})%", lambda found: chr(min(int(found[1], 16), 0x10FFFF)), folder)
