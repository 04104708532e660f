"""`duplicate-instance`: a second supervisor is to start an agent that another one runs already.

The other one works on the same fleet file with a data directory of its own. Evidence begins when the agent
is started here, too: it must be refused, with a word about who has it. Killed -9, the other one holds nothing
any more, and the agent is started here by itself.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from midwatch.drills.drill import AGENT, Drill, Evidence
from midwatch.drills.instance import PROGRAMS, Instance

_others: dict[Path, subprocess.Popen[bytes]] = {}


def _start_twice(instance: Instance) -> Evidence:
    instance.wait(lambda: _starts(instance) >= 1, 20)
    instance.post(f"/api/agents/{AGENT}/stop")
    command = [
        sys.executable,
        str(PROGRAMS / "other_supervisor.py"),
        str(instance.file),
        str(instance.directory / "other"),
    ]
    _others[instance.directory] = subprocess.Popen(
        command,
        env=instance.environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    instance.wait(lambda: _starts(instance) >= 2, 20)
    at = time.time()
    instance.post(f"/api/agents/{AGENT}/start")
    return Evidence(at)


def _taken_over(instance: Instance) -> str | None:
    other = _others.pop(instance.directory)
    starts = _starts(instance)
    other.kill()
    other.communicate()
    if starts != 2:
        return f"it was started {starts} times while the other one held it, expected 2"
    # hub and agent may be slow; the lease itself is asked for every five seconds
    if not instance.wait(lambda: _starts(instance) == 3 and _runs(instance), 20):
        return "it was not started here when the other supervisor had been killed"
    return "two of it worked at the same time" if instance.read_note("overlap") else None


def _starts(instance: Instance) -> int:
    return len((instance.read_note("starts") or "").split())


def _runs(instance: Instance) -> bool:
    agent = instance.agent(AGENT)
    return agent is not None and agent["state"] == "running"


DRILL = Drill(
    name="duplicate-instance",
    about="two supervisors start the same agent; they fight for a port, 102 restarts",
    program="duplicate_instance.py",
    limit_s=2.0,
    settings={"limits": {"stop_grace": "1s"}},
    says=(r"runs already under pid \d+", r"data directory"),
    actions=("park",),
    state="parked",
    stage=_start_twice,
    check=_taken_over,
)
