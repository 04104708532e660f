"""What a new fleet file changes: which agents start, stop, restart, take the new words live, or go on untouched.

Pure. One table says of each key of an entry whether a living run can take it. A key that the table does
not name needs a restart: forgetting one costs a restart, never a run on half of its terms. What a person
or a running job holds is not touched by a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from pydantic import BaseModel

from midwatch.core.fleet import Agent, Fleet
from midwatch.core.states import State


class Effect(StrEnum):
    """What a change of one key asks of a living run."""

    RESTART = "restart"  # the process was made with the old value
    LIVE = "live"  # the supervisor or the hub follows the new value from now on
    NEXT = "next"  # the supervisor follows it from the next run on
    SHORTER = "shorter"  # live when it grows; a smaller value the process must be told of


EFFECTS: Final[dict[str, Effect]] = {
    "command": Effect.RESTART,
    "cwd": Effect.RESTART,
    "env": Effect.RESTART,
    "env_file": Effect.RESTART,
    "tty": Effect.RESTART,
    "sandbox": Effect.RESTART,
    "external": Effect.RESTART,
    "group": Effect.LIVE,
    "lease": Effect.RESTART,
    "instances": Effect.LIVE,
    # an agent reads the interval from WATCHDOG_USEC once: judged by a shorter one it would look hung
    "liveness": Effect.RESTART,
    "heartbeat.every": Effect.SHORTER,
    "heartbeat.missed": Effect.LIVE,
    "restart": Effect.LIVE,
    "limits.memory": Effect.RESTART,
    "limits.open_files": Effect.RESTART,
    "limits.processes": Effect.RESTART,
    "limits.cpu_weight": Effect.RESTART,
    "limits.disk": Effect.RESTART,
    "limits.wall": Effect.NEXT,
    "limits.output": Effect.NEXT,
    "limits.warn_at": Effect.LIVE,
    "limits.restart_at": Effect.LIVE,
    "limits.restart_after": Effect.LIVE,
    "limits.leak_after": Effect.NEXT,
    "limits.stop_grace": Effect.LIVE,
    "children": Effect.LIVE,
    "budget": Effect.LIVE,
    "calls": Effect.LIVE,
    "loop": Effect.LIVE,
    "schedule": Effect.LIVE,
    "verify": Effect.LIVE,
    "enabled": Effect.LIVE,
    "rollback": Effect.LIVE,
}
"""Key → effect; `limits.memory` before `limits`. docs/reference/change.md shows it."""

FIXED: Final = (
    "hub.listen",
    "hub.otlp_http",
    "hub.otlp_grpc",
    "hub.stores",
    "gateway.listen",
    "gateway.ledger",
)
"""Keys of the whole file that a running instance cannot change."""

ENV_FILE_CONTENT: Final = "env_file (its content)"
"""How a changed env file is called: its entry still says the same."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One agent as the file has it: its resolved entry, and a keyed hash of its env file's content."""

    agent: Agent
    env_file: str = ""


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs between two entries of one agent."""

    keys: tuple[str, ...] = ()
    restart: bool = False
    """A living run cannot take it."""
    later: tuple[str, ...] = ()
    """The keys among them that count from the next run on."""

    def __bool__(self) -> bool:
        return bool(self.keys)

    @property
    def said(self) -> str:
        """Return `command, env changed`, bounded."""
        return f"{listed(self.keys)} changed"


class Do(StrEnum):
    """What becomes of one agent."""

    START = "start"
    STOP = "stop"
    RESTART = "restart"
    APPLY = "apply"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Step:
    """What a new file asks for one agent."""

    name: str
    do: Do
    difference: Difference = Difference()


def compare(old: Entry, new: Entry) -> Difference:
    """Return which keys differ, dotted, in the order of the table, and what a living run can take."""
    before, after = flat(old.agent), flat(new.agent)
    keys = [key for key in after if before.get(key) != after[key]]
    keys += [key for key in before if key not in after]
    content = old.env_file != new.env_file and "env_file" not in keys
    restart = content
    later: list[str] = []
    for key in keys:
        effect = effect_of(key)
        if effect is Effect.SHORTER:
            effect = Effect.LIVE if _grew(before.get(key), after.get(key)) else Effect.RESTART
        restart = restart or effect is Effect.RESTART
        if effect is Effect.NEXT:
            later.append(key)
    # from a service to a job or back: what runs was begun as the other
    restart = restart or (old.agent.schedule is None) != (new.agent.schedule is None)
    if content:
        keys.append(ENV_FILE_CONTENT)
    return Difference(tuple(keys), restart, tuple(later))


def plan(old: Mapping[str, Entry], new: Mapping[str, Entry]) -> list[Step]:
    """Return one step for each agent of either file: those of the new file first, in its order."""
    steps: list[Step] = []
    for name, entry in new.items():
        known = old.get(name)
        if known is None:
            steps.append(Step(name, Do.START))
            continue
        difference = compare(known, entry)
        if not difference:
            steps.append(Step(name, Do.NOTHING))
        else:
            do = Do.RESTART if difference.restart else Do.APPLY
            steps.append(Step(name, do, difference))
    return steps + [Step(name, Do.STOP) for name in old if name not in new]


def fixed(old: Fleet, new: Fleet) -> list[str]:
    """Return the keys of the whole file that differ, and that only a new start can change."""
    return [key for key in FIXED if _at(old, key) != _at(new, key)]


def effect_of(key: str) -> Effect:
    """Return the effect of a dotted key; the longest part of it that the table names decides."""
    while key:
        if key in EFFECTS:
            return EFFECTS[key]
        key = key.rpartition(".")[0]
    return Effect.RESTART


def flat(agent: Agent) -> dict[str, Any]:
    """Return an entry as dotted keys, one level deep: `limits.memory`."""
    found: dict[str, Any] = {}
    for key in type(agent).model_fields:
        value: Any = getattr(agent, key)
        if isinstance(value, BaseModel) and key not in ("sandbox", "schedule"):
            for inner in type(value).model_fields:
                found[f"{key}.{inner}"] = getattr(value, inner)
        else:
            found[key] = value
    return found


def listed(words: Iterable[str], most: int = 5) -> str:
    """Return `command, env` or `a, b, c, d, e and 3 more`."""
    known = list(words)
    shown = ", ".join(known[:most])
    return shown if len(known) <= most else f"{shown} and {len(known) - most} more"


class Wake(StrEnum):
    """What a changed entry does to an agent without a process."""

    STAY = "stay"
    START = "start"
    WAIT = "wait"  # for the next time of its schedule


def wakes(state: State, *, held: bool, changed: Difference, job: bool, was_job: bool) -> Wake:
    """Return what an agent without a process does because its entry changed.

    A person's decision stands. A parked agent gets a new chance with any change, one that waits for
    its next start, or that ended by itself, with a change of what is run. A job (an agent with a
    schedule) never begins because a file was written, only at its time; a run that is being tried
    again has had its time.
    """
    if state is State.PARKED:
        return Wake.WAIT if job else Wake.START
    if held or state is State.SCHEDULED:
        return Wake.STAY
    fresh = changed.restart or "enabled" in changed.keys
    if not job or (was_job and state is State.BACKING_OFF):
        return Wake.START if fresh else Wake.STAY
    return Wake.WAIT if fresh or "schedule" in changed.keys else Wake.STAY


def _grew(before: Any, after: Any) -> bool:
    return isinstance(before, int | float) and isinstance(after, int | float) and after > before


def _at(fleet: Fleet, key: str) -> Any:
    value: Any = fleet
    for part in key.split("."):
        value = getattr(value, part)
    return value
