"""One request to a hub on this machine, over a plain socket.

`http.client` brings ssl and email with it, and loading them takes three times as long as `midwatch kill` needs for all
the rest. Between two processes of one machine there is no TLS, no proxy and no redirect: what is left of HTTP/1.1 is
a head, and a body of a stated length, in chunks, or until the connection ends. Whatever else is answered is
refused. The time and the bytes of an answer are bounded; an answer that ends too soon is none.
"""

from __future__ import annotations

import socket
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

MAX_HEAD_BYTES: Final = 64 * 1024
"""Status line and headers of an answer; a hub's are below a kilobyte."""

_PART: Final = 64 * 1024
_NAMED: Final = frozenset(("localhost", "[::1]"))


class Malformed(ValueError):
    """What came is no answer in HTTP/1.1, or less of it than was promised."""


def place(url: str) -> tuple[str, int, str] | None:
    """Return host, port and path of an address on loopback in plain HTTP; None for any other, or for one that is
    not written plainly."""
    scheme, _, rest = url.partition("://")
    host_and_port, slash, path = rest.partition("/")
    host, colon, port = host_and_port.rpartition(":")
    if scheme != "http" or not colon or not port.isascii() or not port.isdecimal():
        return None
    if not 0 < int(port[:6]) < 65536 or not _is_plain(path):
        return None
    if host not in _NAMED and not _is_loopback(host):
        return None
    return host.strip("[]"), int(port), (slash + path).rstrip("/")


def ask(
    place: tuple[str, int, str],
    method: str,
    target: str,
    headers: dict[str, str],
    body: bytes | None,
    *,
    timeout_s: float,
    limit_bytes: int,
) -> tuple[int, bytes]:
    """Return status and body of an answer; at most `limit_bytes` + 1 of it, which tells that there were more.

    Raises OSError (TimeoutError once `timeout_s` are over, whatever came till then) or ValueError for an answer that
    is none, and for a request that would not stay one.
    """
    request = _request(place, method, target, headers, body)
    until = time.monotonic() + timeout_s
    with socket.create_connection(place[:2], timeout_s) as line:
        line.sendall(request)

        def receive() -> bytes:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError("timed out")
            line.settimeout(left)
            return line.recv(_PART)

        return read(receive, limit_bytes)


def read(receive: Callable[[], bytes], limit_bytes: int) -> tuple[int, bytes]:
    """Return status and at most `limit_bytes` + 1 of the body of what is received; `receive` gives the next bytes,
    none at the end of the connection. Raises Malformed, and what `receive` raises."""
    return _Answer(receive).read(limit_bytes)


def _request(
    place: tuple[str, int, str],
    method: str,
    target: str,
    headers: dict[str, str],
    body: bytes | None,
) -> bytes:
    host, port, base = place
    named = f"[{host}]" if ":" in host else host
    lines = [f"{method} {base}{target} HTTP/1.1", f"Host: {named}:{port}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    for text in lines:
        if not (text.isascii() and text.isprintable()):
            raise ValueError("the request or the token holds a character that no header may hold")
    if " " in target:
        raise ValueError(f"no path of the API holds a space, got {target[:200]!r}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii") + (body or b"")


class _Answer:
    """What came and was not taken yet, and who gives more."""

    def __init__(self, receive: Callable[[], bytes]) -> None:
        self._receive = receive
        self._held = bytearray()

    def read(self, limit_bytes: int) -> tuple[int, bytes]:
        status, headers = self._head()
        while 100 <= status < 200:  # a word on the way; the answer follows
            status, headers = self._head()
        if status in (204, 304):
            return status, b""
        coding = headers.get("transfer-encoding")
        if coding is not None:
            if coding.lower() != "chunked":
                raise Malformed(f"it is coded as {coding[:80]!r}")
            return status, self._chunks(limit_bytes)
        length = headers.get("content-length")
        if length is None:
            while len(self._held) <= limit_bytes and self._more():
                pass
            return status, bytes(self._held[: limit_bytes + 1])
        return status, self._take(min(_number(length, 10), limit_bytes + 1))

    def _head(self) -> tuple[int, dict[str, str]]:
        head = self._until_mark(b"\r\n\r\n", MAX_HEAD_BYTES).decode("latin-1")
        first, *rest = head.split("\r\n")
        version, _, after = first.partition(" ")
        status = after[:3]
        if (
            not version.startswith("HTTP/1.")
            or not status.isdecimal()
            or after[3:4] not in ("", " ")
        ):
            raise Malformed(f"it begins with {first[:80]!r}")
        headers: dict[str, str] = {}
        for text in rest:
            name, colon, value = text.partition(":")
            name, value = name.lower(), value.strip()
            if not colon or not name or (headers.get(name, value) != value and name in _FRAMING):
                raise Malformed(f"a header is {text[:80]!r}")
            headers[name] = value
        return int(status), headers

    def _chunks(self, limit_bytes: int) -> bytes:
        body = bytearray()
        while len(body) <= limit_bytes:
            size = _number(self._until_mark(b"\r\n", 1024).partition(b";")[0].decode("latin-1"), 16)
            if size == 0:
                return bytes(body)  # trailers say nothing to us
            body += self._take(min(size, limit_bytes + 1))
            if size <= limit_bytes and self._take(2) != b"\r\n":
                raise Malformed("a chunk does not end where it said")
        return bytes(body[: limit_bytes + 1])

    def _until_mark(self, mark: bytes, limit_bytes: int) -> bytes:
        """Return what stands before a mark; both are taken."""
        seen = 0
        while (end := self._held.find(mark, seen)) < 0:
            seen = max(0, len(self._held) - len(mark) + 1)
            if len(self._held) > limit_bytes:
                raise Malformed(f"no end of it within {limit_bytes} bytes")
            self._need()
        if end > limit_bytes:
            raise Malformed(f"no end of it within {limit_bytes} bytes")
        found = bytes(self._held[:end])
        del self._held[: end + len(mark)]
        return found

    def _take(self, size: int) -> bytes:
        while len(self._held) < size:
            self._need()
        found = bytes(self._held[:size])
        del self._held[:size]
        return found

    def _need(self) -> None:
        if not self._more():
            raise Malformed("it ended too soon" if self._held else "the connection was closed")

    def _more(self) -> bool:
        """Hold more; False at the end of the connection."""
        part = self._receive()
        self._held += part
        return bool(part)


_FRAMING: Final = frozenset(("content-length", "transfer-encoding"))
_HEX: Final = frozenset("0123456789abcdefABCDEF")


def _number(text: str, base: int) -> int:
    """Return a length; only digits are one (`int` would take signs, blanks and underscores)."""
    text = text.strip(" \t")
    digits = _HEX if base == 16 else _HEX - set("abcdefABCDEF")
    if not text or len(text) > 16 or not set(text) <= digits:
        raise Malformed(f"a length is {text[:40]!r}")
    return int(text, base)


def _is_loopback(host: str) -> bool:
    """Tell whether it is 127.x.y.z, written as four numbers."""
    numbers = host.split(".")
    return (
        len(numbers) == 4
        and numbers[0] == "127"
        and all(n.isascii() and n.isdecimal() and len(n) <= 3 and int(n) < 256 for n in numbers)
    )


def _is_plain(path: str) -> bool:
    """Tell whether nothing in a path begins something else: a query, a fragment, a user's name."""
    return path.isascii() and path.isprintable() and not set(path) & set(" ?#@%\\")
