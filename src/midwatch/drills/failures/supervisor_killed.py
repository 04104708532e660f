"""`supervisor-killed`: kill -9 of the supervisor; at its next start no orphan survives and agents resume."""

from __future__ import annotations

import os
import time
from pathlib import Path

from midwatch.drills.drill import Drill, Evidence
from midwatch.drills.instance import Instance


def _kill_the_supervisor(instance: Instance) -> Evidence:
    instance.wait(lambda: instance.read_note("orphan"), 20)
    instance.kill()
    # dead, it cannot notice anything: the two seconds of the catalogue count from its next start
    at = time.time()
    instance.start()
    return Evidence(at, instance.said("supervisor had died", at))


def _resumed_without_orphans(instance: Instance) -> str | None:
    orphan = int(instance.read_note("orphan") or "0")
    if not instance.wait(lambda: not _is_alive(orphan), 5):
        os.kill(orphan, 9)
        return f"process {orphan} of the earlier run survived"
    # the hub remembers the state of before the kill: only the agent itself says that it is back
    instance.wait(lambda: _starts(instance) >= 2, 15)
    starts = _starts(instance)
    return None if starts == 2 else f"started {starts} times, expected 2"


def _starts(instance: Instance) -> int:
    return len((instance.read_note("starts") or "").split())


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


DRILL = Drill(
    name="supervisor-killed",
    about="kill -9 of the supervisor itself",
    program="supervisor_killed.py",
    limit_s=2.0,
    says=(r"supervisor|midwatch", r"second|minute|ms"),
    state="running",
    stage=_kill_the_supervisor,
    check=_resumed_without_orphans,
)
