"""Is the fleet file right?"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from midwatch.cli import show
from midwatch.cli.exits import USAGE
from midwatch.cli.options import FILE, File, Json
from midwatch.core.errors import FleetFileError, Problem

if TYPE_CHECKING:
    from midwatch.core.fleet import Fleet


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command("check")(check)


def check(
    file: File = FILE,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema, for editors.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check the fleet file: every problem with line, key, what was expected and the nearest name.

    Says each schedule in words, with its next run. Also checks that commands, directories and env
    files exist on this machine. Keys that this version reads but does not enforce yet are named in
    a note. Starts nothing.
    """
    if schema:
        from midwatch.core.fleetfile.schema import schema as make

        show.document(make())
        return
    from midwatch.cli.source import read_fleet

    try:
        source = read_fleet(file, conditions=True)
    except FleetFileError as error:
        if as_json:
            show.document(
                {"ok": False, "problems": _listed(error.problems, error.file), "notes": []}
            )
        else:
            print_problems(error)
        raise typer.Exit(USAGE) from None
    schedules = _schedules(source.fleet)
    if as_json:
        notes = _listed(source.notes, str(file))
        show.document({"ok": True, "problems": [], "notes": notes, "schedules": schedules})
        return
    for note in source.notes:
        show.out(show.clean(f"note: {note.render(str(file))}"))
    count = len(source.fleet.agents)
    agents = "1 agent" if count == 1 else f"{count} agents"
    for plan in schedules:
        following = f"; next run {plan['next']}" if plan["next"] else "; no run to come"
        show.out(show.line(f"{plan['agent']}: {plan['rule']} ({plan['timezone']}){following}"))
    show.out(show.line(f"{file}: fleet {source.fleet.fleet!r} with {agents} is right"))


def print_problems(error: FleetFileError) -> None:
    """Print every problem on stderr, and how many there are."""
    for problem in error.problems:
        show.note(problem.render(error.file))
    count = len(error.problems)
    show.complain(f"{'1 problem' if count == 1 else f'{count} problems'} in {error.file}")


def _schedules(fleet: Fleet) -> list[dict[str, Any]]:
    """Return each schedule in words, with its next start on its own clock."""
    from midwatch.core.schedule import Plan, in_words, show_day

    found: list[dict[str, Any]] = []
    for name, agent in fleet.agents.items():
        if agent.schedule is None or not agent.enabled:
            continue
        plan = Plan(agent.schedule, fleet.timezone, name)
        due = plan.after(time.time())
        following = show_day(due.at, plan) if due is not None else None
        rule = in_words(agent.schedule)
        found.append({"agent": name, "rule": rule, "timezone": plan.timezone, "next": following})
    return found


def _listed(problems: list[Problem], file: str) -> list[dict[str, Any]]:
    return [
        {"file": file, "line": p.line, "column": p.column, "key": p.key, "message": p.message}
        for p in problems
    ]
