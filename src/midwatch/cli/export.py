"""Telemetry into a file: Parquet, or a line of JSON for each row."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from midwatch.cli import filters as f
from midwatch.cli import show
from midwatch.cli.client import Hub
from midwatch.cli.exits import CommandError
from midwatch.cli.instance import find
from midwatch.cli.options import Data, Json, Url

What = Annotated[
    Literal["spans", "contents", "points", "logs"],
    typer.Argument(help="Which rows: spans, what they said, metrics, log records."),
]
To = Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="Where to; it must not be there yet.")]  # fmt: skip
How = Annotated[
    Literal["parquet", "jsonl"] | None,
    typer.Option("--format", help="Default: by the file's name, else parquet.", show_default=False),
]


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command("export")(export)


def export(
    what: What,
    output: To,
    how: How = None,
    agent: f.Agent = None,
    session: f.Session = None,
    user: f.User = None,
    run: f.RunId = None,
    tag: f.Tag = None,
    since: f.Since = None,
    until: f.Until = None,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Write telemetry to a file, by time: all of it, or what the options name.

    Sessions, users and tags choose whole traces. The file is there when all of it is.
    """
    if output.exists():
        raise CommandError(f"{output} is there already; give another name, or remove it")
    chosen = how or ("jsonl" if output.suffix in (".jsonl", ".ndjson") else "parquet")
    part = output.with_name(f".{output.name}.part")
    try:
        with part.open("wb") as file:
            size = Hub(find(data, url)).download(
                f"/api/export/{what}", file, format=chosen, agent=agent, session=session, user=user, run=run, tag=tag,
                **f.moments(since, until),
            )  # fmt: skip
        part.replace(output)
    except OSError as error:
        raise CommandError(f"cannot write {output}: {error.strerror}; give another path") from None
    finally:
        part.unlink(missing_ok=True)
    if as_json:
        show.document({"file": str(output), "bytes": size, "format": chosen})
    else:
        show.out(f"{output}: {size:,} bytes")
