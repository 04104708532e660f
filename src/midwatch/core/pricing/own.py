"""Prices that a person wrote: `models.prices` of the fleet file and `gateway/prices.json` of `midwatch
prices set`. Both take the same keys, and win over every list.

    my-model: {input: $0.20/M, cached_input: $0.02/M, output: $0.80/M}
    groq/llama-5: {input: $0.10/M, output: $0.40/M, batch: 50%, request: $0.001}
    long-one: {input: $1/M, output: $4/M, above: {200k: {input: $2/M, output: $6/M}}}
    my-azure-deployment: {like: gpt-4o}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import Any, Final, cast

from midwatch.core.nearest import nearest
from midwatch.core.pricing.book import nusd
from midwatch.core.pricing.names import MAX_NAME, spellings
from midwatch.core.pricing.price import PER_MILLE, Price, Rates, Table
from midwatch.core.pricing.usage import FEES, Part, Tier
from midwatch.core.units import Unexpected

KEYS: Final = {
    "input": Part.INPUT_TEXT,
    "output": Part.OUTPUT_TEXT,
    "cached_input": Part.CACHE_READ,
    "cache_write": Part.CACHE_WRITE_5M,
    "cache_write_1h": Part.CACHE_WRITE_1H,
    "cache_write_12h": Part.CACHE_WRITE_12H,
    "reasoning": Part.REASONING,
    "input_audio": Part.INPUT_AUDIO,
    "input_image": Part.INPUT_IMAGE,
    "input_video": Part.INPUT_VIDEO,
    "cached_audio": Part.CACHE_READ_AUDIO,
    "cached_image": Part.CACHE_READ_IMAGE,
    "output_audio": Part.OUTPUT_AUDIO,
    "output_image": Part.OUTPUT_IMAGE,
    "citation": Part.CITATION,
    "request": Part.REQUESTS,
    "web_search": Part.WEB_SEARCHES,
    "file_search": Part.FILE_SEARCHES,
    "map_search": Part.MAP_SEARCHES,
}
"""What a price of one's own may name."""

TIERS: Final = (Tier.BATCH, Tier.FLEX, Tier.PRIORITY, Tier.FAST)
"""Tiers that it may name, each with rates of its own or as a share of the usual ones (50%, 2x)."""

MAX_MODELS: Final = 10_000

_RATE: Final = re.compile(r"\$ ?([0-9]{1,7}(?:\.[0-9]{1,12})?) ?/ ?([MmKk])(?:Tok|tok|tokens)?")
_FEE: Final = re.compile(r"\$ ?([0-9]{1,7}(?:\.[0-9]{1,9})?)")
_SHARE: Final = re.compile(r"([0-9]{1,4}(?:\.[0-9]{1,3})?) ?(%|x)")
_LENGTH: Final = re.compile(r"([0-9]{1,9})([kKM]?)")


@dataclass(frozen=True, slots=True)
class Own:
    """A price of one's own: written out, or like another model's."""

    price: Price | None
    like: str = ""


def parse_rate(value: object) -> int:
    """Return nano-dollars per million tokens for `$0.20/M` or `$0.0002/k`. Raises Unexpected."""
    match = _RATE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        bare = isinstance(value, int | float) and not isinstance(value, bool)
        hint = f"did you mean ${value}/M?" if bare else None
        if isinstance(value, str) and _FEE.fullmatch(value.strip()):
            hint = f"did you mean {value.strip()}/M?"
        raise Unexpected("dollars per million tokens such as $0.20/M", value, hint)
    return _nusd(str(Decimal(match[1]) * (1 if match[2] in "Mm" else 1000)), value)


def parse_fee(value: object) -> int:
    """Return nano-dollars for `$0.01`. Raises Unexpected."""
    match = _FEE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise Unexpected("dollars for one such as $0.01", value)
    return _nusd(match[1], value)


def _nusd(dollars: str, value: object) -> int:
    try:
        return nusd(dollars)
    except ValueError:
        raise Unexpected("a price below a million dollars", value) from None


def read_price(entry: object, source: str, name: str) -> Own:
    """Return the price that an entry says. Raises Unexpected, which names the key."""
    if not isinstance(entry, dict):
        raise Unexpected("a price such as {input: $0.20/M, output: $0.80/M}", entry)
    said = cast("dict[str, Any]", entry)
    if "like" in said:
        like = said["like"]
        if len(said) > 1 or not isinstance(like, str) or not 0 < len(like) <= MAX_NAME:
            raise Unexpected("like: MODEL alone, or prices", said)
        return Own(None, like)
    rates = _rates({k: v for k, v in said.items() if k not in TIERS and k != "above"})
    if not rates:
        raise Unexpected("at least one of input, output and request", said)
    bands = _bands(said.get("above"))
    tiers = {tier: _tier(said[tier.value], rates, bands) for tier in TIERS if tier.value in said}
    return Own(Price(Table(rates, bands), tiers, {}, source, name))


