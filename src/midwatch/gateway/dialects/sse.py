"""Cuts a stream into whole events as their bytes come: server-sent events, and the elements of a JSON array.

However the bytes are split, the same events come out, and together they are the bytes that went in, but for
what is not whole at the end. Linear also when one byte comes at a time. An event longer than MAX_EVENT is left
out and counted, and the stream goes on behind it.

Source: WHATWG HTML, "Server-sent events": lines end in CRLF, LF or CR; an empty line ends an event.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

MAX_EVENT: Final = 8 * 1024 * 1024
"""Bytes of one event. Pictures come in events of a few megabytes."""

_EOL: Final = rb"(?:\r\n|\n|\r(?!\n))"
_END: Final = re.compile(_EOL + _EOL)
_LINES: Final = re.compile(rb"\r\n|\n|\r")
_BOM: Final = b"\xef\xbb\xbf"


class Splitter(Protocol):
    """Bytes in, whole events out."""

    oversized: int
    """Events that were left out for their length."""

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take the next bytes; return the events that are whole now."""
        ...

    def rest(self) -> bytes:
        """Return what came after the last whole event."""
        ...


class Events:
    """Splits server-sent events."""

    __slots__ = ("_kept", "_seen", "_skipping", "oversized")

    def __init__(self) -> None:
        self._kept = bytearray()
        self._seen = 0
        """How much of what is kept was searched."""
        self._skipping = False
        self.oversized = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        if (
            not self._kept
            and chunk.endswith(b"\n\n")
            and chunk.find(b"\n\n", 0, -1) < 0
            and b"\r" not in chunk
            and len(chunk) <= MAX_EVENT
        ):
            return [chunk]  # the usual case: nothing is kept back, before or after
        self._kept += chunk
        return self._cut()

    def _cut(self) -> list[bytes]:
        kept, found, start = self._kept, list[bytes](), 0
        at = max(self._seen - 3, 0)
        while (match := _END.search(kept, at)) is not None:
            end = match.end()
            if end == len(kept) and kept[-1] == 0x0D:
                break  # a line feed that belongs to it may follow
            self._add(found, bytes(kept[start:end]))
            start = at = end
        del kept[:start]
        if len(kept) > MAX_EVENT:
            # an end of line that is split across two pieces must still be seen
            del kept[:-3]
            self._skipping = True
        self._seen = len(kept)
        return found

    def _add(self, found: list[bytes], event: bytes) -> None:
        if self._skipping or len(event) > MAX_EVENT:
            self._skipping = False
            self.oversized += 1
        else:
            found.append(event)

    def rest(self) -> bytes:
        return b"" if self._skipping else bytes(self._kept)


class Elements:
    """Splits a JSON array: an event is an element with what stands before it, the last one the closing bracket."""

    __slots__ = ("_at", "_depth", "_kept", "_over", "_text", "_within", "oversized")

    def __init__(self) -> None:
        self._kept = bytearray()
        self._at = 0
        self._depth = 0
        self._within = 1
        """The depth at which elements stand: 0 where an object came instead of an array."""
        self._text = False
        """Whether `_at` stands within a string."""
        self._over = False
        self.oversized = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        kept, found, start, at = self._kept, list[bytes](), 0, self._at
        kept += chunk
        while True:
            match = (_IN_TEXT if self._text else _STRUCTURE).search(kept, at)
            if match is None:
                at = len(kept)
                break
            mark = kept[match.start()]
            if mark == 0x5C:
                if match.end() == len(kept):
                    at = match.start()
                    break
                at = match.end() + 1
                continue
            at = match.end()
            if mark == 0x22:
                self._text = not self._text
            elif mark in b"[{":
                if self._depth <= 0:
                    self._within = int(mark == 0x5B)
                self._depth += 1
            else:
                self._depth -= 1
                if self._depth <= self._within:
                    self._add(found, bytes(kept[start:at]))
                    start = at
        del kept[:start]
        self._at = at - start
        if len(kept) > MAX_EVENT and self._at > 1:
            del kept[: self._at - 1]
            self._at, self._over = 1, True
        return found

    def _add(self, found: list[bytes], event: bytes) -> None:
        if self._over or len(event) > MAX_EVENT:
            self._over = False
            self.oversized += 1
        else:
            found.append(event)

    def rest(self) -> bytes:
        return b"" if self._over else bytes(self._kept)


_STRUCTURE: Final = re.compile(rb'["{}\[\]]')
_IN_TEXT: Final = re.compile(rb'["\\]')


def fields(raw: bytes) -> tuple[bytes, bytes | None]:
    """Return an event's name (b"" without one) and its data, lines joined; None for the data of a comment."""
    name, data = b"", list[bytes]()
    for line in _LINES.split(raw.removeprefix(_BOM)):
        key, _, value = line.partition(b":")
        if key == b"data":
            data.append(value.removeprefix(b" "))
        elif key == b"event":
            name = value.strip()
    return name, b"\n".join(data) if data else None
