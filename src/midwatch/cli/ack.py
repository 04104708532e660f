"""I have seen it."""

from __future__ import annotations

from typing import Annotated

import typer

from midwatch.cli import show
from midwatch.cli.client import Hub, path_of, record
from midwatch.cli.exits import CommandError
from midwatch.cli.incidents import SHORT, list_incidents
from midwatch.cli.instance import find
from midwatch.cli.options import Data, Json, Url

_WHOLE = 36
"""Characters of a whole id (a UUID)."""


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command("ack")(ack)


def ack(
    identity: Annotated[
        str, typer.Argument(metavar="ID", help="The incident: its id, or the end that is listed.")
    ],
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Acknowledge an incident: a person has seen it; it is not told again, and closes when it is over."""
    hub = Hub(find(data, url))
    answer: object = hub.post(path_of("incidents", _whole(hub, identity.strip().lower()), "ack"))
    incident = record(answer)
    if as_json:
        show.document(answer)
        return
    sentence = show.line(incident.get("sentence") or "")
    show.out(f"acknowledged{': ' if sentence else ''}{sentence}")


def _whole(hub: Hub, identity: str) -> str:
    if len(identity) >= _WHOLE:
        return identity
    if len(identity) < 4:
        raise CommandError(f"expected at least 4 characters of the incident's id, got {identity!r}")
    ids = [str(incident.get("id")) for incident in list_incidents(hub, everything=False)]
    fitting = [i for i in ids if i.endswith(identity) or i.startswith(identity)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        shown = ", ".join(i[-SHORT:] for i in fitting[:10])
        raise CommandError(
            f"{identity!r} fits {len(fitting)} incidents ({shown}); write more of it"
        )
    raise CommandError(
        f"no open incident has the id {identity!r}; list them with: midwatch incidents"
    )
