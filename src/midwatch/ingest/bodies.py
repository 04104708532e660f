"""Reading a request's body: bounded, decompressed, decoded. Everything here distrusts the sender.

Limits hold after decompression, for the size and for the factor; all bodies that are being read share
one allowance, and large ones are unpacked one after the other, so that neither a bomb nor many
clients at once can fill the memory.
"""

from __future__ import annotations

import asyncio
import sys
import zlib
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any, Final, TypeVar

from pydantic_core import from_json

from midwatch.wire.limits import MAX_BODY_BYTES
from midwatch.wire.problem import Refusal

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_READING_BYTES: Final = 8 * MAX_BODY_BYTES
"""Bytes of all bodies that are being read at one time; more are answered 503."""

READ_TIMEOUT_S: Final = 30.0
"""A sender has at least this long for one body, and at most half as long again."""

THREAD_BYTES: Final = 65_536
"""Larger bodies are unpacked and parsed in a thread, so that the loop goes on."""

MAX_CONTAINERS: Final = 1_000_000
"""Lists and objects of one body. Empty ones are two bytes long and take a hundred in memory."""

MAX_RATIO: Final = 250
"""How many times larger a body may become when it is unpacked. Telemetry becomes 5 to 60 times larger."""

FREE_BYTES: Final = 1024 * 1024
"""Up to this size a body may become larger by any factor."""

MAX_MEMBERS: Final = 1_000
"""Packed pieces, one after the other, of one body; each may be empty."""

_WINDOW: Final = {"gzip": 31, "x-gzip": 31, "deflate": 47}
"""zlib's wbits: gzip; deflate accepts both zlib and gzip headers."""

_RAW: Final = -15
"""Deflate without a header, as some senders understand the word."""

ENCODINGS: Final = frozenset({*_WINDOW, "zstd"})

_ZSTD_OPTIONS: Final[dict[int, int]] = {zstd.DecompressionParameter.window_log_max: 23}
"""8 MiB of window: what unpacking may take besides the body, as RFC 9659 has it."""

T = TypeVar("T")


class BodyReader:
    """Reads bodies within the shared allowance."""

    def __init__(self) -> None:
        self._reading = 0
        self._lane = asyncio.Lock()
        self._since: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._sweep: asyncio.TimerHandle | None = None

    async def read(
        self, scope: Scope, receive: Receive, decode: Callable[[bytes], T]
    ) -> tuple[T, int]:
        """Return what `decode` makes of the unpacked body, and the body's size.

        Raises Refusal: 408, 413, 415, 400, 503. A large body is decoded in a thread.
        """
        encoding, length = _announced(scope)
        parts: list[bytes] = []
        try:
            await self._in_time(self._collect(receive, length, parts))
            body = parts[0] if len(parts) == 1 else b"".join(parts)
            if not encoding:
                if len(body) <= THREAD_BYTES:
                    return decode(body), len(body)
            elif len(body) <= THREAD_BYTES // 16:
                body, encoding = unpack(body, encoding), ""
                if len(body) <= THREAD_BYTES:
                    return decode(body), len(body)
            async with self._lane:
                return await asyncio.to_thread(_open, body, encoding, decode)
        finally:
            self._reading -= sum(map(len, parts))

    async def take(self, scope: Scope, receive: Receive) -> bytes:
        """Return the unpacked body. Raises Refusal: 408, 413, 415, 400, 503. A large one is unpacked in a thread.

        Whoever takes it bounds how many there are at one time (`ingest.admission`).
        """
        encoding, length = _announced(scope)
        parts: list[bytes] = []
        try:
            await self._in_time(self._collect(receive, length, parts))
            body = parts[0] if len(parts) == 1 else b"".join(parts)
            if not encoding:
                return body
            if len(body) <= THREAD_BYTES:
                return unpack(body, encoding)
            async with self._lane:
                return await asyncio.to_thread(unpack, body, encoding)
        finally:
            self._reading -= sum(map(len, parts))

    async def _in_time(self, collecting: Coroutine[Any, Any, None]) -> None:
        # one sweep for all instead of a timer for each: at 1,000 requests a second tens of
        # thousands of cancelled timers would lie in the loop's heap
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        self._since[task] = loop.time()
        if self._sweep is None:
            self._sweep = loop.call_later(READ_TIMEOUT_S / 2, self._cancel_late)
        try:
            await collecting
        except asyncio.CancelledError:
            if task not in self._late:
                raise
            task.uncancel()
            raise Refusal(
                408, f"the body did not arrive within {READ_TIMEOUT_S:.0f} s", reason="slow"
            ) from None
        finally:
            del self._since[task]
            self._late.discard(task)

    def _cancel_late(self) -> None:
        loop = asyncio.get_running_loop()
        for task, since in self._since.items():
            if loop.time() - since >= READ_TIMEOUT_S and task not in self._late:
                self._late.add(task)
                task.cancel()
        again = bool(self._since)
        self._sweep = loop.call_later(READ_TIMEOUT_S / 2, self._cancel_late) if again else None

    async def _collect(self, receive: Receive, length: int | None, parts: list[bytes]) -> None:
        """Put what arrives into `parts`; the caller gives the allowance back."""
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refusal(400, "the sender went away", reason="disconnect")
            part: bytes = message.get("body", b"")
            parts.append(part)
            size += len(part)
            self._reading += len(part)
            if size > MAX_BODY_BYTES:
                raise too_large(f"the body has more than {MAX_BODY_BYTES} bytes")
            if self._reading > MAX_READING_BYTES:
                raise busy("too many large bodies at once")
            # a body that is complete by its length needs no second message to say so
            if size == length or not message.get("more_body"):
                return


