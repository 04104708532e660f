"""Clients for the gateway's benchmark: HTTP/1.1 straight on asyncio transports, so that they cost little.

`closed` keeps so many connections busy; `paced` sends so many calls a second whatever comes back, on connections
that are kept; `streams` holds streams open, each on a connection of its own, and looks at each event's age, by the
`sent_ns` that the upstream writes into it. No two requests are alike: the same one again and again would be a loop,
and a memory of it no measure of ours.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_SENT = re.compile(rb'"sent_ns":\s*"?(\d+)')
_TOKEN = re.compile(rb'"content":\s*"[^"]')
"""The first words of an answer; not every gateway hands `sent_ns` on."""


NUMBER = b"no. aaaaaaaaaa"
"""Stands in what is sent; each time it is another one. In letters: requests that differ in figures are alike."""

_LETTERS = bytes.maketrans(b"0123456789", b"ghijklmnop")

_numbers = itertools.count(os.getpid() % 1000 * 10_000_000)


def numbered(data: bytes) -> bytes:
    number = b"%010d" % next(_numbers)
    return data.replace(NUMBER, b"no. " + number.translate(_LETTERS), 1)


def request(port: int, path: str, key: str, body: bytes, extra: str = "") -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer {key}\r\n{extra}content-length: {len(body)}\r\n\r\n"
    ).encode() + body


@dataclass
class Tally:
    """What clients saw."""

    done: int = 0
    bad: int = 0
    seconds: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)
    """Seconds to the first words of streams."""
    statuses: dict[int, int] = field(default_factory=dict)

    def at(self, share: float) -> float:
        """Milliseconds below which this share of the calls lies."""
        ordered = sorted(self.seconds)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)] * 1e3 if ordered else 0.0


class _Caller(asyncio.Protocol):
    """One connection; `ended(status, seconds)` after each answer."""

    def __init__(self, ended: Callable[[_Caller, int, float], None]) -> None:
        self.ended = ended
        self.buffer = b""
        self.began = 0.0
        self.busy = False
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def send(self, data: bytes) -> None:
        self.began = time.perf_counter()
        self.busy = True
        assert self.transport is not None
        self.transport.write(numbered(data))

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head = self.buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        found = _LENGTH.search(self.buffer, 0, head + 2)
        if found is not None:
            whole = head + 4 + int(found[1])
            if len(self.buffer) < whole:
                return
        elif self.buffer.endswith(b"0\r\n\r\n"):
            whole = len(self.buffer)
        else:
            return
        status = int(self.buffer[9:12])
        self.buffer = self.buffer[whole:]
        self.busy = False
        self.ended(self, status, time.perf_counter() - self.began)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self.busy:
            self.busy = False
            self.ended(self, 0, time.perf_counter() - self.began)


class _Hearer(_Caller):
    """One connection for streams, one after the other; it looks at when the first words come."""

    first: float | None = None

    def send(self, data: bytes) -> None:
        self.first = None
        super().send(data)

    def data_received(self, data: bytes) -> None:
        if self.first is None and _TOKEN.search(data):
            self.first = time.perf_counter() - self.began
        super().data_received(data)


async def closed(port: int, data: bytes, connections: int, seconds: float) -> tuple[Tally, float]:
    """Keep `connections` busy for so long; return what came and how long it really took."""
    tally, loop = Tally(), asyncio.get_running_loop()
    over = loop.create_future()
    began = time.perf_counter()
    running = connections

    def ended(caller: _Caller, status: int, took: float) -> None:
        nonlocal running
        tally.statuses[status] = tally.statuses.get(status, 0) + 1
        if status == 200:
            tally.done += 1
            tally.seconds.append(took)
        else:
            tally.bad += 1
        if status and time.perf_counter() - began < seconds:
            caller.send(data)
            return
        running -= 1
        if caller.transport is not None:
            caller.transport.close()
        if not running and not over.done():
            over.set_result(None)

    for _ in range(connections):
        _, caller = await loop.create_connection(lambda: _Caller(ended), "127.0.0.1", port)
        caller.send(data)
    await asyncio.wait_for(over, seconds + 60)
    return tally, time.perf_counter() - began


async def paced(
    port: int, data: bytes, rate: float, seconds: float, made: type[_Caller] = _Caller
) -> Tally:
    """Send `rate` calls a second, each on a free connection; latency from when it was sent."""
    tally, loop = Tally(), asyncio.get_running_loop()
    free: list[_Caller] = []

    def ended(caller: _Caller, status: int, took: float) -> None:
        tally.statuses[status] = tally.statuses.get(status, 0) + 1
        if status == 200:
            tally.done += 1
            tally.seconds.append(took)
            if isinstance(caller, _Hearer) and caller.first is not None:
                tally.firsts.append(caller.first)
        else:
            tally.bad += 1
        if status:
            free.append(caller)

    began = time.perf_counter()
    for number in range(int(rate * seconds)):
        due = began + number / rate
        pause = due - time.perf_counter()
        if pause > 0:
            await asyncio.sleep(pause)
        if free:
            caller = free.pop()
        else:
            _, caller = await loop.create_connection(lambda: made(ended), "127.0.0.1", port)
        caller.send(data)
    deadline = time.perf_counter() + 30
    while tally.done + tally.bad < int(rate * seconds) and time.perf_counter() < deadline:
        await asyncio.sleep(0.01)
    return tally


@dataclass
class Heard:
    """What the clients of streams saw. Seconds."""

    first: list[float] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)
    ended_well: int = 0
    ended_badly: int = 0
    events: int = 0


class _Listener(asyncio.Protocol):
    def __init__(self, data: bytes, heard: Heard, over: Callable[[], None]) -> None:
        self.data, self.heard, self.over = data, heard, over
        self.began = self.tail = None
        self.first = False
        self.done = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.began = time.perf_counter()
        transport.write(numbered(self.data))  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        found = _SENT.findall(data)
        self.heard.events += len(found)
        for sent in found:
            self.heard.lags.append((now - int(sent)) / 1e9)
        if not self.first and _TOKEN.search(data):
            self.first = True
            assert self.began is not None
            self.heard.first.append(time.perf_counter() - self.began)
        if not self.done and b"[DONE]" in data:
            self.done = True
            self.heard.ended_well += 1
            self.transport.close()
            self.over()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if not self.done:
            self.done = True
            self.heard.ended_badly += 1
            self.over()


async def streams(port: int, data: bytes, count: int, ramp_s: float, limit_s: float) -> Heard:
    """Open `count` streams within `ramp_s` and hear them to their ends."""
    heard, loop = Heard(), asyncio.get_running_loop()
    over, left = loop.create_future(), count

    def one_over() -> None:
        nonlocal left
        left -= 1
        if not left and not over.done():
            over.set_result(None)

    for number in range(count):
        await loop.create_connection(lambda: _Listener(data, heard, one_over), "127.0.0.1", port)
        if ramp_s and number % 10 == 9:
            await asyncio.sleep(ramp_s * 10 / count)
    await asyncio.wait_for(over, limit_s)
    return heard


async def firsts(port: int, data: bytes, connections: int, rounds: int) -> list[float]:
    """Return the seconds to the first words of streams, `connections` new connections at once, in order."""
    heard = Heard()
    for _ in range(rounds):
        part = await streams(port, data, connections, 0.0, 60.0)
        heard.first += part.first
    return sorted(heard.first)


async def paced_firsts(port: int, data: bytes, rate: float, seconds: float) -> list[float]:
    """Return the seconds to the first words of so many streams a second, on connections that are kept, in order."""
    return sorted((await paced(port, data, rate, seconds, _Hearer)).firsts)
