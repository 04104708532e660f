"""Answers that come packed although they were asked for plain: some servers and caches do that.

Unpacked as they come, a bounded piece at a time, so that their usage can be read and their end be judged. The
client gets them plain. What is packed in a way that is not known here passes as it is, and is no answer.
"""

from __future__ import annotations

import asyncio
import zlib
from typing import Final

from midwatch.gateway.upstream.port import Headers, Phase, Reply, UpstreamError

PIECE_BYTES: Final = 1024 * 1024
"""Unpacked at once: a bomb is met by the limit of whoever reads, not by the memory."""

_KNOWN: Final = frozenset(("gzip", "x-gzip", "deflate"))


def unpacked(reply: Reply) -> Reply:
    """Return an answer as it was before its `content-encoding`."""
    for name, value in reply.headers:
        if name == "content-encoding" and value.strip().lower() in _KNOWN:
            return Unpacked(reply)
    return reply


class Unpacked:
    """A `Reply` around a packed one."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)
        self._full = False
        """The last piece was as long as it may be: there may be more of the same input."""
        self.headers: Headers = [
            (name, value)
            for name, value in reply.headers
            if name not in ("content-encoding", "content-length")
        ]

    @property
    def status(self) -> int:
        return self._reply.status

    @property
    def ends_by_close(self) -> bool:
        return False  # what is packed says itself where it ends

    async def chunk(self, within_s: float) -> bytes | None:
        loop = asyncio.get_running_loop()
        due = loop.time() + within_s
        while True:
            packed = self._unpacker.unconsumed_tail
            if not packed and not self._full:
                piece = await self._reply.chunk(max(0.0, due - loop.time()))
                if piece is None:
                    return self._end()
                packed = piece
            plain = self._unpack(packed)
            if plain:
                return plain

    async def whole(self, within_s: float, limit_bytes: int) -> bytes:
        loop = asyncio.get_running_loop()
        due = loop.time() + within_s
        pieces: list[bytes] = []
        size = 0
        while True:
            try:
                piece = await self.chunk(max(0.0, due - loop.time()))
            except UpstreamError as error:
                if error.phase is not Phase.BETWEEN:
                    raise
                reason = f"the answer was not whole within {within_s:g} s"
                raise UpstreamError(Phase.TOTAL, reason) from None
            if piece is None:
                return b"".join(pieces)
            pieces.append(piece)
            size += len(piece)
            if size > limit_bytes:
                raise UpstreamError(Phase.BODY, f"the answer is longer than {limit_bytes:,} bytes")

    async def close(self) -> None:
        await self._reply.close()

    def _unpack(self, packed: bytes) -> bytes:
        try:
            plain = self._unpacker.decompress(packed, PIECE_BYTES)
        except zlib.error as error:
            raise UpstreamError(Phase.BODY, f"the answer cannot be unpacked: {error}") from None
        if self._unpacker.unused_data:
            raise UpstreamError(Phase.BODY, "something follows behind the packed answer")
        self._full = len(plain) >= PIECE_BYTES
        return plain

    def _end(self) -> None:
        if not self._unpacker.eof:
            raise UpstreamError(Phase.BODY, "the packed answer breaks off")
