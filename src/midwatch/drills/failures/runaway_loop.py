"""`runaway-loop`: from 200 to 40,000 tokens a cycle, every call succeeds; the agent is suspended."""

from __future__ import annotations

from midwatch.drills.drill import AGENT, Drill
from midwatch.drills.instance import Instance


def _process_is_gone(instance: Instance) -> str | None:
    agent = instance.agent(AGENT)
    return None if agent and agent["pid"] is None else "the process still runs after the suspension"


DRILL = Drill(
    name="runaway-loop",
    about="200 to 40,000 tokens a cycle, every call succeeds",
    program="runaway_loop.py",
    limit_s=5.0,
    settings={"limits": {"stop_grace": "1s"}},
    says=(r"40,000", r"usual"),
    actions=("suspend",),
    state="suspended",
    check=_process_is_gone,
)
