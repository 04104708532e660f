"""Take over the changed fleet file, restarting only what changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from midwatch.cli import show
from midwatch.cli.client import Hub, Refused, record, records, texts
from midwatch.cli.exits import USAGE, CommandError
from midwatch.cli.instance import Instance, find
from midwatch.cli.options import Data, Json, Url


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command("reload")(reload)


def reload(
    file: Annotated[
        Path | None,
        typer.Option(
            "--file",
            "-f",
            metavar="FILE",
            help="Refuse unless this is the file that the instance runs.",
            show_default=False,
        ),
    ] = None,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Read the fleet file of the running instance again; restart only agents whose entry changed.

    New agents are started, agents that were taken out are stopped, all others go on untouched. What a
    person stopped or suspended stays so; what is parked gets a new chance when its entry changed. A
    file with problems changes nothing: they are all printed, and the exit code is 2.
    """
    instance = find(data, url)
    if file is not None:
        _compare(file, instance)
    hub = Hub(instance)
    try:
        answer = record(hub.post("/api/reload"))
    except Refused as refused:
        problems = records(refused.problem.get("problems"))
        if not problems:
            raise
        if as_json:
            show.document({"ok": False, "problems": problems})
        else:
            for problem in problems:
                show.note(_place(problem))
            show.complain(f"{refused.problem.get('detail')}")
        raise typer.Exit(USAGE) from None
    if "agents" not in answer:
        raise hub.foreign("no account of a reload")
    if as_json:
        show.document({"ok": True, **answer})
        return
    for item in records(answer.get("agents")):
        show.out(f"{show.line(item.get('agent', '?'))}: {show.line(item.get('result', ''))}")
    for note in texts(answer.get("notes")):
        show.note(f"note: {show.line(note)}")


def _compare(file: Path, instance: Instance) -> None:
    """Refuse when the instance runs another file: which one it reads is decided by `midwatch up`."""
    if instance.data is None:
        raise CommandError("-f compares with an instance on this machine; leave it out with --url")
    try:
        known: Any = record(json.loads((instance.data / "instance.json").read_bytes())).get("file")
    except (OSError, ValueError):
        known = None
    if not isinstance(known, str):
        raise CommandError("this instance was started without a fleet file; nothing to reload")
    if file.absolute().resolve() != Path(known).resolve():
        raise CommandError(
            f"this instance runs {known!r}, not {str(file)!r}; stop it and start it with: midwatch up -f {file}"
        )


def _place(problem: dict[str, Any]) -> str:
    key = show.line(problem.get("key", ""))
    where = f"{problem.get('file')}:{problem.get('line')}:{problem.get('column')}"
    return f"{show.line(where)}: {key + ': ' if key else ''}{show.clean(str(problem.get('message', '')))}"
