"""Which ground the walled agents of a fleet may write: what lies there may be theirs. Pure.

Agents are kept apart by their walls. An env file gives variables to an agent, and variables are code
(`LD_PRELOAD`, `PYTHONPATH`): one that a walled agent may have made must not reach an agent without
walls. That it may not be written now says nothing: it may have been missing when the walls were built,
or have been replaced by its owner since, and both leave it open to who may write its directory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from posixpath import join

from midwatch.core.fleet import Agent
from midwatch.core.sandbox import ROOMS, inside
from midwatch.core.terms import Sandbox

_BY_DEFAULT, _READ, _WRITE, _HIDE = range(4)
"""Of two terms for the same path the later one holds, as in `core.sandbox`."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What one walled agent may write."""

    agent: str
    terms: tuple[tuple[str, int], ...]
    """Real paths, and what the walls make of them."""

    def holds(self, folder: str) -> bool:
        """Tell whether the agent may make files in this directory, a real path."""
        over = [(len(place), rank) for place, rank in self.terms if inside(folder, place)]
        return bool(over) and max(over)[1] == _WRITE


def grounds(
    agents: Mapping[str, Agent],
    directory: Callable[[Agent], str],
    real: Callable[[str], str],
    home: str,
) -> tuple[Ground, ...]:
    """Return the ground of each agent that is to have walls. `real` resolves a path's links."""
    found: list[Ground] = []
    for name, agent in agents.items():
        terms = walled(agent)
        if terms is None:
            continue
        cwd = directory(agent)
        said = [
            *((path, _READ) for path in terms.read),
            *((path, _WRITE) for path in terms.write),
            *((path, _HIDE) for path in terms.hide),
        ]
        places = ((real(join(cwd, _expanded(path, home))), rank) for path, rank in said)
        rooms = ((real(path), _BY_DEFAULT) for path in ROOMS)
        found.append(Ground(name, (*rooms, *places)))
    return tuple(found)


def walled(agent: Agent) -> Sandbox | None:
    """Return the terms of an agent that is to have walls."""
    terms = agent.sandbox
    return terms if terms is not None and terms.enabled and not agent.external else None


def stranger(folders: Iterable[str], known: Iterable[Ground]) -> str | None:
    """Return the first walled agent that may make files in one of these directories (real paths)."""
    wanted = list(folders)
    return next((g.agent for g in known if any(g.holds(folder) for folder in wanted)), None)


def objection(file: str, writer: str) -> str:
    """Return why an env file there is not read, and what to do."""
    return (
        f"{file!r} lies where agent {writer!r} may write from inside its walls, and so might give variables to"
        f" this agent, which has none; give {writer!r} a cwd of its own or fewer paths under sandbox.write, or"
        f" move the file to a directory that its sandbox.read names"
    )


def _expanded(path: str, home: str) -> str:
    return join(home, path[2:]) if path == "~" or path.startswith("~/") else path
