"""What `midwatch doctor` thinks of a machine and a set-up: facts in, findings out. Pure.

`bad` is what keeps agents from running or being watched; `warn` is what will hurt later or is
weaker than it could be; the rest is told because it was asked for. Values of secrets are no facts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from midwatch.core.calls import variables
from midwatch.core.fleet import Agent, Fleet
from midwatch.core.ground import walled
from midwatch.core.models import Models
from midwatch.core.sandbox import allowed
from midwatch.core.units import show_size

Level = Literal["ok", "warn", "bad"]

MIB: Final = 1024 * 1024

DISK_BAD: Final = 200 * MIB
DISK_WARN: Final = 2 * 1024 * MIB
"""Below the first the hub stops to write soon; below the second a week of telemetry may not fit."""

MEMORY_WARN: Final = 256 * MIB
"""Supervisor, hub and gateway need about this much."""

FILES_WARN: Final = 4096
"""Three descriptors per agent, and those of the hub."""

EARLIEST: Final = 1_760_000_000.0
"""No clock that is right shows less: this version did not exist then."""

STRENGTH: Final = {"cgroup": 0, "rlimit": 0, "nice": 1, "sampling": 1}


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report."""

    area: str
    """host, fleet, keys or set-up."""
    name: str
    level: Level
    text: str
    do: str = ""
    """What to do about it."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What was found out about the machine. None: not told."""

    system: str
    release: str
    full: bool
    """pidfds and a subreaper are there."""
    delegation: str
    held_by: Mapping[str, str]
    """What holds runs to each limit."""
    walls: str | None
    """Why bubblewrap cannot build walls; None: it can."""
    expected: bool = False
    """No instance runs that could say `delegation` and `held_by`: they are what one started here should get."""
    files: int | None = None
    disk_free: int | None = None
    memory_free: int | None = None
    now: float = 0.0
    zones: bool = True
    lingers: bool | None = None
    """None: no service of this user's is installed, so it does not matter."""
    sandboxed: Sequence[str] = ()
    """Agents that ask for walls."""
    hides: bool = False
    """/proc does not show the processes that we may not trace."""


def host(facts: HostFacts) -> Iterator[Check]:
    """Yield what is to say about the machine."""
    yield _system(facts)
    yield from _limits(facts)
    yield _walls(facts)
    if facts.hides:
        yield _hidden(facts)
    yield from _room(facts)
    if facts.now < EARLIEST:
        yield Check(
            "host", "clock", "bad", "the clock is years behind", "set it, and keep it by NTP"
        )
    if not facts.zones:
        yield Check(
            "host", "time zones", "bad", "there is no time zone database: schedules cannot be read",
            "install tzdata (apt-get install tzdata, or pip install tzdata)",
        )  # fmt: skip
    else:
        yield Check("host", "time zones", "ok", "the database is there")
    if facts.lingers is False:
        yield Check(
            "host", "lingering", "warn", "your services end when you log out",
            "loginctl enable-linger $USER",
        )  # fmt: skip


def _system(facts: HostFacts) -> Check:
    name = f"{facts.system} {facts.release}"
    if facts.full:
        return Check("host", "system", "ok", name)
    if facts.system == "Linux":
        return Check(
            "host", "system", "warn", f"{name} has no pidfds: what escapes from a run is found late",
            "take Linux 5.4 or newer",
        )  # fmt: skip
    text = "processes that outlive a killed supervisor are found at its next start, not at once"
    return Check("host", "system", "warn", f"{name}: {text}", "run what matters on Linux")


def _limits(facts: HostFacts) -> Iterator[Check]:
    weak = [name for name, how in facts.held_by.items() if STRENGTH.get(how, 2) == 1]
    none = [name for name, how in facts.held_by.items() if STRENGTH.get(how, 2) == 2]
    shown = held(facts.held_by)
    if facts.expected:
        shown = f"an instance started here would have {shown}"
    if none:
        yield Check("host", "limits", "warn", shown, "see docs/how-to/limits.md")
    elif weak:
        yield Check(
            "host", "limits", "warn", f"{shown} ({facts.delegation})",
            "start Midwatch as a service (midwatch install-service), which delegates a cgroup",
        )  # fmt: skip
    else:
        yield Check("host", "limits", "ok", f"{shown} ({facts.delegation})")


def held(held_by: Mapping[str, str]) -> str:
    """Return `memory, processes by cgroup; open files by rlimit` for what holds runs to their limits."""
    by: dict[str, list[str]] = {}
    for name, how in held_by.items():
        by.setdefault(how, []).append(name.replace("_", " "))
    return "; ".join(
        f"{', '.join(names)} by {how}" if not how.startswith("nothing") else f"{', '.join(names)}: {how}"
        for how, names in by.items()
    )  # fmt: skip


def is_full(held_by: Mapping[str, str]) -> bool:
    """Tell whether the operating system itself holds runs to every limit."""
    return all(STRENGTH.get(how, 2) == 0 for how in held_by.values())


