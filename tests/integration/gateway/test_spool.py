"""While the hub is away, what the gateway has to tell waits on disk, also over a kill -9 of the gateway."""

from __future__ import annotations

import gzip
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from .conftest import HELLO, Running, until  # noqa: TID252  there is no tests package


class Hub(ThreadingHTTPServer):
    """Takes everything, from the moment on at which it is back."""

    daemon_threads = True

    def __init__(self) -> None:
        self.back = False
        self.told: list[tuple[str, bytes]] = []
        super().__init__(("127.0.0.1", 0), Handler)

    def spans(self) -> list[bytes]:
        return [body for path, body in self.told if path == "/v1/traces"]


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        if self.server.back:
            self.server.told.append((self.path, body))
        self.send_response(200 if self.server.back else 503)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as found:
        thread = threading.Thread(target=found.serve_forever, args=(0.02,))
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def test_the_span_of_a_call_outlives_a_hub_that_is_away_and_a_killed_gateway(
    stopped: Running, hub: Hub
) -> None:
    stopped.arguments = ("--hub", f"http://127.0.0.1:{hub.server_address[1]}")
    stopped.start()
    call = stopped.ask("POST", "/v1/chat/completions", HELLO).headers["x-midwatch-call"]
    spool = stopped.data / "spool" / "gateway"
    until(lambda: _holds(spool, call), "the span is on disk")
    stopped.end(signal.SIGKILL)
    hub.back = True
    stopped.start()
    until(lambda: any(call.encode() in body for body in hub.spans()), "the hub has the span")
    stopped.end()
    assert sum(body.count(f'"{call}"'.encode()) for body in hub.spans()) == 1


def _holds(spool: Path, call: str) -> bool:
    return any(call.encode() in path.read_bytes() for path in spool.rglob("*") if path.is_file())
