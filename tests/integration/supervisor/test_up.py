"""The whole supervisor over real processes, without a hub: start, judge, stop, die, and come back."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

DEADLINE_S = 40.0

RUN = """
import json, sys
from pathlib import Path
from midwatch.core.errors import MidwatchError
from midwatch.core.fleet import Fleet
from midwatch.supervisor.main import run
fleet = Fleet.model_validate(json.loads(sys.argv[1])).resolved()
try:
    sys.exit(run(fleet, Path(sys.argv[2]), hub=False))
except MidwatchError as error:
    sys.exit(print(error, file=sys.stderr) or 2)
"""


class Instance:
    """One supervisor in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.process: subprocess.Popen[bytes] | None = None
        self.count = 0

    def up(self, agents: dict[str, Any], *prefix: str) -> None:
        fleet = {
            "root": str(self.folder),
            "defaults": {
                "restart": {"backoff": "20ms..100ms", "attempts": 2},
                "limits": {"stop_grace": "5s"},
            },
            "agents": agents,
        }
        self.count += 1
        with (self.folder / f"console.{self.count}").open("wb") as console:
            self.process = subprocess.Popen(
                [*prefix, sys.executable, "-c", RUN, json.dumps(fleet), str(self.data)],
                stderr=console,
                stdout=console,
            )

    @property
    def console(self) -> str:
        return (self.folder / f"console.{self.count}").read_text()

    def until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, f"not so in time: {what}\n{self.console}"
            time.sleep(0.01)

    def says(self, words: str) -> None:
        self.until(lambda: words in self.console, words)

    def end(self, number: int) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)

    def living(self) -> list[int]:
        """Return all processes that carry this data directory's spool."""
        mark = f"MIDWATCH_SPOOL={self.data}/".encode()
        found = []
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            try:
                env = Path(f"/proc/{name}/environ").read_bytes()
                state = Path(f"/proc/{name}/stat").read_text().rsplit(")", 1)[1].split()[0]
            except OSError:
                continue
            if state != "Z" and any(entry.startswith(mark) for entry in env.split(b"\0")):
                found.append(int(name))
        return found


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Instance]:
    one = Instance(tmp_path)
    yield one
    if one.process is not None and one.process.poll() is None:
        one.process.kill()
        one.process.wait()
    for pid in one.living():
        os.kill(pid, signal.SIGKILL)


def python(code: str, **entry: Any) -> dict[str, Any]:
    return {"command": [sys.executable, "-c", textwrap.dedent(code)], **entry}


def test_ctrl_c_drains_and_leaves_no_process_behind(instance: Instance) -> None:
    polite = """
        import signal, sys, time
        signal.signal(signal.SIGTERM, lambda *_: (print("cleaning up", flush=True), sys.exit(0)))
        print("up", flush=True)
        time.sleep(600)
    """
    instance.up(
        {
            "polite": python(polite),
            "family": {
                "command": ["sh", "-c", "setsid sleep 600 & (sleep 600 &) ; exec sleep 600"],
                "instances": 2,
            },
        }
    )
    log = instance.data / "logs" / "polite" / "output.log"
    instance.until(lambda: log.exists() and "up" in log.read_text(), "the agent's output")
    instance.until(lambda: len(instance.living()) == 7, "all processes")
    assert instance.end(signal.SIGINT) == 0
    assert instance.living() == []
    assert log.read_text().rstrip().endswith("cleaning up")
    assert "nothing is left running" in instance.console
    assert not (instance.data / "instance.json").exists()


def test_a_second_ctrl_c_kills_at_once(instance: Instance) -> None:
    stubborn = 'import signal,time; signal.signal(15, signal.SIG_IGN); print("up", flush=True); time.sleep(600)'
    instance.up({"stubborn": python(stubborn, limits={"stop_grace": "10m"})})
    log = instance.data / "logs" / "stubborn" / "output.log"
    instance.until(lambda: log.exists(), "the agent's output")
    assert instance.process is not None
    instance.process.send_signal(signal.SIGINT)
    instance.says("stopping")
    assert instance.end(signal.SIGINT) == 0
    assert instance.living() == []


