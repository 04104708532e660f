"""Midwatch as a service: writes the unit, shows what it changes, and says what is left to do."""

from __future__ import annotations

import difflib
import getpass
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from midwatch.cli import show
from midwatch.cli.exits import USAGE, CommandError
from midwatch.cli.instance import data_directory
from midwatch.cli.options import FILE, File
from midwatch.core.errors import FleetFileError
from midwatch.core.fleet import Fleet
from midwatch.core.service import Service, check_name, launchd, stop_s_of, unit
from midwatch.core.units import Unexpected

SYSTEM_UNITS: Final = Path("/etc/systemd/system")
LINGER: Final = Path("/var/lib/systemd/linger")
VERIFY_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Machine:
    """What this machine offers a service."""

    systemd: bool
    root: bool
    user: str
    home: Path
    user_bus: bool
    lingers: bool

    @classmethod
    def look(cls, user: str) -> Machine:
        runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
        return cls(
            systemd=Path("/run/systemd/system").is_dir(),
            root=os.geteuid() == 0,
            user=user,
            home=_home(user),
            user_bus=(Path(runtime) / "systemd" / "private").exists(),
            lingers=(LINGER / user).exists(),
        )


User = Annotated[bool, typer.Option("--user", help="For your own service manager; needs no root.")]
Name = Annotated[str, typer.Option(help="Name of the service.")]
RunAs = Annotated[
    str | None,
    typer.Option(
        "--as",
        metavar="USER",
        help="Who runs it. Default: who asks, behind sudo too.",
        show_default=False,
    ),
]
KeptIn = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="Data directory. Default: that user's own.",
        show_default=False,
    ),
]
Write = Annotated[
    list[Path] | None,
    typer.Option("--write", metavar="DIR", help="A directory that agents write besides."),
]
OnlyPrint = Annotated[bool, typer.Option("--print", help="Print the unit; write nothing.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Write without asking.")]
Now = Annotated[bool, typer.Option("--now", help="Enable and start it, too.")]


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command("install-service")(install_service)


def install_service(
    file: File = FILE,
    user: User = False,
    name: Name = "midwatch",
    run_as: RunAs = None,
    data: KeptIn = None,
    write: Write = None,
    only_print: OnlyPrint = False,
    yes: Yes = False,
    now: Now = False,
) -> None:
    """Write a service that keeps the fleet running: after a crash, and after the machine has started.

    The unit is hardened, restarts Midwatch when its loop hangs, and gives agents their cgroups. What
    would change is shown, and written only when you agree. Nothing is enabled without --now.
    """  # fmt: skip
    try:
        stem = check_name(name)
    except Unexpected as error:
        raise typer.BadParameter(str(error), param_hint="--name") from None
    chosen = run_as or (os.environ.get("SUDO_USER") if os.geteuid() == 0 and not user else None)
    machine = Machine.look(chosen or getpass.getuser())
    service = _service(stem, file, machine, data, write or [], user=user, run_as=chosen)
    mac = sys.platform == "darwin"
    target, text = _file(service, machine) if not mac else _agent(service, machine)
    if only_print:
        show.out(text.rstrip("\n"))
        return
    _check_place(machine, user=user, mac=mac)
    changed = _show_change(target, text)
    if changed:
        if not yes and not _agrees(target):
            raise CommandError("nothing was written", USAGE)
        _write(target, text)
        show.out(f"wrote {target}")
        for line in _verify(target, user=user) if not mac else []:
            show.note(f"systemd-analyze: {line}")
    steps = _mac_steps(target) if mac else _steps(service, machine)
    if now and machine.systemd and not mac:
        _enable(service)
        steps = steps[2:]
    _tell(steps, service)


def _service(
    stem: str,
    file: Path,
    machine: Machine,
    data: Path | None,
    write: list[Path],
    *,
    user: bool,
    run_as: str | None,
) -> Service:
    """Return the service of this fleet. Raises CommandError; prints the file's problems."""
    from midwatch.cli.check import print_problems
    from midwatch.cli.source import read_fleet

    path = file.expanduser().resolve()
    try:
        fleet = read_fleet(path).fleet
    except FleetFileError as error:
        print_problems(error)
        raise typer.Exit(USAGE) from None
    root = path.parent
    kept = data.expanduser().absolute() if data is not None else _default_data(machine)
    configuration = machine.home / ".config/midwatch" if user else Path("/etc/midwatch")
    try:
        service = Service(
            name=stem,
            program=_program(),
            file=str(path),
            data=str(kept),
            root=str(root),
            user_scope=user,
            run_as=None if user else run_as,
            uid=_uid(run_as) if run_as else os.getuid(),
            env_file=str(configuration / f"{stem}.env"),
            writes=tuple(str(p) for p in [*_works_in(fleet, root), *(w.absolute() for w in write)]),
            stop_s=stop_s_of(fleet),
            sandboxed=any(a.sandbox is not None for a in fleet.agents.values()),
            path=(str(Path(sys.executable).parent),),
        )
        unit(service)
    except Unexpected as error:
        raise CommandError(f"this cannot stand in a unit: {error}") from None
    return service


def _works_in(fleet: Fleet, root: Path) -> list[Path]:
    found = (root / Path(a.cwd).expanduser() for a in fleet.agents.values() if a.cwd is not None)
    return list(dict.fromkeys(path for path in found if not path.is_relative_to(root)))


def _default_data(machine: Machine) -> Path:
    if machine.user == getpass.getuser():
        return data_directory(None)
    return machine.home / ".local/share/midwatch"


