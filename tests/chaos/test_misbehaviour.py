"""A hundred agents that misbehave at random, while hub and supervisor are killed.

What must hold after it: what runs is exactly what the state says, nothing of an earlier run is left,
and the supervisor has not grown. MIDWATCH_CHAOS_SEED repeats the kills.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from midwatch.drills.instance import Instance

PROGRAM = Path(__file__).with_name("misbehaver.py")
SETTLE_S = 60.0
GROWTH_BYTES = 25 * 1024 * 1024
"""What the supervisor may grow by in the last third, in which nobody kills it: an agent's first
output, first leak and first hang each leave a little; a leak of its own would go on."""


def entry() -> dict[str, Any]:
    return {
        "command": [sys.executable, "-IS", str(PROGRAM)],
        "liveness": "heartbeat",
        "heartbeat": {"every": "2s", "missed": 2},
        "restart": {"when": "always", "attempts": 1_000_000, "backoff": "100ms..3s", "cooldown": "1s"},
        "limits": {"memory": "160MiB", "stop_grace": "1s", "processes": 64},
    }  # fmt: skip


def processes(instance: Instance) -> dict[int, str | None]:
    """Return who runs for this instance's agents, and which run it says that it is of."""
    mark = str(instance.work).encode()
    found: dict[int, str | None] = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            state = (folder / "stat").read_bytes().rpartition(b")")[2].split()[0]
            environ = (folder / "environ").read_bytes().split(b"\0")
            command = (folder / "cmdline").read_bytes()
            if state == b"Z" or (mark not in command and b"DRILL_DIR=" + mark not in environ):
                continue
            own = next((v for v in environ if v.startswith(b"MIDWATCH_RUN_ID=")), None)
            if any(v.startswith(b"MIDWATCH_AGENT=") for v in environ) or mark in command:
                found[int(folder.name)] = own.partition(b"=")[2].decode() if own else None
    return found


def state_of(instance: Instance) -> dict[str, tuple[str, str | None, int | None]]:
    agents = instance.get("/api/agents?limit=500")["items"]
    return {a["agent"]: (a["state"], a["run_id"], a["pid"]) for a in agents}


def resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def wreak_havoc(instance: Instance, seconds: float, dice: random.Random) -> dict[str, int]:
    deaths = {"hub": 0, "supervisor": 0}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(min(dice.uniform(2, 15), max(0.1, end - time.monotonic())))
        if dice.random() < 0.4:
            deaths["supervisor"] += 1
            instance.kill()
            time.sleep(dice.uniform(0, 1))
            instance.start()
        else:
            with contextlib.suppress(OSError, KeyError):
                os.kill(instance.children()["hub"], signal.SIGKILL)
                deaths["hub"] += 1
    return deaths


def misfits(instance: Instance, names: list[str]) -> list[str]:
    """Return what differs between the processes and the state; all are calm by now."""
    try:
        before, found, after = state_of(instance), processes(instance), state_of(instance)
    except OSError as error:
        return [f"the hub does not answer: {error}"]
    if before != after:
        names = [name for name in after if before.get(name) != after[name]]
        return [f"{name} still changes: {before.get(name)}, {after[name]}" for name in names]
    runs = {run_id for _, run_id, _ in after.values()}
    wrong = [
        f"{name} is {after.get(name)}" for name in names if after.get(name, ("",))[0] != "running"
    ]
    wrong += [f"process {pid} is of run {run}" for pid, run in found.items() if run not in runs]
    pids = {pid for _, _, pid in after.values()}
    wrong += [f"process {pid} is no agent's" for pid in found.keys() - pids]
    return wrong + [f"pid {pid} of the state does not live" for pid in pids - found.keys()]


def misbehave_and_judge(directory: Path, agents: int, seconds: float) -> None:
    seed = int(os.environ.get("MIDWATCH_CHAOS_SEED", "0")) or random.SystemRandom().randrange(
        1, 10**6
    )
    print(f"MIDWATCH_CHAOS_SEED={seed}")
    names = [f"a{number:03}" for number in range(agents)]
    instance = Instance(directory, dict.fromkeys(names, entry()))
    instance.start()
    try:
        deaths = wreak_havoc(instance, seconds * 2 / 3, random.Random(seed))
        time.sleep(min(20.0, seconds / 10))
        young = resident_bytes(instance.pid)
        time.sleep(seconds / 3)
        old = resident_bytes(instance.pid)
        print(f"deaths: {deaths}; supervisor: {young / 1e6:.0f} MB, {old / 1e6:.0f} MB later")
        assert old - young < GROWTH_BYTES, (young, old)
        (instance.work / "calm").touch()
        assert instance.wait(lambda: not misfits(instance, names), SETTLE_S), misfits(
            instance, names
        )
    finally:
        instance.stop()
    assert instance.wait(lambda: not processes(instance), 30), processes(instance)


@pytest.mark.timeout(240)
def test_what_runs_is_what_the_state_says_after_much_misbehaviour(tmp_path: Path) -> None:
    misbehave_and_judge(tmp_path, 20, 20)


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_ten_minutes_of_a_hundred_that_misbehave_leave_no_orphan(tmp_path: Path) -> None:
    misbehave_and_judge(tmp_path, 100, 600)