def _hidden(facts: HostFacts) -> Check:
    text = "/proc hides what nobody may trace (hidepid), such as an agent's ssh-agent"
    if all(facts.held_by.get(name) == "cgroup" for name in ("memory", "processes")):
        return Check("host", "hidden processes", "ok", f"{text}; its cgroup counts and ends it")
    return Check(
        "host", "hidden processes", "warn",
        f"{text}: it ends with its run, but counts for no limit, and outlives a kill -9 of Midwatch",
        "start Midwatch as a service (midwatch install-service), or mount /proc with gid= of a group "
        "that it is in",
    )  # fmt: skip


def _walls(facts: HostFacts) -> Check:
    if facts.walls is None:
        return Check("host", "sandbox", "ok", "bubblewrap builds walls")
    who = f"; {', '.join(facts.sandboxed[:5])} asked for walls" if facts.sandboxed else ""
    level: Level = "warn" if facts.sandboxed else "ok"
    do = "install bubblewrap, and allow user namespaces" if facts.sandboxed else ""
    return Check("host", "sandbox", level, f"no walls here: {facts.walls}{who}", do)


def _room(facts: HostFacts) -> Iterator[Check]:
    if facts.files is not None:
        few = facts.files < FILES_WARN
        yield Check(
            "host", "open files", "warn" if few else "ok", f"{facts.files:,} at most",
            "raise `ulimit -n` (LimitNOFILE in a unit)" if few else "",
        )  # fmt: skip
    if facts.disk_free is not None:
        level: Level = (
            "bad" if facts.disk_free < DISK_BAD else "warn" if facts.disk_free < DISK_WARN else "ok"
        )
        yield Check(
            "host", "disk", level, f"{show_size(facts.disk_free)} free for the data directory",
            "" if level == "ok" else "free some space, or put the data elsewhere with --data",
        )  # fmt: skip
    if facts.memory_free is not None:
        low = facts.memory_free < MEMORY_WARN
        yield Check(
            "host", "memory", "warn" if low else "ok", f"{show_size(facts.memory_free)} available",
            "stop something, or add swap" if low else "",
        )  # fmt: skip


def keys(models: Models) -> Iterator[tuple[str, str]]:
    """Yield (where, reference) of each provider's key in the fleet file: `env:NAME` or `file:PATH`."""
    for name, provider in models.providers.items():
        for key in provider.keys:
            yield f"models.providers.{name}", key.source


def key(where: str, reference: str, *, there: bool, private: bool = True) -> Check:
    """Word what was found at a key's reference; the reference is shown, never what it leads to."""
    kind, _, name = reference.partition(":")
    if kind not in ("env", "file"):
        return Check(
            "keys", where, "bad", "a key stands in the fleet file itself",
            "put it into the environment or a file, and write env:NAME or file:PATH",
        )  # fmt: skip
    if not there:
        if kind == "env":  # whoever starts the instance has an environment of its own
            return Check(
                "keys", where, "warn", f"{reference} is not in the environment of this shell",
                f"export {name} before midwatch up; for a service, put it into its environment file",
            )  # fmt: skip
        return Check("keys", where, "bad", f"{reference} is not there", f"create {name}, mode 0600")
    if not private:
        return Check("keys", where, "warn", f"others may read {name}", f"chmod 600 {name}")
    return Check("keys", where, "ok", f"{reference} is there")


def passed_on(fleet: Fleet, inherited: Iterable[str]) -> Iterator[Check]:
    """Yield which variables of this shell agents would inherit that may open a provider past the gateway."""
    for name in variables.passed_on(fleet, inherited):
        heirs = [n for n, agent in fleet.agents.items() if _inherits(agent, name)]
        if not heirs:
            continue
        who = f"{', '.join(heirs[:3])}{' and others' if len(heirs) > 3 else ''}"
        general = name in variables.OF_CLOUDS
        yield Check(
            "keys", name, "warn",
            f"it is passed on to {who}, whose calls with it no budget would count"
            if not general else
            f"it is passed on to {who}: it also opens model providers, whose calls no budget would count",
            "keep it from them by sandbox.env or by not exporting it; "
            + ("give it to those that need it by env_file" if general else
               "a provider's belongs under models.providers, another's into the env_file of who needs it"),
        )  # fmt: skip


def _inherits(agent: Agent, name: str) -> bool:
    terms = walled(agent)
    return not agent.external and (terms is None or name in allowed(terms.env, {name: ""}))


def trusted(fleet: Fleet) -> Iterator[Check]:
    """Yield who is trusted with this user's files, because no walls keep them from him."""
    free = [n for n, agent in fleet.agents.items() if not agent.external and walled(agent) is None]
    if free:
        who = f"{', '.join(free[:3])}{' and others' if len(free) > 3 else ''}"
        yield Check(
            "fleet", "trust", "ok",
            f"no sandbox: {who} may read whatever you may, files with keys and Midwatch's secret too"
            " (docs/how-to/sandbox.md)",
        )  # fmt: skip


def verdict(checks: Sequence[Check]) -> str:
    """Return the closing sentence."""
    bad = sum(c.level == "bad" for c in checks)
    warned = sum(c.level == "warn" for c in checks)
    if bad:
        return f"{bad} bad, {warned} to think about"
    return f"nothing bad, {warned} to think about" if warned else "all is well"
