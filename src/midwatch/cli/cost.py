"""What agents cost, and what a batch will cost."""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from midwatch.cli import show
from midwatch.cli.client import Hub, record, records
from midwatch.cli.exits import BAD, CommandError
from midwatch.cli.gateway import ask
from midwatch.cli.instance import find
from midwatch.cli.options import Data, Json, Url

ROWS_AT_ONCE = 500
"""Rows of one request to the gateway."""

By = Annotated[
    Literal["agent", "model", "provider", "session", "task", "tag", "key", "day"],
    typer.Option("--by", help="What is summed up."),
]
Since = Annotated[
    str | None,
    typer.Option(
        metavar="T",
        help="From then on: 24h (ago), or 2026-01-31T02:00. Left out: all that is kept.",
        show_default=False,
    ),
]


Items = Annotated[int, typer.Option("--items", min=1, help="Pieces of work.")]
Model = Annotated[str | None, typer.Option(help="As calls name it.", show_default=False)]
CallsPerItem = Annotated[
    float | None,
    typer.Option(min=0.001, help="Default: 1; with --like, as it was.", show_default=False),
]
Input = Annotated[int, typer.Option("--input", min=0, help="Tokens sent with each call.")]
Cached = Annotated[
    int, typer.Option("--cached", min=0, help="Of them, read from the provider's cache.")
]
Output = Annotated[
    int, typer.Option("--output", min=0, help="Tokens of each answer, with reasoning.")
]
Batch = Annotated[bool, typer.Option("--batch", help="At the price of batches.")]
Like = Annotated[
    str | None,
    typer.Option(
        metavar="AGENT",
        help="Like the calls of this agent today, instead of --model.",
        show_default=False,
    ),
]
Margin = Annotated[float, typer.Option(min=1.0, help="For retries and longer items.")]
Tag = Annotated[
    str | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="Compare with what calls with this tag (x-midwatch-tags) have cost.",
        show_default=False,
    ),
]
Done = Annotated[
    int | None,
    typer.Option(min=0, help="Items that are done, to compare with.", show_default=False),
]
Trip = Annotated[
    float, typer.Option(min=1.0, help="The multiple of the estimate that is too much.")
]
Provider = Annotated[
    str, typer.Option("--provider", metavar="NAME", help="Whose list holds.", show_default=False)
]


def add(app: typer.Typer) -> None:
    """Add the command and what is below it."""
    below = typer.Typer(
        help="What agents cost, and what a batch will cost.",
        invoke_without_command=True,
        rich_markup_mode="markdown",
    )
    below.callback()(cost)
    below.command("estimate")(estimate)
    below.command("reconcile")(reconcile)
    app.add_typer(below, name="cost")


