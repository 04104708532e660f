"""One trace as a tree, with repeats folded into one line each."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from midwatch.cli import show
from midwatch.cli.client import Hub, path_of, record, records
from midwatch.cli.cost import dollars, number
from midwatch.cli.instance import find
from midwatch.cli.options import Data, Json, Url
from midwatch.cli.traces import took

Below = Annotated[
    str | None,
    typer.Option("--below", metavar="SPAN", help="Only this span and what is below it.", show_default=False),
]  # fmt: skip
Unfold = Annotated[bool, typer.Option("--unfold", help="A line for each span, also repeats.")]
Contents = Annotated[
    str | None,
    typer.Option("--contents", metavar="SPAN", help="What this span was given and gave back.", show_default=False),
]  # fmt: skip
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=100_000, help="At most so many lines.")]  # fmt: skip
TraceId = Annotated[str, typer.Argument(metavar="ID", help="The trace's id.")]

PAGE = 500
"""Lines that are asked for at a time."""


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command("trace")(trace)


def trace(
    trace_id: TraceId,
    below: Below = None,
    unfold: Unfold = False,
    contents: Contents = None,
    limit: Limit = 200,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Show one trace as a tree: what was done, how long it took, what it and all below it came to."""
    hub = Hub(find(data, url))
    if contents is not None:
        found = record(hub.get(path_of("traces", trace_id, "spans", contents, "contents")))
        if as_json:
            show.document(found)
        else:
            _print_contents(found)
        return
    tree = _tree(hub, trace_id, below, limit, fold=not unfold)
    if as_json:
        show.document(tree)
        return
    lines = records(tree.get("lines"))
    show.out(f"{number(tree.get('total'))} spans, from {show.moment(tree.get('at'))}")
    rows = [("TOOK", "TOKENS", "COST", "SPAN", "WHAT"), *map(_row, lines)]
    show.columns(rows)
    if tree.get("next") is not None:
        show.note(f"There is more: give --limit {limit * 10}, or --below SPAN for a part of it.")


def _tree(hub: Hub, trace_id: str, below: str | None, limit: int, *, fold: bool) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    after: str | None = None
    lines: list[dict[str, Any]] = []
    while True:
        page = record(
            hub.get(
                path_of("traces", trace_id, "tree"), below=below, fold=str(fold).lower(), after=after,
                limit=min(PAGE, limit - len(lines)),
            )
        )  # fmt: skip
        whole = whole or page
        lines += records(page.get("lines"))
        after = page.get("next")
        if after is None or len(lines) >= limit or not page.get("lines"):
            return {**whole, "lines": lines, "next": after}


def _row(one: dict[str, Any]) -> tuple[str, ...]:
    span, below = record(one.get("span")), record(one.get("below"))
    tokens = (below.get("input_tokens") or 0) + (below.get("output_tokens") or 0)
    alike = one.get("alike") or 1
    name = show.line(span.get("name", ""))
    notes = [show.line(span.get("role", ""))] if span.get("role") not in (None, "other") else []
    if alike > 1:
        notes.append(f"{alike:,} alike, {number(below.get('spans'))} spans in all")
    if span.get("rank") in ("open", "lost"):
        notes.append(str(span["rank"]))
    if span.get("status") == "error":
        notes.append("error: " + show.line(span.get("status_message") or span.get("error_type") or "no reason told")[:200])  # fmt: skip
    elif below.get("errors"):
        notes.append(f"{number(below['errors'])} errors below")
    if one.get("orphan"):
        notes.append("its parent is not there")
    indent = "  " * min(int(one.get("depth") or 0), 40)
    return (
        took(span),
        number(tokens) if tokens else "-",
        dollars(below.get("cost_usd")) if below.get("cost_usd") else "-",
        show.line(span.get("span_id", "")),
        f"{indent}{name}" + (f" ({', '.join(notes)})" if notes else ""),
    )


def _print_contents(found: dict[str, Any]) -> None:
    items = records(found.get("items"))
    for item in items:
        show.out(show.paint(f"{show.line(item.get('kind', ''))}  {show.line(item.get('key', ''))}", "bold"))  # fmt: skip
        show.out(show.clean(item.get("text", "")))
    if not items:
        show.out("It has no contents.")
    if found.get("gone"):
        show.note(f"{number(found['gone'])} contents have expired or were removed.")
