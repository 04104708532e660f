"""`spawn`: starts a sub-agent, a child with a name, a run and limits of its own.

The child is an ordinary `subprocess.Popen` of the caller. Midwatch shows it under its parent
(`inbox:search`), holds it to its limits and ends it with its parent. It speaks for itself: its
environment carries a run id of its own and no notify socket, so that its beats never stand in for
its parent's. It may start sub-agents in turn, down to a depth. Without a supervisor it is started
all the same, and nobody watches it.
"""

from __future__ import annotations

import os
import subprocess

from midwatch.sdk import runtime
from midwatch.sdk.plain import number
from midwatch.sdk.shield import kept

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any


class Child(subprocess.Popen[bytes]):
    """A sub-agent's process. When its end is taken, by `wait`, `poll` or `communicate`, Midwatch hears
    how it ended."""

    run_id: str | None = None
    _told = False

    def poll(self) -> int | None:
        code = super().poll()
        self._tell(code)
        return code

    def wait(self, timeout: float | None = None) -> int:
        code = super().wait(timeout)
        self._tell(code)
        return code

    def _tell(self, code: int | None) -> None:
        if code is None or self._told or self.run_id is None:
            return
        self._told = True
        with kept("spawn"):
            now = runtime.current
            if now is not None and now.family is not None:
                now.family.child({"run": self.run_id, "code": code})


def spawn(
    command: Sequence[str],
    *,
    name: str,
    ttl_s: float | None = None,
    memory_bytes: int | None = None,
    outlive: bool = False,
    env: Mapping[str, str] | None = None,
    **popen: Any,
) -> Child:
    """Start a sub-agent and return its process. Raises what `subprocess.Popen` raises, and its ValueError
    also for a sub-agent that would be more than four levels below its agent.

    `command` is a list; no shell is involved. `name` is its name under this agent. Older than
    `ttl_s` seconds, or larger than `memory_bytes` with all that it started, it is stopped. It ends
    with this agent's run unless `outlive` is true; it never outlives Midwatch itself. `env` and
    `popen` are those of `subprocess.Popen`.
    """
    given = dict(os.environ if env is None else env)
    run_id = None
    agent = _name(name)
    if agent is not None:
        with kept("spawn"):
            run_id = _identify(given, agent)
    child = Child(list(command), env=given, start_new_session=outlive, **popen)
    if run_id is not None:
        child.run_id = run_id
        with kept("spawn"):
            _announce(run_id, given["MIDWATCH_AGENT"], ttl_s, memory_bytes, outlive=outlive)
    return child


def _name(name: str) -> str | None:
    """Return the whole name of a new sub-agent; None when nobody watches. Raises ValueError."""
    now = runtime.current
    if now is None:
        runtime.missing("spawn")
        return None
    if now.family is None:
        return None
    from midwatch.sdk.lineage import own_name
    from midwatch.sdk.settings import MAX_AGENT
    from midwatch.wire.notify import MAX_DEPTH

    agent = f"{now.agent}:{own_name(name)}"
    if agent.count(":") > MAX_DEPTH:
        raise ValueError(
            f"mw.spawn: {agent!r} would be {agent.count(':')} levels below its agent, and {MAX_DEPTH} is the most;"
            f" let {now.agent!r} do the work itself, start it with subprocess.Popen as a part of itself, or have"
            " an agent further up start it"
        )
    if len(agent) > MAX_AGENT:
        raise ValueError(
            f"mw.spawn: the name {agent!r} has {len(agent)} characters, and {MAX_AGENT} is the most;"
            " give shorter names"
        )
    return agent


def _identify(env: dict[str, str], agent: str) -> str | None:
    """Give the child's environment a name and a run of its own."""
    now = runtime.current
    if now is None:
        return None
    from midwatch.sdk.lineage import identify
    from midwatch.wire.ids import new_id

    run_id = new_id()
    identify(env, agent, run_id, now.run_id)
    return run_id


def _announce(
    run_id: str, agent: str, ttl_s: float | None, memory_bytes: int | None, *, outlive: bool
) -> None:
    now = runtime.current
    if now is None or now.family is None:
        return
    told: dict[str, Any] = {"run": run_id, "agent": agent, "outlive": bool(outlive)}
    if ":" in now.agent:
        told["parent"] = now.run_id
    for key, wanted in (("ttl_s", ttl_s), ("memory_bytes", memory_bytes)):
        if wanted is not None:
            told[key] = number(wanted)
            if told[key] is None:
                now.lose("bad_argument")
    now.family.child(told)
