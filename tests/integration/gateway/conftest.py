"""A gateway as a process of its own, before the rehearsal model."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from midwatch.core.access import mint_key, mint_node
from midwatch.core.fleet import Fleet
from midwatch.drills.rehearsal.model import Rehearsal
from midwatch.drills.rehearsal.thread import running

SECRET = bytes(range(32))
DEADLINE_S = 40.0
HELLO = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 50}


def until(holds: Callable[[], Any], what: str = "") -> Any:
    """Return the first true value of `holds`, within a deadline that no test hopes to need."""
    deadline = time.monotonic() + DEADLINE_S
    while not (value := holds()):
        assert time.monotonic() < deadline, f"still not so: {what}"
        time.sleep(0.02)
    return value


@dataclass
class Said:
    """One answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Running:
    """A gateway's process; killed and started again at will."""

    data: Path
    rehearsal_url: str
    url: str = ""
    arguments: tuple[str, ...] = ()
    process: subprocess.Popen[str] | None = None
    said: list[str] = field(default_factory=list[str])

    def fleet(self, **given: Any) -> None:
        """Write the snapshot that the supervisor would."""
        fleet = Fleet.model_validate({"agents": {"inbox": {"command": ["x"]}}, **given})
        (self.data / "fleet.json").write_text(fleet.model_dump_json())

    def start(self) -> None:
        self.process = subprocess.Popen(
            (sys.executable, "-m", "midwatch.gateway", "--data", str(self.data), "--listen",
             "127.0.0.1:0", "--rehearsal", self.rehearsal_url, *self.arguments),
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if "listening on" in line:
                self.url = line.rpartition(" ")[2].strip()
                return
        raise AssertionError("".join(self.said))

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End it; return its exit code."""
        assert self.process is not None
        self.process.send_signal(how)
        code = self.process.wait(DEADLINE_S)
        assert self.process.stdout is not None
        self.said += self.process.stdout.readlines()
        self.process.stdout.close()
        self.process = None
        return code

    def ask(self, method: str, path: str, body: Any = None, key: str = "", **headers: str) -> Said:
        """Ask with a key, by default that of a run of inbox."""
        sent = {"authorization": f"Bearer {key or self.key()}", "content-type": "application/json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, sent, method=method)
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
                return Said(answer.status, _lowered(answer.headers.items()), answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return Said(error.code, _lowered(error.headers.items()), error.read())

    def control(self, method: str, path: str, body: Any = None) -> Any:
        """Ask as the supervisor."""
        said = self.ask(method, f"/control/{path}", body, mint_node(SECRET, "here"))
        return {"status": said.status, **said.json()}

    def key(self, agent: str = "inbox", run: str = "run-1", entry: str = "") -> str:
        return mint_key(SECRET, agent, run, entry)


def _lowered(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers}


@pytest.fixture(scope="session")
def rehearsal() -> Generator[Rehearsal]:
    with running() as model:
        yield model


@contextlib.contextmanager
def prepared(data: Path, rehearsal_url: str) -> Generator[Running]:
    data.mkdir()
    (data / "secret").write_bytes(SECRET)
    one = Running(data, rehearsal_url)
    one.fleet()
    try:
        yield one
    finally:
        if one.process is not None:
            one.end(signal.SIGKILL)


@pytest.fixture
def stopped(tmp_path: Path, rehearsal: Rehearsal) -> Iterator[Running]:
    """A gateway that is not started yet."""
    with prepared(tmp_path / "data", rehearsal.url) as one:
        yield one


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, rehearsal: Rehearsal) -> Generator[Running]:
    """A gateway for tests that change nothing: a process costs a second."""
    with prepared(tmp_path_factory.mktemp("shared") / "data", rehearsal.url) as one:
        one.start()
        yield one


@pytest.fixture
def gateway(stopped: Running) -> Running:
    stopped.start()
    return stopped
