"""Saying that the hub's wall clock is right."""

from __future__ import annotations

from datetime import UTC, datetime

import typer

from midwatch.cli import show
from midwatch.cli.client import Hub, record
from midwatch.cli.instance import find
from midwatch.cli.options import Data, Json, Url


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command("trust-clock")(trust_clock)


def trust_clock(data: Data = None, url: Url = None, as_json: Json = False) -> None:
    """Say that the hub's clock is right, after a clock-jump: ages are reckoned by it again.

    It holds for all hubs of the fleet whose clocks agree. What is too old by it goes within half a minute. Without this it is believed once it has gone evenly for a day.
    """
    answer = record(Hub(find(data, url)).post("/api/clock/trust"))
    if as_json:
        show.document(answer)
        return
    at = answer.get("aged")
    shown = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if isinstance(at, float) else "its time"  # fmt: skip
    show.out(f"The hub's clock is believed; ages are reckoned by {shown}.")