def test_under_nohup_the_end_of_the_terminal_stops_nothing(instance: Instance) -> None:
    instance.up({"inbox": {"command": ["sleep", "600"]}}, "nohup")
    instance.says("inbox: started")
    assert instance.process is not None
    instance.process.send_signal(signal.SIGHUP)
    assert instance.end(signal.SIGTERM) == 0
    # both were sent before either was heard: had the first one counted, the second would have killed
    assert "killing what still runs" not in instance.console


def test_the_end_of_the_terminal_stops_in_good_order(instance: Instance) -> None:
    instance.up({"inbox": {"command": ["sleep", "600"]}})
    instance.says("inbox: started")
    assert instance.end(signal.SIGHUP) == 0
    assert "nothing is left running" in instance.console


def test_after_kill_9_no_orphan_survives_and_agents_resume(instance: Instance) -> None:
    family = {"command": ["sh", "-c", "setsid sleep 600 & setsid sleep 600 & exec sleep 600"]}
    fleet = {"family": family, "crash": {"command": ["sh", "-c", "exit 3"]}}
    instance.up(fleet)
    instance.until(lambda: len(instance.living()) == 3, "all processes")
    instance.says("crash: parked")
    instance.end(signal.SIGKILL)
    instance.until(
        lambda: len(instance.living()) == 2, "the agent's own death"
    )  # parent-death signal
    old = set(instance.living())
    instance.up(fleet)
    instance.says("the supervisor had died without a word")
    assert "2 orphaned processes stopped" in instance.console
    instance.until(lambda: len(instance.living()) == 3, "the agent to be back")
    assert not old & set(instance.living())
    instance.says("crash: stays parked")
    assert instance.end(signal.SIGTERM) == 0
    assert instance.living() == []
    instance.up(fleet)
    instance.says("family: started")
    assert "died without a word" not in instance.console


ESCAPES = """
    import pathlib, subprocess
    def start(name, **how):
        child = subprocess.Popen(["/bin/sleep", "600"], env={}, **how)
        pathlib.Path(name).write_text(str(child.pid))
    start("group", process_group=0)
    start("session", start_new_session=True)
    raise SystemExit(3)
"""


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_what_clears_its_environment_is_ended_with_the_run(instance: Instance) -> None:
    instance.up({"escapes": python(ESCAPES, restart={"when": "never"})})
    instance.says("escapes: exit code 3")
    group, session = (int((instance.folder / name).read_text()) for name in ("group", "session"))
    try:
        # one is known by its session, the other by the mark of the run
        instance.until(lambda: not lives(group), "the end of the other group")
        instance.until(lambda: not lives(session), "the end of the other session")
    finally:
        for pid in (group, session):
            if lives(pid):
                os.kill(pid, signal.SIGKILL)


def test_a_killed_agent_is_replaced(instance: Instance) -> None:
    instance.up(
        {"inbox": {"command": ["sleep", "600"], "restart": {"backoff": "0s", "attempts": 9}}}
    )
    instance.until(lambda: len(instance.living()) == 1, "the agent")
    for _ in range(3):
        (pid,) = instance.living()
        os.kill(pid, signal.SIGKILL)
        instance.until(
            lambda pid=pid: len(found := instance.living()) == 1 and found != [pid],
            "its replacement",
        )
    assert "SIGKILL, which nobody here sent" in instance.console


def test_a_second_instance_is_refused_and_harms_nothing(instance: Instance) -> None:
    fleet = {"inbox": {"command": ["sleep", "600"]}}
    instance.up(fleet)
    instance.until(lambda: len(instance.living()) == 1, "the agent")
    first, pids = instance.process, instance.living()
    assert first is not None
    instance.up(fleet)
    assert instance.process is not None
    assert instance.process.wait(DEADLINE_S) == 2
    assert f"in use by another instance (pid {first.pid})" in instance.console
    assert instance.living() == pids
    instance.process = first
    assert instance.end(signal.SIGINT) == 0


