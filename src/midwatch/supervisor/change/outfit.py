"""What a run is given: its environment, its working directory, and what its entry amounts to."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from midwatch.core import access, ground
from midwatch.core.calls.variables import Past, kept_back, past
from midwatch.core.change import Entry
from midwatch.core.errors import SetupError
from midwatch.core.fleet import Agent, Fleet
from midwatch.supervisor import environment
from midwatch.supervisor.change.versions import Versions
from midwatch.supervisor.machine.sandbox import look


@dataclass(slots=True)
class Outfit:
    """Fits out the runs of one instance. `root` is where the fleet file's paths start."""

    root: str
    data: Path
    secret: bytes
    hub_url: str
    gateway_url: str | None
    """None: no gateway carries calls here, and agents inherit what we do."""
    rehearses: bool
    inherited: Mapping[str, str]
    listen: Callable[[str], str]
    """Name → path of the agent's notify socket. Raises StartError."""
    versions: Versions
    fleet: Callable[[], Fleet]
    """Asked at each start: it may be read anew."""
    file: Path | None = None
    """The fleet file."""
    past: dict[str, list[Past]] = field(default_factory=dict[str, list[Past]])
    """Agent → its calls that go past the gateway, as its last run began."""
    _grounds: tuple[Fleet, tuple[ground.Ground, ...]] | None = None

    def environment(self, name: str, agent: Agent, run_id: str) -> dict[str, str]:
        """Return the environment of one run. Raises SetupError."""
        identity = environment.Identity(
            agent=name,
            run_id=run_id,
            token=access.mint_run(self.secret, name, run_id),
            hub_url=self.hub_url,
            spool=str(self.data / "spool" / name),
            notify_socket=self.listen(name),
            watchdog_s=agent.heartbeat.every if agent.liveness in (None, "heartbeat") else None,
            gateway=self._carrier(name, run_id),
        )
        variables, content = self._from_file(name, agent)
        env = environment.build(agent, identity, self.inherited, variables)
        self.past[name] = self._past(name, {**variables, **agent.env})
        key = () if identity.gateway is None else (identity.gateway.key,)
        self.versions.starting(name, env, content, (identity.token, *key))
        return env

    def _from_file(self, name: str, agent: Agent) -> tuple[dict[str, str], bytes | None]:
        """Return the variables of an agent's env file, and its content. Raises SetupError."""
        kept = self.versions.env_file(name)
        if kept is not None:  # the file's failed: the last good content, as it was accepted then
            text = kept.decode("utf-8-sig", "surrogateescape")
            return environment.parse_env(text, f"the last good {agent.env_file}"), kept
        file = self.env_file(agent)
        if file is None:
            return {}, None
        content = _content(file)
        self.versions.reading(name, content)
        self._refuse_stranger(file, name, agent)
        return environment.read_env_file(file, name, self.file), content

    def place(self, name: str, agent: Agent) -> str:
        """Return where the agent's runs are started: its directory, or the worktree of its last good code."""
        placed = self.versions.placed.get(name)
        return self.directory(agent) if placed is None else placed.directory

    def entry(self, name: str) -> Entry | None:
        """Return what the fleet file that was loaded says of an agent, and its env file as it is now."""
        agent = self.fleet().agents.get(name)
        return None if agent is None else Entry(agent, self.env_file_hash(agent))

    def _carrier(self, name: str, run_id: str) -> environment.Carrier | None:
        if self.gateway_url is None:
            return None
        fleet = self.fleet()
        key = access.mint_key(self.secret, name, run_id, entry_of(name, fleet))
        return environment.Carrier(self.gateway_url, key, kept_back(fleet), self.rehearses)

    def _past(self, name: str, given: Mapping[str, str]) -> list[Past]:
        if self.gateway_url is None or self.rehearses:
            return []
        return past(name, given, self.gateway_url)

    def _refuse_stranger(self, file: Path, name: str, agent: Agent) -> None:
        """Raise SetupError for an env file that a walled agent may have made, of an agent without walls."""
        if ground.walled(agent) is not None:
            return
        spot = look(str(file.absolute()))
        folders = {os.path.dirname(path) for path in (spot.real, *spot.links)}  # noqa: PTH120
        writer = ground.stranger(folders, self._ground())
        if writer is not None:
            raise SetupError(f"agents.{name}.env_file: {ground.objection(spot.real, writer)}")

    def _ground(self) -> tuple[ground.Ground, ...]:
        """Return where walled agents may write. Looked up when the fleet was read: a link that an agent
        laid since does not count."""
        fleet = self.fleet()
        if self._grounds is None or self._grounds[0] is not fleet:
            home = os.path.expanduser("~")  # noqa: PTH111
            found = ground.grounds(fleet.agents, self.directory, lambda p: look(p).real, home)
            self._grounds = fleet, found
        return self._grounds[1]

    def env_file(self, agent: Agent) -> Path | None:
        """Return where the agent's env file is; None when it has none."""
        return Path(self.root, agent.env_file).expanduser() if agent.env_file is not None else None

    def env_file_hash(self, agent: Agent) -> str:
        """Return a keyed hash of the env file as it is now."""
        file = self.env_file(agent)
        return self.versions.of_env_file(None if file is None else _content(file))

    def directory(self, agent: Agent) -> str:
        """Return the agent's working directory."""
        root = Path(self.root).absolute()
        return str(root / Path(agent.cwd).expanduser()) if agent.cwd else str(root)

    def fingerprint(self, agent: Agent) -> str:
        """Change with everything that could repair an agent: its entry, its env file's content."""
        digest = hashlib.sha256(json.dumps(agent.model_dump(mode="json"), sort_keys=True).encode())
        file = self.env_file(agent)
        if file is not None:
            digest.update(_content(file))
        return digest.hexdigest()[:16]


def entry_of(name: str, fleet: Fleet) -> str:
    """Return the entry of the fleet file that an agent came from: `inbox` of `inbox.2`."""
    entry, dot, number = name.rpartition(".")
    return entry if dot and number.isdigit() and f"{entry}.1" in fleet.agents else name


def _content(file: Path) -> bytes:
    """Return the content of an env file, no more of it than would be accepted."""
    try:
        return environment.read_bounded(file)
    except OSError:
        return b"unreadable"