def _rates(said: object) -> dict[Part, int]:
    if not isinstance(said, dict):
        raise Unexpected("prices such as {input: $0.20/M, output: $0.80/M}", said)
    found: dict[Part, int] = {}
    for key, value in cast("dict[Any, Any]", said).items():
        part = KEYS.get(str(key))
        if part is None:
            known = [*KEYS, *(tier.value for tier in TIERS), "above", "like"]
            close = nearest(str(key)[:40], known)
            hint = f"did you mean {close}?" if close else None
            raise Unexpected(f"one of {', '.join(known)}", key, hint)
        try:
            found[part] = parse_fee(value) if part in FEES else parse_rate(value)
        except Unexpected as error:
            raise Unexpected(f"{error.expected} under {key}", value, error.hint) from None
    return found


def _bands(said: object) -> tuple[tuple[int, Rates], ...]:
    if said is None:
        return ()
    if not isinstance(said, dict) or not said:
        raise Unexpected("above: {200k: {input: $2/M, output: $6/M}}", cast("object", said))
    bands: list[tuple[int, Rates]] = []
    for start, rates in cast("dict[Any, Any]", said).items():
        match = _LENGTH.fullmatch(str(start).strip())
        if match is None:
            raise Unexpected("a number of tokens such as 200k under above", start)
        length = int(match[1]) * {"": 1, "k": 1_000, "K": 1_000, "M": 1_000_000}[match[2]]
        bands.append((length, _rates(rates)))
    return tuple(sorted(bands, key=lambda band: band[0]))


def _tier(said: object, rates: Rates, bands: tuple[tuple[int, Rates], ...]) -> Table:
    if isinstance(said, dict):
        # what the tier leaves out costs the usual
        return Table({**rates, **_rates(cast("dict[str, Any]", said))})
    match = _SHARE.fullmatch(said.strip()) if isinstance(said, str) else None
    if match is None:
        raise Unexpected("a share of the usual price such as 50% or 2x, or prices", said)
    share = Decimal(match[1]) * (10 if match[2] == "%" else PER_MILLE)
    return Table(_share(rates, share), tuple((start, _share(band, share)) for start, band in bands))


def _share(rates: Rates, per_mille: Decimal) -> dict[Part, int]:
    whole = int(per_mille * 1000)
    return {
        part: rate if part in FEES else -(-rate * whole // (PER_MILLE * 1000))
        for part, rate in rates.items()
    }


def read_prices(entries: object, source: str) -> dict[str, Own]:
    """Return the prices by model of a document such as `models.prices`. Raises Unexpected, which names
    the model."""
    if not isinstance(entries, dict):
        raise Unexpected("prices by model", entries)
    said = cast("Mapping[Any, Any]", entries)
    if len(said) > MAX_MODELS:
        raise Unexpected(f"at most {MAX_MODELS} models", len(said))
    found: dict[str, Own] = {}
    for model, entry in said.items():
        name = str(model)
        if not 0 < len(name) <= MAX_NAME:
            raise Unexpected(f"a model's name of 1 to {MAX_NAME} characters", name)
        try:
            found[name.lower()] = read_price(entry, source, name)
        except Unexpected as error:
            raise Unexpected(
                f"{error.expected} in the price of {name}", entry, error.hint
            ) from None
    return found


class OwnPrices:
    """Prices of one's own, found by name: as written, `PROVIDER/MODEL` first; then by patterns with * and ?."""

    def __init__(self, prices: Mapping[str, Own]) -> None:
        self._exact = dict(prices)
        self._patterns = {name: own for name, own in prices.items() if "*" in name or "?" in name}

    def find(self, provider: str, model: str) -> Own | None:
        """Return the price for a provider's model, None when there is none. `provider`: as in the fleet
        file. A model is found under its other spellings (without date or provider) too."""
        front = provider.lower()
        names = list(spellings(model))
        for name in names:
            own = self._exact.get(f"{front}/{name}") or self._exact.get(name)
            if own is not None:
                return own
        for pattern, own in self._patterns.items():
            if fnmatchcase(f"{front}/{names[0]}", pattern) or fnmatchcase(names[0], pattern):
                return own
        return None

    def __len__(self) -> int:
        return len(self._exact)


FILE_VERSION: Final = 1
"""Of `gateway/prices.json`: {"v": 1, "prices": {MODEL: entry}}."""

SET: Final = "prices set"
FLEET: Final = "fleet file"


def merge(fleet: object, document: object) -> dict[str, Own]:
    """Return the prices of one's own: those of `models.prices`, and over them those of the document that
    `midwatch prices set` wrote (None: there is none). Raises Unexpected."""
    own = read_prices(fleet, FLEET) if fleet else {}
    return own if document is None else {**own, **read_prices(entries(document), SET)}


def entries(document: object) -> dict[str, Any]:
    """Return the entries of a decoded `gateway/prices.json`. Raises Unexpected."""
    said = cast("dict[str, Any]", document) if isinstance(document, dict) else {}
    prices = said.get("prices")
    if said.get("v") != FILE_VERSION or not isinstance(prices, dict):
        expected = f"prices that version {FILE_VERSION} of `midwatch prices set` wrote"
        raise Unexpected(expected, said or "something else")
    return cast("dict[str, Any]", prices)
