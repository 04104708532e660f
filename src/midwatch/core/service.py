"""The service of an instance, as text: systemd's unit and launchd's property list. Pure.

What is hardened is what agents do not need: they run inside this unit, so whatever it forbids is
forbidden to them. Writing is allowed where the fleet says that agents work, and nowhere else.
Source: systemd.service(5), systemd.exec(5), systemd.resource-control(5), systemd.syntax(7).
"""

from __future__ import annotations

import plistlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from midwatch.core.fleet import NAME, Fleet
from midwatch.core.units import Unexpected

WATCHDOG_S: Final = 30
"""The supervisor's loop answers every ten seconds; three times is a hang."""

STOP_EXTRA_S: Final = 30
"""Time that the hub gets for its last commit, above the longest grace of an agent."""

START_S: Final = 180
"""A large database is opened, and checked after a crash, before the hub answers."""

FILES: Final = 65_536
"""Three descriptors per agent, and those of the hub."""

SYSTEM_PATH: Final = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


@dataclass(frozen=True, slots=True)
class Service:
    """What the service runs, and as whom. All paths are absolute."""

    name: str
    program: tuple[str, ...]
    """The command up to its subcommand: `/opt/mw/bin/midwatch`."""
    file: str
    data: str
    root: str
    """Where the fleet file lies."""
    user_scope: bool = False
    """A user's own service manager, not the machine's."""
    run_as: str | None = None
    uid: int | None = None
    env_file: str = ""
    writes: tuple[str, ...] = ()
    """Where agents may write, beside the data directory."""
    stop_s: float = 20.0
    """The longest grace of an agent."""
    sandboxed: bool = False
    """Some agent has walls of its own: bubblewrap needs an unmasked /proc."""
    path: tuple[str, ...] = SYSTEM_PATH


def check_name(name: str) -> str:
    """Return the name of a service, without its suffix. Raises Unexpected."""
    stem = name.removesuffix(".service")
    if NAME.fullmatch(stem) is None:
        raise Unexpected("a name of letters, digits, dot, dash and underscore", name)
    return stem


def stop_s_of(fleet: Fleet) -> float:
    """Return the longest grace of a resolved fleet's agents."""
    return max((agent.limits.stop_grace for agent in fleet.agents.values()), default=20.0)


def unit(service: Service) -> str:
    """Return the unit file."""
    parts = [
        _section("Unit", _unit(service)),
        _section("Service", [*_process(service), *_place(service), *_hardening(service)]),
        _section("Install", [("WantedBy", "default.target" if service.user_scope else "multi-user.target")]),
    ]  # fmt: skip
    return "# Written by `midwatch install-service`; it shows what it would change.\n" + "\n".join(
        parts
    )


def _unit(service: Service) -> list[tuple[str, str]]:
    rows = [
        ("Description", f"Midwatch, the night watch over the fleet in {_specifiers(service.root)}")
    ]
    if not service.user_scope:  # a user's manager does not know the machine's targets
        rows += [("Wants", "network-online.target"), ("After", "network-online.target")]
    # ten starts in five minutes: a supervisor that cannot live is a matter for a person
    return [*rows, ("StartLimitIntervalSec", "5min"), ("StartLimitBurst", "10")]


def _process(service: Service) -> list[tuple[str, str]]:
    run = [*service.program, "up", "-f", service.file, "--data", service.data]
    reload = [*service.program, "reload", "--data", service.data]
    return [
        ("Type", "notify"),
        ("NotifyAccess", "main"),
        ("ExecStart", command(run)),
        ("ExecReload", command(reload)),
        ("WatchdogSec", f"{WATCHDOG_S}s"),
        ("Restart", "always"),
        ("RestartSec", "2s"),
        # exit code 2: the fleet file or the set-up is wrong, and will be the next time too
        ("RestartPreventExitStatus", "2"),
        ("TimeoutStartSec", f"{START_S}s"),
        ("TimeoutStopSec", f"{round(service.stop_s + STOP_EXTRA_S)}s"),
        # SIGTERM to the supervisor alone, which asks the agents; what is left after that is killed
        ("KillMode", "mixed"),
        # one agent out of memory is that agent's end, not the fleet's
        ("OOMPolicy", "continue"),
        ("Delegate", "yes"),
        ("LimitNOFILE", str(FILES)),
        ("TasksMax", "infinity"),
    ]


