"""Whose process this is, where an agent's child says that it is an agent of its own.

Two ways to say so: `init` under another name than the environment has (the process *introduces* itself),
or an environment that names a sub-agent which the run was not given (it *claims* the name). Either only
counts below the run's first process: that one is the agent itself, whatever it calls itself.
"""

from __future__ import annotations

import os
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

MAX_NAME = 40
"""Characters of a sub-agent's own name."""

_ODD = re.compile(r"[^A-Za-z0-9._-]+")

_FAR = 64
"""So many parents are looked at in search of a sub-agent's first process."""


class Place:
    """Which sub-agent this process is."""

    __slots__ = ("agent", "introduces", "run_id")

    def __init__(self, agent: str, run_id: str, *, introduces: bool) -> None:
        self.agent = agent
        self.run_id = run_id
        self.introduces = introduces
        """Nothing but its word tells it from its parent."""


def own_name(name: object) -> str:
    """Return what a sub-agent is called below its parent, made a name."""
    return _ODD.sub("-", str(name)).strip("-._")[:MAX_NAME] or "child"


def find(environ: Mapping[str, str], agent: str | None) -> Place | None:
    """Return which sub-agent this process says it is, or None: it is the agent that started its run, or
    the sub-agent that the environment was made for. `agent`: what `init` was told."""
    given, run_id = environ.get("MIDWATCH_AGENT", ""), environ.get("MIDWATCH_RUN_ID", "")
    if not given or not run_id:
        return None
    if agent and agent != given and not is_called(environ, agent):
        if not _is_below(environ):
            return None
        from midwatch.wire.ids import new_id

        below = agent if agent.startswith(given + ":") else f"{given}:{own_name(agent)}"
        return Place(below, new_id(), introduces=True)
    made_for = _made_for(environ)
    if made_for is None or not given.startswith(made_for + ":") or not _is_below(environ):
        return None
    from midwatch.wire.ids import sub_run_id

    started = _first(given)
    return Place(
        given,
        run_id if started is None else sub_run_id(run_id, given, started),
        introduces=False,
    )


def is_called(environ: Mapping[str, str], agent: str) -> bool:
    """Tell whether the environment is that of the sub-agent of this name, in short or whole."""
    above, colon, own = environ.get("MIDWATCH_AGENT", "").rpartition(":")
    return bool(colon) and agent in (own, f"{above}:{own}")


def identify(
    env: MutableMapping[str, str], agent: str, run_id: str, parent_run_id: str | None
) -> None:
    """Make it the environment of a sub-agent: a name and a run of its own, and no notify socket for beats,
    which would stand in for its parent's."""
    env["MIDWATCH_AGENT"] = env["OTEL_SERVICE_NAME"] = agent
    env["MIDWATCH_RUN_ID"] = run_id
    env["MIDWATCH_PARENT_RUN_ID"] = parent_run_id or ""
    about = {"service.instance.id": run_id, "midwatch.agent": agent, "midwatch.run_id": run_id}
    others = (
        pair
        for pair in env.get("OTEL_RESOURCE_ATTRIBUTES", "").split(",")
        if pair and pair.partition("=")[0].strip() not in about
    )
    env["OTEL_RESOURCE_ATTRIBUTES"] = ",".join([*others, *(f"{k}={v}" for k, v in about.items())])
    if "MIDWATCH_SPOOL" in env:
        env["MIDWATCH_SPOOL"] += "/" + agent.rpartition(":")[2]
    socket = env.pop("NOTIFY_SOCKET", None)
    if socket is not None:
        env["MIDWATCH_FAMILY_SOCKET"] = socket
    env.pop("WATCHDOG_USEC", None)


def _made_for(environ: Mapping[str, str]) -> str | None:
    """Return the agent that the environment was made for; a name that was put into it later is not that."""
    from urllib.parse import unquote

    for pair in environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
        name, _, value = pair.partition("=")
        if name.strip() == "midwatch.agent":
            return unquote(value.strip())
    if environ.get("MIDWATCH_FAMILY_SOCKET"):
        return None  # its parent may be the one that it is called after, or not
    return environ.get("MIDWATCH_AGENT", "").partition(":")[0]


def _is_below(environ: Mapping[str, str]) -> bool:
    """Tell whether the process that started this one is of the run, too."""
    parent = os.getppid()
    if parent <= 1:  # also the first process behind walls
        return False
    runs = (environ.get("MIDWATCH_RUN_ID"), environ.get("MIDWATCH_PARENT_RUN_ID"))
    found = _variable(parent, "MIDWATCH_RUN_ID")
    return bool(found) and found in runs


def _first(agent: str) -> int | None:
    """Return when the first process of this sub-agent was started, in ticks; None where that is not told."""
    pid, started = os.getpid(), None
    for _ in range(_FAR):
        line = _read(pid, "stat")
        if line is None:
            break
        fields = line[line.rindex(b")") + 2 :].split()
        started, parent = int(fields[19]), int(fields[1])
        if parent <= 1 or _variable(parent, "MIDWATCH_AGENT") != agent:
            break
        pid = parent
    return started


def _variable(pid: int, name: str) -> str | None:
    data = b"\0" + (_read(pid, "environ") or b"")
    at = data.rfind(b"\0" + name.encode() + b"=")
    if at < 0:
        return None
    return os.fsdecode(data[at + len(name) + 2 :].partition(b"\0")[0])


def _read(pid: int, file: str) -> bytes | None:
    try:
        with open(f"/proc/{pid}/{file}", "rb") as source:  # noqa: PTH123  # pathlib is 20 modules
            return source.read(1 << 18)
    except OSError:
        return None
