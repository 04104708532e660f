"""`midwatch drill`: prove that the alarms work on this machine."""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated

import typer

from midwatch.cli import show
from midwatch.cli.exits import BAD, CommandError
from midwatch.cli.options import Json
from midwatch.drills import catalogue
from midwatch.drills.drill import Drill, Result
from midwatch.drills.run import run

JOBS = max(1, os.cpu_count() or 1)


def add(app: typer.Typer) -> None:
    """Register the command."""
    drill = typer.Typer(
        help="Failure drills against a private instance: prove that the alarms work on this machine.",
        no_args_is_help=True,
    )
    drill.command("list")(list_drills)
    drill.command("run")(run_drills)
    app.add_typer(drill, name="drill")


def list_drills(as_json: Json = False) -> None:
    """Show every drill: its name, what goes wrong, and how soon it must be noticed."""
    drills = list(catalogue.drills().values())
    if as_json:
        show.document([_describe(drill) for drill in drills])
        return
    show.columns(
        [(d.name, "control" if d.control else f"{d.limit_s:g} s", d.about) for d in drills]
    )


def run_drills(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME…", help="Drills to run.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Run every drill.")] = False,
    as_json: Json = False,
    jobs: Annotated[
        int, typer.Option("--jobs", "-j", min=1, help="Drills that run side by side.")
    ] = JOBS,
) -> None:
    """Run drills. Each starts a private instance in a temporary directory; the running one is not touched.

    Exit code 1 when a drill failed.
    """
    if bool(names) == every:
        raise CommandError("name the drills to run, or say --all; `midwatch drill list` shows them")
    drills = catalogue.choose(names) if names else list(catalogue.drills().values())
    # whoever ends us wants the private instances ended too
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    results = _run(drills, jobs, quiet=as_json)
    if as_json:
        show.document([result.to_json() for result in results])
    elif failed := [result for result in results if not result.passed]:
        show.note(f"{len(failed)} of {len(results)} failed")
    else:
        show.note(f"all {len(results)} passed")
    if not all(result.passed for result in results):
        raise typer.Exit(BAD)


def _run(drills: list[Drill], jobs: int, *, quiet: bool) -> list[Result]:
    """Run with a progress bar on a terminal; each result is printed as it comes."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
    )
    width = max(len(drill.name) for drill in drills)
    with bar:
        task = bar.add_task("drills", total=len(drills))

        def done(result: Result) -> None:
            if not quiet:
                show.out(_line(result, width))
            bar.advance(task)

        return run(drills, jobs, done)


def _line(result: Result, width: int) -> str:
    verdict = show.paint("passed", "green") if result.passed else show.paint("FAILED", "red")
    seconds = (
        f"{result.seconds_to_detect:5.2f} s" if result.seconds_to_detect is not None else "   –   "
    )
    said = show.line(
        result.why if not result.passed else result.sentence or "nothing fired, as it should be"
    )
    return f"{result.drill.ljust(width)}  {verdict}  {seconds}  {said}"


def _describe(drill: Drill) -> dict[str, object]:
    return {
        "name": drill.name,
        "about": drill.about,
        "control": drill.control,
        "limit_s": drill.limit_s,
    }
