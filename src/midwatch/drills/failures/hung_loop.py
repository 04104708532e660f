"""`hung-loop`: the work loop blocks on a socket for ever while a side thread still answers.

Evidence begins when the first beat is overdue, one interval after the last one; two intervals are allowed
from there, and the default of two missed beats needs one.
"""

from __future__ import annotations

from midwatch.drills.drill import Drill
from midwatch.drills.instance import Instance
from midwatch.drills.programs.hung_loop import INTERVAL_S

EXPLAINED_S = 10.0
"""From the incident to the end of the hung process, which brings its stacks."""


def check(instance: Instance) -> str | None:
    """See that the incident explains the hang: which line, which socket, what it printed."""

    instance.wait(lambda: _lines(instance, "stack"), EXPLAINED_S)
    for name, word in (
        ("stack", "hung_loop.py"),
        ("sockets", "ESTABLISHED"),
        ("tail", "health check: ok"),
    ):
        lines = _lines(instance, name)
        if not any(word in line for line in lines):
            return f"the incident's {name} does not show {word!r}: {lines!r}"
    return None


def _lines(instance: Instance, name: str) -> list[str]:
    found = [i for i in instance.incidents() if i["kind"] == "hung-loop"]
    return [str(line) for line in found[0]["evidence"].get(name, [])] if found else []


DRILL = Drill(
    name="hung-loop",
    about="work loop blocked on a socket for ever; a side thread still answers and the port is open",
    program="hung_loop.py",
    limit_s=2 * INTERVAL_S,
    settings={
        "heartbeat": {"every": f"{INTERVAL_S}s", "missed": 2},
        "limits": {"stop_grace": "1s"},
        "restart": {"when": "failure", "attempts": 3, "backoff": "0s..1s"},
    },
    says=(r"beat|worked|progress|hung|silent",),
    actions=("restart",),
    state="running",
    check=check,
)
