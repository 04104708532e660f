"""The ledger of a gateway whose books are kept by a process of their own (`keeper`).

What Python does there takes nothing of the event loop's time: its lock is of one process. Orders go out once a turn of
the loop, answers come back when their batch is committed; nothing else differs from the ledger with a thread. When the
process dies, whoever waits is refused, and from then on a thread of this process goes on with the same file: what was
settled and not yet answered is settled again, which counts once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path
from typing import Any, Final, cast

from midwatch.core.calls.budget import Notice, Refused, unavailable
from midwatch.core.calls.period import Calendar
from midwatch.gateway.ledger.asked import Ask
from midwatch.gateway.ledger.books import Answer, Settled
from midwatch.gateway.ledger.durable import ANSWER_S, STOP_S, DurableLedger
from midwatch.gateway.ledger.engine import LedgerUnusable
from midwatch.gateway.ledger.keeper import Beside
from midwatch.gateway.ledger.orders import Expire, Release, Reserve
from midwatch.gateway.ledger.packing import (
    Frames,
    Packer,
    answer_in,
    calendar_out,
    frame,
    notice_in,
)
from midwatch.gateway.ledger.sqlite import Disk, SqliteEngine

SOON: Final = frame({"soon": True})

START_S = 10.0
"""How long the process may take to open its file."""

FEW: Final = 2
"""Calls that wait: so few do not wait for company on the way out, too."""

log = logging.getLogger(__name__)


class ApartLedger(DurableLedger):
    """`beside`: the process, already begun."""

    def __init__(self, path: Path, calendar: Calendar, beside: Beside) -> None:
        engine, reader = SqliteEngine(path), SqliteEngine(path, read_only=True)
        super().__init__(engine, reader, calendar, disk=Disk(path))
        self._path = path
        self._beside = beside
        self._line: asyncio.Transport | None = None
        self._asks: dict[int, Ask] = {}
        """Not answered yet, by number: the oldest first."""
        self._number = 0
        self._out: list[tuple[int, Ask]] = []
        """What goes out at the end of this turn."""
        self._packer = Packer()
        self._frames = Frames()
        self._mine: set[str] = set()
        """Calls that were reserved here, or are about to be, and have not ended."""
        self._said_down: str | None = None
        self._first: asyncio.Future[None] | None = None
        self._ended: asyncio.Future[None] | None = None

    @property
    def calendar(self) -> Calendar:
        """Days and months."""
        return self._books.calendar

    @calendar.setter
    def calendar(self, calendar: Calendar) -> None:
        self._books.calendar = calendar
        if self._line is not None:
            self._flush()
            self._line.write(frame({"calendar": calendar_out(calendar)}))

    @property
    def in_flight(self) -> int:
        """Calls reserved here that have not ended."""
        return len(self._mine)

    def carries(self, call_id: str) -> bool:
        """Tell whether a call was reserved here and has not ended."""
        return call_id in self._mine

    @property
    def down(self) -> str | None:
        """Why the database does not take orders just now; None when it does."""
        return self._said_down if self._line is not None else super().down

    async def start(self) -> None:
        """Open. Raises LedgerUnusable. A database that is away is waited for; calls are refused meanwhile."""
        self._loop = loop = asyncio.get_running_loop()
        self._first, self._ended = loop.create_future(), loop.create_future()
        line, _ = await loop.create_unix_connection(lambda: _Ears(self), sock=self._beside.line)
        self._line, calendar = line, self.calendar
        line.write(frame({"begin": (str(self._path), calendar_out(calendar))}))
        await asyncio.wait([self._first], timeout=START_S)
        if not self._first.done():
            line.abort()  # and then it goes on without
        await self._first

    async def stop(self) -> None:
        """Write what waits, for at most `STOP_S`, and close."""
        if self._started:
            await super().stop()
            return
        if self._stopping:
            return
        assert self._ended is not None
        self._stopping = True
        if self._line is not None:
            line = self._line
            self._flush()
            line.write(frame({"stop": True}))
            await asyncio.wait([self._ended], timeout=STOP_S + ANSWER_S)
            line.abort()
        await asyncio.to_thread(self._beside.reap)
        self._questions.close()

    def expect(self) -> None:
        """Let the process wake up meanwhile, when it has nothing to do. Under load it is awake."""
        line = self._line
        if line is None or self._asks or line.get_write_buffer_size():
            return
        with contextlib.suppress(
            OSError
        ):  # it is no order: whatever is wrong shows at the next one
            sent = self._beside.line.send(
                SOON
            )  # at once: the transport sends when this turn of the loop ends
            if sent < len(SOON):
                line.write(SOON[sent:])

    # -- orders -----------------------------------------------------------------------------------

    def _takes_orders(self) -> bool:
        return self._line is not None or super()._takes_orders()

    def _put(self, ask: Ask) -> None:
        order = ask.order
        if isinstance(order, Reserve):
            self._mine.add(order.reservation.call_id)
        if self._line is None:
            super()._put(ask)
            return
        self._number = number = self._number + 1
        self._asks[number] = ask
        awaited = ask.future is not None
        self._out.append((number, ask))
        if awaited and len(self._waiting) <= FEW:
            self._flush()
        elif len(self._out) == 1:
            assert self._loop is not None
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        out, self._out = self._out, []
        if not out or self._line is None:
            return
        packed = self._packer.order
        try:
            data = frame(
                {"orders": [(n, ask.future is not None, packed(ask.order)) for n, ask in out]}
            )
        except (TypeError, ValueError, RecursionError):
            # a value of ours that no process can be told: the others must not suffer
            self._packer = Packer()  # nobody has heard of its numbers
            if len(out) > 1:
                for one in out:
                    self._out = [one]
                    self._flush()
                return
            ask = self._asks.pop(out[0][0])
            log.exception("the ledger cannot be told %s", type(ask.order).__name__)
            self.counts["unwritable" if ask.future is None else "failed", "fault"] += 1
            if ask.future is not None:
                self._deliver([(ask, unavailable("a fault of the gateway; see its log"))], [])
            return
        self._line.write(data)

    # -- answers ----------------------------------------------------------------------------------

    def heard(self, piece: bytes) -> None:
        """Take in what the process says."""
        for message in self._frames.take(piece):
            packed, told, counted, down, unusable = message
            self._said_down = down
            for name, label, count in counted:
                self.counts[name, label] += count
            assert self._first is not None
            if not self._first.done():
                if unusable:
                    self._first.set_exception(LedgerUnusable(down))
                else:
                    self._first.set_result(None)
            answers: list[tuple[Ask, Answer]] = []
            for number, one in packed:
                ask = self._asks.pop(number)
                if one.__class__ is str:  # it ended as it should, and nobody waits for that
                    order: Any = ask.order
                    self._mine.discard(order.call_id)
                    self.counts["settled", one] += 1
                else:
                    answers.append((ask, answer_in(ask.order, one)))
            if answers or told:
                self._deliver(answers, [notice_in(one) for one in told])

    def _deliver(self, answers: list[tuple[Ask, Answer]], told: list[Notice]) -> None:
        for ask, answer in answers:
            order = ask.order
            if isinstance(order, Reserve):
                if isinstance(answer, Refused):
                    self._mine.discard(order.reservation.call_id)
            elif isinstance(answer, Settled):
                self._mine.discard(cast("Any", order).call_id)
            elif isinstance(order, Expire) and isinstance(answer, list):
                self._mine.difference_update(answer)
        super()._deliver(answers, told)

    # -- its end ----------------------------------------------------------------------------------

    def gone(self) -> None:
        """The process has ended: go on without it, unless this is the end."""
        assert self._loop is not None
        assert self._ended is not None
        assert self._first is not None
        self._line = None
        if not self._ended.done():
            self._ended.set_result(None)
        asks, self._asks, self._out = list(self._asks.values()), {}, []
        if self._stopping:
            refused = unavailable("the ledger is closed")
            self._deliver([(ask, refused) for ask in asks if ask.future is not None], [])
            lost = sum(ask.future is None for ask in asks)
            self.counts["lost", ""] += lost
            if lost:
                log.error("%d settlements could not be written; their calls stay reserved", lost)
            return
        if self._first.done() and self._first.exception() is not None:
            return  # no books can be kept
        log.error("the ledger's process has ended; this one keeps the books from now on")
        self.counts["failed", "ended"] += 1
        self._loop.run_in_executor(None, self._beside.reap)
        for ask in asks:
            if ask.future is None:
                self._kept.append(ask)
            elif isinstance(ask.order, Reserve):
                reserved = ask.order.reservation
                undo = Release(reserved.call_id, reserved.at, "its commit was unsure")
                self._kept.append(Ask(undo, None, ask.since))
                self.counts["unavailable", "ended"] += 1
        refused = unavailable("its process has ended")
        self._deliver([(ask, refused) for ask in asks if ask.future is not None], [])
        self._thread.start()
        self._started = True
        assert self._disk is not None
        self._disk.start()
        if not self._first.done():
            self._first.set_result(None)


class _Ears(asyncio.Protocol):
    """The line to the process."""

    def __init__(self, ledger: ApartLedger) -> None:
        self._ledger = ledger

    def data_received(self, data: bytes) -> None:
        self._ledger.heard(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._ledger.gone()
