"""A price list that ships with the package: read from its file once, an entry when it is first asked for.

The files (`genai.json`, `litellm.json`) hold facts alone, written by tools/prices.py from the packages of
the same name; where and when from stands in their heads. Nothing is ever fetched; they are read as modules
are, by the import system.

    {source, version, read_on,
     prices: [{r: rates, b: [[above, rates]…], t: {tier: {r, b}}, u: uplift}],
     sellers: {name: {else: [other sellers], exact: {model: entry}, rules: [[clause, entry]…]}},
     entries: [[name, window, max_output, [[from, minute, price]…], prefill?]]}

They have a line for each price, seller and entry, and stay text: 0.7 MB, of which a process asks for a few lines;
all of it as objects would be 5 MB.
"""

from __future__ import annotations

import json
import pkgutil
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Any, Final, cast, overload

from midwatch.core.pricing.names import maker, spellings
from midwatch.core.pricing.price import MAX_RATE, Bands, Price, Table
from midwatch.core.pricing.usage import Part, Tier

FILES: Final = ("genai.json", "litellm.json")

CODES: Final = {
    "i": Part.INPUT_TEXT,
    "ia": Part.INPUT_AUDIO,
    "ii": Part.INPUT_IMAGE,
    "iv": Part.INPUT_VIDEO,
    "c": Part.CACHE_READ,
    "ca": Part.CACHE_READ_AUDIO,
    "ci": Part.CACHE_READ_IMAGE,
    "w": Part.CACHE_WRITE_5M,
    "w1": Part.CACHE_WRITE_1H,
    "w12": Part.CACHE_WRITE_12H,
    "o": Part.OUTPUT_TEXT,
    "r": Part.REASONING,
    "oa": Part.OUTPUT_AUDIO,
    "oi": Part.OUTPUT_IMAGE,
    "cite": Part.CITATION,
    "q": Part.REQUESTS,
    "web": Part.WEB_SEARCHES,
    "file": Part.FILE_SEARCHES,
    "map": Part.MAP_SEARCHES,
}
"""Short names of the parts in the files. Amounts are dollars, as text: for tokens per million."""

DAY_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class Listing:
    """What a list says of one model: its prices in the course of time, and its size."""

    name: str
    seller: str
    periods: tuple[tuple[int, int, Price], ...]
    """From the oldest: since when (Unix seconds), from which minute of the day (UTC) on, price."""
    window: int | None = None
    """Tokens of input that it takes."""
    max_output: int | None = None
    borrowed: bool = False
    """The seller has no price of its own here; another one's stands in."""
    prefill: bool | None = None
    """Whether it goes on with an answer that is begun for it; None: not known."""

    def at(self, at: float) -> Price:
        """Return the price at a time (Unix seconds). Before the first one that is known, that."""
        if len(self.periods) == 1:
            return self.periods[0][2]
        minute = int(at % DAY_S) // 60
        for start, from_minute, price in reversed(self.periods):
            if start <= at and from_minute <= minute:
                return price
        return self.periods[0][2]

    @property
    def since(self) -> int:
        """Since when the newest price holds (Unix seconds), 0 when that is not known."""
        return self.periods[-1][0]


class Book:
    """One price list."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.source = f"{data['source']} {data['version']}"
        self.read_on = str(data["read_on"])
        """The day on which it was taken from its source."""
        self._data = data
        self._sellers: dict[str, Any] = data["sellers"]
        self._listings: dict[tuple[int, str], Listing] = {}

    def find(self, seller: str, model: str) -> Listing | None:
        """Return what the list says of a seller's model, None when it does not know it.

        A seller that the list does not know, or who sells others' models, is answered for by those
        others, at last by the model's maker; that listing is `borrowed`.
        """
        names = list(spellings(model))
        own = self._sellers.get(seller)
        if own is not None:
            entry = self._match(own, names)
            if entry is not None:
                return self._listing(entry, seller)
        who = maker(model)
        others = [*(own["else"] if own is not None else ()), *((who,) if who else ())]
        for other in others:
            listed = self._sellers.get(other)
            entry = None if listed is None or other == seller else self._match(listed, names)
            if entry is not None:
                return self._listing(entry, seller, borrowed=True)
        return None

    def models(self, seller: str) -> list[str]:
        """Return the names of a seller's models that are in the list."""
        listed = self._sellers.get(seller)
        if listed is None:
            return []
        places = {*listed["exact"].values(), *(place for _, place in listed["rules"])}
        return sorted({str(self._data["entries"][place][0]) for place in places})

    @property
    def sellers(self) -> list[str]:
        return sorted(self._sellers)

    def _match(self, listed: Mapping[str, Any], names: Sequence[str]) -> int | None:
        exact: Mapping[str, int] = listed["exact"]
        rules: Sequence[tuple[Any, int]] = listed["rules"]
        for name in names:
            place = exact.get(name)
            if place is None:
                place = next((entry for clause, entry in rules if matches(clause, name)), None)
            if place is not None:
                return place
        return None

    def _listing(self, place: int, seller: str, *, borrowed: bool = False) -> Listing:
        known = self._listings.get((place, seller))
        if known is None:
            name, window, longest, periods, *more = self._data["entries"][place]
            known = self._listings[place, seller] = Listing(
                str(name),
                seller,
                tuple(
                    (s, m, _price(self._data["prices"][p], self.source, name))
                    for s, m, p in periods
                ),
                window,
                longest,
                borrowed,
                more[0] if more else None,
            )
        return known


