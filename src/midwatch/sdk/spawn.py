"""`spawn`: starts a sub-agent, a child with a name, a run and limits of its own.

The child is an ordinary `subprocess.Popen` of the caller. Midwatch shows it under its parent
(`inbox:search`), holds it to its limits and ends it with its parent. It speaks for itself: its
environment carries a run id of its own and no notify socket, so that its beats never stand in for
its parent's. Without a supervisor it is started all the same, and nobody watches it.
"""

from __future__ import annotations

import os
import re
import subprocess

from midwatch.sdk import runtime
from midwatch.sdk.plain import number
from midwatch.sdk.shield import kept

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

MAX_NAME = 40
"""Characters of a sub-agent's own name."""

_ODD = re.compile(r"[^A-Za-z0-9._-]+")


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
            if now is not None and now.notifier is not None:
                now.notifier.child({"run": self.run_id, "code": code})


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
    """Start a sub-agent and return its process. Raises what `subprocess.Popen` raises.

    `command` is a list; no shell is involved. `name` is its name under this agent. Older than
    `ttl_s` seconds, or larger than `memory_bytes` with all that it started, it is stopped. It ends
    with this agent's run unless `outlive` is true; it never outlives Midwatch itself. `env` and
    `popen` are those of `subprocess.Popen`.
    """
    given = dict(os.environ if env is None else env)
    run_id = None
    with kept("spawn"):
        run_id = _identify(given, name)
    child = Child(list(command), env=given, start_new_session=outlive, **popen)
    if run_id is not None:
        child.run_id = run_id
        with kept("spawn"):
            _announce(run_id, given["MIDWATCH_AGENT"], ttl_s, memory_bytes, outlive=outlive)
    return child


def _identify(env: dict[str, str], name: str) -> str | None:
    """Give the child's environment a name and a run of its own; None when nobody watches."""
    now = runtime.current
    if now is None:
        runtime.missing("spawn")
        return None
    if now.notifier is None:
        return None
    from midwatch.wire.ids import new_id

    run_id = new_id()
    own = _ODD.sub("-", str(name)).strip("-._")[:MAX_NAME] or "child"
    agent = f"{now.agent}:{own}"
    env["MIDWATCH_AGENT"] = env["OTEL_SERVICE_NAME"] = agent
    env["MIDWATCH_RUN_ID"] = run_id
    env["MIDWATCH_PARENT_RUN_ID"] = now.run_id or ""
    about = {"service.instance.id": run_id, "midwatch.agent": agent, "midwatch.run_id": run_id}
    others = (
        pair
        for pair in env.get("OTEL_RESOURCE_ATTRIBUTES", "").split(",")
        if pair and pair.partition("=")[0].strip() not in about
    )
    env["OTEL_RESOURCE_ATTRIBUTES"] = ",".join([*others, *(f"{k}={v}" for k, v in about.items())])
    if "MIDWATCH_SPOOL" in env:
        env["MIDWATCH_SPOOL"] += f"/{own}"
    env.pop("NOTIFY_SOCKET", None)
    env.pop("WATCHDOG_USEC", None)
    return run_id


def _announce(
    run_id: str, agent: str, ttl_s: float | None, memory_bytes: int | None, *, outlive: bool
) -> None:
    now = runtime.current
    if now is None or now.notifier is None:
        return
    told: dict[str, Any] = {"run": run_id, "agent": agent, "outlive": bool(outlive)}
    for key, wanted in (("ttl_s", ttl_s), ("memory_bytes", memory_bytes)):
        if wanted is not None:
            told[key] = number(wanted)
            if told[key] is None:
                now.lose("bad_argument")
    now.notifier.child(told)