def _place(service: Service) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    if service.run_as is not None:
        rows.append(("User", service.run_as))
    path = ":".join(dict.fromkeys((*service.path, *SYSTEM_PATH)))
    rows += [
        ("WorkingDirectory", _specifiers(service.root)),
        ("Environment", quote(f"PATH={path}")),
        ("UMask", "0077"),
    ]
    if service.env_file:  # keys of providers; absent is fine
        rows.append(("EnvironmentFile", "-" + _specifiers(service.env_file)))
    return rows


def _hardening(service: Service) -> list[tuple[str, str]]:
    rows = [
        ("NoNewPrivileges", "yes"),
        ("LockPersonality", "yes"),
        ("RestrictRealtime", "yes"),
        ("RestrictSUIDSGID", "yes"),
        ("SystemCallArchitectures", "native"),
        ("KeyringMode", "private"),
    ]
    if service.user_scope:
        # the rest needs a mount namespace, which a user's manager can only have together with a
        # user namespace; agents' own walls would then not stand
        return rows
    writes = dict.fromkeys((service.data, service.root, *service.writes))
    rows += [
        ("ProtectSystem", "strict"),
        ("ReadWritePaths", " ".join(quote("-" + path) for path in writes)),
        # not PrivateTmp: leases, which keep two instances from running one agent, are seen by all
        ("ReadWritePaths", " ".join(["-/tmp", "-/var/tmp", *_runtime(service)])),
        ("ProtectClock", "yes"),
        ("ProtectHostname", "yes"),
        ("ProtectKernelModules", "yes"),
        # delegated cgroups are written
        ("ProtectControlGroups", "no"),
    ]
    if not service.sandboxed:
        rows += [("ProtectKernelTunables", "yes"), ("ProtectKernelLogs", "yes")]
    if service.run_as not in (None, "root"):
        rows += [("CapabilityBoundingSet", ""), ("AmbientCapabilities", "")]
    else:
        rows += [("RuntimeDirectory", "midwatch"), ("RuntimeDirectoryPreserve", "yes")]
    return rows


def _runtime(service: Service) -> list[str]:
    return [] if service.uid is None or service.uid == 0 else [f"-/run/user/{service.uid}"]


def _section(name: str, rows: Sequence[tuple[str, str]]) -> str:
    return f"[{name}]\n" + "".join(f"{key}={value}\n" for key, value in rows)


def command(words: Sequence[str]) -> str:
    """Return a command line of Exec…= that means exactly these words."""
    return " ".join(quote(word.replace("$", "$$")) for word in words)


def quote(word: str) -> str:
    """Return a word as systemd reads it back: specifiers doubled, quoted where it must be.

    Raises Unexpected for a line end, which no unit can hold safely."""
    if any(ord(c) < 32 or ord(c) == 127 for c in word):
        raise Unexpected("a path without control characters", word)
    text = word.replace("%", "%%")
    if text and not any(c in " \t\"'\\;" for c in text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _specifiers(path: str) -> str:
    """Return a path for a key that takes the whole line as it is, spaces and all. Raises Unexpected
    for an end that systemd would not leave as it is: a backslash joins the next line to this one."""
    quote(path)
    if path != path.strip() or path.endswith("\\"):
        raise Unexpected("a path that ends in neither a space nor a backslash", path)
    return path.replace("%", "%%")


def launchd(service: Service, log: str) -> str:
    """Return the property list for launchd, which knows neither readiness nor a watchdog."""
    entry = {
        "Label": f"midwatch.{service.name}",
        "ProgramArguments": [
            *service.program, "up", "-f", service.file, "--data", service.data,
        ],
        "WorkingDirectory": service.root,
        "EnvironmentVariables": {"PATH": ":".join(dict.fromkeys((*service.path, *SYSTEM_PATH)))},
        "RunAtLoad": True,
        "KeepAlive": True,
        "ExitTimeOut": round(service.stop_s + STOP_EXTRA_S),
        "ProcessType": "Interactive",
        "SoftResourceLimits": {"NumberOfFiles": FILES},
        "StandardErrorPath": log,
        "StandardOutPath": log,
        "Umask": 0o077,
    }  # fmt: skip
    return plistlib.dumps(entry, sort_keys=False).decode()


def status_of(states: Mapping[str, str]) -> str:
    """Return `12 agents: 10 running, 1 parked, 1 waiting` for the service manager's status line."""
    if not states:
        return "no agents"
    counted = Counter(states.values()).most_common()
    count = "1 agent" if len(states) == 1 else f"{len(states)} agents"
    return f"{count}: " + ", ".join(f"{number} {state}" for state, number in counted)
