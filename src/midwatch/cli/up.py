"""The whole of Midwatch, in the foreground."""

from __future__ import annotations

import shlex
import sys
from typing import Annotated

import typer

from midwatch.cli import show
from midwatch.cli.exits import USAGE
from midwatch.cli.instance import data_directory
from midwatch.cli.options import FILE, Data, File
from midwatch.core.errors import FleetFileError
from midwatch.core.fleet import Fleet


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command("up")(up)


def up(
    file: File = FILE,
    data: Data = None,
    rehearsal: Annotated[
        bool,
        typer.Option(
            "--rehearsal", help="Let all agents talk to a local rehearsal model; nothing is spent."
        ),
    ] = False,
    hub_listen: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="Address of the hub, instead of the fleet file's.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Start supervisor, hub, gateway and the fleet, and stay in the foreground.

    Ctrl-C drains: agents are asked to end and get their `stop_grace`. A second Ctrl-C kills.
    """
    from midwatch.cli.check import print_problems
    from midwatch.cli.source import read_fleet
    from midwatch.core.quantities import split_listen

    if hub_listen is not None:
        try:
            split_listen(hub_listen)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--hub-listen") from None
    try:
        source = read_fleet(file)
    except FleetFileError as error:
        print_problems(error)
        raise typer.Exit(USAGE) from None
    fleet = _at(source.fleet, hub_listen)
    for note in source.notes:
        show.note(f"note: {note.render(str(file))}")
    from midwatch.supervisor.change.reload import Source
    from midwatch.supervisor.main import run

    directory = data_directory(data)
    option = "" if directory == data_directory(None) else f" --data {shlex.quote(str(directory))}"

    def announce(page: str) -> None:
        show.out(
            f"\nWatching {watched(fleet)}{_REHEARSAL if rehearsal else ''}.\n"
            f"  page    {show.paint(show.line(page), 'bold')}\n"
            f"          (signs one browser in, once; a fresh link: midwatch link{option})\n"
            f"  status  midwatch status{option}\n"
            f"  stop    Ctrl-C\n"
        )
        sys.stdout.flush()

    place = file.absolute()  # whoever asks for a reload may stand elsewhere
    again = Source(place, lambda: _at(read_fleet(place).fleet, hub_listen), fleet)
    raise typer.Exit(run(fleet, directory, rehearsal=rehearsal, on_ready=announce, source=again))


def watched(fleet: Fleet) -> str:
    """Return in words whom we watch: each instance counts, and who is disabled does not."""
    on = [agent for agent in fleet.agents.values() if agent.enabled]
    count = sum(agent.instances for agent in on)
    off = sum(agent.instances for agent in fleet.agents.values() if not agent.enabled)
    parts = (
        (sum(a.instances for a in on if a.schedule is not None), "on a schedule"),
        (sum(a.instances for a in on if a.external), "started by others"),
        (off, "more disabled" if count else "disabled"),
    )
    notes = ", ".join(f"{number} {what}" for number, what in parts if number)
    agents = "no agent" if not count else "1 agent" if count == 1 else f"{count} agents"
    return f"{agents} of fleet {fleet.fleet!r}{f' ({notes})' if notes else ''}"


def _at(fleet: Fleet, hub_listen: str | None) -> Fleet:
    """Return the fleet with the hub where the command line wants it."""
    if hub_listen is None:
        return fleet
    return fleet.model_copy(update={"hub": fleet.hub.model_copy(update={"listen": hub_listen})})


_REHEARSAL = ", which talks to the rehearsal model: nothing is spent"
