"""`fd-leak`: a file is opened in every cycle and never closed; told before the limit, restarted as planned.

Times are scaled as in `memory-leak`.
"""

from __future__ import annotations

from midwatch.drills.drill import Drill
from midwatch.drills.instance import Instance


def _never_full(instance: Instance) -> str | None:
    # its replacement runs a moment before its program says so
    instance.wait(lambda: _lives(instance) >= 2, 20)
    lives = _lives(instance)
    full = [i for i in instance.incidents() if i["kind"] in ("resource-hog", "crash", "crash-loop")]
    if full:
        return f"it reached its limit: {full[0]['sentence']}"
    return None if lives == 2 else f"it lived {lives} times, expected 2"


def _lives(instance: Instance) -> int:
    return len((instance.read_note("lives") or "").split())


DRILL = Drill(
    name="fd-leak",
    about="open files grow to the limit; new calls fail, the process lives",
    program="fd_leak.py",
    limit_s=20.0,
    settings={
        "heartbeat": {"every": "5s", "missed": 2},
        "limits": {"open_files": 512, "leak_after": "4s", "stop_grace": "2s"},
        "restart": {"when": "failure", "attempts": 3, "backoff": "0s..1s"},
    },
    says=(r"open files grow by [\d,]+ an hour", r"reach their limit of 512 at about \d\d:\d\d"),
    actions=("restart",),
    state="running",
    check=_never_full,
)
