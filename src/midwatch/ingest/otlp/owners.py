"""Whose telemetry it is: by the sender's token first, by what the resource says second.

A run's token writes for its own agent and that agent's sub-agents. Any other token writes for whom the resource
names; a name that is not known is a stranger, who is registered. Without a token, on this machine alone, everybody
may speak but for the agents of the fleet file: those are given a token. The gateway's own scope is a node's to use.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from midwatch.core.access import Caller, Scope
from midwatch.core.calls.news import SCOPE
from midwatch.core.fleet import NAME
from midwatch.wire import limits
from midwatch.wire.notify import MAX_DEPTH

MAX_NAME: Final = 63
"""Characters of an agent's name, before a colon and behind it."""

MAX_SPELLED: Final = 1_000
"""Characters of what a service is called that are read."""

_NO_NAME: Final = re.compile(r"[^A-Za-z0-9._-]+")


class Names(Protocol):
    """Which agents there are: `ingest.roster`."""

    def knows(self, name: str) -> bool: ...

    def in_fleet(self, name: str) -> bool: ...


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sent a request. `tokenless` is who needed no token, because it came from this machine."""

    caller: Caller
    tokenless: bool = False


class Owner(NamedTuple):
    """Whose it is. A `stranger` must be registered before anything of it is kept."""

    agent: str
    run_id: str | None = None
    stranger: bool = False


class Unfit(NamedTuple):
    """Why something is refused: a short reason that is counted, and what to do."""

    reason: str
    message: str


def owner(
    sender: Sender, names: Names, resource: Mapping[str, object], scope: str
) -> Owner | Unfit:
    """Return whose the telemetry of one scope of one resource is, or why it is nobody's."""
    caller = sender.caller
    if scope == SCOPE and not caller.may(Scope.NODE):
        return Unfit(
            "reserved", f"scope {SCOPE!r}: this is the ledger's word, and a node's to send"
        )
    named = _spelled(resource.get("midwatch.agent"))
    if caller.agent is not None:
        if named is not None and not caller.speaks_for(named):
            return Unfit(
                "foreign", f"this token writes for {caller.agent!r} only, not for {named!r}"
            )
        agent = named or caller.agent
        return Owner(agent, caller.run_id if agent == caller.agent else None)
    agent = named or _spelled(resource.get("service.name"))
    if agent is None:
        return Unfit("missing", "the resource has neither midwatch.agent nor service.name")
    known = agent.partition(":")[0]
    if sender.tokenless and names.in_fleet(known):
        return Unfit(
            "token",
            f"{agent!r} is an agent of the fleet: only a token may write for it (its run has one as MIDWATCH_TOKEN)",
        )
    if names.knows(known) or names.knows(agent) or caller.may(Scope.NODE):
        return Owner(agent)
    return Owner(known, stranger=True)


def _spelled(value: object) -> str | None:
    """Return an agent's name: what a service is called, with `-` for what no name has; None for what is none.

    Colons part a sub-agent from its agent (`inbox:search`), down to as many levels as a supervisor follows;
    `unknown_service:python` is OpenTelemetry's own word for a service that nobody named.
    """
    if not isinstance(value, str):
        return None
    first, *below = value[:MAX_SPELLED].split(":", MAX_DEPTH)
    if first == "unknown_service":
        first, below = value, []
    name = _part(first)
    if name is None:
        return None
    for sub in map(_part, below):
        longer = name if sub is None else f"{name}:{sub}"
        name = longer if len(longer) <= limits.MAX_NAME else name
    return name


def _part(text: str) -> str | None:
    if NAME.fullmatch(text):
        return text
    name = _NO_NAME.sub("-", text[: 4 * MAX_NAME]).strip("-._")[:MAX_NAME]
    return name or None
