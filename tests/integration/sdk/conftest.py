"""A hub and a model provider that are small, local, and do as they are told."""

from __future__ import annotations

import contextlib
import http.server
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from midwatch.sdk import runtime, shield, start, usage

sys.path.insert(0, str(Path(__file__).parent))  # for model_server


class FakeHub:
    """Keeps what it accepts. `answer` decides each answer; it may be changed at any time."""

    def __init__(self, port: int = 0) -> None:
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.kept: dict[str, list[dict[str, Any]]] = {}
        self.answer: Callable[[str, Any], tuple[int, dict[str, str], Any]] = self.accept
        self.delay_s = 0.0
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                hub.requests.append((self.path, dict(self.headers), body))
                time.sleep(hub.delay_s)
                status, headers, content = hub.answer(self.path, body)
                encoded = content if isinstance(content, bytes) else json.dumps(content).encode()
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.send_header("content-length", str(len(encoded)))
                    self.end_headers()
                    self.wfile.write(encoded)

            def log_message(self, *args: Any) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False
            allow_reuse_address = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass

            def get_request(self) -> tuple[socket.socket, Any]:
                connection, address = super().get_request()
                hub._connections.append(connection)
                return connection, address

        self._connections: list[socket.socket] = []
        self._server = Server(("127.0.0.1", port), Handler)
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def accept(self, path: str, body: Any) -> tuple[int, dict[str, str], Any]:
        if path == "/v1/traces":
            spans = [
                span
                for block in body["resourceSpans"]
                for scope in block["scopeSpans"]
                for span in scope["spans"]
            ]
            self.kept.setdefault(path, []).extend(spans)
            return 200, {}, {}
        self.kept.setdefault(path, []).extend(body)
        return 200, {}, {"accepted": len(body), "rejected": []}

    @property
    def beats(self) -> list[dict[str, Any]]:
        return self.kept.get("/api/beats", [])

    @property
    def events(self) -> list[dict[str, Any]]:
        return self.kept.get("/api/events", [])

    @property
    def spans(self) -> list[dict[str, Any]]:
        return self.kept.get("/v1/traces", [])

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = 30.0) -> None:
    """Poll a condition until it holds; fail with `what` at the deadline."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s} s in vain until {what}")
        time.sleep(0.01)


@pytest.fixture
def until() -> Callable[..., None]:
    return wait_until


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    running = FakeHub()
    yield running
    running.close()


@pytest.fixture
def new_hub() -> Iterator[Callable[..., FakeHub]]:
    """Starts hubs, also on a port that an earlier one had."""
    running: list[FakeHub] = []

    def start_one(port: int = 0) -> FakeHub:
        running.append(FakeHub(port))
        return running[-1]

    yield start_one
    for one in running:
        one.close()


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(autouse=True)
def _clean_sdk(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[None]:
    """Every test begins without a runtime, and what our code would swallow is raised."""
    for name in ("MIDWATCH_URL", "MIDWATCH_AGENT", "MIDWATCH_TOKEN", "NOTIFY_SOCKET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MIDWATCH_SPOOL", str(tmp_path / "spool"))
    monkeypatch.setattr(shield, "RAISE", True)
    monkeypatch.setattr(start, "_begun_with", None)
    usage.loose.clear()
    yield
    if runtime.current is not None and runtime.current.transport is not None:
        runtime.current.transport.close(1.0)
    runtime.current = None
    usage.loose.clear()
    shield.reset()
