"""Odd forms of a good answer: usage left out, streams cut into strange pieces, bodies compressed.

Pure functions from bytes to bytes. Those on streams keep to whole events, so that what goes wrong
after N events still does so after N.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Final, cast

from midwatch.drills.rehearsal.question import Json

PACKED: Final = 3
"""Events that share a chunk in the form `packed`."""
_INPUT: Final = frozenset({"prompt_tokens", "input_tokens", "promptTokenCount"})
_USAGE: Final = frozenset({"usage", "usageMetadata"})


def alter_usage(value: Any, how: str) -> Any:
    """Return an answer's JSON with every usage in it altered: see `Behaviour.usage`."""
    if isinstance(value, list):
        return [alter_usage(one, how) for one in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    altered: Json = {}
    for name, one in cast("Json", value).items():
        if name not in _USAGE or not isinstance(one, dict):
            altered[name] = alter_usage(one, how)
        elif how != "none":
            altered[name] = _usage(cast("Json", one), how)
    return altered


def _usage(usage: Json, how: str) -> Any:
    match how:
        case "part":
            return {name: value for name, value in usage.items() if name in _INPUT}
        case "zero":
            return {name: 0 if isinstance(value, int) else value for name, value in usage.items()}
        case _:
            return "unknown"


def alter_event(data: bytes, how: str) -> bytes:
    """Return a stream's event with every usage in it altered."""
    if b'"usage' not in data:
        return data
    start, end = data.index(b"{"), data.rindex(b"}") + 1
    altered = alter_usage(json.loads(data[start:end]), how)
    body = json.dumps(altered, ensure_ascii=False, separators=(",", ":")).encode()
    return data[:start] + body + data[end:]


def chunks(events: Sequence[bytes], form: str | None, padding: int = 0) -> list[list[bytes]]:
    """Return for each event the chunks in which it travels; it may travel with a later one."""
    if form == "packed":
        return [
            [b"".join(events[n // PACKED * PACKED : n + 1])]
            if n % PACKED == PACKED - 1 or n == len(events) - 1
            else []
            for n in range(len(events))
        ]
    return [_chunks(event, form, n, len(events), padding) for n, event in enumerate(events)]


def _chunks(event: bytes, form: str | None, n: int, count: int, padding: int) -> list[bytes]:
    match form:
        case "crlf":
            return [re.sub(rb"\r?\n", b"\r\n", event)]
        case "cr":
            return [re.sub(rb"\r?\n", b"\r", event)]
        case "comments":
            return [b": still here\n\n" + event]
        case "split":
            at = _inside(event)
            return [event[:at], event[at:]]
        case "bytes":
            return [event[at : at + 1] for at in range(len(event))]
        case "lines":  # one value in two data lines: joined by a line feed it is the same JSON
            return [event.replace(b"data: {", b"data: {\ndata: ", 1)]
        case "no-space":
            return [event.replace(b"data: ", b"data:", 1)]
        case "bom":
            return [b"\xef\xbb\xbf" + event if n == 0 else event]
        case "ids":
            return [b"id: %d\nretry: 3000\n" % n + event]
        case "long-line":
            at = event.rfind(b"}") + 1
            return [event[:at] + b" " * padding + event[at:] if n == 1 else event]
        case "unterminated":
            return [event.rstrip(b"\r\n") if n == count - 1 else event]
        case "bad-utf8":
            return [event.replace(b"data: {", b'data: {"\xff\xfe":1,', 1) if n == 1 else event]
        case "garbage":
            return [b"this is no field\n\n" + event]
        case _:
            return [event]


def _inside(event: bytes) -> int:
    """Return a place inside the event's first character of many bytes, or in its middle."""
    found = re.search(rb"[\xc2-\xf4][\x80-\xbf]", event)
    return found.start() + 1 if found is not None else len(event) // 2


def compress(data: bytes) -> bytes:
    """Return a gzip body."""
    packer = zlib.compressobj(wbits=31)
    return packer.compress(data) + packer.flush()


async def compressed(stream: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """Yield a stream as gzip; each chunk can be read as soon as it is there."""
    packer = zlib.compressobj(wbits=31)
    async with aclosing(stream) as inner:
        async for chunk in inner:
            yield packer.compress(chunk) + packer.flush(zlib.Z_SYNC_FLUSH)
    yield packer.flush()
