"""Named timers: setting one again replaces it."""

from __future__ import annotations

from collections.abc import Callable

from midwatch.supervisor.system import System, Timer


class Timers:
    def __init__(self, system: System) -> None:
        self._system = system
        self._timers: dict[str, Timer] = {}

    def set(self, name: str, after_s: float, act: Callable[[], None]) -> None:
        """Call `act` in `after_s` seconds instead of what `name` was set to before."""
        self.cancel(name)
        self._timers[name] = self._system.call_at(self._system.now() + after_s, act)

    def cancel(self, *names: str) -> None:
        """Cancel these; without names, all."""
        for name in names or list(self._timers):
            timer = self._timers.pop(name, None)
            if timer is not None:
                timer.cancel()
