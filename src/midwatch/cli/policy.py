"""What the model policy would say, without a call."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from midwatch.cli import show
from midwatch.cli.client import Hub, records
from midwatch.cli.exits import BAD
from midwatch.cli.gateway import ask
from midwatch.cli.instance import find
from midwatch.cli.options import Data, Json, Url


def add(app: typer.Typer) -> None:
    """Add the command and what is below it."""
    below = typer.Typer(
        help="Which model may do which work.", no_args_is_help=True, rich_markup_mode="markdown"
    )
    below.callback()(_root)
    below.command("explain")(explain)
    app.add_typer(below, name="policy")


def _root() -> None:
    """Keep `explain` a word of its own: without this, one command alone would swallow it."""


def explain(
    agent: Annotated[str, typer.Argument(help="The agent that would call.")],
    model: Annotated[str, typer.Argument(help="The model, as it would ask for it.")],
    task: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="As x-midwatch-task names it.", show_default=False),
    ] = None,
    tags: Annotated[
        list[str] | None,
        typer.Option("--tag", metavar="NAME=VALUE", help="A tag of the call.", show_default=False),
    ] = None,
    kind: Annotated[
        str, typer.Option(metavar="KIND", help="Of the client: openai, anthropic or gemini.")
    ] = "openai",
    input_tokens: Annotated[int, typer.Option(min=0, help="Tokens of the prompt.")] = 1_000,
    max_output: Annotated[int, typer.Option(min=0, help="The bound of the answer.")] = 1_000,
    prompt: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="For rules that look at it.", show_default=False),
    ] = None,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Say what each rule says of a call, at each place that would be asked. Nothing is called.

    Exit code 1 when the call would be refused.
    """
    body: dict[str, Any] = {
        "agent": agent, "model": model, "kind": kind, "input_tokens": input_tokens, "max_output": max_output,
        "tags": _tags(tags or []),
    }  # fmt: skip
    body |= {name: value for name, value in (("task", task), ("prompt", prompt)) if value}
    answer = ask(Hub(find(data, url)), "POST", "policy/explain", body)
    places = records(answer.get("places"))
    refused = not places or places[0].get("denied") is not None
    if as_json:
        show.document(answer)
    elif not places:
        show.out(show.line(answer.get("why") or f"nobody serves {model!r}"))
    else:
        for number, place in enumerate(places):
            _print(place, number)
    raise typer.Exit(BAD if refused else 0)


def _print(place: dict[str, Any], number: int) -> None:
    cost = place.get("may_cost_usd")
    price = f", ${cost:.6f} at the most" if isinstance(cost, int | float) else ", price unknown"
    how = place.get("because") or ("fallback" if place.get("fallback") else "first")
    show.out(f"{number + 1}. {show.line(place.get('place'))} ({how}{price}): {_verdict(place)}")
    for rule in records(place.get("rules")):
        shadow = " (shadow: nothing is done)" if rule.get("shadow") else ""
        said = show.line(f"{rule.get('rule')}: {rule.get('effect')}{shadow}")
        show.out(f"   {said}")


def _verdict(place: dict[str, Any]) -> str:
    by = f" ({show.line(place['rule'])})" if place.get("rule") else ""
    if place.get("denied") is not None:
        return f"refused: {show.line(place['denied'])}{by}"
    if place.get("forced") is not None:
        return f"goes to {show.line(place['forced'])} instead{by}"
    return "allowed"


def _tags(words: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"expected NAME=VALUE, got {word!r}", param_hint="--tag")
        found[name] = value
    return found
