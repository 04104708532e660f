"""A small HTTP/1.1 client in the event loop: health checks and the long poll, over loopback or to a hub.

One connection per request, answers bounded. Not for general use: plain http, no redirects.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from midwatch.core.errors import LinkError

MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    body: bytes


async def request(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    timeout_s: float,
) -> Answer:
    """Return the answer. Raises LinkError for whatever prevented one, and for a time-out."""
    try:
        async with asyncio.timeout(timeout_s):
            return await _exchange(method, url, headers or {}, body)
    except TimeoutError:
        raise LinkError(f"{method} {url}: no answer within {timeout_s:g} s") from None
    except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise LinkError(f"{method} {url}: {error}") from error


async def _exchange(
    method: str, url: str, headers: Mapping[str, str], body: bytes | None
) -> Answer:
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 80
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    lines = [
        f"{method} {target} HTTP/1.1",
        f"Host: {parts.netloc}",
        "Connection: close",
        "Accept: application/json",
    ]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body is not None:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b""))
        await writer.drain()
        return await _answer(reader)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _answer(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    line = head[0].split(" ", 2)
    if len(line) < 2 or not line[0].startswith("HTTP/1."):
        raise ValueError(f"not an HTTP answer: {head[0][:80]!r}")
    status = int(line[1])
    fields = {
        k.strip().lower(): v.strip()
        for k, _, v in (line.partition(":") for line in head[1:] if line)
    }
    if fields.get("transfer-encoding", "").lower() == "chunked":
        return Answer(status, await _chunks(reader))
    if "content-length" in fields:
        length = int(fields["content-length"])
        if length > MAX_ANSWER_BYTES:
            raise ValueError(f"answer of {length} bytes, at most {MAX_ANSWER_BYTES}")
        return Answer(status, await reader.readexactly(length))
    return Answer(status, await reader.read(MAX_ANSWER_BYTES))


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while True:
        size = int((await reader.readline()).split(b";")[0], 16)
        if size == 0:
            return bytes(body)
        if len(body) + size > MAX_ANSWER_BYTES:
            raise ValueError(f"answer of more than {MAX_ANSWER_BYTES} bytes")
        body += await reader.readexactly(size)
        await reader.readexactly(2)
