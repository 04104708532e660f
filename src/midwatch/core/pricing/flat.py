"""What plain calls cost, by arithmetic alone: for whoever prices twenty thousand a second.

`Shelf.quote` says everything about a price, in fifty microseconds. Most calls are of a model whose price depends on
neither hour nor length; then six rates are all there is to know, and one microsecond is enough. Equal to the quote of
the same figures, always: a property test holds them together.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from midwatch.core.pricing.price import MILLION, complete
from midwatch.core.pricing.shelf import Found
from midwatch.core.pricing.usage import Part, Tier

_PARTS: Final = tuple(Part)
_PLACES: Final = tuple(
    _PARTS.index(part)
    for part in (
        Part.INPUT_TEXT,
        Part.CACHE_READ,
        Part.CACHE_WRITE_5M,
        Part.CACHE_WRITE_1H,
        Part.OUTPUT_TEXT,
        Part.REASONING,
        Part.REQUESTS,
    )
)


class Flat(NamedTuple):
    """Nano-dollars per million tokens of each kind, and per million calls."""

    fresh: int
    read: int
    write: int
    hour: int
    out: int
    thought: int
    request: int

    def nusd(
        self, given: int, made: int, read: int, written: int, hour: int, thought: int
    ) -> int | None:
        """Return the nano-dollars of one call, or None when the figures do not fit into each other. `given` holds
        `read` and `written`, this `hour`; `made` holds `thought`."""
        fresh, said = given - read - written, made - thought
        if fresh < 0 or said < 0 or hour > written:
            return None
        whole = (
            fresh * self.fresh
            + read * self.read
            + (written - hour) * self.write
            + hour * self.hour
            + said * self.out
            + thought * self.thought
            + self.request
        )
        return -(-whole // MILLION)


class Rates(NamedTuple):
    """The rates by each list that knows a model, of which the dearest holds, and since when (Unix seconds)."""

    lists: tuple[Flat, ...]
    since: float


NONE: Final = Rates((), 0.0)


def flat(found: Found) -> Rates:
    """Return what holds now and from now on; no lists when the price depends on the hour or on the length of a call,
    or is not known."""
    since = 0.0
    if found.own is not None:
        prices = [found.own]
    else:
        newest = [listing.periods[-1] for listing in found.listings]
        if any(minute for listing in found.listings for _, minute, _ in listing.periods):
            return NONE
        prices = [price for _, _, price in newest]
        # before the first period that is known, that holds
        since = max((start for start, _, _ in newest), default=0.0)
    if len(prices) not in (1, 2) or any(price.table.bands for price in prices):
        return NONE
    cards = [price.card(Tier.DEFAULT, 0) for price in prices]
    if any(Tier.DEFAULT in price.tiers for price in prices) or any(c.assumed_tier for c in cards):
        return NONE
    if len(cards) == 2:
        cards = [complete(cards[0], cards[1]), complete(cards[1], cards[0])]
    return Rates(tuple(Flat(*(card.rates[place] for place in _PLACES)) for card in cards), since)
