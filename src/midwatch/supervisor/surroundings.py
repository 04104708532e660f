"""What a keeper needs of the supervisor; tests hand in fakes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from midwatch.core.change import Entry
from midwatch.core.fleet import Agent
from midwatch.supervisor.change.lease import Leases
from midwatch.supervisor.change.placing import CheckOut
from midwatch.supervisor.change.versions import Versions
from midwatch.supervisor.journal import Journal
from midwatch.supervisor.machine.sandbox import Walls
from midwatch.supervisor.machine.system import System
from midwatch.supervisor.reporter import Reports
from midwatch.supervisor.run import Run


@dataclass(slots=True)
class Surroundings:
    """Everything around one keeper."""

    system: System
    journal: Journal
    reports: Reports
    say: Callable[[str], None]
    environment: Callable[[str, Agent, str], dict[str, str]]
    """(name, agent, run id) → the run's environment. Raises SetupError."""
    directory: Callable[[Agent], str]
    fingerprint: Callable[[Agent], str]
    hear_now: Callable[[str], None]
    """Read what waits in the agent's notify socket."""
    random: Callable[[], float]
    going_down: Callable[[], str] = lambda: ""
    """Why the machine goes down within moments; empty when it does not."""
    timezone: str = "UTC"
    away_since: float | None = None
    """When the supervisor before this one was last alive; None when there was none."""
    weigh: Callable[[str, Callable[[int | None], None]], None] = lambda _name, done: done(None)
    """(name, done): measure the agent's own directory aside, as `Helm.weigh` says."""
    leases: Leases | None = None
    """None: whoever asks may run."""
    walls: Walls | None = None
    """None: nobody is walled in."""
    versions: Versions | None = None
    """None: nothing is remembered of what ran."""
    entry: Callable[[str], Entry | None] = lambda _name: None
    """What the fleet file that was loaded says of an agent, and its env file as it is now."""
    check_out: CheckOut | None = None
    """None: code is not taken back."""
    run_begins: Callable[[str, str], None] = lambda _name, _run_id: None
    run_over: Callable[[str, str, Run | None], None] = lambda _name, _run_id, _run: None
    """For the gateway: which keys are good."""
