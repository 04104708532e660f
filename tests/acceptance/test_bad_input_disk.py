"""The disk fills up while everything runs: nothing stops, nobody is lied to, and it heals by itself.

The data directory is a small file system of its own. Refused is refused (503), acknowledged is
stored: after it, every acknowledged beat is in the database, and no refused one.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from midwatch.drills.instance import Instance

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a file system takes root")

WITHIN_S = 30.0

WORKER = """
import os, pathlib, time
import midwatch as mw
mw.init()
name = os.environ["MIDWATCH_AGENT"]
note = pathlib.Path(os.environ["DRILL_DIR"], f"{name}.{os.getpid()}")
done = 0
while True:
    with mw.cycle() as cycle:
        cycle.usage(tokens=3)
        time.sleep(0.1)
    done += 1
    note.write_text(str(done))
    print("cycle", done, "x" * 2000, flush=True)
"""
"""Works, says so in a place that is not full, and prints more than a full disk can take."""


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Instance]:
    """An instance whose data directory is a disk of 32 MB."""
    worker = {
        "command": [sys.executable, "-c", WORKER],
        "restart": {"backoff": "0s..100ms", "attempts": 10},
    }
    agents = {"worker": worker, "steady": worker, "outside": {"external": True}}
    one = Instance(tmp_path, agents)
    one.data.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32m,mode=700", "tmpfs", str(one.data)]
    subprocess.run(mount, check=True, capture_output=True)
    try:
        with one:
            yield one
    finally:
        subprocess.run(["umount", "--lazy", str(one.data)], check=True, capture_output=True)


def fill(data: Path) -> None:
    """Take every byte that is left."""
    with (data / "filler").open("ab", buffering=0) as filler:
        size = 1 << 20
        while size:
            try:
                filler.write(b"x" * size)
            except OSError:
                size //= 2


def cycles_of(instance: Instance, name: str) -> list[int]:
    """Return how many cycles each process of an agent has completed."""
    return [int(note.read_text() or 0) for note in instance.work.glob(f"{name}.*")]


def pid_of(instance: Instance, name: str) -> int | None:
    return (instance.agent(name) or {}).get("pid")


def stored(instance: Instance, name: str) -> int:
    return ((instance.agent(name) or {}).get("today") or {}).get("cycles") or 0


class Sender:
    """Sends beats of an outside agent, and remembers which were acknowledged and which refused."""

    def __init__(self, hub: Any) -> None:
        self.hub = hub
        self.acknowledged: list[str] = []
        self.refused: list[str] = []

    def beat(self, size: int = 0) -> Any:
        name = f"beat-{len(self.acknowledged) + len(self.refused)}"
        answer = self.hub.post("/api/beats", {"agent": "outside", "id": name, "note": "y" * size})
        (self.acknowledged if answer.status == 200 else self.refused).append(name)
        return answer


def wait(instance: Instance, condition: Callable[[], Any], what: str) -> None:
    found = instance.wait(condition, WITHIN_S)
    assert found, f"not within {WITHIN_S:.0f} s: {what}\n{instance.last_words()}"


def test_a_disk_that_fills_up_and_is_freed_again(
    instance: Instance,
    client_of: Callable[..., Any],
    is_problem: Callable[..., dict[str, Any]],
    midwatch: Callable[..., Any],
) -> None:
    hub = client_of(instance)
    sender = Sender(hub)
    wait(instance, lambda: stored(instance, "worker") and stored(instance, "steady"), "beats")
    assert sender.beat().status == 200
    before = instance.children()
    worker, steady = pid_of(instance, "worker"), pid_of(instance, "steady")
    assert worker is not None

    prove_that_it_is_told(instance, sender, is_problem)

    # everything else goes on, and who dies is replaced
    assert hub.get("/healthz").status == 200
    at = cycles_of(instance, "steady")[0]
    wait(instance, lambda: cycles_of(instance, "steady")[0] >= at + 10, "the next cycles")
    status = midwatch("status", "--data", instance.data)
    assert status.code == 0, status
    assert "steady" in status.out
    os.kill(worker, signal.SIGKILL)
    wait(instance, lambda: len(cycles_of(instance, "worker")) == 2, "the worker's replacement")
    assert instance.children() == before
    wait(instance, lambda: hub.get("/readyz").status == 503, "still red")

    # free again: it heals without anybody's help, and what was kept arrives
    (instance.data / "filler").unlink()
    made = cycles_of(instance, "steady")[0]
    wait(instance, lambda: hub.get("/readyz").status == 200, "readyz green")
    wait(instance, lambda: sender.beat().status == 200, "an acknowledgement")
    wait(instance, lambda: stored(instance, "steady") >= made, "the beats of the time between")
    wait(instance, lambda: pid_of(instance, "worker") not in (None, worker), "the new process")
    wait(instance, lambda: any(i["kind"] == "crash" for i in instance.incidents()), "the incident")
    assert instance.children() == before
    assert pid_of(instance, "steady") == steady
    assert len(cycles_of(instance, "steady")) == 1, "steady was started again"
    instance.stop()
    judge(instance, sender)


def prove_that_it_is_told(
    instance: Instance, sender: Sender, is_problem: Callable[..., dict[str, Any]]
) -> None:
    """Fill the disk: readyz turns red with the reason, and a refusal says when to come again."""

    def is_refused() -> bool:
        fill(instance.data)
        return bool(sender.beat(size=20_000).status != 200)

    wait(instance, is_refused, "a refusal")
    answer = sender.beat(size=20_000)
    problem = is_problem(answer, 503, "cannot write", "see the disk of")
    assert problem["reason"] == "busy"
    assert int(answer.headers["retry-after"]) >= 1
    wait(instance, lambda: sender.hub.get("/readyz").status == 503, "readyz red")
    is_problem(sender.hub.get("/readyz"), 503, "the state store cannot write", "full")


def judge(instance: Instance, sender: Sender) -> None:
    """Compare what was answered with what is stored, and check both databases."""
    with duckdb.connect(str(instance.data / "hub/telemetry.duckdb"), read_only=True) as store:
        rows = store.execute("SELECT id FROM beats WHERE agent = 'outside'").fetchall()
        twice = store.execute(
            "SELECT agent, id FROM beats GROUP BY agent, id HAVING count(*) > 1"
        ).fetchall()
    assert sorted(row[0] for row in rows) == sorted(sender.acknowledged)
    assert sender.refused
    assert twice == []
    state = sqlite3.connect(instance.data / "hub/state.db")
    assert state.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    state.close()
