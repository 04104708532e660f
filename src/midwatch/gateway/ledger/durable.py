"""The ledger of a running gateway: orders from the event loop, decided in batches by a thread of its own.

Invariant: the loop never waits for the disk. Whoever asks for a reservation is answered when its batch is committed,
or refused after `ANSWER_S`; a reservation whose asker is gone by then is released. Settlements are not waited for:
they stay in memory, in order, until a transaction has taken them.

    event loop                          thread
    reserve ── order ──▶ queue ──▶ take all that waits ──▶ Books.apply: one transaction
       ◀── answers, one call of the loop per batch ──────────┘
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any, Final, TypeVar, cast

from midwatch.core.calls.budget import Admitted, Left, Limit, Notice, Refused, unavailable
from midwatch.core.calls.charge import (
    By,
    Call,
    CallQuery,
    Charge,
    Correction,
    Cost,
    Reservation,
)
from midwatch.core.calls.period import Calendar
from midwatch.core.pace import Pace
from midwatch.gateway.ledger import reading
from midwatch.gateway.ledger.asked import Ask
from midwatch.gateway.ledger.books import Answer, Books, Settled
from midwatch.gateway.ledger.engine import Background, BadRow, Engine, LedgerDown, LedgerUnusable
from midwatch.gateway.ledger.orders import (
    Expire,
    Look,
    Note,
    Order,
    Pass,
    Release,
    Reserve,
    Roll,
    Settle,
)
from midwatch.gateway.ledger.questions import Questions

ANSWER_S: Final = 2.0
"""The longest that a call waits for its reservation before it is refused."""

STOP_S: Final = 5.0
"""How long the end waits for what is still to be written."""

INTERVAL_S: Final = 0.002
"""Distance of transactions under load: each costs as much as four orders in it."""

BURST: Final = 4
"""Transactions that go at once before the distance holds: a call now and then never waits."""

LINGER_S: Final = 0.01
"""How long settlements wait for company when nobody waits for them."""

CROWD: Final = 16
"""Orders that are enough company: they go at once."""

MAX_BATCH: Final = 500
"""Orders of one transaction."""

MAX_WAITING: Final = 20_000
"""Reservations that may wait; more are refused at once."""

RETRY_S: Final = (0.05, 1.0)
"""Pause before a failed batch of settlements is tried again: from, to, doubled each time."""

MAX_FAULTS: Final = 5
"""How often a settlement is tried in which the ledger fails in a way that nobody foresaw."""

NOTHING, AN_ANSWER, ANYTHING = range(3)
"""What the thread waits for."""

log = logging.getLogger(__name__)

T = TypeVar("T")


class DurableLedger:
    """Ledger on a database. `engine` writes, in its own thread; `reader` answers questions in another;
    `disk` is told of each commit."""

    interval_s = INTERVAL_S

    def __init__(
        self,
        engine: Engine,
        reader: Engine,
        calendar: Calendar,
        *,
        disk: Background | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        """(name of `COUNTERS`, label) → how often. Written by both threads, each its own names."""
        self.on_notice: Callable[[Notice], None] = lambda _: None
        self._engine = engine
        self._reader = reader
        self._books = Books(engine, calendar)
        self._disk = disk
        self._clock = clock
        self._orders: deque[Ask] = deque()
        self._awaited = False
        """True when somebody waits for an answer to one of `_orders`."""
        self._asleep = NOTHING
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._kept: deque[Ask] = deque()
        self._waiting: deque[Ask] = deque()
        self._watching = False
        self._stopping = False
        self._stop_by = float("inf")
        self._is_open = False
        self._started = False
        self._pause = RETRY_S[0]
        self._why = LedgerDown("the ledger is not open", "closed")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._questions = Questions(reader, self.counts)

    @property
    def calendar(self) -> Calendar:
        """Days and months."""
        return self._books.calendar

    @calendar.setter
    def calendar(self, calendar: Calendar) -> None:
        self._books.calendar = calendar

    @property
    def in_flight(self) -> int:
        """Calls reserved here that have not ended."""
        return self._books.in_flight

    @property
    def down(self) -> str | None:
        """Why the database does not take orders just now; None when it does. For /readyz."""
        if self._started and not self._thread.is_alive():
            return "its thread has ended; restart the gateway"
        return None if self._is_open else str(self._why)

    # -- in the event loop ----------------------------------------------------------------------

    async def start(self) -> None:
        """Open. Raises LedgerUnusable. A database that is away is waited for; calls are refused meanwhile."""
        self._loop = asyncio.get_running_loop()
        try:
            await asyncio.to_thread(self._engine.open)
            self._is_open = True
        except LedgerDown as error:
            self._fail(error)
        self._thread.start()
        self._started = True
        if self._disk is not None:
            self._disk.start()

    async def stop(self) -> None:
        """Write what waits, for at most `STOP_S`, and close."""
        if self._stopping:
            return
        self._stopping = True
        self._stop_by = self._clock() + STOP_S
        self._wake.put(None)
        await asyncio.to_thread(self._thread.join, STOP_S + ANSWER_S)
        self._questions.close()
        if self._disk is not None:
            await asyncio.to_thread(self._disk.stop)

    def expect(self) -> None:
        """Nothing has to be made ready: the thread is this process's own."""

    async def reserve(self, reservation: Reservation) -> Admitted | Refused:
        """Return whether the call may be made."""
        if self._stopping:
            self.counts["unavailable", "closed"] += 1
            return unavailable("the ledger is closed")
        if len(self._waiting) >= MAX_WAITING:
            self.counts["unavailable", "crowded"] += 1
            return unavailable(f"{MAX_WAITING} calls wait for the ledger")
        ask = self._ask(Reserve(reservation))
        future = cast("asyncio.Future[Admitted | Refused]", ask.future)
        try:
            verdict = await future
        except asyncio.CancelledError:
            ask.gone = True
            if not future.cancelled() and isinstance(future.result(), Admitted):  # it came just now
                self._abandon(reservation)
            raise
        if isinstance(verdict, Refused):
            self.counts["refused", verdict.reason.value] += 1
        return verdict

    def settle(self, call_id: str, charge: Charge) -> None:
        """Replace a reservation by what the call came to, soon."""
        self._send(Settle(call_id, charge))

    def release(self, call_id: str, at: float, why: str = "not sent") -> None:
        """Take a reservation back."""
        self._send(Release(call_id, at, why))

    def note(self, call_id: str, response: str) -> None:
        """Keep the provider's id of a call's answer."""
        self._send(Note(call_id, response))

    def carries(self, call_id: str) -> bool:
        """Tell whether a call was reserved here and has not ended."""
        return self._books.carries(call_id)

    async def reconcile(self, call_id: str, charge: Charge, by: str = "") -> str:
        """Correct a call by exact figures."""
        settled = await self._answer(Settle(call_id, charge, exact=True, by=by))
        return cast("Settled", settled).result

    async def expire(self, at: float) -> list[str]:
        """Count overdue calls at their worst case; return their ids."""
        expired: list[str] = []
        while some := cast("list[str]", await self._answer(Expire(at))):
            expired += some
        return expired

    async def roll(self, at: float, keep_days: int) -> int:
        """Roll calls older than `keep_days` into daily sums, a little at a time; return how many rows went."""
        total = 0
        while gone := cast("int", await self._answer(Roll(at, keep_days))):
            total += gone
        return total

    async def left(self, limits: Sequence[Limit], at: float) -> tuple[Left, ...]:
        """Return how limits stand."""
        return cast("tuple[Left, ...]", await self._answer(Look(tuple(limits), at)))

    async def call(self, call_id: str) -> Call | None:
        """Return a call, None when it is not known."""
        return await self._read(partial(reading.one_call, self._reader, call_id))

    async def calls(self, query: CallQuery) -> list[Call]:
        """Return calls, the newest first."""
        return await self._read(partial(reading.some_calls, self._reader, query))

    async def unsettled(self) -> list[Call]:
        """Return every open call."""
        return await self._read(partial(reading.unsettled, self._reader))

    async def doubtful(self, since: float, by_call: Collection[str], by_response: Collection[str] = ()) -> list[Call]:  # fmt: skip
        """Return calls whose cost is open or estimated, the oldest first."""
        return await self._read(partial(reading.doubtful, self._reader, since, by_call, by_response))  # fmt: skip

    async def by_response(self, response: str) -> Call | None:
        """Return the call whose answer has this id."""
        return await self._read(partial(reading.by_response, self._reader, response))

    async def corrections(self, call_id: str) -> list[Correction]:
        """Return how a call's cost was put right."""
        return await self._read(partial(reading.corrections, self._reader, call_id))

    async def cost(self, by: By, query: CallQuery) -> list[Cost]:
        """Return settled cost by a name."""
        return await self._read(partial(reading.cost, self._reader, by, query, self.calendar))

    async def audit(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Return where balances and calls differ."""
        return await self._read(partial(reading.audit, self._reader))

    def _send(self, order: Order) -> None:
        if self._takes_orders():
            self._put(Ask(order, None, 0.0))
        else:
            self.counts["lost", ""] += 1
            log.error("a settlement came after the ledger had closed; its call stays reserved")

    def _ask(self, order: Order) -> Ask:
        assert self._loop is not None, "start() comes first"
        ask = Ask(order, self._loop.create_future(), self._clock())
        self._waiting.append(ask)
        self._put(ask)
        if not self._watching:
            self._watching = True
            self._loop.call_later(ANSWER_S / 8, self._watch)
        return ask

    def _takes_orders(self) -> bool:
        return self._thread.is_alive()

    def _put(self, ask: Ask) -> None:
        """Hand an order over."""
        self._orders.append(ask)
        wanted = ask.future is not None
        if wanted:
            self._awaited = True
        if self._asleep == ANYTHING or (wanted and self._asleep):
            self._asleep = NOTHING
            self._wake.put(None)

    async def _answer(self, order: Order) -> Answer:
        """Return the answer to an order that is not a reservation. Raises LedgerDown."""
        if self._stopping:
            raise LedgerDown("the ledger is closed", "closed")
        answer = await cast("asyncio.Future[Answer]", self._ask(order).future)
        if isinstance(answer, Refused):
            raise LedgerDown(answer.sentence, "unavailable")
        return answer

    async def _read(self, question: Callable[[], T]) -> T:
        """Answer from the reader, after all that was ordered before is committed."""
        await self._answer(Pass())
        return await self._questions.ask(question)

    def _watch(self) -> None:
        """Refuse whoever has waited too long, whatever the thread is doing."""
        waiting, now = self._waiting, self._clock()
        while waiting:
            ask = waiting[0]
            assert ask.future is not None
            if not ask.future.done():
                if now - ask.since < ANSWER_S:
                    break
                ask.gone = True
                self.counts["unavailable", "slow"] += 1
                ask.future.set_result(unavailable(f"the ledger did not answer in {ANSWER_S:g} s"))
            waiting.popleft()
        self._watching = bool(waiting)
        if waiting:
            assert self._loop is not None
            self._loop.call_later(ANSWER_S / 8, self._watch)

    def _deliver(self, answers: list[tuple[Ask, Answer]], told: list[Notice]) -> None:
        for ask, answer in answers:
            if isinstance(answer, Settled):
                self.counts["settled", answer.result] += 1
                self.counts["over_worst", ""] += answer.over_nusd > 0
            if ask.future is None:
                continue
            if not ask.future.done():
                ask.future.set_result(answer)
            elif isinstance(answer, Admitted) and isinstance(ask.order, Reserve):
                self._abandon(ask.order.reservation)
        while self._waiting and self._waiting[0].future and self._waiting[0].future.done():
            self._waiting.popleft()
        for notice in told:
            self.on_notice(notice)

    def _abandon(self, reserved: Reservation) -> None:
        self.counts["abandoned", ""] += 1
        self.release(reserved.call_id, reserved.at, "nobody waited for it")

    # -- in the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        pace = Pace(self.interval_s, BURST)
        while True:
            batch = self._take(pace)
            if batch:
                pace.step(self._clock())
                self._commit(batch)
            if self._stopping and not self._orders:
                if not self._kept or self._clock() > self._stop_by:
                    break
                time.sleep(RETRY_S[0])
        if self._kept:
            self.counts["lost", ""] += len(self._kept)
            log.error(
                "%d settlements could not be written: %s; their calls stay reserved at their worst case",
                len(self._kept),
                self._why,
            )
        self._engine.close()

    def _take(self, pace: Pace) -> list[Ask]:
        """Return what is to be decided next, in order: what failed before, then what has arrived."""
        if not self._orders and not self._stopping:
            self._sleep(self._pause if self._kept else None)
        if not self._awaited:
            self._linger(pace)
        pause = pace.pause(self._clock())
        if pause > 0 and len(self._orders) < CROWD and not self._stopping:
            self._pause_for(pause)
        self._awaited = False
        batch = [*self._kept]
        self._kept.clear()
        while self._orders and len(batch) < MAX_BATCH:
            batch.append(self._orders.popleft())
        if self._orders:
            self._awaited = True  # the rest of a crowd: do not linger
        return [ask for ask in batch if not (ask.gone and isinstance(ask.order, Reserve))]

    def _linger(self, pace: Pace) -> None:  # noqa: ARG002  a process of its own looks at it
        self._sleep(LINGER_S)

    def _sleep(self, at_most_s: float | None) -> None:
        """Wait until somebody waits for an answer; without a bound, until there is anything to do."""
        self._asleep = ANYTHING if at_most_s is None else AN_ANSWER
        # what came before that line woke nobody
        if self._stopping or self._awaited or (at_most_s is None and self._orders):
            self._asleep = NOTHING
            return
        with contextlib.suppress(queue.Empty):
            self._wake.get(timeout=at_most_s)
        self._asleep = NOTHING

    def _pause_for(self, seconds: float) -> None:
        time.sleep(seconds)

    def _commit(self, batch: list[Ask]) -> None:
        told: list[Notice] = []
        try:
            if not self._is_open:
                self._engine.open()
            answers = self._books.apply([ask.order for ask in batch], told.append)
        except BadRow as error:
            self._one_by_one(batch, error)
        except (LedgerDown, LedgerUnusable) as error:
            self._put_off(batch, error)
        except Exception as error:
            # a defect of ours: whom it does not concern must not suffer, and the thread must live
            if len(batch) == 1:
                log.exception("the ledger failed in a way that nobody foresaw")
            self._one_by_one(batch, error)
        else:
            self._is_open, self._pause = True, RETRY_S[0]
            self.counts["transactions", ""] += 1
            self.counts["orders", ""] += len(batch)
            self._call(self._deliver, list(zip(batch, answers, strict=True)), told)
            if self._disk is not None:
                self._disk.wrote()
            if any(isinstance(ask.order, Roll) for ask in batch):
                self._tidy()

    def _tidy(self) -> None:
        try:
            self._engine.tidy()
        except LedgerDown as error:
            self._fail(error)

    def _one_by_one(self, batch: list[Ask], error: Exception) -> None:
        """Find the order that cannot be done: the others must not suffer for it."""
        if len(batch) > 1:
            for ask in batch:
                self._commit([ask])
            return
        ask, bad = batch[0], isinstance(error, BadRow)
        self.counts["failed", "bad row" if bad else "fault"] += 1
        log.error("the ledger cannot take %s: %r", type(ask.order).__name__, error)
        ask.faults += not bad
        if ask.future is not None:
            why = str(error) if bad else "a fault of the gateway; see its log"
            self._call(self._deliver, [(ask, unavailable(why))], [])
        elif bad or ask.faults >= MAX_FAULTS:
            self.counts["unwritable", ""] += 1
        else:
            self._pause = min(RETRY_S[1], self._pause * 2)
            self._kept.append(ask)

    def _put_off(self, batch: list[Ask], error: LedgerDown | LedgerUnusable) -> None:
        """Refuse who waits, and keep what must not be lost."""
        self._fail(error)
        self._pause = min(RETRY_S[1], self._pause * 2)
        waiting = [ask for ask in batch if ask.future is not None]
        self._kept.extend(ask for ask in batch if ask.future is None)
        if isinstance(error, LedgerDown) and error.unsure:
            for ask in waiting:
                if isinstance(ask.order, Reserve):
                    reserved = ask.order.reservation
                    undo = Release(reserved.call_id, reserved.at, "its commit was unsure")
                    self._kept.append(Ask(undo, None, ask.since))
        for ask in waiting:
            if isinstance(ask.order, Reserve):
                self.counts["unavailable", _reason(error)] += 1
        self._call(self._deliver, [(ask, unavailable(str(error))) for ask in waiting], [])

    def _fail(self, error: LedgerDown | LedgerUnusable) -> None:
        if self._is_open or str(error) != str(self._why):
            log.error("the ledger does not take orders: %s; calls are refused until it does", error)
        self.counts["failed", _reason(error)] += 1
        self._why = LedgerDown(str(error), _reason(error))
        if isinstance(error, LedgerUnusable) or error.lost:
            self._engine.close()
            self._is_open = False

    def _call(self, what: Callable[..., Any], *values: Any) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(what, *values)
        except RuntimeError:
            log.debug("the loop has ended before the ledger")


def _reason(error: LedgerDown | LedgerUnusable) -> str:
    return error.reason if isinstance(error, LedgerDown) else "unusable"
