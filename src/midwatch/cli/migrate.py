"""Takes a state database back to an older version's tables, while nothing runs on it.

The way forward needs no command: whichever hub starts first brings the tables up.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from midwatch.cli import show
from midwatch.cli.exits import CommandError
from midwatch.cli.instance import data_directory, is_running
from midwatch.cli.options import FILE, Data, File
from midwatch.cli.source import read_fleet
from midwatch.core.telemetry import Stores


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command("migrate")(migrate)


def migrate(
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="REVISION", help="Take it back to this revision; an older Midwatch names the one that it knows.", show_default=False),
    ] = None,
    file: File = FILE,
    data: Data = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")] = False,
) -> None:  # fmt: skip
    """Bring the state database (agents, runs, incidents) to this version's tables, or back for an older Midwatch.

    Nothing may run on it. What only newer tables hold is lost on the way back; telemetry is not touched. The
    database is that of the data directory, or what `hub.stores.state` of the fleet file names.
    """
    from midwatch.store.migrate import HEAD, REVISIONS
    from midwatch.store.opening import STATE, state_address
    from midwatch.store.state import StateDb

    if to is not None and to not in REVISIONS:
        raise CommandError(f"--to {to!r}: expected one of {', '.join(REVISIONS)}")
    directory = data_directory(data)
    if is_running(directory):
        raise CommandError(f"midwatch runs in {directory}; stop it first, with Ctrl-C or SIGTERM")
    address = state_address(read_fleet(file).fleet.hub.stores if file.exists() else Stores())
    path = directory / "hub" / STATE
    if address is None and not path.exists():
        raise CommandError(
            f"there is no state database {path}; name the data directory with --data"
        )
    where = str(path) if address is None else "PostgreSQL (hub.stores.state)"
    if to not in (None, HEAD) and not yes:
        _ask(where, to)
    db = StateDb(path if address is None else address)
    db.open()
    try:
        if to not in (None, HEAD):
            db.retreat(to)
    finally:
        db.close()
    show.out(show.line(f"{where} is at revision {to or HEAD}"))
    if to not in (None, HEAD):
        show.out("Start the older Midwatch on it: a start of this one brings it forward again.")


def _ask(where: str, to: str) -> None:
    what = f"takes {where} back to {to}; what only newer tables hold is lost"
    if not sys.stdin.isatty():
        raise CommandError(f"this {what}; give --yes")
    if not typer.confirm(f"This {what}. Every hub on it is stopped. Go on?", err=True):
        raise CommandError("nothing was changed")
