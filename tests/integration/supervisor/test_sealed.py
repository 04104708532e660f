"""Providers' keys and the agents of the same user: who sees which environment, and how the gateway gets the keys."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import midwatch
from midwatch.supervisor.machine.linux import supported
from midwatch.wire import sealed

DEADLINE_S = 30.0
KEY = "sk-nobody-may-read-this"

SPY = """
    import json, os, time
    from pathlib import Path
    ours = str(Path.cwd())
    while True:
        shown, closed = {}, []
        for pid in [int(name) for name in os.listdir("/proc") if name.isdigit()]:
            try:
                words = Path(f"/proc/{pid}/cmdline").read_text().replace(chr(0), " ")
                if os.stat(f"/proc/{pid}/task/{pid}").st_uid not in (0, os.getuid()) or "midwatch" not in words:
                    continue
                shown[words] = Path(f"/proc/{pid}/environ").read_text()
            except PermissionError:
                closed += [words] if ours in words else []
            except OSError:
                continue
        told = {"closed": closed, "key": [w for w, env in shown.items() if "sk-nobody" in env]}
        told["oom"] = Path("/proc/self/oom_score_adj").read_text().strip()
        Path("told.new").write_text(json.dumps(told))
        os.rename("told.new", "told.json")
        time.sleep(0.05)
"""


def _ordinary() -> list[str] | None:
    """Return how Python is started as a user who is not root; None where that cannot be."""
    if os.geteuid() != 0:
        return [sys.executable]
    python = f"/usr/bin/python3.{sys.version_info.minor}"  # our own may lie in root's home
    if shutil.which("setpriv") is None or not Path(python).exists():
        return None
    return ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", python]


class Instance:
    """`midwatch up` of a user who is not root."""

    def __init__(self, folder: Path, python: list[str]) -> None:
        self.folder = folder
        self.console = folder / "console"
        packages = [Path(midwatch.__file__).parents[1], Path(pytest.__file__).parents[1]]
        env = {
            **os.environ, "HOME": str(folder), "OPENAI_API_KEY": KEY,
            "PYTHONPATH": os.pathsep.join(map(str, packages)),
        }  # fmt: skip
        with self.console.open("wb") as out:
            self.process = subprocess.Popen(
                [*python, "-m", "midwatch.cli", "up", "--data", str(folder / "data")],
                cwd=folder, env=env, stdout=out, stderr=out,
            )  # fmt: skip

    def until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, f"not so: {what}\n{self.console.read_text()}"
            time.sleep(0.05)

    def told(self) -> dict[str, Any]:
        file = self.folder / "told.json"
        return json.loads(file.read_text()) if file.exists() else {}

    def post(self, module: str) -> int:
        """Return the pid of a post."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        words = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in children.split()}
        return next(int(pid) for pid, line in words.items() if f"\0{module}\0" in line)

    def provides(self) -> bool:
        """Tell whether the gateway has the key of its provider."""
        status = subprocess.run(
            [sys.executable, "-m", "midwatch.cli", "status", "--data", str(self.folder / "data")],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return "gateway: openai: well" in status.stdout


@pytest.fixture
def instance() -> Iterator[Instance]:
    python = _ordinary()
    if python is None or not supported():
        pytest.skip("needs Linux and an ordinary user")
    with tempfile.TemporaryDirectory(prefix="midwatch-sealed-") as name:
        folder = Path(name)
        folder.chmod(0o777)
        agents = {"spy": {"command": [python[-1], "-c", textwrap.dedent(SPY)]}}
        listen = {"listen": "127.0.0.1:0"}
        file = {"hub": listen, "gateway": listen, "agents": agents}
        (folder / "midwatch.yaml").write_text(json.dumps(file))
        one = Instance(folder, python)
        try:
            yield one
        finally:
            one.process.send_signal(signal.SIGINT)
            try:
                one.process.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                one.process.kill()
                one.process.wait()


def test_an_agent_of_the_same_user_reads_no_key_from_any_process(instance: Instance) -> None:
    told: dict[str, Any] = {}

    def three_closed() -> bool:
        told.update(instance.told())
        assert told.get("key", []) == []
        # in the middle of a start a child still has its parent's words
        found = [
            [words in line for line in told.get("closed", ())].count(True)
            for words in (" up ", "midwatch.hub", "midwatch.gateway")
        ]
        return found == [1, 1, 1] and len(told["closed"]) == 3

    instance.until(three_closed, "three closed processes")
    assert told["oom"] == "300", "an agent dies before its supervisor, whoever that runs as"
    instance.until(instance.provides, "the gateway has the key")
    # not even root finds it there, so that no moment before the sealing shows it
    assert KEY not in Path(f"/proc/{instance.post('midwatch.gateway')}/cmdline").read_text()
    if os.geteuid() == 0:
        assert KEY not in Path(f"/proc/{instance.post('midwatch.gateway')}/environ").read_text()
    os.kill(instance.post("midwatch.gateway"), signal.SIGKILL)
    instance.until(
        lambda: "gateway: back after" in instance.console.read_text(), "the gateway is back"
    )
    instance.until(instance.provides, "the next gateway has the key, too")


async def test_the_child_asks_and_is_told_however_much_it_is() -> None:
    ours, theirs = socket.socketpair()
    much = {"A": "x" * 2_000_000, "B": "ä"}
    asked = asyncio.to_thread(sealed.ask, theirs.detach())
    told, found = await asyncio.gather(sealed.tell(ours, much, DEADLINE_S), asked)
    assert (told, found) == (True, much)


async def test_a_child_that_ends_without_asking_is_no_error_and_holds_nobody_up() -> None:
    ours, theirs = socket.socketpair()
    theirs.close()
    assert await sealed.tell(ours, {"A": "b"}, DEADLINE_S) is False
    ours, theirs = socket.socketpair()
    assert await sealed.tell(ours, {"A": "b"}, 0.01) is False  # it asks nothing
    theirs.close()


def test_a_parent_that_ends_is_said_instead_of_taken_for_no_keys() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    with pytest.raises(OSError):
        sealed.ask(theirs.detach())
    ours, theirs = socket.socketpair()
    ours.shutdown(socket.SHUT_WR)
    with pytest.raises(ValueError, match="the supervisor ended"):
        sealed.ask(theirs.detach())
    ours.close()


def test_a_gateway_that_is_not_told_says_so(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    ours.shutdown(socket.SHUT_WR)
    ended = subprocess.run(
        [sys.executable, "-m", "midwatch.gateway", "--data", tmp_path, "--secrets-fd", str(theirs.fileno())],
        pass_fds=[theirs.fileno()], capture_output=True, text=True, check=False,
    )  # fmt: skip
    theirs.close()
    ours.close()
    assert ended.returncode == 2
    assert "no keys of providers came: the supervisor ended" in ended.stderr