def test_an_agent_that_beats_lives_and_one_that_hangs_shows_its_stack(instance: Instance) -> None:
    beats = """
        import os, socket, time
        s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.connect(os.environ["NOTIFY_SOCKET"])
        while True:
            s.send(b"WATCHDOG=1"); time.sleep(0.1)
    """
    hangs = """
        import os, socket, threading, time
        s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.connect(os.environ["NOTIFY_SOCKET"])
        s.send(b"READY=1\\nWATCHDOG=1")
        threading.Thread(target=lambda: [print("side thread answers", flush=True) or time.sleep(0.1) for _ in range(9999)], daemon=True).start()
        def blocked_for_ever():
            near, far = socket.socketpair()
            near.recv(1)
        blocked_for_ever()
    """
    strict, patient = ({"heartbeat": {"every": each, "missed": 2}} for each in ("700ms", "5s"))
    instance.up({"beats": python(beats, **patient), "hangs": python(hangs, **strict)})
    instance.says("hangs: no beat for")
    log = instance.data / "logs" / "hangs" / "output.log"
    instance.until(lambda: "in blocked_for_ever" in log.read_text(), "the stack")
    assert "beats: no beat" not in instance.console
    assert instance.end(signal.SIGINT) == 0


def test_a_supervisor_that_stood_still_blames_nobody(instance: Instance) -> None:
    beats = """
        import os, socket, time
        s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.connect(os.environ["NOTIFY_SOCKET"])
        print("up", flush=True)
        while True:
            try: s.send(b"WATCHDOG=1", socket.MSG_DONTWAIT)
            except BlockingIOError: pass
            time.sleep(0.1)
    """
    instance.up({"beats": python(beats, heartbeat={"every": "1s", "missed": 2})})
    log = instance.data / "logs" / "beats" / "output.log"
    instance.until(lambda: log.exists() and "up" in log.read_text(), "the agent")
    assert instance.process is not None
    instance.process.send_signal(signal.SIGSTOP)
    time.sleep(4)  # twice its patience
    instance.process.send_signal(signal.SIGCONT)
    time.sleep(1.5)
    assert "no beat" not in instance.console
    assert instance.end(signal.SIGINT) == 0


def test_a_flood_without_newlines_blocks_nobody(instance: Instance) -> None:
    flood = """
        import os, time
        block = b"x" * 65536
        for _ in range(1600): os.write(1, block)
        open("flooded", "w").close()
        time.sleep(600)
    """
    instance.up({"flood": python(flood), "calm": {"command": ["sleep", "600"]}})
    folder = instance.data / "logs" / "flood"
    instance.until((instance.folder / "flooded").exists, "the end of 100 MiB")
    size = 0
    for file in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # it may still be rotated
            size += file.stat().st_size
    assert size < 70 * 1024 * 1024
    assert instance.process is not None
    rss = int(Path(f"/proc/{instance.process.pid}/statm").read_text().split()[1]) * 4096
    assert rss < 100 * 1024 * 1024
    assert instance.end(signal.SIGINT) == 0


def test_a_read_only_directory_is_refused_with_what_to_do(instance: Instance) -> None:
    instance.data = Path("/proc/midwatch")
    instance.up({"inbox": {"command": ["sleep", "600"]}})
    assert instance.process is not None
    assert instance.process.wait(DEADLINE_S) == 2
    assert "--data" in instance.console


def test_a_data_directory_that_is_removed_is_told_and_agents_go_on(instance: Instance) -> None:
    instance.up({"inbox": {"command": ["sleep", "600"]}})
    instance.says("inbox: started")
    pids = instance.living()
    shutil.rmtree(instance.data)
    instance.says("was removed or replaced; agents go on")
    assert instance.living() == pids
    assert instance.end(signal.SIGTERM) == 0
    assert instance.living() == []


def test_output_that_the_disk_does_not_take_is_told_once(instance: Instance) -> None:
    (instance.data / "logs").mkdir(parents=True)
    (instance.data / "logs" / "inbox").write_text("in the way")
    instance.up({"inbox": {"command": ["sh", "-c", "echo hello; exec sleep 600"]}})
    instance.says("midwatch: output lost bytes:")
    assert instance.end(signal.SIGTERM) == 0
    assert instance.console.count("output lost bytes") == 1
