"""A fresh link to the pages."""

from __future__ import annotations

import typer

from midwatch.cli import show
from midwatch.cli.client import Hub, record
from midwatch.cli.exits import UNREACHABLE, CommandError
from midwatch.cli.instance import find
from midwatch.cli.options import Data, Json, Url


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command("link")(link)


def link(data: Data = None, url: Url = None, as_json: Json = False) -> None:
    """Print a link that signs one browser in to the pages; it works once, and not for long."""
    hub = Hub(find(data, url))
    answer: object = hub.post("/api/login-links")
    found = record(answer)
    address = found.get("url")
    if not isinstance(address, str) or not address:
        raise CommandError("the hub gave no link; is it of an older version?", UNREACHABLE)
    if address.startswith("/"):
        address = hub.instance.url + address
    if as_json:
        show.document({**found, "url": address})
    else:
        show.out(show.line(address))
