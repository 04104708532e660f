"""Midwatch runs AI agents unattended and keeps the night watch over them.

`import midwatch as mw` is the SDK: what an agent says about itself. Standard library only;
it never raises, never waits, and does nothing without a hub. Two names do what they were asked
for, watched or not: `spawn` starts a process and raises what `subprocess.Popen` raises, and a
`tool` with `timeout_s` raises `ToolTimeout`. `midwatch.testing` is for tests of agents that use it.

The SDK is loaded when the first of its names is asked for, and then all of it but `spawn`: the rooms of the server
side are in this package too, and the command line must not wait for what only agents use.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from midwatch.sdk.cycle import Cycle, beat, cycle
    from midwatch.sdk.say import draining, event, outcome, progress, step
    from midwatch.sdk.session import session, turn
    from midwatch.sdk.spawn import spawn
    from midwatch.sdk.start import flush, init, statistics
    from midwatch.sdk.state import feedback, state
    from midwatch.sdk.tool import ToolTimeout, tool

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


_ROOMS = {
    "cycle": ("Cycle", "beat", "cycle"),
    "say": ("draining", "event", "outcome", "progress", "step"),
    "session": ("session", "turn"),
    "start": ("flush", "init", "statistics"),
    "state": ("feedback", "state"),
    "tool": ("ToolTimeout", "tool"),
}
"""Where each name is at home; `spawn` comes by itself, since subprocess costs as much as all the rest."""


def _load() -> None:
    """Bind all names at once: an agent that has begun meets no import later on, after a fork, in a signal's handler
    or while its interpreter ends. What a test has put in a name's place stays there."""
    own = globals()
    for room, names in _ROOMS.items():
        module = __import__(f"midwatch.sdk.{room}", fromlist=names)
        for name in names:
            own.setdefault(name, getattr(module, name))


if not TYPE_CHECKING:  # who checks types is told of a name that is none

    def __getattr__(name: str) -> object:
        """Load what is asked for, and with it the rest."""
        if name == "spawn":
            from midwatch.sdk.spawn import spawn

            return spawn
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        _load()
        return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


del TYPE_CHECKING
