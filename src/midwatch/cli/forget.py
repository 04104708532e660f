"""Telemetry that must go: of a session, a user, a customer; exported first, with the proof after."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from midwatch.cli import filters as f
from midwatch.cli import show
from midwatch.cli.client import Hub, record
from midwatch.cli.exits import BAD, CommandError
from midwatch.cli.instance import find
from midwatch.cli.options import Data, Json, Url

SIGNALS = ("spans", "contents", "points", "logs")

Trace = Annotated[
    list[str] | None,
    typer.Option("--trace", metavar="ID", help="This trace; may be repeated.", show_default=False),
]
Only = Annotated[
    list[str] | None,
    typer.Option(help="Only these: spans, contents, points, logs; may be repeated.", show_default=False),
]  # fmt: skip
Export = Annotated[
    Path | None,
    typer.Option("--export-to", metavar="DIR", help="Write it there first, as Parquet; DIR must not exist.", show_default=False),
]  # fmt: skip
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")]


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command("forget")(forget)


def forget(
    agent: f.Agent = None,
    session: f.Session = None,
    user: f.User = None,
    run: f.RunId = None,
    tag: f.Tag = None,
    trace: Trace = None,
    before: Annotated[
        str | None, typer.Option(metavar="T", help="Only what began before: 30d (ago), or a date.", show_default=False)
    ] = None,
    only: Only = None,
    export_to: Export = None,
    yes: Yes = False,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Delete telemetry for good: what the options name, all of which must hold. Whole traces go by session, user and
    tag.

    It is gone from every file when this returns; the proof is what is found before and after. Exit code 1 when
    anything is left. What waits to be sent on goes, too; the gateway's ledger, and what went on to other back-ends, stay.
    """
    tags = dict(_tag(one) for one in tag or ())
    order: dict[str, Any] = {
        "agents": agent, "sessions": session, "users": user, "runs": run, "tags": tags, "traces": trace,
        "before": f.moments(None, before)["until"], "signals": only,
    }  # fmt: skip
    order = {name: value for name, value in order.items() if value}
    if not order.keys() - {"signals"}:
        raise CommandError("that would be everything: name an --agent, --session, --user, --tag, --run, --trace, or --before")  # fmt: skip
    if unknown := sorted(set(only or ()) - set(SIGNALS)):
        raise CommandError(f"--only {unknown[0]!r}: expected one of {', '.join(SIGNALS)}")
    hub = Hub(find(data, url))
    files: list[Path] = []
    if export_to is not None:
        if trace:
            raise CommandError("--export-to chooses by agent, session, user, run, tag and time, not by --trace")  # fmt: skip
        chosen = {"agent": agent, "session": session, "user": user, "run": run, "tag": tag, "until": order.get("before")}  # fmt: skip
        files = _export(hub, export_to, only or SIGNALS, chosen)
    if not yes:
        _ask(order)
    proof = record(hub.post("/api/forget", order))
    if as_json:
        show.document({**proof, "exported": [str(path) for path in files]})
    else:
        for path in files:
            show.out(f"exported to {path}")
        _say(proof)
    if not proof.get("complete"):
        raise typer.Exit(BAD)


def _tag(text: str) -> tuple[str, str]:
    name, equal, value = text.partition("=")
    if not equal or not name:
        raise CommandError(f"--tag {text!r}: expected NAME=VALUE")
    return name, value


def _export(hub: Hub, folder: Path, signals: Any, chosen: dict[str, Any]) -> list[Path]:
    files: list[Path] = []
    try:
        folder.mkdir(mode=0o700, parents=True)
        for signal in signals:
            path = folder / f"{signal}.parquet"
            part = folder / f".{signal}.part"
            with part.open("wb") as file:
                hub.download(f"/api/export/{signal}", file, format="parquet", **chosen)
            part.replace(path)
            files.append(path)
    except OSError as error:
        raise CommandError(f"cannot export to {folder}: {error.strerror}; nothing was deleted") from None  # fmt: skip
    return files


def _ask(order: dict[str, Any]) -> None:
    said = "; ".join(f"{name}: {show.line(value)}" for name, value in order.items())
    if not sys.stdin.isatty():
        raise CommandError(f"this deletes telemetry for good ({said}); give --yes")
    if not typer.confirm(f"Delete for good ({said})?", err=True):
        raise CommandError("nothing was deleted")


def _say(proof: dict[str, Any]) -> None:
    before, after = record(proof.get("before")), record(proof.get("after"))
    rows = [("", "found", "left")]
    rows += [
        (name, f"{before[name]:,}", f"{after.get(name, 0):,}") for name in SIGNALS if name in before
    ]
    show.columns(rows)
    queued = proof.get("queued")
    if isinstance(queued, int) and queued:
        show.note(f"{queued:,} that waited to be sent on went, too.")
    freed = proof.get("freed_bytes")
    if isinstance(freed, int) and freed:
        show.note(f"{freed:,} bytes were given back to the disk.")
