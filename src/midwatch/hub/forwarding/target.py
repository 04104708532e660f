"""Another back-end: where requests go, and one for tests that answers as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import http.client
import logging
import os
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Protocol

from backports import zstd

from midwatch.core.errors import SetupError
from midwatch.core.spans.form import Signal
from midwatch.core.telemetry import ForwardTarget
from midwatch.hub.forwarding.pacing import Answer
from midwatch.ingest.otlp import wire

PATHS: Final = {Signal.SPANS: "/v1/traces", Signal.POINTS: "/v1/metrics", Signal.LOGS: "/v1/logs"}

CUT_S: Final = 1.0
"""How long a request whose connection was cut may take to end."""

MAX_ANSWER: Final = 64 * 1024
"""Bytes of an answer that are read."""

_PACKERS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "gzip": lambda data: gzip.compress(data, 1, mtime=0),
    "zstd": lambda data: zstd.compress(data, 1),
    "none": lambda data: data,
}

log = logging.getLogger(__name__)


class Target(Protocol):
    """Takes requests."""

    async def send(self, signal: Signal, data: bytes) -> Answer:
        """Send a request of OTLP, in protobuf. Never raises: what went wrong is in the answer."""
        ...


class HttpTarget:
    """A back-end by OTLP over HTTP. Requests are made in threads; proxies are taken from the environment."""

    def __init__(self, config: ForwardTarget, environment: Mapping[str, str] = os.environ) -> None:
        """Raises SetupError for a header whose variable or file is not there."""
        self._url = config.url.rstrip("/")
        self._timeout_s = config.timeout
        self._pack = _PACKERS[config.compression]
        self._headers = {
            "content-type": "application/x-protobuf",
            "user-agent": "midwatch",
            **{
                name: _sendable(name, _secret(text, environment))
                for name, text in config.headers.items()
            },
        }
        if config.compression != "none":
            self._headers["content-encoding"] = config.compression
        self._thread = ThreadPoolExecutor(1, "forward")
        """Of this target alone: a name server that hangs keeps nobody else waiting."""

    async def send(self, signal: Signal, data: bytes) -> Answer:
        # the limit of each step would let one that drips its answer go on for ever: this one is of the whole
        line = _Line()
        loop = asyncio.get_running_loop()
        posting = loop.run_in_executor(
            self._thread, self._post, self._url + PATHS[signal], data, line
        )
        try:
            await asyncio.wait([posting], timeout=self._timeout_s)
            if not posting.done():
                line.cut()
                await asyncio.wait([posting], timeout=CUT_S)
        except asyncio.CancelledError:
            line.cut()
            raise
        if posting.done():
            answer = posting.result()
            if answer.status or not line.is_cut:
                return answer
        posting.cancel()  # one that has not begun never does
        return Answer(0, f"no answer within {self._timeout_s:g} s")

    def _post(self, url: str, data: bytes, line: _Line) -> Answer:
        if line.is_cut:
            return Answer(0, "given up before it began")
        request = urllib.request.Request(  # noqa: S310  the fleet file takes http and https alone
            url, data=self._pack(data), headers=self._headers, method="POST"
        )
        opener = urllib.request.build_opener(_NoRedirect, _Http(line), _Https(line))
        try:
            with opener.open(request, timeout=self._timeout_s) as answer:
                return Answer(answer.status, rejected=_rejected(answer.read(MAX_ANSWER)))
        except urllib.error.HTTPError as error:
            with error:
                said = error.headers.get("retry-after", "") or ""
                return Answer(error.code, f"status {error.code}", said)
        except (OSError, http.client.HTTPException, ValueError) as error:
            # the reason alone: the address may hold what should not stand in a log
            why = getattr(error, "reason", None) or error
            return Answer(0, f"no answer: {type(error).__name__}: {why}"[:200])


class _Line:
    """The connection of one request, which can be cut from another thread."""

    def __init__(self) -> None:
        self.is_cut = False
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []

    def hold(self, made: socket.socket) -> None:
        """Take note of a connection. Raises TimeoutError when it is too late for it."""
        with self._lock:
            self._sockets.append(made)
            if self.is_cut:
                raise TimeoutError("given up")

    def cut(self) -> None:
        """End what is under way: whoever reads or writes there has an error at once."""
        with self._lock:
            self.is_cut = True
            for each in self._sockets:
                with contextlib.suppress(OSError):  # it is closed already
                    each.shutdown(socket.SHUT_RDWR)


class _Http(urllib.request.HTTPHandler):
    def __init__(self, line: _Line) -> None:
        super().__init__()
        self._line = line

    def http_open(self, req: urllib.request.Request) -> Any:
        line = self._line

        class Held(http.client.HTTPConnection):
            def connect(self) -> None:
                super().connect()
                line.hold(self.sock)

        return self.do_open(Held, req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, line: _Line) -> None:
        super().__init__()
        self._line = line

    def https_open(self, req: urllib.request.Request) -> Any:
        line = self._line

        class Held(http.client.HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                line.hold(self.sock)

        return self.do_open(Held, req)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would be a GET without a body, and would show its token elsewhere."""

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: Any) -> None:  # fmt: skip  # noqa: ARG002
        return None


def _rejected(content: bytes) -> int:
    """Return how many a partial success says were refused."""
    if not content or content[:1] == b"{":
        return 0
    try:
        response = wire.Response.FromString(content)
        return max(0, wire.Partial.FromString(response.partial).rejected)
    except wire.DecodeError:
        return 0


def _secret(text: str, environment: Mapping[str, str]) -> str:
    kind, _, name = text.partition(":")
    if kind == "env":
        if name not in environment:
            raise SetupError(f"hub.forward: the variable {name!r} is not set; set it where midwatch up starts")  # fmt: skip
        return environment[name].strip()
    if kind == "file":
        try:
            return Path(name).expanduser().read_text().strip()
        except OSError as error:
            raise SetupError(f"hub.forward: cannot read {name}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise SetupError(f"hub.forward: {name} is not text; put the header's value there") from None  # fmt: skip
    return text


def _sendable(name: str, value: str) -> str:
    """Return a header's value. Raises SetupError, which does not show it: http.client's own error would."""
    if not (value.isascii() and value.isprintable()):
        raise SetupError(
            f"hub.forward: what {name} holds is no header's value: it needs one line of ASCII characters"
        )
    return value


class ScriptedTarget:
    """A target that answers as it is told, and remembers what it took."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        """What it says next; nothing left: it takes."""
        self.down = False
        self.asked = 0
        self.taken: list[tuple[Signal, bytes]] = []

    async def send(self, signal: Signal, data: bytes) -> Answer:
        await asyncio.sleep(0)
        self.asked += 1
        if self.down:
            return Answer(0, "no answer: told to be down")
        answer = self.answers.pop(0) if self.answers else Answer(200)
        if 200 <= answer.status < 300:
            self.taken.append((signal, data))
        return answer
