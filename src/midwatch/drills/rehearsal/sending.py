"""An answer on its way: paced, shaped, and broken off where the order says so.

A meter goes along: it knows what was sent, because that is what is billed when the rest never is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Final

from midwatch.drills.rehearsal import shapes
from midwatch.drills.rehearsal.behave import Behaviour, Mode
from midwatch.drills.rehearsal.http import Cut, Reply, json_reply
from midwatch.drills.rehearsal.question import Json
from midwatch.drills.rehearsal.rendering import Event
from midwatch.drills.rehearsal.tokens import Usage, so_far

MIDSTREAM: Final = frozenset({Mode.CUT, Mode.STALL, Mode.ERROR, Mode.JSON, Mode.ENDLESS})
"""The modes that go wrong behind a number of events."""
ENDLESS_CHUNK: Final = b" " * 4096
"""What an endless body that is no stream consists of."""


@dataclass(slots=True)
class Meter:
    """What of an answer was sent. `total` and `said` are characters."""

    usage: Usage
    total: int = 0
    said: int = 0
    again: int = 0
    """Characters said beyond the whole answer, by an endless stream."""
    end: str = "left"

    def bill(self) -> Usage:
        """Return what is billed for what was sent so far."""
        if self.end == "done":
            return self.usage
        made = so_far(self.usage, self.said, self.total)
        if not self.again:
            return made
        more = made.output + self.again // 4
        return Usage(made.input, more, made.cached, made.written, made.written_1h, made.reasoning)


def early(order: Behaviour, *, stream: bool) -> bool:
    """Tell whether a break belongs before the head."""
    return not order.head_first and (not stream or order.chunks == 0)


async def stall(order: Behaviour) -> None:
    """Wait as long as the order says, or for as long as the client stays."""
    if order.lasts is None:
        await asyncio.Event().wait()
    else:
        await asyncio.sleep(order.lasts)


def whole(body: Json, order: Behaviour | None) -> tuple[Reply, str]:
    """Return an answer in one piece, spoiled where the order says so, and how it will end."""
    if order is None:
        return json_reply(body), "done"
    if order.usage is not None:
        body = shapes.alter_usage(body, order.usage)
    reply = json_reply(body)
    assert isinstance(reply.body, bytes)
    data = reply.body
    if order.mode is Mode.JSON:
        data = data[: max(len(data) // 2, 1)]
    if order.gzip:
        data = shapes.compress(data)
        reply.headers["content-encoding"] = "gzip"
    reply.body = data
    if order.length_off:
        reply.length = max(len(data) + order.length_off, 0)
    if order.mode is Mode.ENDLESS:
        reply.body = _endless_body(data)
        return reply, "endless"
    if order.head_first or order.length_off > 0:
        reply.length = len(data) if reply.length is None else reply.length
        reply.body = _behind_head(data, order)
    return reply, _ENDS.get(order.mode, "done")


_ENDS: Final = {Mode.CUT: "cut", Mode.STALL: "stalled", Mode.JSON: "broken"}


async def _endless_body(data: bytes) -> AsyncGenerator[bytes]:
    yield data[:-1]
    while True:
        yield ENDLESS_CHUNK
        await asyncio.sleep(0)


async def _behind_head(data: bytes, order: Behaviour) -> AsyncGenerator[bytes]:
    """Yield a whole body behind a head that was sent at once."""
    if order.sets("first_token"):
        await asyncio.sleep(order.first_token)
    if order.mode in {Mode.CUT, Mode.STALL}:
        yield data[: len(data) // 2]
        if order.mode is Mode.CUT:
            raise Cut(reset=order.how == "reset")
        await stall(order)
        data = data[len(data) // 2 :]
    yield data
    if order.length_off > 0:  # more was declared than there is
        if order.then == "hang":
            await asyncio.Event().wait()
        raise Cut


async def stream(
    events: list[Event],
    order: Behaviour | None,
    error: Callable[[], bytes],
    meter: Meter,
    settle: Callable[[], None],
) -> AsyncGenerator[bytes]:
    """Yield the events as ordered; however it ends, `settle` is called once.

    `error` gives the event by which the dialect reports an error.
    """
    meter.total = sum(len(event.said) for event in events)
    try:
        if order is None:
            for event in events:
                meter.said += len(event.said)
                yield event.data
            meter.end = "done"
        else:
            async for chunk in _ordered(events, order, error, meter):
                yield chunk
    finally:
        settle()


async def _ordered(
    events: list[Event], order: Behaviour, error: Callable[[], bytes], meter: Meter
) -> AsyncGenerator[bytes]:
    if order.mode is Mode.NO_END:
        events = events[: max(len(events) - order.drop, 0)]
    datas = [event.data for event in events]
    if order.usage is not None:
        datas = [shapes.alter_event(data, order.usage) for data in datas]
    chunks = shapes.chunks(datas, order.sse, order.padding)
    wrong_at = min(order.chunks, len(events) - 1) if order.mode in MIDSTREAM else -1
    loop = asyncio.get_running_loop()
    due = loop.time()
    if order.head_first and order.sets("first_token"):
        due += order.first_token
        await asyncio.sleep(order.first_token)
    gap = order.between if order.sets("between") else 0.0
    for number, event in enumerate(events):
        if (
            number and gap
        ):  # by the clock, not by the last event: a late one does not delay the rest
            due += gap
            await asyncio.sleep(max(due - loop.time(), 0))
        if number == wrong_at:
            async for chunk in _wrong(events[number:], order, error, meter):
                yield chunk
            if order.mode is not Mode.STALL:
                return
            due = loop.time()
        meter.said += len(event.said)
        for chunk in chunks[number]:
            yield chunk
    meter.end = "done"
    if order.mode is Mode.NO_END and order.then != "end":
        if order.then == "hang":
            await asyncio.Event().wait()
        raise Cut(reset=order.how == "reset")


async def _wrong(
    left: list[Event], order: Behaviour, error: Callable[[], bytes], meter: Meter
) -> AsyncGenerator[bytes]:
    """Yield what is sent when it goes wrong; raise Cut where the connection breaks."""
    match order.mode:
        case Mode.STALL:
            meter.end = "stalled"
            await stall(order)
            meter.end = "left"
        case Mode.CUT:
            meter.end = "cut"
            raise Cut(reset=order.how == "reset")
        case Mode.JSON:
            meter.end = "broken"
            yield left[0].data[:-8] + b"\n\n"
        case Mode.ENDLESS:
            meter.end = "endless"
            again = next((event for event in left if event.said), left[0])
            gap = order.between if order.sets("between") else 0.0
            while True:
                meter.again += len(again.said)
                yield again.data
                await asyncio.sleep(gap)
        case _:
            meter.end = "error"
            yield error()