def header(headers: list[tuple[bytes, bytes]], name: bytes) -> str:
    """Return a header's value, or an empty text."""
    for key, value in headers:
        if key == name:
            return value.decode("latin-1")
    return ""


def busy(detail: str) -> Refusal:
    """Return the 503 that a sender should answer by waiting."""
    return Refusal(503, detail, reason="busy", headers={"retry-after": "1"})


def too_large(what: str) -> Refusal:
    """Return the 413 with the limit."""
    return Refusal(
        413,
        f"{what}; a body has at most {MAX_BODY_BYTES} bytes: send fewer items at a time",
        reason="size",
        limit_bytes=MAX_BODY_BYTES,
    )


def _announced(scope: Scope) -> tuple[str, int | None]:
    """Return how a body is packed ("" for not at all), and its length. Raises Refusal."""
    headers = scope["headers"]
    encoding = header(headers, b"content-encoding").strip().lower()
    if encoding == "identity":
        encoding = ""
    if encoding and encoding not in ENCODINGS:
        raise Refusal(
            415,
            f"content-encoding {encoding[:40]!r} is not known; send gzip, deflate, zstd, or none",
            reason="encoding",
            headers={"accept-encoding": "gzip, deflate, zstd"},
        )
    text = header(headers, b"content-length")
    length = int(text) if text.isdigit() and len(text) < 20 else None
    if length is not None and length > MAX_BODY_BYTES:
        raise too_large(f"the body has {length} bytes")
    return encoding, length


def _open(body: bytes, encoding: str, decode: Callable[[bytes], T]) -> tuple[T, int]:
    if encoding:
        body = unpack(body, encoding)
    return decode(body), len(body)


def unpack(body: bytes, encoding: str) -> bytes:
    """Return a packed body unpacked: all of its members. Raises Refusal for bombs and for what is broken.

    No more than MAX_BODY_BYTES are ever made of it, and from FREE_BYTES on no more than MAX_RATIO times its size.
    """
    limit = min(MAX_BODY_BYTES, max(FREE_BYTES, MAX_RATIO * len(body)))
    try:
        return _members(body, encoding, _WINDOW.get(encoding), limit)
    except zlib.error as error:
        if encoding != "deflate":
            raise _broken(f"the body cannot be unpacked: {error}") from None
    except zstd.ZstdError as error:
        raise _broken(f"the body cannot be unpacked: {error}") from None
    try:
        return _members(body, encoding, _RAW, limit)
    except zlib.error as error:
        raise _broken(f"the body cannot be unpacked: {error}") from None


def _members(body: bytes, encoding: str, window: int | None, limit: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    for _ in range(MAX_MEMBERS):
        if window is None:
            frame = zstd.ZstdDecompressor(options=_ZSTD_OPTIONS)
            piece = frame.decompress(body, limit - size + 1)
            done, rest, more = frame.eof, frame.unused_data, not frame.needs_input
        else:
            member = zlib.decompressobj(window)
            piece = member.decompress(body, limit - size + 1)
            done, rest, more = member.eof, member.unused_data, bool(member.unconsumed_tail)
        size += len(piece)
        if size > limit or (more and not done):
            ratio = "" if limit == MAX_BODY_BYTES else f", {MAX_RATIO} times its own size"
            raise too_large(f"the unpacked body has more than {limit} bytes{ratio}")
        if not done:
            raise _broken("the compressed body is cut off")
        pieces.append(piece)
        if not rest or encoding == "deflate":
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        body = rest
    raise _broken(f"the body is packed in more than {MAX_MEMBERS} pieces")


def _broken(detail: str) -> Refusal:
    return Refusal(400, detail, reason="encoding")


def parse(body: bytes) -> Any:
    """Return the JSON value. Raises Refusal that says where it is not JSON."""
    if len(body) > MAX_CONTAINERS and body.count(b"[") + body.count(b"{") > MAX_CONTAINERS:
        raise too_large(f"the body has more than {MAX_CONTAINERS} lists and objects")
    try:
        return from_json(body, allow_inf_nan=False, cache_strings="keys")
    except ValueError as error:
        raise Refusal(
            400,
            f"the body is not JSON: {error}; NaN and Infinity are not JSON either",
            reason="json",
        ) from None
