"""Is everything in place? Looks at host, fleet file, keys and set-up; changes nothing."""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import socket
import stat
import sys
import tempfile
import time
import zoneinfo
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, cast

import typer

from midwatch.cli import show
from midwatch.cli.exits import BAD, CommandError
from midwatch.cli.instance import data_directory, is_running, limits_of
from midwatch.cli.options import FILE, Data, File, Json
from midwatch.core import checkup
from midwatch.core.checkup import Check, HostFacts
from midwatch.core.errors import FleetFileError, MidwatchError
from midwatch.core.fleet import Fleet
from midwatch.core.units import show_size

_COLOURS: Final = {"ok": "green", "warn": "yellow", "bad": "red"}

PROBLEMS_SHOWN: Final = 10


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command("doctor")(doctor)


def doctor(file: File = FILE, data: Data = None, as_json: Json = False) -> None:
    """Look at host, fleet, keys and set-up, and say what to fix.

    Says which limits the operating system itself enforces here, and which are only looked after.
    Values of keys are never shown. Exit code 1 when something is bad.
    """
    directory = data_directory(data)
    fleet_checks, fleet = _fleet(file)
    running = _instance(directory)
    checks: list[Check] = [
        *checkup.host(_host(directory, fleet, running)),
        *fleet_checks,
        *_keys(fleet, file),
        *_set_up(directory, fleet, running),
    ]
    is_bad = any(check.level == "bad" for check in checks)
    if as_json:
        show.document({"ok": not is_bad, "checks": [check.to_json() for check in checks]})
    else:
        _print(checks)
    raise typer.Exit(BAD if is_bad else 0)


def _print(checks: list[Check]) -> None:
    rows = [
        (f"{c.area}: {c.name}", c.level, show.line(c.text + (f" → {c.do}" if c.do else "")))
        for c in checks
    ]
    show.columns(rows, [_COLOURS[c.level] for c in checks])
    show.out(f"\n{checkup.verdict(checks)}")


def _fleet(file: Path) -> tuple[list[Check], Fleet | None]:
    from midwatch.cli.source import read_fleet

    name = str(file)
    if not file.exists():
        return [
            Check("fleet", name, "warn", "there is no fleet file here", "name it with -f")
        ], None
    try:
        source = read_fleet(file, conditions=True)
    except FleetFileError as error:
        shown = error.problems[:PROBLEMS_SHOWN]
        return [
            Check("fleet", f"line {p.line}", "bad", f"{p.key}: {p.message}", f"midwatch check -f {name}")
            for p in shown
        ], None  # fmt: skip
    except CommandError as error:
        return [Check("fleet", name, "bad", str(error))], None
    count = len(source.fleet.agents)
    found = [Check("fleet", name, "ok", "1 agent" if count == 1 else f"{count} agents")]
    found += [
        Check("fleet", f"line {n.line}", "warn", f"{n.key}: {n.message}") for n in source.notes
    ]
    return found, source.fleet.resolved()


def _host(directory: Path, fleet: Fleet | None, running: Mapping[str, Any] | None) -> HostFacts:
    from midwatch.supervisor.machine import linux, procfs

    # a running instance may stand in another cgroup than we do: what it says counts
    told = limits_of(directory) if running else None
    delegation, held_by = told if told is not None else _expected_limits()
    available = _available_memory()
    walled = sorted(n for n, a in fleet.agents.items() if a.sandbox is not None) if fleet else []
    return HostFacts(
        system=platform.system(),
        release=platform.release(),
        full=linux.supported(),
        delegation=delegation,
        held_by=held_by,
        expected=told is None,
        walls=_walls(),
        files=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        disk_free=_disk_free(directory),
        memory_free=available,
        now=time.time(),
        zones=_has_zones(fleet.timezone if fleet else "Europe/Paris"),
        lingers=_lingers(),
        sandboxed=walled,
        hides=sys.platform == "linux" and procfs.hides(),
    )


def _expected_limits() -> tuple[str, dict[str, str]]:
    """Return what an instance that is started from here would have."""
    if sys.platform != "linux":
        return "no cgroups on this system", {
            "memory": "sampling", "processes": "sampling", "cpu_weight": "nice",
            "open_files": "rlimit", "disk": "rlimit",
        }  # fmt: skip
    from midwatch.supervisor.machine.cgroup import survey

    found = survey()
    held = found.controllers if found.base is not None else frozenset[str]()
    return found.why, {
        "memory": "cgroup" if "memory" in held else "sampling",
        "processes": "cgroup" if "pids" in held else "sampling",
        "cpu_weight": "cgroup" if "cpu" in held else "nice",
        "open_files": "rlimit",
        "disk": "rlimit",
    }


def _walls() -> str | None:
    from midwatch.supervisor.machine.sandbox import find_tools

    with tempfile.TemporaryDirectory(prefix="midwatch-doctor-") as place:
        try:
            found = find_tools("on", Path(place))
        except (MidwatchError, OSError) as error:
            return str(error)
    return found if isinstance(found, str) else None


def _available_memory() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        return None
    return None


def _disk_free(directory: Path) -> int | None:
    place = next((p for p in (directory, *directory.parents) if p.exists()), None)
    try:
        return shutil.disk_usage(place).free if place is not None else None
    except OSError:
        return None


def _has_zones(zone: str) -> bool:
    try:
        zoneinfo.ZoneInfo(zone if zone != "UTC" else "Europe/Paris")
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


def _lingers() -> bool | None:
    import getpass

    units = Path("~/.config/systemd/user").expanduser()
    if not any(units.glob("midwatch*.service")):
        return None
    return (Path("/var/lib/systemd/linger") / getpass.getuser()).exists()


