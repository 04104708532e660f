"""What models cost: by each list, where the lists disagree, and one's own word over both."""

from __future__ import annotations

import json
import os
import tempfile
import time
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, cast

import typer

from midwatch.cli import show
from midwatch.cli.exits import CommandError
from midwatch.cli.instance import data_directory
from midwatch.cli.options import Data, Json

if TYPE_CHECKING:
    from midwatch.core.pricing.own import Own
    from midwatch.core.pricing.price import Price, Rates
    from midwatch.core.pricing.shelf import Shelf

STALE_DAYS: Final = 90
"""A list that is older is told so: prices have changed since."""

Provider = Annotated[
    str,
    typer.Option(
        "--provider",
        metavar="NAME",
        help="Whose list holds: openai, anthropic, google, azure, aws, openrouter and others. "
        "Default: the model's maker.",
        show_default=False,
    ),
]


def add(app: typer.Typer) -> None:
    """Add the command and what is below it."""
    below = typer.Typer(
        help="What models cost, and where the lists disagree.",
        no_args_is_help=True,
        rich_markup_mode="markdown",
    )
    below.command("show")(show_prices)
    below.command("diff")(diff)
    below.command("set")(set_price)
    below.command("unset")(unset)
    app.add_typer(below, name="prices")


def show_prices(
    model: Annotated[
        str | None,
        typer.Argument(help="As calls name it. Left out: the lists, and your own prices."),
    ] = None,
    provider: Provider = "",
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Show what a model costs by each list, and which price holds.

    Your own prices win (`models.prices` in the fleet file, and `midwatch prices set` over those), then what
    the provider reports, then the higher one of two lists. Dollars per million tokens.
    """
    shelf, own = shelf_of(data)
    if model is None:
        _show_lists(shelf, own, as_json=as_json)
        return
    from midwatch.core.pricing.names import canonical, maker

    front, slash, _ = model.partition("/")
    seller = canonical(provider or (maker(model) or (front if slash else "")))
    found = shelf.find(provider or seller, seller, model)
    prices = found.prices(time.time())
    if as_json:
        show.document(
            {
                "model": model,
                "provider": seller,
                "context": found.window,
                "max_output": found.max_output,
                "prices": [_described(price) for price in prices],
            }
        )
    elif prices:
        _show_model(prices, found.window, found.max_output)
    if not prices:
        raise CommandError(
            f"no list knows the model {model!r}"
            + (f" of {seller!r}" if seller else "; name its provider with --provider")
            + "; give it a price with: midwatch prices set MODEL input=1.00/M output=2.00/M",
            1,
        )


def diff(provider: Provider = "", as_json: Json = False) -> None:
    """List where the two lists disagree by more than 2 %. Such calls are charged at the higher price.

    Dollars per million tokens, searches and requests by the piece.
    """
    from midwatch.core.pricing.book import bundled
    from midwatch.core.pricing.differing import differences
    from midwatch.core.pricing.names import canonical

    first, second = bundled()
    found = list(differences(first, second, time.time(), canonical(provider)))
    if as_json:
        show.document(
            [
                {
                    "provider": d.seller,
                    "model": d.model,
                    "part": d.part,
                    first.source: _dollars(d.first),
                    second.source: _dollars(d.second),
                    "percent": None if d.percent is None else round(d.percent, 1),
                }
                for d in found
            ]
        )
        return
    rows: list[tuple[str, ...]] = [
        ("PROVIDER", "MODEL", "PART", first.source, second.source, "APART")
    ]
    for d in found:
        apart = "one is free" if d.percent is None else f"{d.percent:.0f}%"
        rows.append((d.seller, d.model, d.part, _dollars(d.first), _dollars(d.second), apart))
    show.columns([tuple(show.line(cell) for cell in row) for row in rows])
    models = len({(d.seller, d.model) for d in found})
    show.note(f"{models} models on which {first.source} and {second.source} disagree")


def set_price(
    model: Annotated[
        str, typer.Argument(help="As calls name it, PROVIDER/MODEL, or a pattern with *.")
    ],
    prices: Annotated[
        list[str],
        typer.Argument(
            help="KEY=PRICE: input=0.20/M cached_input=0.02/M output=0.80/M request=0.001 batch=50%, "
            "or like=OTHER-MODEL. Dollars.",
        ),
    ],
    data: Data = None,
) -> None:
    """Set a price of your own. It wins over the fleet file's and over every list.

    A running gateway takes it over at the next `midwatch reload`.
    """
    from midwatch.core.pricing.own import SET, read_prices

    entry = _entry(prices)
    try:
        read_prices({model: entry}, SET)
    except ValueError as error:
        raise CommandError(str(error)) from None
    directory = data_directory(data)
    kept = {name: e for name, e in _kept(directory).items() if name.lower() != model.lower()}
    _write(directory, {**kept, model: entry})
    show.out(show.line(f"{model}: {', '.join(f'{k} {v}' for k, v in entry.items())}"))
    _tell(directory)


def unset(
    model: Annotated[str, typer.Argument(help="As it was set.")],
    data: Data = None,
) -> None:
    """Take back a price that was set with `midwatch prices set`."""
    directory = data_directory(data)
    kept = _kept(directory)
    left = {name: entry for name, entry in kept.items() if name.lower() != model.lower()}
    if len(left) == len(kept):
        known = ", ".join(sorted(kept)) or "none is set"
        raise CommandError(f"no price was set for {model!r}; set are: {known}", 1)
    _write(directory, left)
    show.out(show.line(f"{model}: taken back"))
    _tell(directory)


def _entry(words: list[str]) -> dict[str, str]:
    """Return an entry from KEY=PRICE. The dollar sign may be left out: shells take it for their own."""
    entry: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not value:
            raise CommandError(f"expected KEY=PRICE such as input=0.20/M, got {word!r}")
        key = key.strip().replace("-", "_")
        if key in entry:
            raise CommandError(f"{key!r} is given twice")
        bare = value.strip()
        plain = key == "like" or bare.startswith("$") or bare.endswith(("%", "x"))
        entry[key] = bare if plain else f"${bare}"
    return entry


def _tell(directory: Path) -> None:
    from midwatch.cli.instance import is_running

    if is_running(directory):
        show.note("The running gateway takes it over with: midwatch reload")


def file_of(directory: Path) -> Path:
    """Return where prices of one's own are kept in a data directory."""
    return directory / "gateway" / "prices.json"


def _kept(directory: Path) -> dict[str, Any]:
    from midwatch.core.pricing.own import entries

    document = _read(file_of(directory))
    if document is None:
        return {}
    try:
        return entries(document)
    except ValueError as error:
        raise CommandError(f"{file_of(directory)}: {error}; mend it or delete it") from None


def _read(path: Path) -> object:
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CommandError(f"{path} cannot be read ({error}); mend it or delete it") from None


def _write(directory: Path, prices: dict[str, Any]) -> None:
    """Write the whole file beside itself and put it in place: nobody ever reads half of it."""
    from midwatch.core.pricing.own import FILE_VERSION

    path = file_of(directory)
    text = json.dumps({"v": FILE_VERSION, "prices": dict(sorted(prices.items()))}, indent=1)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, beside = tempfile.mkstemp(prefix=".prices-", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text + "\n")
                file.flush()
                os.fsync(file.fileno())
            Path(beside).replace(path)
        except BaseException:
            with suppress(OSError):
                Path(beside).unlink()
            raise
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror}") from None