def cost(
    context: typer.Context,
    by: By = "agent",
    since: Since = None,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Show what agents cost, dearest first.

    The gateway's ledger has the word; where it did not carry a run's calls, what the agent reports itself counts. A
    call with two tags stands in two rows, and once in the total. Days are those of the fleet's time zone.
    """
    if context.invoked_subcommand is not None:
        return
    moment = None if since is None else moment_of(since)
    found = record(Hub(find(data, url)).get("/api/cost", by=by, since=moment))
    rows = records(found.get("rows"))
    if as_json:
        show.document({"total_usd": found.get("total_usd"), "rows": rows})
        return
    table: list[tuple[str, ...]] = [(by.upper(), "COST", "CALLS", "TOKENS", "")]
    for row in rows:
        name = row.get(by)
        notes = [f"{row['estimated']:,} calls estimated"] if row.get("estimated") else []
        if row.get("disputed"):
            notes.append(f"{row['disputed']:,} calls disputed")
        if row.get("saved_usd"):
            notes.append(f"{dollars(row['saved_usd'])} saved by caches")
        if row.get("reported_usd") is not None:
            notes.append(f"{dollars(row['reported_usd'])} by its own word")
        table.append(
            (
                show.line(name) if name is not None else "-",
                dollars(row.get("cost_usd")),
                number(row.get("model_calls")),
                number(row.get("tokens")),
                ", ".join(notes),
            )
        )
    if rows:
        show.columns(table)
    show.out(f"total {dollars(found.get('total_usd'))}")


def estimate(
    items: Items,
    model: Model = None,
    calls_per_item: CallsPerItem = None,
    input_tokens: Input = 0,
    cached_tokens: Cached = 0,
    output_tokens: Output = 0,
    batch: Batch = False,
    like: Like = None,
    margin: Margin = 1.3,
    tag: Tag = None,
    since: Since = None,
    done: Done = None,
    trip: Trip = 1.5,
    provider: Provider = "",
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Estimate what a batch will cost, and compare with it while it runs; the exit code is 1 above --trip.

    Items × calls for each × the price of a call × a margin. With --like, calls for each item and their price are those
    of an agent that reports its items. With --tag, what was spent stands beside it.
    """
    from midwatch.core.calls.estimate import Estimate

    if (model is None) == (like is None):
        raise CommandError("give one of --model MODEL and --like AGENT")
    if like is not None:
        nusd, calls = _like(Hub(find(data, url)), like)
    else:
        assert model is not None
        if input_tokens + output_tokens == 0:
            raise CommandError("give the tokens of one call: --input and --output")
        nusd = _price(
            model, provider, data, input_tokens, cached_tokens, output_tokens, batch=batch
        )
        calls = 1.0
    try:
        made = Estimate(items, calls_per_item or calls, nusd, margin)
    except ValueError as error:
        raise CommandError(str(error)) from None
    progress = None
    if tag is not None:
        progress = made.progress(_spent(Hub(find(data, url)), tag, since), done, trip)
    shown: dict[str, Any] = {
        "items": items,
        "calls": made.calls,
        "calls_per_item": made.calls_per_item,
        "call_usd": nusd / 1e9,
        "margin": margin,
        "estimate_usd": made.nusd / 1e9,
        "progress": None if progress is None else progress.to_json(),
    }
    if as_json:
        show.document(shown)
    else:
        _print(shown, tag)
    if progress is not None and progress.tripped:
        raise typer.Exit(BAD)


def reconcile(
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="FILE",
            help="Figures that you have: JSON Lines or a list, - for standard input; each row has `call` or "
            "`response` (an id), and `cost_nusd`, `cost_usd` or the provider's `usage`.",
            show_default=False,
        ),
    ] = None,
    data: Data = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Settle calls exactly whose cost had to be guessed: left open by a crash, expired, or estimated.

    Without --from they are looked up at their providers, where those tell what one call came to. It can be done again
    at any time: what is exact already does not change. The exit code is 1 where figures were not taken.
    """
    hub = Hub(find(data, url))
    body: dict[str, Any] = {"by": "command line"}
    rows = None if source is None else _rows(source)
    asked = [body] if rows is None else [{**body, "rows": some} for some in _chunks(rows)]
    results: dict[str, int] = {}
    taken: list[dict[str, Any]] = []
    for one in asked:
        answer = ask(hub, "POST", "reconcile", one)
        taken += records(answer.get("rows"))
        for name, count in record(answer.get("results")).items():
            results[name] = results.get(name, 0) + (count if isinstance(count, int) else 0)
    if as_json:
        show.document({"results": results, "rows": taken})
    else:
        said = [f"{count:,} {name}" for name, count in sorted(results.items()) if count]
        show.out(", ".join(said) or "no call's cost is in doubt, or no provider of one can tell it")
        for row in taken:
            if row.get("result") in ("unread", "unknown"):
                named = row.get("call") or row.get("response") or "a row"
                show.note(
                    f"{show.line(str(named))}: {show.line(str(row.get('why') or 'no such call'))}"
                )
    if results.get("unread") or (rows is not None and results.get("unknown")):
        raise typer.Exit(BAD)


def _chunks(rows: list[Any]) -> list[list[Any]]:
    return [rows[at : at + ROWS_AT_ONCE] for at in range(0, len(rows), ROWS_AT_ONCE)]


def _rows(source: str) -> list[Any]:
    """Return the rows of a file of JSON Lines, or of a JSON list. Raises CommandError."""
    try:
        text = sys.stdin.read() if source == "-" else Path(source).read_text()
        if text.lstrip().startswith("["):
            return list(json.loads(text))
        return [json.loads(line) for line in text.splitlines() if line.strip()]
    except OSError as error:
        raise CommandError(f"--from {source!r}: {error.strerror}") from None
    except ValueError as error:
        raise CommandError(
            f"--from {source!r} is neither JSON Lines nor a JSON list: {error}"
        ) from None


def _print(shown: dict[str, Any], tag: str | None) -> None:
    show.out(
        f"{shown['items']:,} items, {shown['calls']:,} calls at {dollars(shown['call_usd'])},"
        f" margin {shown['margin']:g}: {dollars(shown['estimate_usd'])}"
    )
    progress = shown["progress"]
    if progress is None:
        return
    said = f"{show.line(tag)} has cost {dollars(progress['actual_usd'])} of {dollars(progress['expected_usd'])}"
    if progress["forecast_usd"] is not None:
        said += f"; {dollars(progress['forecast_usd'])} for all, going on like this"
    show.out(show.paint(said, "red" if progress["tripped"] else "green"))
    show.note(
        f"To hold it to that, in the fleet file: budgets: [{{tag: {show.line(tag)}, total: {dollars(shown['estimate_usd'])}}}]"
    )


def _price(
    model: str,
    provider: str,
    data: Path | None,
    given: int,
    cached: int,
    answer: int,
    *,
    batch: bool,
) -> int:
    """Return nano-dollars of one call."""
    from midwatch.cli.prices import shelf_of
    from midwatch.core.pricing.names import canonical, maker
    from midwatch.core.pricing.usage import Tier, Usage

    if cached > given:
        raise CommandError(f"--cached {cached} is part of --input, which is {given}")
    shelf, _ = shelf_of(data)
    front, slash, _ = model.partition("/")
    seller = canonical(provider or (maker(model) or (front if slash else "")))
    usage = Usage(
        input_text=given - cached,
        cache_read=cached,
        output_text=answer,
        tier=Tier.BATCH if batch else Tier.DEFAULT,
    )
    quote = shelf.quote(usage, provider or seller, seller, model, time.time())
    if quote.nusd is None:
        raise CommandError(
            f"the price of {model!r} is not known; see midwatch prices show, or set one with"
            " midwatch prices set",
            1,
        )
    return quote.nusd


def _like(hub: Hub, agent: str) -> tuple[int, float]:
    """Return nano-dollars of a call and calls for each item, as an agent had them today."""
    from midwatch.core.times import day_start, zone_of

    today = record(record(hub.get(f"/api/agents/{agent}")).get("today"))
    items = today.get("items")
    zone = zone_of(str(record(hub.get("/api/fleet")).get("timezone") or "UTC"))
    midnight = day_start(time.time(), zone)
    rows = records(record(hub.get("/api/cost", by="agent", since=midnight)).get("rows"))
    row = next((row for row in rows if row.get("agent") == agent), None)
    calls = None if row is None else row.get("model_calls")
    nusd = None if row is None else row.get("cost_nusd")
    if not isinstance(items, int) or items < 1:
        raise CommandError(
            f"{show.line(agent)} has reported no items today; say --model, --input and --output instead",
            1,
        )
    if not isinstance(calls, int) or calls < 1 or not isinstance(nusd, int):
        raise CommandError(f"no calls of {show.line(agent)} are known; say --model instead", 1)
    return -(-nusd // calls), calls / items


def _spent(hub: Hub, tag: str, since: str | None) -> int:
    """Return nano-dollars of calls with a tag."""
    moment = None if since is None else moment_of(since)
    rows = records(record(hub.get("/api/cost", by="tag", since=moment)).get("rows"))
    row = next((row for row in rows if row.get("tag") == tag), None)
    spent = None if row is None else row.get("cost_nusd")
    return spent if isinstance(spent, int) else 0


def moment_of(text: str) -> float:
    """Return Unix seconds of `24h` (ago) or a time; one without an offset is local."""
    from midwatch.core.units import parse_duration

    try:
        return time.time() - parse_duration(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(text).astimezone().timestamp()
    except (ValueError, OverflowError):
        raise CommandError(
            f"--since: expected how long ago (24h, 7d) or a time (2026-01-31T02:00), got {text!r}"
        ) from None


def dollars(value: object) -> str:
    """Return `$1.20`, `$0.0038`, or `-` for what nobody said."""
    from midwatch.core.units import show_money

    if isinstance(value, bool) or not isinstance(value, int | float):
        return "-"
    return show_money(round(value * 1e9))


def number(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else "-"
