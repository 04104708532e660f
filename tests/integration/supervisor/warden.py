"""Builds walls around a command and becomes it: for tests, as whichever user they start it as.

python warden.py '{"data": …, "root": …, "sandbox": {…}, "command": […], "env": {…}}'
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from midwatch.core.errors import MidwatchError
from midwatch.core.fleet import Agent, Fleet
from midwatch.core.models import Models
from midwatch.supervisor.machine.sandbox import Walls
from midwatch.supervisor.machine.system import Launch


@dataclass
class Fitting:
    root: str
    socket: str | None = None

    @property
    def listen(self) -> Any:
        def path(_name: str) -> str | None:
            return self.socket

        return path

    def directory(self, agent: Agent) -> str:
        return str(Path(self.root, agent.cwd or ""))

    def env_file(self, agent: Agent) -> Path | None:
        return Path(self.root, agent.env_file) if agent.env_file else None


class Tell:
    unwalled: str | None = None

    def event(self, kind: str, data: dict[str, str], run_id: str | None = None) -> None:
        pass


@dataclass
class Bearer:
    """Whose run it is."""

    agent: Agent
    name: str = "subject"
    tell: Any = None

    def __post_init__(self) -> None:
        self.tell = Tell()

    def say(self, line: str) -> None:
        sys.stderr.write(line + "\n")


def _ignore(_what: Any) -> None:
    pass


def launch_of(spec: dict[str, Any], **more: Any) -> tuple[Walls, Bearer, Launch]:
    """Return the walls of a fleet of one, its agent, and the launch that walls are put around."""
    entry = {"command": spec["command"], "sandbox": spec["sandbox"], "cwd": spec.get("cwd")}
    agent = Agent.model_validate(
        {**entry, "env_file": spec.get("env_file"), "tty": spec.get("tty", False)}
    )
    models = Models.model_validate(spec.get("models", {}))
    fleet = Fleet(agents={"subject": agent}, root=spec["root"], models=models)
    fitting = Fitting(spec["root"], spec.get("socket"))
    walls = Walls(Path(spec["data"]), lambda: fleet, fitting)
    launch = Launch(
        command=spec["command"],
        env=spec["env"],
        cwd=fitting.directory(agent),
        run_id=spec["env"]["MIDWATCH_RUN_ID"],
        on_output=more.get("on_output", _ignore),
        on_exit=more.get("on_exit", _ignore),
        tty=agent.tty,
    )  # fmt: skip
    return walls, Bearer(agent), launch


def main() -> None:
    walls, bearer, launch = launch_of(json.loads(sys.argv[1]))
    try:
        walled = walls.put_around(bearer, launch)
    except MidwatchError as error:
        sys.exit(f"refused: {error}")
    for fd in walled.keep_fds:
        os.set_inheritable(fd, True)
    os.chdir(walled.cwd)
    os.umask(0o077)
    os.execve(walled.command[0], list(walled.command), dict(walled.env))


if __name__ == "__main__":
    main()
