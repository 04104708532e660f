"""The hub's API as commands use it. Standard library only, and little of it: a command must start fast.

A hub on this machine is asked over a plain socket (`loopback`), any other by `http.client`, which is loaded for it.
Problem documents (RFC 9457) become errors that a person can act on. No proxy is ever asked, and no
redirect followed: the token goes to the hub or nowhere.
"""

from __future__ import annotations

import json

from midwatch.cli import loopback
from midwatch.cli.exits import UNREACHABLE, USAGE, CommandError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import http.client
    from collections.abc import Iterator
    from typing import Any, BinaryIO, Final, TypeGuard

    from midwatch.cli.instance import Instance

TIMEOUT_S: Final = 40.0
"""A stop answers when the agent has ended: its grace (20 s by default) and some."""

MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
"""More than any page of any list; protects the terminal from a server that is not ours."""

DOWNLOAD_TIMEOUT_S: Final = 660.0
"""An export is made before its first byte is sent."""

_PART: Final = 1024 * 1024

PAGE: Final = 200

_PLAIN: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
"""What stands in a path as it is."""

_CODES: Final = {502: UNREACHABLE, 503: UNREACHABLE, 504: UNREACHABLE}


class Refused(CommandError):
    """The hub refused: `status` and its problem document."""

    def __init__(self, status: int, problem: dict[str, Any], message: str) -> None:
        code = _CODES.get(status, UNREACHABLE if status >= 500 else USAGE)
        super().__init__(message, code)
        self.status = status
        self.problem = problem


