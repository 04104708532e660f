"""Read-only SQL over everything that was recorded."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from midwatch.cli import show
from midwatch.cli.client import Hub, record
from midwatch.cli.instance import find
from midwatch.cli.options import Data, Json, Url

Text = Annotated[str, typer.Argument(metavar="QUERY", help="One SELECT; - reads it from stdin.")]
Rows = Annotated[int, typer.Option("--rows", min=1, max=10_000, help="At most so many rows.")]
Timeout = Annotated[
    float, typer.Option("--timeout", min=0.1, max=10.0, help="At most so many seconds.")
]

WIDE = 60
"""Characters of a cell that are printed."""


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command("sql")(sql)


def sql(
    query: Text,
    rows: Rows = 1_000,
    timeout: Timeout = 10.0,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Print the rows of one SELECT (DuckDB's SQL) over what was recorded.

    Tables: agents, runs, cycles, beats, events, samples, incidents, spans, calls, tools, sessions, contents, points,
    logs, resources. Nothing is changed, no file is read.
    """
    text = sys.stdin.read() if query == "-" else query
    asked = {"query": text, "rows": rows, "timeout_s": timeout}
    found = record(Hub(find(data, url)).post("/api/sql", asked))
    columns: list[Any] = found.get("columns") or []
    table: list[list[Any]] = found.get("rows") or []
    if as_json:
        show.document([dict(zip(columns, row, strict=False)) for row in table])
    elif columns:
        head = tuple(show.line(column) for column in columns)
        show.columns([head, *(tuple(map(_cell, row)) for row in table)])
    if found.get("truncated"):
        show.note(f"There is more than {len(table):,} rows; narrow it down, or give --rows.")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    text = show.line(value if isinstance(value, str) else json.dumps(value))
    return text if len(text) <= WIDE else text[: WIDE - 1] + "…"