def shelf_of(data: Path | None) -> tuple[Shelf, dict[str, Own]]:
    """Return all prices, one's own as the running or last fleet has them."""
    from midwatch.core.pricing.own import merge
    from midwatch.core.pricing.shelf import Shelf

    directory = data_directory(data)
    fleet = _read(directory / "fleet.json")
    models = cast("dict[str, Any]", fleet).get("models") if isinstance(fleet, dict) else None
    said = cast("dict[str, Any]", models).get("prices") if isinstance(models, dict) else None
    try:
        own = merge(said, _read(file_of(directory)))
    except ValueError as error:
        raise CommandError(f"{directory}: {error}") from None
    return Shelf(own), own


def _show_lists(shelf: Shelf, own: dict[str, Own], *, as_json: bool) -> None:
    counted = [
        (book, len({(s, m) for s in book.sellers for m in book.models(s)})) for book in shelf.books
    ]
    if as_json:
        show.document(
            {
                "lists": [
                    {"source": b.source, "read_on": b.read_on, "models": n, "providers": b.sellers}
                    for b, n in counted
                ],
                "own": {
                    name: _described(o.price) if o.price is not None else {"like": o.like}
                    for name, o in own.items()
                },
            }
        )
        return
    today = datetime.now(UTC).date()
    for book, count in counted:
        age = (today - date.fromisoformat(book.read_on)).days
        old = f"; {age} days old, a newer midwatch brings a newer one" if age > STALE_DAYS else ""
        show.out(
            f"{book.source}: {count} models of {len(book.sellers)} providers, read on {book.read_on}{old}"
        )
    for name, mine in own.items():
        said = f"like {mine.like}" if mine.price is None else _sentence(mine.price)
        show.out(show.line(f"{name}: {said}"))


def _sentence(price: Price) -> str:
    rates = ", ".join(f"{part.value} {_dollars(rate)}" for part, rate in price.table.rates.items())
    return f"{rates} ({price.source})"


def _show_model(prices: list[Price], window: int | None, longest: int | None) -> None:
    heads = [(price.source, price.name) for price in prices]
    rows: list[tuple[str, ...]] = [("", *(f"{source}: {name}" for source, name in heads), "")]
    tables = [_tables(price) for price in prices]
    labels = dict.fromkeys(label for table in tables for label in table)
    rows += [(label, *(table.get(label, "-") for table in tables), "") for label in labels]
    show.columns([tuple(show.line(cell) for cell in row) for row in rows])
    size = [f"context {window}"] if window else []
    size += [f"longest answer {longest}"] if longest else []
    if size:
        show.out(", ".join(size) + " tokens")


def _tables(price: Price) -> dict[str, str]:
    """Return every rate of a price, labelled."""
    from midwatch.core.pricing.usage import FEES

    found: dict[str, str] = {}

    def put(rates: Rates, suffix: str) -> None:
        for part, rate in rates.items():
            if not suffix or part not in FEES:  # pieces cost the same at every tier and length
                found[part.value + suffix] = _dollars(rate)

    put(price.table.rates, "")
    for above, rates in price.table.bands:
        put(rates, f" above {above}")
    for tier, table in price.tiers.items():
        put(table.rates, f" {tier.value}")
        for above, rates in table.bands:
            put(rates, f" {tier.value} above {above}")
    for place, per_mille in price.uplift.items():
        found[f"in {place}"] = f"{per_mille / 10:g}%"
    return found


def _described(price: Price) -> dict[str, Any]:
    return {"source": price.source, "name": price.name, "usd": _tables(price)}


def _dollars(nusd: int) -> str:
    """Return dollars with as many digits as they need, at least two."""
    whole, rest = divmod(nusd, 1_000_000_000)
    return f"{whole}.{f'{rest:09d}'.rstrip('0').ljust(2, '0')}"
