"""Traces as a list: what was done, how long it took, what it cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import typer

from midwatch.cli import filters as f
from midwatch.cli import show
from midwatch.cli.client import Hub, records
from midwatch.cli.cost import dollars, number
from midwatch.cli.instance import find
from midwatch.cli.options import Data, Json, Url


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command("traces")(traces)


def traces(
    agent: f.Agent = None,
    session: f.Session = None,
    user: f.User = None,
    run: f.RunId = None,
    model: f.Model = None,
    tool: f.Tool = None,
    outcome: f.Outcome = None,
    tag: f.Tag = None,
    failed: f.Failed = None,
    open_: f.Open = None,
    lost: f.Lost = None,
    flagged: f.Flagged = None,
    text: f.Text = None,
    since: f.Since = None,
    until: f.Until = None,
    min_seconds: f.Longer = None,
    min_usd: f.Dearer = None,
    limit: f.Limit = 50,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """List traces, the newest first. A trace is listed when any of its spans says what is asked for."""
    pages = Hub(find(data, url)).pages(
        "/api/traces", agent=agent, session=session, user=user, run=run, model=model, tool=tool, outcome=outcome,
        tag=tag, failed=f.flag(failed), open=f.flag(open_), lost=f.flag(lost), flagged=f.flag(flagged), text=text,
        min_duration_s=min_seconds, min_cost_usd=min_usd, **f.moments(since, until),
    )  # fmt: skip
    left_out: list[int] = []
    items = list(islice(_items(pages, left_out), limit))
    if any(left_out):
        show.note(f"{left_out[0]:,} more like that were let go by sampling; sums and cost are of all of them.")  # fmt: skip
    if as_json:
        show.document(items)
        return
    if not items:
        show.out("No trace is like that.")
        return
    rows: list[tuple[str, ...]] = [("TRACE", "BEGAN", "AGENT", "TOOK", "SPANS", "TOKENS", "COST", "WHAT")]  # fmt: skip
    show.columns(rows + [_row(item) for item in items])


def _items(pages: Iterable[dict[str, Any]], left_out: list[int]) -> Iterator[dict[str, Any]]:
    """Yield the items of pages; note of each how many traces sampling left out of the list."""
    for page in pages:
        left_out.append(int(page.get("left_out") or 0))
        yield from records(page["items"])


def _row(item: dict[str, Any]) -> tuple[str, ...]:
    tokens = (item.get("input_tokens") or 0) + (item.get("output_tokens") or 0)
    return (
        show.line(item.get("trace_id", "")),
        show.moment(item.get("at")),
        show.line(item.get("agent", "-")),
        took(item),
        number(item.get("spans")),
        number(tokens),
        dollars(item.get("cost_usd")),
        what(item, show.line(item.get("name", ""))),
    )


def took(item: dict[str, Any]) -> str:
    """Return how long something took, or `open`."""
    seconds = item.get("duration_s")
    if not isinstance(seconds, int | float):
        return "open"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:,.1f} s"


def what(item: dict[str, Any], name: str) -> str:
    """Return a name with what is to be said of it: errors, what is lost, its outcome."""
    notes = [f"{item[key]:,} {word}" for key, word in (("errors", "errors"), ("lost", "lost")) if item.get(key)]  # fmt: skip
    if item.get("outcome") is not None:
        notes.append(show.line(item["outcome"]))
    if item.get("weight"):
        notes.append(f"stands for {item['weight']:,}")
    if item.get("left_out"):
        notes.append(f"{item['left_out']:,} traces let go")
    if item.get("escalated"):
        notes.append("handed to a person")
    flags = item.get("flags")
    if isinstance(flags, list) and flags:
        notes.append("flagged: " + show.line(", ".join(map(str, flags))))  # pyright: ignore[reportUnknownArgumentType]
    return f"{name} ({', '.join(notes)})" if notes else name