def _program() -> tuple[str, ...]:
    """Return how Midwatch is called from anywhere: our own script, or our interpreter and module."""
    script = Path(sys.executable).parent / "midwatch"
    if script.exists() and os.access(script, os.X_OK):
        return (str(script),)
    return (sys.executable, "-m", "midwatch.cli")


def _home(user: str) -> Path:
    try:
        return Path(pwd.getpwnam(user).pw_dir)
    except KeyError:
        raise CommandError(f"--as: there is no user {user!r} on this machine") from None


def _uid(user: str) -> int:
    return pwd.getpwnam(user).pw_uid


def _file(service: Service, machine: Machine) -> tuple[Path, str]:
    home = machine.home / ".config/systemd/user"
    return (home if service.user_scope else SYSTEM_UNITS) / f"{service.name}.service", unit(service)


def _agent(service: Service, machine: Machine) -> tuple[Path, str]:
    logs = machine.home / "Library/Logs"
    target = machine.home / "Library/LaunchAgents" / f"midwatch.{service.name}.plist"
    return target, launchd(service, str(logs / f"midwatch-{service.name}.log"))


def _check_place(machine: Machine, *, user: bool, mac: bool) -> None:
    """Refuse what this machine cannot do, with what it can."""
    if mac:
        return
    if shutil.which("systemctl") is None:
        raise CommandError(
            "this machine has no systemd. In a container `midwatch up` or `midwatch run -- CMD` is the entry point;"
            " elsewhere let your own init start `midwatch up`. The unit is shown with --print"
        )
    if not user and not machine.root:
        raise CommandError(
            f"{SYSTEM_UNITS} is root's: run it with sudo, or take --user, which needs no root"
        )


def _show_change(target: Path, text: str) -> bool:
    try:
        before = target.read_text("utf-8")
    except FileNotFoundError:
        show.out(f"{target} does not exist yet; it would be:\n")
        show.out(text)
        return True
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"cannot read {target}: {error}") from None
    if before == text:
        show.out(f"{target} is up to date")
        return False
    lines = difflib.unified_diff(
        before.splitlines(), text.splitlines(), str(target), "new", lineterm=""
    )
    for line in lines:
        colour = {"+": "green", "-": "red"}.get(line[:1])
        show.out(show.paint(show.clean(line), colour))
    return True


def _agrees(target: Path) -> bool:
    if not sys.stdin.isatty():
        raise CommandError(f"nobody is there to ask; add --yes to write {target}")
    return typer.confirm(f"Write {target}?", default=False, err=True)


def _write(target: Path, text: str) -> None:
    """Replace the file as a whole, or leave it."""
    fresh = ""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        fd, fresh = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        with os.fdopen(fd, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fchmod(fd, 0o644)
            os.fsync(fd)
        Path(fresh).replace(target)
    except OSError as error:
        if fresh:
            Path(fresh).unlink(missing_ok=True)
        raise CommandError(f"cannot write {target}: {error.strerror}") from None


def _verify(target: Path, *, user: bool) -> list[str]:
    """Return what systemd's own checker says about the unit; nothing where it is not there."""
    tool = shutil.which("systemd-analyze")
    if tool is None:
        return []
    scope = ["--user"] if user else []
    try:
        done = subprocess.run(
            [tool, *scope, "verify", "--man=no", str(target)],
            capture_output=True, text=True, timeout=VERIFY_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line for line in done.stderr.splitlines() if target.name in line][:10]


def _control(service: Service) -> str:
    return "systemctl --user" if service.user_scope else "systemctl"


def _steps(service: Service, machine: Machine) -> list[tuple[str, str]]:
    control = _control(service)
    journal = "journalctl --user -u" if service.user_scope else "journalctl -u"
    steps = [
        (f"{control} daemon-reload", "let systemd read it"),
        (f"{control} enable --now {service.name}", "start it, now and with the machine"),
        (f"{control} status {service.name}", "see how it does"),
        (f"{journal} {service.name} -f", "read what it says"),
        (f"{control} reload {service.name}", "take up a changed fleet file"),
    ]
    if service.user_scope and not machine.lingers:
        steps.insert(
            1,
            (
                f"loginctl enable-linger {machine.user}",
                "without it your services end when you log out",
            ),
        )
    return steps


def _mac_steps(target: Path) -> list[tuple[str, str]]:
    return [
        (f"launchctl bootstrap gui/{os.getuid()} {target}", "start it, now and at each log-in"),
        (f"launchctl bootout gui/{os.getuid()} {target}", "end it"),
    ]


def _enable(service: Service) -> None:
    control = _control(service).split()
    for words in (["daemon-reload"], ["enable", "--now", service.name]):
        try:
            done = subprocess.run([*control, *words], check=False, timeout=300)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CommandError(f"{' '.join([*control, *words])}: {error}") from None
        if done.returncode:
            raise CommandError(
                f"{' '.join([*control, *words])} failed; {control[0]} status {service.name} says more"
            )


def _tell(steps: list[tuple[str, str]], service: Service) -> None:
    machine = Machine.look(service.run_as or getpass.getuser())
    show.out("\nNext:")
    show.columns([("  " + words, what) for words, what in steps])
    if service.env_file:
        show.out(
            f"\nKeys of providers belong into {service.env_file} (NAME=value lines, mode 0600):"
            " a service does not see the variables of your shell."
        )
    if sys.platform != "darwin" and not machine.systemd:
        show.out("\nsystemd does not run here (a container?): these commands work where it does.")
    elif service.user_scope and not machine.user_bus and sys.platform != "darwin":
        show.out(
            "\nYour service manager cannot be reached from here (no log-in session, as after su or in cron):"
            f" log in as {machine.user} by ssh, or use `machinectl shell {machine.user}@`."
        )
