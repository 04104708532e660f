"""`memory-leak`: memory grows in every cycle; the limit is forecast, and the agent restarted before it.

`leak_after` stands at four seconds instead of ten minutes: the twelve spans of the shortest window are a
third of a second each, and a trend counts from six seconds after the start. The catalogue's minute is scaled
with it, to twenty seconds.
"""

from __future__ import annotations

import re

from midwatch.drills.drill import AGENT, Drill
from midwatch.drills.instance import Instance


def _restarted_in_time(instance: Instance) -> str | None:
    """It was told before the warning share, drained between two cycles, restarted once, and never killed."""
    if not instance.wait(lambda: instance.read_note("drained"), 20):
        return "the agent was not asked to stop between two cycles"
    agent = instance.agent(AGENT)
    if not agent or agent["today"]["restarts"] > 1:
        return "it was restarted more than once"
    forecast = [line for _, line in instance.console if re.search(r"memory is at \d+ %", line)]
    return None if forecast else "the console did not warn"


DRILL = Drill(
    name="memory-leak",
    about="resident memory grows steadily, cycle by cycle",
    program="memory_leak.py",
    limit_s=20.0,
    settings={
        "heartbeat": {"every": "5s", "missed": 2},
        "limits": {"memory": "256MiB", "leak_after": "4s", "stop_grace": "3s"},
        "restart": {"when": "failure", "attempts": 3, "backoff": "0s..1s"},
    },
    says=(r"memory grows by .* an hour", r"reaches its limit of 256 MiB at about \d\d:\d\d"),
    actions=("restart",),
    state="running",
    check=_restarted_in_time,
)