def _keys(fleet: Fleet | None, file: Path) -> Iterator[Check]:
    if fleet is None:
        return
    root = file.absolute().parent
    for where, reference in checkup.keys(fleet.models):
        kind, _, name = reference.partition(":")
        if kind == "env":
            yield checkup.key(where, reference, there=bool(os.environ.get(name)))
        else:
            path = root / Path(name).expanduser()
            yield checkup.key(where, reference, there=path.is_file(), private=_is_private(path))
    for name, agent in fleet.agents.items():
        if agent.env_file is not None:
            path = root / Path(agent.env_file).expanduser()
            if path.is_file() and not _is_private(path):
                yield checkup.key(
                    f"agents.{name}.env_file", f"file:{path}", there=True, private=False
                )
    yield from checkup.passed_on(fleet, os.environ)
    yield from checkup.trusted(fleet)


def _is_private(path: Path) -> bool:
    try:
        return not path.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH)
    except OSError:
        return True


def _instance(directory: Path) -> dict[str, Any] | None:
    """Return what the running instance of this directory wrote about itself; nothing yet while it starts."""
    if not is_running(directory):
        return None  # one that was killed leaves its file behind
    try:
        found: object = json.loads((directory / "instance.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _set_up(
    directory: Path, fleet: Fleet | None, running: Mapping[str, Any] | None
) -> Iterator[Check]:
    yield from _directory(directory)
    if running is None:
        yield Check("set-up", "instance", "ok", "none is running; start it with midwatch up")
        yield from _ports(fleet)
    else:
        yield _answers(running)
        yield from _gateway(directory)


def _directory(directory: Path) -> Iterator[Check]:
    name = "data directory"
    try:
        status = directory.stat()
    except FileNotFoundError:
        yield Check("set-up", name, "ok", f"{directory} will be made")
        return
    except OSError as error:
        yield Check(
            "set-up", name, "bad", f"{directory}: {error.strerror}", "choose another with --data"
        )
        return
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        yield Check(
            "set-up", name, "bad", f"{directory} is not yours to write", "run as its owner, or choose --data"
        )  # fmt: skip
        return
    open_to_all = bool(status.st_mode & (stat.S_IRWXG | stat.S_IRWXO))
    yield Check(
        "set-up", name, "warn" if open_to_all else "ok",
        f"{directory}{' may be entered by others' if open_to_all else ''}",
        f"chmod 700 {directory}" if open_to_all else "",
    )  # fmt: skip
    for secret in ("token", "secret"):
        path = directory / secret
        if path.exists() and not _is_private(path):
            yield Check("set-up", secret, "bad", f"others may read {path}", f"chmod 600 {path}")
    yield from _journal(directory)
    logs = sum(f.stat().st_size for f in (directory / "logs").glob("*/*") if f.is_file())
    yield Check("set-up", "logs", "ok", show_size(logs))


def _journal(directory: Path) -> Iterator[Check]:
    path = directory / "supervisor" / "journal"
    if not path.exists():
        return
    if not os.access(path, os.R_OK | os.W_OK):
        yield Check("set-up", "journal", "bad", f"{path} is not yours to write", "run as its owner")
        return
    from midwatch.wire import journal

    with path.open("rb") as lines:
        damaged = sum(item is None for item in journal.decode(iter(lines)))
    yield Check(
        "set-up", "journal", "warn" if damaged else "ok",
        f"{damaged} damaged lines, which are left out" if damaged else "readable",
    )  # fmt: skip


def _ports(fleet: Fleet | None) -> Iterator[Check]:
    from midwatch.core.quantities import split_listen

    for name, listen in (
        (("hub", fleet.hub.listen), ("gateway", fleet.gateway.listen)) if fleet is not None else ()
    ):
        host, port = split_listen(str(listen))
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                yield Check(
                    "set-up", f"{name}.listen", "bad", f"{listen}: {error.strerror}",
                    f"choose another port for {name}.listen, or stop who has it",
                )  # fmt: skip
            else:
                yield Check("set-up", f"{name}.listen", "ok", f"{listen} is free")


def _answers(running: Mapping[str, Any]) -> Check:
    from midwatch.cli.client import Hub
    from midwatch.cli.instance import Instance

    if not running:
        return Check("set-up", "instance", "ok", "one is starting, or ending")
    url, pid = running.get("hub_url"), running.get("pid")
    if not isinstance(url, str):
        return Check("set-up", "instance", "ok", f"running without a hub, pid {pid}")
    try:
        Hub(Instance(url, None)).get("/healthz")
    except CommandError as error:
        return Check(
            "set-up", "instance", "bad", f"pid {pid} runs, but its hub does not answer: {error}",
            "look into logs/hub/output.log of the data directory",
        )  # fmt: skip
    return Check("set-up", "instance", "ok", f"running, pid {pid}, at {url}")


def _gateway(directory: Path) -> Iterator[Check]:
    """Say how the gateway of the running instance is."""
    from midwatch.cli.client import Hub
    from midwatch.cli.gateway import standing
    from midwatch.cli.instance import find

    try:
        found = standing(Hub(find(directory, None)))
    except CommandError:
        return  # what keeps the hub from answering is told already
    if found is None:
        return
    if isinstance(found, str):
        yield Check(
            "set-up",
            "gateway",
            "warn",
            found,
            "look into logs/gateway/output.log of the data directory",
        )
        return
    yield Check("set-up", "gateway", "ok" if found.well else "warn", found.headline)
    for trouble in found.troubles:
        yield Check("set-up", "gateway", "warn", trouble)
