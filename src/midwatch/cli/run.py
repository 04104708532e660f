"""One command, supervised without a fleet file."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from midwatch.cli import early, show
from midwatch.core.errors import MidwatchError
from midwatch.core.units import Unexpected, parse_duration, parse_size

OWN_FAILURE = 125

_SIZES: dict[str, Callable[[str], Any]] = {
    "memory": parse_size,
    "disk": parse_size,
    "wall": parse_duration,
    "stop_grace": parse_duration,
}


Words = Annotated[list[str], typer.Argument(metavar="-- CMD…", help="The command.")]
Name = Annotated[
    str | None,
    typer.Option(help="Name of the agent. Default: the program's.", show_default=False),
]
Memory = Annotated[
    str | None, typer.Option(metavar="SIZE", help="Ended above this: 1GiB.", show_default=False)
]
Wall = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Ended after so long: 1h.", show_default=False),
]
OpenFiles = Annotated[
    int | None, typer.Option(min=16, metavar="N", help="Of each process.", show_default=False)
]
Processes = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Processes and threads.", show_default=False),
]
Disk = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="The largest file it may write.", show_default=False),
]
StopGrace = Annotated[str, typer.Option(metavar="TIME", help="From SIGTERM to SIGKILL.")]
Restart = Annotated[
    Literal["never", "failure", "always"],
    typer.Option(help="When it is started again. A container is restarted by its orchestrator."),
]
Attempts = Annotated[
    int, typer.Option(min=0, metavar="N", help="Restarts in a row, after failures.")
]
Tty = Annotated[bool, typer.Option("--tty", help="Give it a terminal although we have none.")]
Hub = Annotated[
    str | None,
    typer.Option(
        "--hub",
        "--url",
        envvar="MIDWATCH_URL",
        metavar="URL",
        help="Report to this hub; the token is read from MIDWATCH_TOKEN.",
        show_default=False,
    ),
]
KeptIn = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="Keep its output here, redacted and rotated. Default: nothing is kept.",
        show_default=False,
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say on stderr what is done.")]


def add(app: typer.Typer) -> None:
    """Add the command."""
    # what stands behind the program's name is the program's, also `-v` and `--help`
    app.command("run", context_settings={"allow_interspersed_args": False})(run)


def run(
    command: Words,
    name: Name = None,
    memory: Memory = None,
    wall: Wall = None,
    open_files: OpenFiles = None,
    processes: Processes = None,
    disk: Disk = None,
    stop_grace: StopGrace = "10s",
    restart: Restart = "never",
    attempts: Attempts = 3,
    tty: Tty = False,
    hub: Hub = None,
    data: KeptIn = None,
    verbose: Verbose = False,
) -> None:
    """Supervise one command, without a fleet file: fit to be a container's entry point.

    Its stdin, stdout and stderr are ours; SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2 and SIGWINCH are
    passed on; SIGTERM asks it to end, and after --stop-grace all of it is killed. Orphaned processes
    are reaped, none is left behind.

    The exit code is the command's, 128 + n when signal n ended it; 125 when Midwatch itself failed,
    126 when the command cannot be executed, 127 when there is none.
    """
    limits = {
        key: _read(key, value)
        for key, value in (
            ("memory", memory),
            ("wall", wall),
            ("disk", disk),
            ("stop_grace", stop_grace),
        )
    }
    entry = {
        "command": command,
        "restart": {"when": restart, "attempts": attempts, "backoff": (0.5, 60.0)},
        "limits": {
            **limits, "open_files": open_files, "processes": processes,
            "output": None if data is None else 1024 * 1024,
        },
    }  # fmt: skip
    chosen = name or _name_of(command[0])
    try:
        raise typer.Exit(_supervise(chosen, entry, hub, data, tty=tty, verbose=verbose))
    except (MidwatchError, OSError, ValueError) as error:
        show.complain(str(error))
        raise typer.Exit(OWN_FAILURE) from None


def _supervise(
    name: str,
    entry: dict[str, Any],
    hub: str | None,
    data: Path | None,
    *,
    tty: bool,
    verbose: bool,
) -> int:
    early.listen()  # it does already, unless somebody else's program called us
    try:
        return _run_alone(name, entry, hub, data, early.heard, tty=tty, verbose=verbose)
    finally:
        early.cease()


def _run_alone(
    name: str,
    entry: dict[str, Any],
    hub: str | None,
    data: Path | None,
    heard: list[int],
    *,
    tty: bool,
    verbose: bool,
) -> int:
    from midwatch.core.fleet import Agent
    from midwatch.supervisor.alone import Order, run

    order = Order(
        name,
        Agent.model_validate(entry),
        hub=hub.rstrip("/") if hub else None,
        token=os.environ.get("MIDWATCH_TOKEN"),
        data=data.expanduser().absolute() if data is not None else None,
        # where we have a terminal the command simply gets it
        tty=tty and not os.isatty(0),
        verbose=verbose,
        early=heard,
    )
    return run(order)


def _read(key: str, value: str | None) -> Any:
    if value is None:
        return None
    try:
        return _SIZES[key](value)
    except Unexpected as error:
        raise typer.BadParameter(str(error), param_hint=f"--{key.replace('_', '-')}") from None


def _name_of(program: str) -> str:
    """Return the program's name as an agent's; inside an agent's run that agent's."""
    inherited = os.environ.get("MIDWATCH_AGENT")
    if inherited and os.environ.get("MIDWATCH_TOKEN"):
        return inherited
    return re.sub(r"[^A-Za-z0-9._-]", "-", Path(program).name)[:63].strip("-._") or "command"
