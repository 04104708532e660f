"""Named timers: setting one again replaces it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from midwatch.supervisor.machine.system import System, Timer

STOOD_STILL_S: Final = 1.0
"""A timer that is later than this is time in which nobody could be heard: no agent is blamed for it."""


class Timers:
    def __init__(self, system: System) -> None:
        self._system = system
        self._timers: dict[str, Timer] = {}

    def set(
        self,
        name: str,
        after_s: float,
        act: Callable[[], None],
        late: Callable[[], None] | None = None,
    ) -> None:
        """Call `act` in `after_s` seconds instead of what `name` was set to before; `late` in its
        place, when there is one and the time has passed by more than STOOD_STILL_S."""
        self.cancel(name)
        due = self._system.now() + after_s

        def ring() -> None:
            self._timers.pop(name, None)
            stood_still = self._system.now() - due > STOOD_STILL_S
            (late if late is not None and stood_still else act)()

        self._timers[name] = self._system.call_at(due, ring)

    def pending(self, name: str) -> bool:
        """Tell whether it is set and has not rung."""
        return name in self._timers

    def cancel(self, *names: str) -> None:
        """Cancel these; without names, all."""
        for name in names or list(self._timers):
            timer = self._timers.pop(name, None)
            if timer is not None:
                timer.cancel()
