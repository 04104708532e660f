"""A small hub of the standard library, and the command line as a user runs it."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from midwatch.cli import app

TOKEN = "mwt_test"


@dataclass
class FakeHub:
    """Answers by route; remembers what it was asked. A route is `METHOD /path`."""

    url: str = ""
    routes: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)

    def answer(self, method: str, target: str, body: bytes, token: str | None) -> tuple[int, bytes]:
        parts = urlsplit(target)
        query = dict(parse_qsl(parts.query))
        self.asked.append((f"{method} {parts.path}", query, json.loads(body) if body else None))
        if token != f"Bearer {TOKEN}":
            return 401, _problem(401, "no valid token")
        found = self.routes.get(f"{method} {parts.path}")
        if found is None:
            return 404, _problem(404, f"there is nothing at {parts.path}")
        if callable(found):
            found = found(query)
        if isinstance(found, bytes):
            return 200, found
        if isinstance(found, tuple):
            return found[0], _problem(*found)
        return 200, json.dumps(found).encode()


def _problem(status: int, detail: str, reason: str | None = None) -> bytes:
    fields = {"type": "about:blank", "status": status, "title": "No", "detail": detail}
    return json.dumps(fields if reason is None else {**fields, "reason": reason}).encode()


@contextlib.contextmanager
def _serve(hub: FakeHub) -> Iterator[None]:
    class Handler(BaseHTTPRequestHandler):
        def _do(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, content = hub.answer(
                self.command, self.path, body, self.headers["Authorization"]
            )
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = _do  # noqa: N815

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def agent(name: str, state: str = "running", sentence: str = "works") -> dict[str, Any]:
    return {
        "agent": name, "group": None, "node": "here", "state": state, "since": 1583064000.0,
        "sentence": sentence, "run_id": "r1", "pid": 7, "last_beat": None, "cycle": None,
        "today": {"cost_usd": 0.42, "budget_usd": None, "cycles": 3, "restarts": 0},
        "resources": {"rss_bytes": 2**20, "open_files": 9, "children": None}, "incidents": [],
    }  # fmt: skip


def incident(number: int, state: str = "open") -> dict[str, Any]:
    return {
        "id": f"01900000-0000-7000-8000-0000000000{number:02}", "kind": "silent-exit", "agent": "inbox",
        "severity": "critical", "state": state, "sentence": f"inbox ended for the {number}. time",
        "opened_at": 1583064000.0, "count": 2, "actions": [{"do": "restart", "at": 1583064001.0, "result": "restarted"}],
    }  # fmt: skip


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    """Two agents, one open incident and one that was acknowledged."""
    fake = FakeHub()
    agents = [agent("inbox"), agent("prices", "parked", "gave up")]
    incidents = [incident(2), incident(1, "acked"), incident(0, "resolved")]

    def listed(query: dict[str, str]) -> dict[str, Any]:
        found = [i for i in incidents if query.get("state") in (None, i["state"])]
        return {"items": found, "next": None}

    fake.routes = {
        "GET /api/agents": {"items": agents, "next": None},
        "GET /api/agents/inbox": agents[0],
        "GET /api/agents/prices": agents[1],
        "GET /api/fleet": {"fleet": "night-shift", "open_incidents": 1},
        "GET /api/incidents": listed,
    }
    with _serve(fake):
        yield fake


@pytest.fixture
def data(tmp_path: Path, hub: FakeHub) -> Iterator[Path]:
    """The data directory of an instance that runs: this process stands for the supervisor."""
    directory = tmp_path / "data"
    directory.mkdir()
    (directory / "token").write_text(TOKEN + "\n")
    (directory / "instance.json").write_text(json.dumps({"pid": os.getpid(), "hub_url": hub.url}))
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield directory


@dataclass
class Ended:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Midwatch = Callable[..., Ended]


@pytest.fixture
def midwatch(tmp_path: Path) -> Midwatch:
    """Run the command line in this process, with its streams caught: fast, for what it says."""

    def run(*arguments: object, env: dict[str, str] | None = None) -> Ended:
        out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path)
            patch.setenv("COLUMNS", "100")
            for name, value in (env or {}).items():
                patch.setenv(name, value)
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                code = app.run([str(a) for a in arguments])
            out.flush()
        return Ended(code, out.buffer.getvalue().decode(), err.getvalue())  # type: ignore[attr-defined]

    return run


@pytest.fixture
def shell(tmp_path: Path) -> Midwatch:
    """Run the command line as a process of its own: for exit codes and what reaches stdout."""

    def run(
        *arguments: object, env: dict[str, str] | None = None, python: tuple[str, ...] = ()
    ) -> Ended:
        done = subprocess.run(
            [sys.executable, *(python or ("-m", "midwatch.cli")), *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "COLUMNS": "100", **(env or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return run
