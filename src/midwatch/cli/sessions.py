"""Sessions as a list, and one of them as turns."""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Any

import typer

from midwatch.cli import filters as f
from midwatch.cli import show
from midwatch.cli.client import Hub, path_of, record, records
from midwatch.cli.cost import dollars, number
from midwatch.cli.instance import find
from midwatch.cli.options import Data, Json, Url
from midwatch.cli.traces import took, what

Name = Annotated[
    str | None, typer.Argument(metavar="SESSION", help="This one, with its turns.", show_default=False)
]  # fmt: skip

Follow = Annotated[
    str | None,
    typer.Option("--follow", metavar="VALUE", help="With SESSION: where this value came from.", show_default=False),
]  # fmt: skip

SIGHTS = 50
"""Places at which a value was that are printed."""

CHANGES = 20
"""Changes of one turn that are printed."""


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command("sessions")(sessions)


def sessions(
    session: Name = None,
    follow: Follow = None,
    agent: f.Agent = None,
    user: f.User = None,
    model: f.Model = None,
    tool: f.Tool = None,
    outcome: f.Outcome = None,
    tag: f.Tag = None,
    failed: f.Failed = None,
    open_: f.Open = None,
    flagged: f.Flagged = None,
    text: f.Text = None,
    since: f.Since = None,
    until: f.Until = None,
    min_usd: f.Dearer = None,
    limit: f.Limit = 50,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """List sessions, those that ended last first; or show one: its turns, and what each changed in its memory."""
    hub = Hub(find(data, url))
    if session is not None:
        found = record(hub.get(path_of("sessions", session), follow=follow))
        if as_json:
            show.document(found)
        else:
            _print_one(found)
        return
    items = list(
        islice(
            hub.items(
                "/api/sessions", agent=agent, user=user, model=model, tool=tool, outcome=outcome, tag=tag,
                failed=f.flag(failed), open=f.flag(open_), flagged=f.flag(flagged), text=text, min_cost_usd=min_usd, **f.moments(since, until),
            ),
            limit,
        )
    )  # fmt: skip
    if as_json:
        show.document(items)
    elif not items:
        show.out("No session is like that.")
    else:
        head = ("SESSION", "ENDED", "AGENT", "TURNS", "TRACES", "COST", "WHAT")
        show.columns([head, *map(_row, items)])


def _row(item: dict[str, Any]) -> tuple[str, ...]:
    return (
        show.line(item.get("session", "")),
        show.moment(item.get("last_at")),
        show.line(item.get("agent", "-")),
        number(item.get("turns")),
        number(item.get("traces")),
        dollars(item.get("cost_usd")),
        what(item, show.line(item.get("user", ""))),
    )


def _print_one(found: dict[str, Any]) -> None:
    show.out(show.paint(show.line(found.get("session", "")), "bold"))
    show.out(f"{number(found.get('turns'))} turns, {number(found.get('spans'))} spans, {dollars(found.get('cost_usd'))}")  # fmt: skip
    for turn in records(found.get("items")):
        head = f"{number(turn.get('number'))}. {show.moment(turn.get('at'))}, {took(turn)}, {dollars(turn.get('cost_usd'))}"
        show.out(what(turn, head))
        for change in records(turn.get("changes"))[:CHANGES]:
            show.out(f"   {_change(change)}")
    if spread := record(found.get("spread")):
        kinds = sorted(
            {str(kind) for one in records(spread.get("entered")) for kind in one.get("kinds") or ()}
        )
        came = f"turn {number(spread.get('turn'))}" if spread.get("turn") else "no turn"
        show.out(
            f"Flagged ({show.line(', '.join(kinds) or 'expired')}): entered in {came}, spread to {number(spread.get('calls'))} calls"
        )
        if spread.get("all_looked_at") is False:
            show.out(show.paint("   of what was looked at: the session has more contents", "dim"))

    trail = record(found.get("trail"))
    if trail:
        show.out(f"Where {show.line(trail.get('value', ''))} was:")
        for one in records(trail.get("sights"))[:SIGHTS]:
            came = one == trail.get("entered")
            show.out(f"{'>' if came else ' '}  {_sight(one)}")


def _sight(one: dict[str, Any]) -> str:
    at = f"turn {number(one.get('turn'))}" if one.get("turn") else "no turn"
    what_ = f"{show.line(one.get('where', ''))} {show.line(one.get('name', ''))}"
    left = " (gone)" if one.get("how") == "left" else ""
    return f"{at}, {what_}{left}, span {show.line(one.get('span_id', ''))}: {show.line(one.get('excerpt', ''))}"


def _change(change: dict[str, Any]) -> str:
    path, how = show.line(change.get("path", "")), change.get("how")
    before, after = (show.line(record(change.get(key)).get("text", "")) for key in ("before", "after"))  # fmt: skip
    if how == "added":
        return f"+ {path}: {after}"
    return f"- {path}: {before}" if how == "removed" else f"~ {path}: {before} → {after}"