def matches(clause: object, name: str) -> bool:
    """Tell whether a name meets a clause: [kind, text], or ["or" | "and", clause…]."""
    kind, *rest = cast("list[Any]", clause)
    match kind:
        case "or":
            return any(matches(inner, name) for inner in rest)
        case "and":
            return all(matches(inner, name) for inner in rest)
        case "=":
            return name == rest[0]
        case "^":
            return name.startswith(rest[0])
        case "$":
            return name.endswith(rest[0])
        case "*":
            return rest[0] in name
        case _:
            return _pattern(rest[0]).search(name) is not None


@cache
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text)


def _price(raw: Mapping[str, Any], source: str, name: object) -> Price:
    tiers = {Tier(tier): _table(table) for tier, table in raw.get("t", {}).items()}
    return Price(_table(raw), tiers, raw.get("u", {}), source, str(name))


def _table(raw: Mapping[str, Any]) -> Table:
    bands: Bands = tuple((above, _rates(rates)) for above, rates in raw.get("b", ()))
    return Table(_rates(raw["r"]), bands)


def _rates(raw: Mapping[str, str]) -> dict[Part, int]:
    return {CODES[code]: nusd(amount) for code, amount in raw.items()}


def nusd(dollars: str) -> int:
    """Return dollars as nano-dollars, rounded up. Raises ValueError outside 0 to MAX_RATE."""
    exact = Decimal(dollars) * 1_000_000_000
    whole = int(exact) + (exact > int(exact))
    if not 0 <= whole <= MAX_RATE:
        raise ValueError(f"expected a price from $0 to a million dollars, got {dollars!r}")
    return whole


class _Lines(Sequence[Any]):
    """A list of a file, each item read when it is asked for."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = lines

    @overload
    def __getitem__(self, at: int) -> Any: ...
    @overload
    def __getitem__(self, at: slice) -> _Lines: ...
    def __getitem__(self, at: int | slice) -> Any:
        if isinstance(at, slice):
            return _Lines(self._lines[at])
        return json.loads(self._lines[at].removesuffix(","))

    def __len__(self) -> int:
        return len(self._lines)


class _Named(Mapping[str, Any]):
    """An object of a file, each value read when it is first asked for."""

    def __init__(self, lines: Sequence[str]) -> None:
        name_of = json.JSONDecoder().raw_decode
        named = ((name_of(line), line.removesuffix(",")) for line in lines)
        self._lines = {str(name): line[end + 1 :] for (name, end), line in named}
        self._known: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._known:
            self._known[name] = json.loads(self._lines[name])
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._lines)

    def __len__(self) -> int:
        return len(self._lines)


def read(data: bytes) -> dict[str, Any]:
    """Return a file as tools/prices.py writes it: a line for each value, for each item of a list and of an object."""
    lines = data.decode().rstrip("\n").split("\n")
    found: dict[str, Any] = {}
    at = 0
    while at < len(lines):
        line = lines[at].lstrip("{")
        name = line.partition(":")[0]
        if line.endswith((":[", ":{")):
            until = lines.index("],", at) if line.endswith("[") else lines.index("}}", at)
            kind = _Lines if line.endswith("[") else _Named
            found[json.loads(name)] = kind(lines[at + 1 : until])
            at = until
        else:
            found |= json.loads("{" + line.removesuffix(",") + "}")
        at += 1
    return found


@cache
def bundled() -> tuple[Book, ...]:
    """Return the lists that ship with the package; the first call takes some milliseconds.

    They come through the import system, as the code does: no path, no working directory, also in a zip.
    """
    found = [pkgutil.get_data("midwatch.core.pricing", name) for name in FILES]
    return tuple(Book(read(data)) for data in found if data is not None)
