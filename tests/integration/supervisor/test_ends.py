"""Why real processes ended, told by the whole supervisor, without a hub."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

DEADLINE_S = 40.0

RUN = """
import json, sys
from pathlib import Path
from midwatch.core.fleet import Fleet
from midwatch.supervisor.main import run
sys.exit(run(Fleet.model_validate(json.loads(sys.argv[1])).resolved(), Path(sys.argv[2]), hub=False))
"""


class Watch:
    """One supervisor in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def up(self, agents: dict[str, Any]) -> None:
        restart = {"backoff": "20ms..100ms", "attempts": 5}
        fleet = {"root": str(self.folder), "defaults": {"restart": restart}, "agents": agents}
        with (self.folder / "console").open("wb") as console:
            self.process = subprocess.Popen(
                [sys.executable, "-c", RUN, json.dumps(fleet), str(self.folder / "data")],
                stderr=console,
                stdout=console,
            )

    @property
    def console(self) -> str:
        return (self.folder / "console").read_text()

    def until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, f"not so in time: {what}\n{self.console}"
            time.sleep(0.01)

    def pids(self, note: str) -> list[int]:
        """Return the pids that agents wrote into `note`."""
        file = self.folder / note
        return [int(word) for word in file.read_text().split()] if file.exists() else []

    def over(self) -> int:
        assert self.process is not None
        return self.process.wait(DEADLINE_S)


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Watch]:
    one = Watch(tmp_path)
    yield one
    if one.process is not None and one.process.poll() is None:
        one.process.terminate()
        try:
            one.process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            one.process.kill()
            one.process.wait()


def _note(name: str) -> str:
    return f"import os; open({name!r}, 'a').write(f'{{os.getpid()}} ');"


def _python(code: str) -> dict[str, Any]:
    return {"command": [sys.executable, "-c", code]}


def test_a_missing_module_is_tried_twice_and_named(watch: Watch) -> None:
    watch.up({"a": _python(_note("a") + "import langgraph_nope")})
    watch.until(lambda: "parked" in watch.console, "parked")
    assert "ModuleNotFoundError: No module named 'langgraph_nope'" in watch.console
    assert "the same failure twice" in watch.console
    assert len(watch.pids("a")) == 2


def test_a_missing_key_in_the_environment_is_parked_at_once(watch: Watch) -> None:
    watch.up({"a": _python(_note("a") + "os.environ['STRIPE_API_KEY']")})
    watch.until(lambda: "parked" in watch.console, "parked")
    assert "its credential was refused: KeyError: 'STRIPE_API_KEY'" in watch.console
    assert len(watch.pids("a")) == 1


def test_a_rate_limit_is_waited_out(watch: Watch) -> None:
    line = "openai.RateLimitError: Error code: 429 - Rate limit reached. Please try again in 3m0s."
    watch.up({"a": _python(f"import sys; sys.exit({line!r})")})
    watch.until(lambda: "try 2 of 20 in 3 minutes" in watch.console, "the wait")


PLAIN = _note("p") + "import time; time.sleep(600)"


@pytest.mark.parametrize("pause_s", [0.3, 0.0], ids=["agents long before us", "all at once"])
def test_when_everything_is_told_to_stop_at_once_nothing_has_failed(
    watch: Watch, pause_s: float
) -> None:
    """As `systemctl stop` of a unit whose every process gets the signal, agents first.

    Of agents that catch it and end with 0 nothing is promised: that may come before our own signal.
    """
    watch.up({name: _python(PLAIN) for name in ("a", "b", "c")})
    watch.until(lambda: len(watch.pids("p")) == 3, "three agents")
    assert watch.process is not None
    for pid in watch.pids("p"):
        os.kill(pid, signal.SIGTERM)
    time.sleep(pause_s)
    os.kill(watch.process.pid, signal.SIGTERM)
    assert watch.over() == 0
    assert "nobody here sent" not in watch.console
    assert "restart" not in watch.console
    assert len(watch.pids("p")) == 3


def test_a_sigterm_to_an_agent_alone_is_told_and_restarted(watch: Watch) -> None:
    watch.up({"a": _python(PLAIN)})
    watch.until(lambda: len(watch.pids("p")) == 1, "the agent")
    os.kill(watch.pids("p")[0], signal.SIGTERM)
    watch.until(lambda: len(watch.pids("p")) == 2, "its second life")
    assert "ended by SIGTERM, which nobody here sent; restart 1 of 5" in watch.console


def test_an_agent_that_removes_its_own_directory_is_parked_with_what_to_check(
    watch: Watch,
) -> None:
    (watch.folder / "work").mkdir()
    code = "import os; os.rmdir(os.getcwd()); raise SystemExit(3)"
    watch.up({"a": {**_python(code), "cwd": "work"}})
    watch.until(lambda: "a: parked" in watch.console, "parked")
    gone = str(watch.folder / "work")
    assert f"its directory {gone!r} cannot be entered (No such file or directory)" in watch.console
    assert "check cwd in the fleet file; a restart would not help" in watch.console
    assert watch.console.count("a: started, pid") == 1


@pytest.mark.parametrize(
    ("limits", "code", "says"),
    [
        ({"memory": "4MiB"}, PLAIN, "killed at its memory limit ("),
        ({"open_files": 16}, "kept = [open('/dev/null') for _ in range(99)]", "Too many open files"),
        ({"processes": 2}, "import os\nfor _ in range(3): os.fork()\n" + PLAIN, "limits.processes is 2"),
    ],
    ids=["memory", "files", "processes"],
)  # fmt: skip
def test_a_limit_below_what_it_needs_at_its_start_is_named_and_parks_it(
    watch: Watch, limits: dict[str, Any], code: str, says: str
) -> None:
    watch.up({"a": {**_python(code), "limits": limits, "restart": {"attempts": 1}}})
    watch.until(lambda: "a: parked; a person is needed" in watch.console, "parked")
    assert watch.console.count(says) >= 2
    assert watch.console.count("a: started, pid") == 2


def test_an_agent_that_becomes_another_program_is_the_same_run(watch: Watch) -> None:
    become = "os.execvpe('sleep', ['sleep', '600'], {})"
    watch.up({"a": _python(_note("a") + become)})
    watch.until(lambda: len(watch.pids("a")) == 1, "the agent")
    (pid,) = watch.pids("a")
    line = Path(f"/proc/{pid}/cmdline")
    watch.until(lambda: line.read_bytes() == b"sleep\x00600\x00", "another program")
    assert watch.process is not None
    os.kill(watch.process.pid, signal.SIGTERM)
    assert watch.over() == 0
    assert not line.exists()
    assert watch.console.count("a: started, pid") == 1
    assert "a: stopped together with Midwatch" in watch.console
