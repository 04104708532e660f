"""ClickHouse by its HTTP interface: blocking, one connection per thread, errors that say whether a retry may help.

An insert carries a token and is sent again with the same one when its answer is late or lost: the table stores a token
once. What was never answered is never acknowledged. Values that came from outside are bound (`param_…`), never part of
a statement.
"""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import socket
import ssl
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast
from urllib.parse import SplitResult, unquote, urlencode, urlsplit

from midwatch.core.errors import SetupError, StoreError

CONNECT_S: Final = 3.0
"""How long a connection may take to be made."""

INSERT_S: Final = 4.0
"""How long one attempt to insert may take. Two fit into the ten seconds after which exporters give up."""

ATTEMPTS: Final = 2

QUESTION_S: Final = 10.0
"""How long a question may take."""

PACKED_BYTES: Final = 64 * 1024
"""Bodies from this size on are packed."""

PART_BYTES: Final = 256 * 1024
"""Of an answer that may be of any length, what is held at one time."""

LATE_S: Final = 1.0
"""How much longer than the server we wait: its answer says more than ours."""

_BAD: Final = frozenset({6, 27, 38, 41, 53, 69, 70, 72, 117, 131, 321, 349, 467, 469, 641})
"""Codes of the server for data that it will never take: cannot be parsed, too large, of another type."""

_LATE: Final = frozenset({159, 160, 394})
"""Codes for what took too long."""


class Answer(NamedTuple):
    """Rows, and the names of their columns."""

    names: list[str]
    rows: list[list[Any]]


