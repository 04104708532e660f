"""Midwatch runs AI agents unattended and keeps the night watch over them.

`import midwatch as mw` is the SDK: what an agent says about itself. Standard library only;
it never raises, never waits, and does nothing without a hub. Two names do what they were asked
for, watched or not: `spawn` starts a process and raises what `subprocess.Popen` raises, and a
`tool` with `timeout_s` raises `ToolTimeout`. `midwatch.testing` is for tests of agents that use it.
"""

from midwatch.sdk.cycle import Cycle, beat, cycle
from midwatch.sdk.say import draining, event, outcome, progress, step
from midwatch.sdk.session import session, turn
from midwatch.sdk.start import flush, init, statistics
from midwatch.sdk.state import feedback, state
from midwatch.sdk.tool import ToolTimeout, tool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from midwatch.sdk.spawn import spawn
del TYPE_CHECKING

__all__ = [
    "Cycle",
    "ToolTimeout",
    "beat",
    "cycle",
    "draining",
    "event",
    "feedback",
    "flush",
    "init",
    "outcome",
    "progress",
    "session",
    "spawn",
    "state",
    "statistics",
    "step",
    "tool",
    "turn",
]


def __getattr__(name: str) -> object:
    """Import `spawn` when it is asked for: subprocess costs as much as all the rest."""
    if name == "spawn":
        from midwatch.sdk.spawn import spawn

        return spawn
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