class Hub:
    """One hub, asked one thing at a time."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self._near = loopback.place(instance.url)

    def get(self, path: str, **query: object) -> Any:
        """Return the answer's JSON. Raises Refused, or CommandError when the hub is out of reach."""
        return self._ask("GET", path, query, None)

    def post(self, path: str, body: Any = None) -> Any:
        """Send an order; return the answer's JSON."""
        return self._ask("POST", path, {}, body)

    def delete(self, path: str) -> Any:
        return self._ask("DELETE", path, {}, None)

    def items(self, path: str, **query: object) -> Iterator[dict[str, Any]]:
        """Yield the items of a list, page after page."""
        for page in self.pages(path, **query):
            yield from records(page["items"])

    def pages(self, path: str, **query: object) -> Iterator[dict[str, Any]]:
        """Yield the pages of a list; each has `items`."""
        after: str | None = None
        while True:
            page = record(self.get(path, limit=PAGE, after=after, **query))
            if "items" not in page:
                raise self.foreign("a list without items")
            yield page
            following = page.get("next")
            if not following or following == after or not page["items"]:
                return
            after = str(following)

    def download(self, path: str, file: BinaryIO, **query: object) -> int:
        """Write an answer's body to a file, however long it is; return its bytes.

        Raises as `get` does, and OSError when the file cannot be written.
        """
        connection, size = self._connect(DOWNLOAD_TIMEOUT_S), 0
        try:
            answer = self._send(connection, "GET", _target(path, query), None)
            if answer.status != 200:
                self._read(answer.status, self._part(answer, MAX_ANSWER_BYTES))
                raise self.foreign(f"HTTP {answer.status}")
            while part := self._part(answer, _PART):
                size += file.write(part)
            if answer.headers.get("content-length") not in (None, str(size)):
                raise self.foreign("less than it promised")
        finally:
            connection.close()
        return size

    def _part(self, answer: http.client.HTTPResponse, length: int) -> bytes:
        import http.client

        try:
            return answer.read(length)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._away(error) from None

    def _ask(self, method: str, path: str, query: dict[str, Any], body: Any) -> Any:
        target = _target(path, query)
        data = None
        if method == "POST":
            data = json.dumps({} if body is None else body).encode()
        if self._near is None:
            status, content = self._ask_far(method, target, data)
        else:
            status, content = self._ask_near(self._near, method, target, data)
        if len(content) > MAX_ANSWER_BYTES:
            raise self.foreign("an endless answer")
        return self._read(status, content)

    def _ask_near(
        self, place: tuple[str, int, str], method: str, target: str, data: bytes | None
    ) -> tuple[int, bytes]:
        headers = self._headers(data)
        try:
            return loopback.ask(
                place,
                method,
                target,
                headers,
                data,
                timeout_s=TIMEOUT_S,
                limit_bytes=MAX_ANSWER_BYTES,
            )
        except (OSError, ValueError) as error:
            raise self._away(error) from None

    def _ask_far(self, method: str, target: str, data: bytes | None) -> tuple[int, bytes]:
        connection = self._connect()
        try:
            answer = self._send(connection, method, target, data)
            return answer.status, self._part(answer, MAX_ANSWER_BYTES + 1)
        finally:
            connection.close()

    def _headers(self, data: bytes | None) -> dict[str, str]:
        headers = {"Accept": "application/json"}
        if self.instance.token:
            headers["Authorization"] = f"Bearer {self.instance.token}"
        if data is not None:
            headers["Content-Type"] = "application/json"
        return headers

    def _send(
        self, connection: http.client.HTTPConnection, method: str, target: str, data: bytes | None
    ) -> http.client.HTTPResponse:
        import http.client
        from urllib.parse import urlsplit

        base = urlsplit(self.instance.url).path.rstrip("/")
        headers = {**self._headers(data), "Connection": "close"}
        try:
            connection.request(method, base + target, data, headers)
            return connection.getresponse()
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._away(error) from None

    def _connect(self, timeout_s: float = TIMEOUT_S) -> http.client.HTTPConnection:
        import http.client
        import ssl
        from urllib.parse import urlsplit

        parts = urlsplit(self.instance.url)
        host, port = parts.hostname or "", parts.port
        if parts.scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)
        return http.client.HTTPConnection(host, port, timeout=timeout_s)

    def _read(self, status: int, content: bytes) -> Any:
        try:
            answer: Any = json.loads(content) if content else None
        except (ValueError, RecursionError):
            answer = ...
        if 200 <= status < 300 and answer is not ...:
            return answer
        if status < 400:
            raise self.foreign(f"HTTP {status} without JSON")
        from midwatch.cli.show import line

        problem = record(answer)
        detail = line(problem.get("detail") or problem.get("title") or f"HTTP {status}")[:2000]
        raise Refused(status, problem, self._explain(status, detail))

    def _explain(self, status: int, detail: str) -> str:
        if status == 401 and self.instance.directory is None:
            return (
                f"{detail}. Put a valid token into MIDWATCH_TOKEN (made by: midwatch token create)"
            )
        if status == 403:
            return f"{detail}. This token may not do that; make one with more scopes: midwatch token create"
        if status >= 500:
            return f"the hub could not do it: {detail}"
        return detail

    def foreign(self, what: str) -> CommandError:
        """Return the error for an answer that no hub gives."""
        return CommandError(
            f"{self.instance.url} answered {what}; is this the address of a midwatch hub?",
            UNREACHABLE,
        )

    def _away(self, error: Exception) -> CommandError:
        from midwatch.cli.show import line

        reason = line(getattr(error, "strerror", None) or error) or type(error).__name__
        where = self.instance
        if where.directory is None:
            message = f"cannot reach the hub at {where.url} ({reason}); is the address right, and is midwatch up there?"
        else:
            message = (
                f"midwatch is running (pid {where.pid}), but its hub at {where.url} does not answer "
                f"({reason}). It is restarted by itself: try again in a few seconds, or look at what "
                "'midwatch up' printed"
            )
        return CommandError(message, UNREACHABLE)


def path_of(*parts: str) -> str:
    """Return a path of the API; each part is quoted as a whole."""
    return "/api/" + "/".join(part if _PLAIN.issuperset(part) else _quoted(part) for part in parts)


def _quoted(part: str) -> str:
    from urllib.parse import quote

    return quote(part, safe="")


def _target(path: str, query: dict[str, Any]) -> str:
    given = {name: value for name, value in query.items() if value is not None}
    if not given:
        return path
    from urllib.parse import urlencode

    return f"{path}?{urlencode(given, doseq=True)}"


def record(value: object) -> dict[str, Any]:
    """Return a JSON object as it came, or an empty one for anything else."""
    return value if _is_object(value) else {}


def texts(value: object) -> list[str]:
    """Return the texts of a JSON list; anything else in it is left out."""
    return [item for item in value if isinstance(item, str)] if _is_list(value) else []


def records(value: object) -> list[dict[str, Any]]:
    """Return the objects of a JSON list; anything else in it is left out."""
    return [item for item in value if _is_object(item)] if _is_list(value) else []


def _is_object(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def _is_list(value: object) -> TypeGuard[list[object]]:
    return isinstance(value, list)
