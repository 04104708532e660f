"""One request of OTLP from its unpacked body to its answer: a turn, rows, owners, disk, watch.

Answered is what the store has on disk, or refused with a reason; nothing is in between. HTTP and gRPC come here.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, Protocol

from midwatch.core.counts import Counts
from midwatch.core.errors import StoreError
from midwatch.core.redact import hints, hints_json
from midwatch.core.spans.digest import SpanObserver, digest_of
from midwatch.core.spans.form import CONTENTS, LOGS, POINTS, SPANS, Batch, Row, Signal
from midwatch.core.spans.looking import Entered
from midwatch.core.spans.store import Kept
from midwatch.core.spans.understanding import Interpreter
from midwatch.ingest.admission import Admission, overloaded
from midwatch.ingest.otlp import object_points
from midwatch.ingest.otlp.objects import Objects
from midwatch.ingest.otlp.owners import Names, Sender
from midwatch.ingest.otlp.protobuf import Protobuf
from midwatch.ingest.otlp.rows import Rows
from midwatch.ingest.redacting import redact_batch
from midwatch.wire.problem import Refusal

INLINE_BYTES: Final = 160 * 1024
"""Larger bodies are decoded in a thread. Smaller ones take less time than handing them over would cost the loop:
a thread that computes gives the interpreter back only every five milliseconds."""

INLINE_JSON_BYTES: Final = 32 * 1024
"""The same of JSON, which takes five times as long."""

LANES: Final = 2
"""Large bodies that are decoded at one time."""

COUNTED: Final = {Signal.SPANS: "span", Signal.POINTS: "point", Signal.LOGS: "log"}

log = logging.getLogger(__name__)


class Registry(Names, Protocol):
    """Which agents there are, and where new ones are made known: `ingest.roster`."""

    async def register(self, name: str, by: str) -> None: ...


class Keeping(Protocol):
    """Where telemetry is kept, and what becomes of it before it is answered: a `SpanStore`, or who stands before it."""

    async def append(self, batch: Batch) -> Kept: ...


class Pricing(Protocol):
    """What sets the cost of calls that tell none: `core.spans.priced`. Several threads call it."""

    def price(self, rows: Iterable[Row]) -> None: ...


class Answer(NamedTuple):
    """What became of a request: how many were refused, and why."""

    rejected: int
    message: str


class Decoder:
    """Everything that decoding remembers. One for each thread; `entered` is of all."""

    def __init__(self, entered: Entered | None = None) -> None:
        self.protobuf = Protobuf()
        self.objects = Objects(object_points.read)
        self.interpreter = Interpreter(entered=entered)

    def read(
        self,
        signal: Signal,
        body: bytes,
        sender: Sender,
        names: Names,
        now: float,
        *,
        as_json: bool,
    ) -> Rows:
        """Return the rows of a request. Raises Refusal 400."""
        rows = Rows(sender, names, self.interpreter, now)
        self.interpreter.looker.begin(len(body))
        (self.objects if as_json else self.protobuf).read(signal, body, rows)
        if (hints_json if as_json else hints)(body):
            by_look, by_name = redact_batch(rows.batch)
            rows.redacted["shape"] += by_look
            rows.redacted["name"] += by_name
        rows.lost.update(self.interpreter.lost)
        self.interpreter.lost.clear()
        rows.not_looked.update(self.interpreter.looker.not_looked)
        self.interpreter.looker.not_looked.clear()
        rows.batch.size_bytes = len(body)
        return rows


class OtlpIntake:
    """Where telemetry enters. `store` keeps it, `observer` hears of what is new."""

    def __init__(
        self,
        store: Keeping,
        roster: Registry,
        observer: SpanObserver,
        admission: Admission,
        counts: Counts,
        clock: Callable[[], float],
        pricing: Pricing | None = None,
    ) -> None:
        self.counts = counts
        self._store = store
        self._roster = roster
        self._observer = observer
        self._admission = admission
        self._clock = clock
        self.pricing = pricing
        """By what calls are priced; a new one may take its place at any time."""
        entered = Entered()
        self._mine = Decoder(entered)
        self._lanes = [Decoder(entered) for _ in range(LANES)]
        self._free = asyncio.Semaphore(LANES)

    async def take(self, signal: Signal, body: bytes, sender: Sender, *, as_json: bool) -> Answer:
        """Keep a request and return what became of it. Raises Refusal; then nothing of it was kept."""
        who = sender.caller.agent or peek(body) or sender.caller.name
        async with self._admission.turn(who, len(body)):
            rows = await self._decode(signal, body, sender, as_json)
            if rows.strangers:
                await self._register(rows, sender)
            for what, n in (+rows.lost).items():
                self.counts.add("clipped", what, n)
            for why, n in (+rows.not_looked).items():
                self.counts.add("not_looked", why, n)
            for why, n in (+rows.redacted).items():
                self.counts.add("redacted", why, n)
            for why, n in rows.refused.counts.items():
                self.counts.add("rejected", why, n)
            if len(rows.batch) or rows.batch.contents:
                await self._keep(signal, rows.batch)
        return Answer(len(rows.refused), rows.refused.message)

    async def _decode(self, signal: Signal, body: bytes, sender: Sender, as_json: bool) -> Rows:
        now = self._clock()
        if len(body) <= (INLINE_JSON_BYTES if as_json else INLINE_BYTES):
            return self._read(self._mine, signal, body, sender, now, as_json=as_json)
        await self._free.acquire()
        decoder = self._lanes.pop()
        work = asyncio.ensure_future(
            asyncio.to_thread(self._read, decoder, signal, body, sender, now, as_json=as_json)
        )
        # a request that is cancelled leaves its thread at work: the lane is free when that ends
        work.add_done_callback(lambda _: self._leave_lane(decoder))
        return await asyncio.shield(work)

    def _read(
        self,
        decoder: Decoder,
        signal: Signal,
        body: bytes,
        sender: Sender,
        now: float,
        *,
        as_json: bool,
    ) -> Rows:
        rows = decoder.read(signal, body, sender, self._roster, now, as_json=as_json)
        if self.pricing is not None:
            self.pricing.price(rows.batch.spans)
        return rows

    def _leave_lane(self, decoder: Decoder) -> None:
        self._lanes.append(decoder)
        self._free.release()

    async def _register(self, rows: Rows, sender: Sender) -> None:
        """Make strangers known; refuse the rows of those that cannot be."""
        for name in sorted(rows.strangers):
            try:
                await self._roster.register(name, sender.caller.name)
            except Refusal as refusal:
                if refusal.status == 503:
                    raise
                gone = _without(rows.batch, name)
                rows.refused.add(refusal.reason, refusal.detail, gone)

    async def _keep(self, signal: Signal, batch: Batch) -> None:
        try:
            kept = await self._store.append(batch)
        except StoreError as error:
            if error.permanent:
                raise Refusal(422, str(error), reason="store") from None
            raise overloaded(str(error), "store") from None
        what = COUNTED[signal]
        self.counts.add("accepted", what, kept.new + kept.replaced)
        if kept.duplicates:
            self.counts.add("duplicates", what, kept.duplicates)
        if kept.fresh.spans:
            await self._tell(kept)

    async def _tell(self, kept: Kept) -> None:
        try:
            await self._observer.see(digest_of(kept.fresh.spans))
        except Exception:  # a fault of a detector must not refuse facts that are stored
            self.counts.add("watch_failures", "span", len(kept.fresh.spans))
            log.exception("the watch failed on %d spans; they are stored", len(kept.fresh.spans))


def _without(batch: Batch, agent: str) -> int:
    """Take an agent's rows out of a batch; return how many spans, points and records there were."""
    before = len(batch)
    for table in (SPANS, CONTENTS, POINTS, LOGS):
        place = table.at["agent"]
        rows = batch.rows(table.name)
        rows[:] = [row for row in rows if row[place] != agent]
    return before - len(batch)


_SERVICE: Final = re.compile(
    rb"(?:midwatch\.agent|service\.name)"
    rb"(?:\x12[\x03-\x7f]\x0a[\x01-\x7f]([A-Za-z0-9 ._:/-]{1,64})"
    rb'|"\s*,\s*"value"\s*:\s*\{\s*"stringValue"\s*:\s*"([^"\\]{1,64})")'
)


def peek(body: bytes) -> str | None:
    """Return the service that the first resource names, before anything is decoded: it decides about turns only."""
    found = _SERVICE.search(body, 0, 16_384)
    return (found[1] or found[2]).decode("latin-1") if found else None
