"""A hub for tests: in this process without sockets (`hub`), or as a process of its own (`hub_process`)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ADMIN = "mwt_the-admin-token-of-the-tests"


@dataclass
class Answer:
    """What an application answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class AsgiClient:
    """Calls an ASGI application as a server would."""

    app: Callable[..., Awaitable[None]]
    token: str | None = ADMIN
    host: str = "127.0.0.1:8700"

    async def ask(
        self,
        method: str,
        target: str,
        body: Any = None,
        *,
        raw: bytes | None = None,
        headers: dict[str, str] | None = None,
        token: str | None = "",
    ) -> Answer:
        path, _, query = target.partition("?")
        content = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
        sent = {"host": self.host, "content-length": str(len(content)), **(headers or {})}
        bearer = self.token if token == "" else token
        if bearer is not None:
            sent["authorization"] = f"Bearer {bearer}"
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(k.lower().encode(), v.encode()) for k, v in sent.items()],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8700),
        }
        messages: list[dict[str, Any]] = []
        waiting = [
            {
                "type": "http.request",
                "body": content[i : i + 65536],
                "more_body": i + 65536 < len(content),
            }
            for i in range(0, max(1, len(content)), 65536)
        ]

        async def receive() -> dict[str, Any]:
            if not waiting:
                await asyncio.Event().wait()  # the other side stays
            return waiting.pop(0)

        async def send(message: dict[str, Any]) -> None:
            messages.append(message)

        await self.app(scope, receive, send)
        start = messages[0]
        got = b"".join(m.get("body", b"") for m in messages[1:])
        return Answer(start["status"], {k.decode(): v.decode() for k, v in start["headers"]}, got)

    async def get(self, target: str, **more: Any) -> Answer:
        return await self.ask("GET", target, **more)

    async def post(self, target: str, body: Any = None, **more: Any) -> Answer:
        return await self.ask("POST", target, body, **more)


def prepare(data: Path, *agents: str) -> bytes:
    """Write what the supervisor writes; return the secret that signs tokens."""
    data.mkdir(parents=True, exist_ok=True)
    secret = secrets.token_bytes(32)
    (data / "secret").write_bytes(secret)
    (data / "token").write_text(ADMIN + "\n")
    fleet = {"fleet": "test", "agents": {name: {"command": ["true"]} for name in agents}}
    (data / "fleet.json").write_text(json.dumps(fleet))
    return secret


@dataclass
class TestHub:
    """A hub in this process, its data directory, and a client that holds the admin token."""

    __test__ = False
    hub: Any
    data: Path
    secret: bytes
    client: AsgiClient


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[TestHub]:
    """A hub over agents `inbox` and `prices`."""
    from midwatch.hub.app import Hub
    from midwatch.hub.settings import Settings

    secret = prepare(tmp_path, "inbox", "prices")
    made = Hub(Settings(tmp_path, "127.0.0.1", 8700, "here", frozenset({"hub.example"})))
    made.login.listen("http://127.0.0.1:8700", 8700)
    await made.start()
    try:
        yield TestHub(made, tmp_path, secret, AsgiClient(made.asgi))
    finally:
        made.end_waiting()
        await made.stop()


@dataclass
class HubProcess:
    """A hub as a process; `start` may be called again after it ended."""

    data: Path
    process: subprocess.Popen[str] | None = None
    url: str = ""
    arguments: list[str] = field(default_factory=list)

    def run(self, *more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "midwatch.hub", "--data", str(self.data)]
        listen = [] if "--listen" in more else ["--listen", "127.0.0.1:0"]
        self.process = subprocess.Popen(
            [*command, *listen, *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        return self.process

    def start(self, *more: str) -> None:
        process = self.run(*more)
        assert process.stdout is not None
        said: list[str] = []
        for line in process.stdout:
            said.append(line)
            if "listening on" in line:
                self.url = line.split()[-1]
                return
        raise AssertionError("the hub did not start: " + "".join(said))

    def ask(self, method: str, path: str, body: Any = None, timeout_s: float = 30.0) -> Any:
        request = urllib.request.Request(
            self.url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"authorization": f"Bearer {ADMIN}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            with error:
                return {"status": error.code, **json.loads(error.read())}

    def stop(self) -> tuple[int, str, float]:
        """Send SIGTERM; return the exit code, what it said, and how long it took."""
        assert self.process is not None
        begun = time.monotonic()
        self.process.terminate()
        said, _ = self.process.communicate(timeout=60)
        return self.process.returncode, said, time.monotonic() - begun

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate(timeout=60)


@pytest.fixture
def hub_process(tmp_path: Path) -> Iterator[HubProcess]:
    """A prepared data directory and a process that ends with the test."""
    prepare(tmp_path / "data", "inbox", "prices")
    made = HubProcess(tmp_path / "data")
    yield made
    if made.process is not None and made.process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            made.kill()
