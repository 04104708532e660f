"""Long-lived keys for the gateway: for agents elsewhere, teams and people."""

from __future__ import annotations

import time
from typing import Annotated, Any, Final

import typer

from midwatch.cli import show
from midwatch.cli.client import Hub, record, records
from midwatch.cli.exits import UNREACHABLE, CommandError
from midwatch.cli.gateway import ask, part
from midwatch.cli.instance import find
from midwatch.cli.options import Data, Json, Url

NEVER: Final = "never"

Name = Annotated[str, typer.Argument(help="The key's name.")]


def _several(option: str, metavar: str, what: str, default: str = "Default: any.") -> Any:
    """An option that may be given several times."""
    told = f"{what}; repeat it for more. {default}".strip()
    return typer.Option(option, metavar=metavar, help=told, show_default=False)


Models = Annotated[
    list[str] | None,
    _several(
        "--model",
        "PATTERN",
        "A model that it may use, such as `'gpt-4o*'` or `'anthropic/*'`",
        "Default: all.",
    ),
]
Tasks = Annotated[
    list[str] | None,
    _several("--task", "PATTERN", "A task that its calls may name (x-midwatch-task)"),
]
Tags = Annotated[
    list[str] | None,
    _several(
        "--tag",
        "NAME=PATTERN",
        "A tag that its calls may give (x-midwatch-tags), such as `'customer=acme'`",
    ),
]
Budgets = Annotated[
    list[str] | None,
    _several(
        "--budget",
        "WINDOW=DOLLARS",
        "What it may spend: per_day=5, per_month=100, per_hour=1, per_call=0.50, total=20",
        "",
    ),
]


def add(app: typer.Typer) -> None:
    """Add the command and what is below it."""
    below = typer.Typer(
        help="Keys for the gateway that last: for agents elsewhere, teams and people.",
        no_args_is_help=True,
        rich_markup_mode="markdown",
    )
    below.command("create")(create)
    below.command("list")(list_keys)
    below.command("rotate")(rotate)
    below.command("revoke")(revoke)
    app.add_typer(below, name="key")


def create(
    name: Annotated[str, typer.Argument(help="How it is called where it is shown.")],
    agent: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Whose calls it carries: an agent's.", show_default=False
        ),
    ] = None,
    group: Annotated[
        str | None, typer.Option(metavar="NAME", help="Or a group's.", show_default=False)
    ] = None,
    person: Annotated[
        str | None, typer.Option(metavar="NAME", help="Or a person's.", show_default=False)
    ] = None,
    models: Models = None,
    tasks: Tasks = None,
    tags: Tags = None,
    expires: Annotated[
        str, typer.Option(metavar="DURATION", help="When it ends, such as 30d; or never.")
    ] = NEVER,
    budget: Budgets = None,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Make a key and print it: this once, and never again. It works at once.

    Exactly one of `--agent`, `--group` and `--person` says whose it is; budgets of that agent or group hold,
    too. Give it to a client as its API key, with the gateway's address as its base URL.
    """
    wanted: dict[str, Any] = {"name": name, "by": "command line"}
    wanted |= {k: v for k, v in (("agent", agent), ("group", group), ("person", person)) if v}
    if len(wanted) != 3:
        raise typer.BadParameter("say whose it is, by one of --agent, --group and --person")
    if models:
        wanted["models"] = models
    if tasks:
        wanted["tasks"] = tasks
    if tags:
        wanted["tags"] = _tags(tags)
    if expires != NEVER:
        wanted["expires_at"] = time.time() + _seconds(expires, "--expires")
    if budget:
        wanted["budget"] = _budget(budget)
    _print(ask(Hub(find(data, url)), "POST", "keys", wanted), as_json)


def list_keys(data: Data = None, url: Url = None, as_json: Json = False) -> None:
    """List the keys that were made, also the revoked; never the keys themselves."""
    keys = records(ask(Hub(find(data, url)), "GET", "keys").get("keys"))
    if as_json:
        show.document(keys)
        return
    if not keys:
        show.out("No key was made; make one with: midwatch key create NAME --agent AGENT")
    show.columns([tuple(show.line(cell) for cell in _row(key)) for key in keys])


def rotate(
    name: Name,
    overlap: Annotated[
        str, typer.Option(metavar="DURATION", help="How long the old one stays good beside it.")
    ] = "24h",
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Give a key a new secret and print it, this once; the old one stays good for the overlap."""
    body = {"overlap_s": _seconds(overlap, "--overlap")}
    _print(ask(Hub(find(data, url)), "POST", f"keys/{part(name)}/rotate", body), as_json)


def revoke(name: Name, data: Data = None, url: Url = None, as_json: Json = False) -> None:
    """Revoke a key: it is refused from now on, and calls under way that it carries are cut."""
    answer = ask(Hub(find(data, url)), "POST", f"keys/{part(name)}/revoke")
    if as_json:
        show.document(answer)
        return
    count = record(answer.get("receipt")).get("calls_cut")
    cut = f", {count} calls cut" if isinstance(count, int) and count else ""
    show.out(f"revoked: {show.line(name)}{cut}")


def _print(answer: dict[str, Any], as_json: bool) -> None:
    secret = answer.get("key")
    if not isinstance(secret, str) or not secret:
        raise CommandError("the gateway gave no key; is it of another version?", UNREACHABLE)
    if as_json:
        show.document(answer)
    else:
        show.out(show.line(secret))
    if answer.get("durable") is False:
        show.note(f"The key works, but is not on disk yet: {show.line(answer.get('problem'))}")


def _row(key: dict[str, Any]) -> tuple[object, ...]:
    whose = next(
        (f"{kind} {key[kind]}" for kind in ("agent", "group", "person") if key.get(kind)), "-"
    )
    models: Any = key.get("models") or []
    state = str(key.get("state"))
    if state == "active" and key.get("expires_at"):
        state = f"until {show.moment(key['expires_at'])}"
    used = f"used {show.moment(key['used_at'])}" if key.get("used_at") else "not used yet"
    hints = " ".join(f"…{hint.get('ends_in')}" for hint in records(key.get("hints")))
    return (key.get("name"), whose, " ".join(map(str, models)) or "all models", state, used, hints)


def _tags(words: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for word in words:
        name, equals, pattern = word.partition("=")
        if not equals or not name:
            raise typer.BadParameter(f"expected NAME=PATTERN, got {word!r}", param_hint="--tag")
        found.setdefault(name, []).append(pattern)
    return found


def _seconds(text: str, option: str) -> float:
    from midwatch.core.units import Unexpected, parse_duration

    try:
        return parse_duration(text)
    except Unexpected as error:
        raise typer.BadParameter(str(error), param_hint=option) from None


def _budget(words: list[str]) -> dict[str, Any]:
    """Return a budget as the gateway keeps it. The dollar sign may be left out: shells take it for their own."""
    from pydantic import ValidationError

    from midwatch.core.terms import Budget

    given: dict[str, str] = {}
    for word in words:
        window, equals, amount = word.partition("=")
        if not equals or window not in Budget.model_fields:
            raise typer.BadParameter(
                f"expected WINDOW=DOLLARS such as per_day=5, got {word!r}", param_hint="--budget"
            )
        bare = window in ("warn_at", "on_exhausted") or amount.startswith("$")
        given[window] = amount if bare else f"${amount}"
    try:
        return Budget.model_validate(given).model_dump(mode="json", exclude_unset=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise typer.BadParameter(f"{where}: {first['msg']}", param_hint="--budget") from None
