"""Options by which traces and sessions are chosen, said once."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from midwatch.cli.cost import moment_of

_Words = list[str] | None


def _several(name: str, what: str) -> Any:
    return typer.Option(f"--{name}", metavar=name.upper(), help=f"Of this {what}; may be repeated.", show_default=False)  # fmt: skip


Agent = Annotated[_Words, _several("agent", "agent")]
Session = Annotated[_Words, _several("session", "session")]
User = Annotated[_Words, _several("user", "user")]
RunId = Annotated[_Words, _several("run", "run")]
Model = Annotated[_Words, _several("model", "model")]
Tool = Annotated[_Words, _several("tool", "tool")]
Outcome = Annotated[_Words, _several("outcome", "outcome")]
Tag = Annotated[
    _Words,
    typer.Option("--tag", metavar="NAME=VALUE", help="With this tag; may be repeated.", show_default=False),
]  # fmt: skip
Failed = Annotated[
    bool | None,
    typer.Option("--failed/--not-failed", help="With an error in it, or without.", show_default=False),
]  # fmt: skip
Open = Annotated[
    bool | None, typer.Option("--open/--over", help="Still going on, or not.", show_default=False)
]
Lost = Annotated[
    bool | None,
    typer.Option("--lost/--not-lost", help="With spans whose run was lost, or without.", show_default=False),
]  # fmt: skip
Flagged = Annotated[
    bool | None,
    typer.Option("--flagged/--not-flagged", help="With a tool's result that speaks to the model, or without.", show_default=False),
]  # fmt: skip
Text = Annotated[
    str | None,
    typer.Option("--text", metavar="TEXT", help="With this text in a name, message or content.", show_default=False),
]  # fmt: skip
Since = Annotated[
    str | None,
    typer.Option(metavar="T", help="Begun from then on: 24h (ago), or 2026-01-31T02:00.", show_default=False),
]  # fmt: skip
Until = Annotated[
    str | None, typer.Option(metavar="T", help="Begun before then.", show_default=False)
]
Longer = Annotated[
    float | None,
    typer.Option("--min-seconds", min=0, help="At least so long.", show_default=False),
]
Dearer = Annotated[
    float | None,
    typer.Option("--min-usd", min=0, help="At least so dear.", show_default=False),
]
Limit = Annotated[int, typer.Option("--limit", "-n", min=1, max=10_000, help="At most so many.")]


def moments(since: str | None, until: str | None) -> dict[str, Any]:
    """Return the window of a request."""
    return {
        "since": None if since is None else moment_of(since),
        "until": None if until is None else moment_of(until),
    }


def flag(value: bool | None) -> str | None:
    """Return a choice of yes, no and either as the API reads it."""
    return None if value is None else str(value).lower()