class ClickHouse:
    """One database of one server. Methods block and may be called from any thread."""

    def __init__(self, address: str) -> None:
        """`address` is `http[s]://[USER[:PASSWORD]@]HOST[:PORT]/[DATABASE]`. Raises SetupError."""
        try:
            self._url = urlsplit(address)
            port = self._url.port
        except ValueError:
            raise _no_address() from None
        if self._url.scheme not in ("http", "https") or not self._url.hostname:
            raise _no_address()
        self._host = self._url.hostname
        self._port = port or (8443 if self._url.scheme == "https" else 8123)
        self.database = unquote(self._url.path.strip("/")) or "midwatch"
        if not self.database.replace("_", "").isalnum() or not self.database.isascii():
            raise SetupError(
                f"hub.stores.telemetry names the database {self.database!r}; use letters, digits and _"
            )
        self._headers = _who(self._url)
        self._kept = threading.local()
        self._all: set[http.client.HTTPConnection] = set()
        self._lock = threading.Lock()

    @property
    def where(self) -> str:
        """For a person: without user and password."""
        return f"ClickHouse at {self._host}:{self._port}, database {self.database}"

    # -- statements --------------------------------------------------------------------------

    def ask(
        self,
        sql: str,
        values: Mapping[str, Any] | None = None,
        *,
        timeout_s: float = QUESTION_S,
        settings: Mapping[str, str] | None = None,
        database: str | None = None,
    ) -> Answer:
        """Return the rows of a SELECT. Raises StoreError.

        `values` are bound as `{name:Type}`: texts, numbers, ids (bytes, as hex) and lists of these. Whole numbers come
        back as int, floats that JSON has no form for as text.
        """
        given = {
            "default_format": "JSONCompact",
            "output_format_json_quote_64bit_integers": "0",
            "output_format_json_quote_denormals": "1",
            "output_format_json_named_tuples_as_objects": "0",
            "max_query_size": "16000000",
            "max_execution_time": f"{timeout_s:g}",
            **(settings or {}),
            **{f"param_{name}": bound(value) for name, value in (values or {}).items()},
        }
        body = self._send(given, sql.encode(errors="replace"), timeout_s + LATE_S, database)
        try:
            found = json.loads(body)
            return Answer([column["name"] for column in found["meta"]], found["data"])
        except (ValueError, KeyError, TypeError):
            # an error in the middle of an answer stands in its body
            raise self._error(body, 0) from None

    def parts(
        self,
        sql: str,
        values: Mapping[str, Any],
        *,
        timeout_s: float,
        settings: Mapping[str, str],
    ) -> Generator[bytes]:
        """Yield the answer to a SELECT with a FORMAT, however long it is, in pieces of PART_BYTES. Raises StoreError.

        It has a connection of its own, which goes with the iterator; `close` ends it from any thread. What was yielded
        is the whole answer when the iterator ends, and the server had come through with it before the first piece.
        """
        given = {
            "max_execution_time": f"{timeout_s:g}",
            "cancel_http_readonly_queries_on_client_close": "1",
            **settings,
            **{f"param_{name}": bound(value) for name, value in values.items()},
        }
        until = time.monotonic() + timeout_s + LATE_S
        connection = self._made()
        try:
            _connect(connection, timeout_s + LATE_S)
            connection.request("POST", self._path(given), sql.encode(), self._headers)
            answer = connection.getresponse()
            if answer.status != 200:
                code = int(answer.headers.get("X-ClickHouse-Exception-Code") or 0)
                raise self._error(answer.read(PART_BYTES), code)
            while part := answer.read(PART_BYTES):
                yield part
                _in_time(until)
            # a body that ends too soon is no error of `read` with a size
            if answer.length:
                raise http.client.IncompleteRead(b"", answer.length)
        except TimeoutError:
            raise StoreError(
                f"no whole answer in {timeout_s:.0f} s from {self.where}; ask for less"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise StoreError(f"lost {self.where} before its whole answer: {error}") from None
        finally:
            self._end(connection)

    def run(self, sql: str, values: Mapping[str, Any] | None = None, *, timeout_s: float = QUESTION_S) -> None:  # fmt: skip
        """Run a statement that returns nothing and may be repeated. Raises StoreError."""
        given = {
            "max_query_size": "16000000",
            "max_execution_time": f"{timeout_s:g}",
            **{f"param_{name}": bound(value) for name, value in (values or {}).items()},
        }
        self._send(given, sql.encode(), timeout_s + LATE_S)

    def insert(self, table: str, columns: Sequence[str], lines: Sequence[str], token: str) -> None:
        """Store rows, each a JSON list of the columns' values; durable when this returns. Raises StoreError.

        It may be stored though this raised; the same token stores it once.
        """
        if not lines:
            return
        names = ", ".join(f"`{name}`" for name in columns)
        given = {
            "query": f"INSERT INTO {table} ({names}) FORMAT JSONCompactEachRow",
            "insert_deduplication_token": token,
            "async_insert": "0",
            "max_partitions_per_insert_block": "1000",
            "date_time_input_format": "basic",
            "max_execution_time": f"{INSERT_S:g}",
        }
        body = "\n".join(lines).encode()
        for left in range(ATTEMPTS - 1, -1, -1):
            try:
                self._send(given, body, INSERT_S + LATE_S)
                return
            except StoreError as error:
                if error.permanent or not left:
                    raise
                time.sleep(0.05)

    def close(self) -> None:
        """Close all connections; a statement that runs is lost."""
        with self._lock:
            for connection in self._all:
                with contextlib.suppress(OSError):
                    if connection.sock is not None:
                        # who waits for it hears of it: closing alone would not tell a thread that reads
                        connection.sock.shutdown(socket.SHUT_RDWR)
                connection.close()
            self._all.clear()

    # -- the wire ----------------------------------------------------------------------------

    def _send(
        self, given: Mapping[str, str], body: bytes, timeout_s: float, database: str | None = None
    ) -> bytes:
        """Send a statement and return the whole answer. A connection that rested too long is made anew."""
        headers = dict(self._headers)
        if len(body) >= PACKED_BYTES:
            body = gzip.compress(body, 1)
            headers["Content-Encoding"] = "gzip"
        path = self._path(given, database)
        for fresh in (False, True):
            connection = self._connection(fresh=fresh)
            rested = connection.sock is not None
            try:
                _connect(connection, timeout_s)
                connection.request("POST", path, body, headers)
                answer = connection.getresponse()
                told = answer.read()
            except TimeoutError:
                self._forget(connection)
                raise StoreError(f"no answer in {timeout_s:.0f} s from {self.where}") from None
            except (OSError, http.client.HTTPException) as error:
                self._forget(connection)
                if rested and not fresh:
                    continue  # closed while it rested; whatever is sent here may be sent twice
                raise StoreError(f"cannot reach {self.where}: {error}") from None
            if answer.status == 200:
                return told
            raise self._error(told, int(answer.headers.get("X-ClickHouse-Exception-Code") or 0))
        raise AssertionError("the second turn returns or raises")

    def _path(self, given: Mapping[str, str], database: str | None = None) -> str:
        # the answer begins only when the statement is through: its status then says how it went
        return "/?" + urlencode(
            {"wait_end_of_query": "1", **given, "database": database or self.database}
        )

    def _error(self, told: bytes, code: int) -> StoreError:
        text = told[-2000:].decode(errors="replace").strip()
        at = text.find("DB::Exception: ")
        said = text[at + 15 :] if at >= 0 else text
        line = (said.splitlines() or ["no reason given"])[0][:300]
        if code in _LATE:
            return StoreError(f"{self.where} took too long: {line}; ask for less")
        return StoreError(f"{self.where} refused: {line}", permanent=code in _BAD)

    def _connection(self, *, fresh: bool) -> http.client.HTTPConnection:
        kept: http.client.HTTPConnection | None = getattr(self._kept, "connection", None)
        if kept is not None and not fresh:
            return kept
        made = self._kept.connection = self._made()
        return made

    def _made(self) -> http.client.HTTPConnection:
        made = (
            http.client.HTTPSConnection(
                self._host, self._port, timeout=CONNECT_S, context=ssl.create_default_context()
            )
            if self._url.scheme == "https"
            else http.client.HTTPConnection(self._host, self._port, timeout=CONNECT_S)
        )
        with self._lock:
            self._all.add(made)
        return made

    def _forget(self, connection: http.client.HTTPConnection) -> None:
        self._kept.connection = None
        self._end(connection)

    def _end(self, connection: http.client.HTTPConnection) -> None:
        with contextlib.suppress(OSError):
            connection.close()
        with self._lock:
            self._all.discard(connection)


def _connect(connection: http.client.HTTPConnection, timeout_s: float) -> None:
    """Connect it, unless it is; then its operations have so long."""
    if connection.sock is None:
        connection.timeout = CONNECT_S
        connection.connect()
        assert connection.sock is not None
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sock.settimeout(timeout_s)


def _in_time(until: float) -> None:
    if time.monotonic() > until:
        raise TimeoutError


def _who(url: SplitResult) -> dict[str, str]:
    headers = {"Content-Type": "text/plain; charset=utf-8"}
    if url.username:
        headers["X-ClickHouse-User"] = unquote(url.username)
        headers["X-ClickHouse-Key"] = unquote(url.password or "")
    return headers


def _no_address() -> SetupError:
    return SetupError(
        "hub.stores.telemetry is no address of ClickHouse's HTTP interface; expected http://HOST:8123/DATABASE"
    )


_ESCAPES: Final = str.maketrans(
    {
        "\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\0": "\\0", "\b": "\\b", "\f": "\\f", "'": "\\'",
    }
)  # fmt: skip


def bound(value: Any) -> str:
    """Return a value in the form in which the server reads parameters."""
    if isinstance(value, list):
        return f"[{','.join(map(_inner, cast('list[Any]', value)))}]"
    return str(value) if isinstance(value, int | float) else _text(value).translate(_ESCAPES)


def _inner(value: Any) -> str:
    if isinstance(value, int | float):
        return str(value)
    return f"'{_text(value).translate(_ESCAPES)}'"


def _text(value: str | bytes) -> str:
    return value.hex() if isinstance(value, bytes) else value.encode(errors="replace").decode()
