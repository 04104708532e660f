"""Tokens for scripts and other machines."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, cast

import typer

from midwatch.cli import show
from midwatch.cli.client import Hub, path_of, record
from midwatch.cli.exits import UNREACHABLE, CommandError
from midwatch.cli.instance import find
from midwatch.cli.options import Data, Json, Url


class Scope(StrEnum):
    """What a token may be allowed; `node` tokens are made by Midwatch itself."""

    READ = "read"
    WRITE = "write"
    ACT = "act"
    ADMIN = "admin"


def add(app: typer.Typer) -> None:
    """Add the command and what is below it."""
    below = typer.Typer(
        help="Make, list and revoke API tokens.", no_args_is_help=True, rich_markup_mode="markdown"
    )
    below.command("create")(create)
    below.command("list")(list_tokens)
    below.command("revoke")(revoke)
    app.add_typer(below, name="token")


def create(
    name: Annotated[str, typer.Argument(help="What it is for; shown in the list.")],
    scopes: Annotated[
        list[Scope], typer.Option("--scope", help="What it may do; give it again for more.")
    ] = [Scope.READ],  # noqa: B006  typer copies it
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Make a token and print it. It is shown this once and kept only as a hash.

    `read`: see. `write`: report beats, events, runs. `act`: start, stop, acknowledge. `admin`: all
    of it, and tokens.
    """
    wanted = list(dict.fromkeys(scope.value for scope in scopes))
    answer: object = Hub(find(data, url)).post("/api/tokens", {"name": name, "scopes": wanted})
    made = record(answer)
    secret = made.get("token")
    if not isinstance(secret, str) or not secret:
        raise CommandError("the hub gave no token; is it of another version?", UNREACHABLE)
    if as_json:
        show.document(made)
    else:
        show.out(show.line(secret))


def list_tokens(data: Data = None, url: Url = None, as_json: Json = False) -> None:
    """List the tokens that were made, also the revoked; never the tokens themselves."""
    tokens = list(Hub(find(data, url)).items("/api/tokens"))
    if as_json:
        show.document(tokens)
        return
    if not tokens:
        show.out("No token was made; make one with: midwatch token create NAME")
    rows: list[tuple[str, ...]] = []
    for token in tokens:
        scopes: object = token.get("scopes")
        words = (
            " ".join(map(str, cast("list[Any]", scopes))) if isinstance(scopes, list) else scopes
        )
        ended = token.get("revoked_at")
        state = (
            f"revoked {show.moment(ended)}"
            if ended
            else f"made {show.moment(token.get('created_at'))}"
        )
        rows.append(tuple(show.line(v) for v in (token.get("id"), token.get("name"), words, state)))
    show.columns(rows)


def revoke(
    token: Annotated[str, typer.Argument(help="The token's id or name, as listed.")],
    data: Data = None,
    url: Url = None,
) -> None:
    """Revoke a token: it stops working at once."""
    Hub(find(data, url)).delete(path_of("tokens", token))
    show.out(f"revoked: {show.line(token)}")
