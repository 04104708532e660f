"""What is wrong now, and what was."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from midwatch.cli import show
from midwatch.cli.client import Hub, records
from midwatch.cli.exits import BAD
from midwatch.cli.instance import find
from midwatch.cli.options import Data, Json, Url

SHORT = 8
"""Characters of an id that are shown: its end, because ids begin with the time."""


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command("incidents")(incidents)


def incidents(
    everything: Annotated[
        bool, typer.Option("--all", help="Also those that are resolved.")
    ] = False,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """List open incidents, the newest first; the exit code is 1 when there is an open one.

    An incident that was acknowledged is still listed, but counts as seen.
    """
    found = list_incidents(Hub(find(data, url)), everything)
    if as_json:
        show.document(found)
    elif not found:
        show.out("No incident." if everything else "No incident is open.")
    for incident in [] if as_json else found:
        _print(incident)
    if any(incident.get("state") == "open" for incident in found):
        raise typer.Exit(BAD)


def list_incidents(hub: Hub, everything: bool) -> list[dict[str, Any]]:
    """Return incidents, newest first: all, or those that are not resolved."""
    if everything:
        return list(hub.items("/api/incidents"))
    found = [i for state in ("open", "acked") for i in hub.items("/api/incidents", state=state)]
    unique = {str(i.get("id")): i for i in found if i.get("state") != "resolved"}
    return sorted(unique.values(), key=lambda i: str(i.get("id")), reverse=True)


def _print(incident: dict[str, Any]) -> None:
    state, severity = show.line(incident.get("state", "?")), show.line(incident.get("severity", ""))
    colour = {"open": "red", "acked": "yellow"}.get(state, "dim")
    identity = show.line(incident.get("id", ""))[-SHORT:]
    head = f"{identity}  {severity} {show.line(incident.get('kind', ''))}, {state}"
    head += f", since {show.moment(incident.get('opened_at'))}"
    count = incident.get("count")
    if isinstance(count, int) and count > 1:
        head += f", {count} times"
    show.out(show.paint(head, colour))
    show.out(f"  {show.line(incident.get('sentence', ''))}")
    for action in records(incident.get("actions")):
        done = show.line(f"{action.get('do', '')}: {action.get('result') or 'under way'}")
        show.out(f"  {done} ({show.moment(action.get('at'))})")
