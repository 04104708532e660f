"""Will this machine be able to start the fleet? Commands, directories and env files that must exist.

Apart from `reader`, because it depends on the machine: the same file is right on one and wrong
on another. Pure: looking is done by functions that the caller hands in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from posixpath import dirname, isabs, join, normpath
from typing import Final

from midwatch.core.errors import Problem
from midwatch.core.fleet import Agent
from midwatch.core.fleetfile.document import Path, show_path
from midwatch.core.fleetfile.reader import FleetFile
from midwatch.core.ground import Ground, grounds, objection, stranger, walled
from midwatch.core.nearest import nearest
from midwatch.core.sandbox import PROXY
from midwatch.core.units import shorten

_INTERPRETERS: Final = ("python", "python3", "node", "bash", "sh", "ruby", "perl", "deno", "bun")
_SCRIPTS: Final = (".py", ".js", ".mjs", ".cjs", ".ts", ".sh", ".rb", ".pl")


def check_host(
    source: FleetFile,
    which: Callable[[str, str | None], str | None],
    exists: Callable[[str], bool],
    programs: Callable[[], Iterable[str]] = tuple,
) -> list[Problem]:
    """Return what is missing on this machine, in the order of the file.

    `which(name, path)` finds a program in PATH (None: the inherited one), `exists(path)` tells
    whether a path is there; `programs` yields names to suggest from.
    """
    problems: list[Problem] = []
    fleet = source.fleet
    # by their words alone: the supervisor looks again where links lead
    known = grounds(fleet.agents, lambda a: _from(fleet.root, a.cwd or ""), normpath, "~")
    for name, agent in fleet.agents.items():
        if agent.command is None or agent.external:
            continue
        found = _check_agent(fleet.root, agent, which, exists, programs)
        for path, message in (*found, *_check_ground(fleet.root, agent, known)):
            place = source.document.place(_given(source, name, path))
            problems.append(
                Problem(place.line, place.column, show_path(("agents", name, *path)), message)
            )
    return sorted(problems, key=lambda problem: (problem.line, problem.column))


def _given(source: FleetFile, name: str, path: Path) -> Path:
    """Return where the file says it: at the agent, or in the defaults."""
    own = ("agents", name, *path)
    return own if own in source.document.places else ("defaults", *path)


def _check_agent(
    root: str,
    agent: Agent,
    which: Callable[[str, str | None], str | None],
    exists: Callable[[str], bool],
    programs: Callable[[], Iterable[str]],
) -> list[tuple[Path, str]]:
    found: list[tuple[Path, str]] = []
    cwd = _from(root, agent.cwd or "")
    if agent.cwd and not exists(cwd):
        return [(("cwd",), f"there is no directory {shorten(cwd)}; create it, or correct the path")]
    if agent.env_file and not exists(_from(root, agent.env_file)):
        file = _from(root, agent.env_file)
        found.append(
            (("env_file",), f"there is no file {shorten(file)}; create it, or take env_file out")
        )
    terms = agent.sandbox
    if terms is not None and terms.enabled and terms.network == "proxy":
        # said here, not by the model: the same file will be right with the version that has the guard
        found.append((("sandbox", "network"), PROXY))
    program, *arguments = agent.command or [""]
    if "/" in program:
        if not exists(_from(cwd, program)):
            message = f"there is no file {shorten(_from(cwd, program))}; correct the path"
            found.append((("command", 0), message))
    elif which(program, agent.env.get("PATH")) is None:
        close = nearest(program, programs())
        hint = f"did you mean {close!r}?" if close else "install it, or write its whole path"
        found.append((("command", 0), f"there is no program {shorten(program)} in PATH; {hint}"))
    if (
        program.rsplit("/", 1)[-1].rstrip("0123456789.") in _INTERPRETERS
        or program in _INTERPRETERS
    ):
        script = next((a for a in arguments if not a.startswith("-")), "")
        before = arguments[: arguments.index(script)] if script else []
        if (
            script.endswith(_SCRIPTS)
            and not {"-m", "-c"} & set(before)
            and not exists(_from(cwd, script))
        ):
            place = ("command", 1 + arguments.index(script))
            message = (
                f"there is no file {shorten(_from(cwd, script))}; correct the path, or set cwd"
            )
            found.append((place, message))
    return found


def _check_ground(root: str, agent: Agent, known: Iterable[Ground]) -> list[tuple[Path, str]]:
    """An env file of an agent without walls lies where no walled agent may have made it."""
    if not agent.env_file or walled(agent) is not None:
        return []
    file = normpath(_from(root, agent.env_file))
    writer = stranger([dirname(file)], known)
    return [] if writer is None else [(("env_file",), objection(file, writer))]


def _from(base: str, path: str) -> str:
    return path if isabs(path) else join(base, path)
