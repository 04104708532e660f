"""One kept-alive HTTP connection to one place, with a bound on every wait.

Proxies from the environment are not used: what an agent tells its hub stays on the way to
the hub. A connection that the server closed while idle is opened again once, unseen.
"""

from __future__ import annotations

import time
from urllib.parse import urlsplit

TYPE_CHECKING = False
if TYPE_CHECKING:
    import http.client
    from collections.abc import Mapping

CONNECT_TIMEOUT_S = 1.5
"""A hub is near. One that does not accept within this time is away."""

ANSWER_TIMEOUT_S = 5.0
"""A commit takes milliseconds; who has not answered by now is treated as away."""

MAX_ANSWER_BYTES = 1024 * 1024
"""More of an answer is not read."""


class Away(Exception):
    """Nobody answered. `reason` is a short name that is counted."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Answer:
    """What the server said."""

    __slots__ = ("body", "retry_after_s", "status")

    def __init__(self, status: int, body: bytes, retry_after_s: float | None) -> None:
        self.status = status
        self.body = body
        self.retry_after_s = retry_after_s


class Poster:
    """Posts bodies to paths below one base address."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        """Raises ValueError when `url` is no http or https address, or a header is malformed."""
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(
                f"{url!r} is not an address to send to; expected http://HOST:PORT or https://HOST"
            )
        self._secure = parts.scheme == "https"
        self._host = parts.hostname
        self._port = parts.port or (443 if self._secure else 80)
        self._base = parts.path.rstrip("/")
        self._headers = {"Content-Type": "application/json", **headers}
        for name, value in headers.items():
            text = name + value
            if not name or ":" in name or not text.isascii() or not text.isprintable():
                raise ValueError(
                    f"the header {name!r} has characters that HTTP cannot carry;"
                    " look for a line break at the end of the token"
                )
        self._connection: http.client.HTTPConnection | None = None

    def post(self, path: str, body: bytes, answer_timeout_s: float = ANSWER_TIMEOUT_S) -> Answer:
        """Post `body` and return the answer, whatever its status. Raises Away."""
        import http.client

        reused = self._connection is not None
        try:
            return self._exchange(path, body, answer_timeout_s)
        except TimeoutError as error:
            self.close()
            raise Away("timeout", f"no answer from {self._place}{path}") from error
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if not reused:
                raise self._away(path, error) from error
        try:
            return self._exchange(path, body, answer_timeout_s)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._away(path, error) from error

    def interrupt(self) -> None:
        """End a post that is under way in another thread; it raises Away there."""
        import socket

        connection = self._connection
        open_socket = connection.sock if connection is not None else None
        if open_socket is not None:
            try:
                open_socket.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # it has ended by itself

    def close(self) -> None:
        """Close the connection; the next post opens a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def forget(self) -> None:
        """Drop a connection that belongs to the parent process, without a word on it."""
        connection, self._connection = self._connection, None
        if connection is not None and connection.sock is not None:
            connection.sock.close()

    @property
    def _place(self) -> str:
        return f"{self._host}:{self._port}"

    def _away(self, path: str, error: Exception) -> Away:
        return Away("unreachable", f"cannot reach {self._place}{path}: {error}")

    def _exchange(self, path: str, body: bytes, answer_timeout_s: float) -> Answer:
        connection = self._connection
        if connection is None:
            connection = self._connection = self._open(min(CONNECT_TIMEOUT_S, answer_timeout_s))
        if connection.sock is None:
            connection.connect()
        if connection.sock is not None:
            connection.sock.settimeout(answer_timeout_s)
        connection.request("POST", self._base + path, body, self._headers)
        response = connection.getresponse()
        content = response.read(MAX_ANSWER_BYTES)
        if not response.isclosed():  # longer than we read: the rest would garble the next answer
            self.close()
        return Answer(response.status, content, _retry_after(response.getheader("Retry-After")))

    def _open(self, timeout_s: float) -> http.client.HTTPConnection:
        import http.client

        if self._secure:
            return http.client.HTTPSConnection(self._host, self._port, timeout=timeout_s)
        return http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)


def _retry_after(value: str | None) -> float | None:
    """Read Retry-After (RFC 9110 section 10.2.3): seconds, or a date."""
    if not value:
        return None
    if value.isascii() and value.strip().isdigit():
        return float(value.strip()[:9])
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None
