"""kill -9 of agents, hub and supervisor, in any order, at random times.

What must hold after it: every acknowledged beat is in the store once, no process of an earlier run is
left, and every agent runs. The seed is printed; MIDWATCH_CHAOS_SEED repeats a run.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from midwatch.core.errors import SetupError
from midwatch.drills.instance import Instance
from midwatch.wire.ids import new_id

WORKER = Path(__file__).with_name("worker.py")
AGENTS = ("one", "two", "three")
SHORT_S = 25.0
LONG_S = 300.0
SETTLE_S = 30.0


class Poster(threading.Thread):
    """Posts beats of an outside agent, and remembers which ids were acknowledged."""

    def __init__(self, instance: Instance) -> None:
        super().__init__(daemon=True)
        self.instance = instance
        self.acknowledged: list[str] = []
        self.refused = 0
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.is_set():
            batch = [{"id": new_id(), "agent": "outside", "tokens": 1} for _ in range(5)]
            for _ in range(3):  # a resend after a lost answer must not count twice
                try:
                    answer = self.instance.post("/api/beats", batch)
                except (OSError, ValueError):
                    self.refused += 1
                    self.over.wait(0.05)
                    continue
                assert answer["accepted"] == len(batch), answer
                self.acknowledged += [beat["id"] for beat in batch]
                break
            self.over.wait(0.01)


def processes_of(instance: Instance) -> list[int]:
    """Return every process that was started, directly or not, by this instance's agents."""
    mark = f"DRILL_DIR={instance.work}".encode()
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def victims(instance: Instance) -> Iterator[tuple[str, int]]:
    with contextlib.suppress(OSError):
        yield from instance.children().items()
    for name in AGENTS:
        agent = instance.agent(name)
        if agent and agent["pid"]:
            yield name, agent["pid"]


def wreak_havoc(instance: Instance, seconds: float, dice: random.Random) -> dict[str, int]:
    """Kill somebody every moment; return how often each died."""
    deaths: dict[str, int] = {}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(dice.uniform(0.05, 2.0))
        if dice.random() < 0.2:
            deaths["supervisor"] = deaths.get("supervisor", 0) + 1
            instance.kill()
            time.sleep(dice.uniform(0, 0.5))
            instance.start()
            continue
        choices = list(victims(instance))
        if choices:
            name, pid = dice.choice(choices)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                deaths[name] = deaths.get(name, 0) + 1
    return deaths


def all_run(instance: Instance) -> bool:
    agents: list[dict[str, Any] | None] = [instance.agent(name) for name in AGENTS]
    return all(agent and agent["state"] == "running" and agent["pid"] for agent in agents)


def kill_and_judge(directory: Path, seconds: float) -> None:
    seed = int(os.environ.get("MIDWATCH_CHAOS_SEED", "0")) or random.SystemRandom().randrange(
        1, 10**6
    )
    print(f"MIDWATCH_CHAOS_SEED={seed}")
    worker = {
        "command": [sys.executable, str(WORKER)],
        "restart": {"when": "always", "attempts": 10_000, "backoff": "0s..100ms"},
        "limits": {"stop_grace": "2s"},
    }
    agents: dict[str, Any] = dict.fromkeys(AGENTS, worker)
    instance = Instance(directory, {**agents, "outside": {"external": True}})
    instance.start()
    poster = Poster(instance)
    poster.start()
    try:
        deaths = wreak_havoc(instance, seconds, random.Random(seed))
        print("deaths:", deaths)
        assert sum(deaths.values()) >= max(2, seconds / 60), deaths
        assert instance.wait(lambda: all_run(instance), SETTLE_S), [
            (name, (instance.agent(name) or {}).get("sentence")) for name in AGENTS
        ]
        assert instance.wait(lambda: misfits(instance) == [], 30), misfits(instance)
        time.sleep(1)
        assert misfits(instance) == [], "a process of an earlier run came to light late"
    finally:
        poster.over.set()
        poster.join(10)
        instance.stop()
    assert instance.wait(lambda: not processes_of(instance), 30), processes_of(instance)
    judge_beats(instance, poster)


def misfits(instance: Instance) -> list[str]:
    """Return what is wrong with the agents' processes: each has one worker and one grandchild, of
    its current run, and nothing is left of any other run."""
    wrong: list[str] = []
    counts = dict.fromkeys(AGENTS, 0)
    current = {name: (instance.agent(name) or {}).get("run_id") for name in AGENTS}
    for pid in processes_of(instance):
        with contextlib.suppress(OSError):
            pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
            env = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
            name = env.get("MIDWATCH_AGENT")
            if name is None:
                continue  # the instance's own: supervisor, hub, gateway
            counts[name] += 1
            if env["MIDWATCH_RUN_ID"] != current[name]:
                wrong.append(f"{pid} is of an earlier run of {name}")
    return wrong + [f"{name} has {n} processes" for name, n in counts.items() if n != 2]


def judge_beats(instance: Instance, poster: Poster) -> None:
    with duckdb.connect(str(instance.data / "hub" / "telemetry.duckdb"), read_only=True) as store:
        rows = store.execute(
            "select id, count(*) from beats where agent = 'outside' group by id"
        ).fetchall()
        workers = store.execute(
            "select count(*), count(distinct id) from beats where agent <> 'outside'"
        ).fetchone()
    stored = dict(rows)
    assert poster.acknowledged, "nothing was ever acknowledged"
    lost = [item for item in poster.acknowledged if item not in stored]
    assert not lost, f"{len(lost)} of {len(poster.acknowledged)} acknowledged beats are gone"
    assert set(stored.values()) == {1}
    assert workers is not None
    assert workers[0] == workers[1], "a beat of an agent is stored twice"


@pytest.mark.timeout(240)
def test_kills_at_random_times_lose_nothing_and_orphan_nobody(tmp_path: Path) -> None:
    kill_and_judge(tmp_path, SHORT_S)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_five_minutes_of_kills_lose_nothing_and_orphan_nobody(tmp_path: Path) -> None:
    kill_and_judge(tmp_path, LONG_S)


def test_a_start_in_a_directory_that_is_in_use_says_who_holds_it(tmp_path: Path) -> None:
    with Instance(tmp_path, {"outside": {"external": True}}) as first:
        second = Instance(tmp_path, {"outside": {"external": True}})
        with pytest.raises(SetupError, match=str(first.pid)):
            second.start()
        assert first.agent("outside")
