"""What a usage costs at a price: exact in integers, rounded up once, at the end, to the nano-dollar.

    cost = ⌈ Σ count(part) · rate(part) · region ⌉

The tier and the length of the whole input (fresh, cached and written) choose the rates; a dearer length
holds for the whole call, as with every provider that has one. Rounding up means that a sum of charges is
never below the provider's own count.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import compress
from operator import mul
from typing import Final

from midwatch.core.pricing.price import MILLION, PER_MILLE, Card, Price
from midwatch.core.pricing.usage import OUTPUTS, Part, Tier, Usage, counts
from midwatch.core.sealed import sealed

_PARTS: Final = tuple(Part)
_NAMES: Final = tuple(part.value for part in Part)
_PIECES: Final = len(_PARTS) - 4
"""Where the pieces begin: a region makes tokens dearer, not searches."""


@sealed
class Bill:
    """The cost of one call by one price."""

    nusd: int
    price: Price
    assumed: tuple[str, ...] = ()
    """What was used and has no price of its own in the list: parts, `tier`, `region`."""

    @property
    def source(self) -> str:
        return self.price.source


@dataclass(frozen=True, slots=True)
class Line:
    """One part of a bill."""

    part: Part
    count: int
    rate: int
    """Nano-dollars per million tokens, or per piece."""
    nusd: int


def cost(usage: Usage, price: Price) -> int:
    """Return the nano-dollars of a usage at a price, without calls aside."""
    return _total(counts(usage), price.card(usage.tier, usage.input_tokens), usage.region, price)


def _total(figures: tuple[int, ...], card: Card, region: str, price: Price) -> int:
    if not region:
        return -(-sum(map(mul, figures, card.rates)) // MILLION)
    tokens = sum(map(mul, figures[:_PIECES], card.rates[:_PIECES]))
    pieces = sum(map(mul, figures[_PIECES:], card.rates[_PIECES:]))
    exact = tokens * price.region_per_mille(region) + pieces * PER_MILLE
    return -(-exact // (MILLION * PER_MILLE))


def bill(usage: Usage, price: Price) -> Bill:
    """Return the cost with what had to be assumed for it."""
    return bill_by(usage, counts(usage), price, price.card(usage.tier, usage.input_tokens))


def bill_by(usage: Usage, figures: tuple[int, ...], price: Price, card: Card) -> Bill:
    """Return the bill by a card; `figures` are the counts of the usage."""
    assumed: tuple[str, ...] = ()
    if card.assumed:
        places = card.assumed
        assumed = tuple(compress(map(_NAMES.__getitem__, places), map(figures.__getitem__, places)))
    if card.assumed_tier:
        assumed = (*assumed, "tier")
    if usage.region and usage.region not in price.uplift:
        assumed = (*assumed, "region")
    return Bill(_total(figures, card, usage.region, price), price, assumed)


def lines(usage: Usage, price: Price) -> list[Line]:
    """Return what each part that was used costs. The lines add up to the cost exactly: each is the
    difference that its part makes to the rounded sum."""
    card = price.card(usage.tier, usage.input_tokens)
    figures: list[int] = [0] * len(_PARTS)
    found: list[Line] = []
    before = 0
    for place, count in enumerate(counts(usage)):
        if not count:
            continue
        figures[place] = count
        after = _total(tuple(figures), card, usage.region, price)
        rate = card.rates[place] // (MILLION if place >= _PIECES else 1)
        found.append(Line(_PARTS[place], count, rate, after - before))
        before = after
    return [line for line in found if line.nusd or line.part is not Part.REQUESTS]


_MEDIA: Final = (Part.INPUT_AUDIO, Part.INPUT_IMAGE, Part.INPUT_VIDEO)
_WRITES: Final = {
    "": (),
    "5m": (Part.CACHE_WRITE_5M,),
    "1h": (Part.CACHE_WRITE_5M, Part.CACHE_WRITE_1H),
    "12h": (Part.CACHE_WRITE_5M, Part.CACHE_WRITE_1H, Part.CACHE_WRITE_12H),
}
_WAYS_IN: Final = {
    (writes, media): (Part.INPUT_TEXT, Part.CACHE_READ, *parts, *(_MEDIA if media else ()))
    for writes, parts in _WRITES.items()
    for media in (False, True)
}
_WAYS_OUT: Final = {False: (Part.OUTPUT_TEXT, Part.REASONING), True: OUTPUTS}
_FEES: Final = [_PARTS.index(p) for p in (Part.WEB_SEARCHES, Part.FILE_SEARCHES, Part.MAP_SEARCHES)]
_REQUEST: Final = _PARTS.index(Part.REQUESTS)


def worst_case(
    price: Price,
    input_tokens: int,
    max_output: int,
    *,
    tier: Tier = Tier.DEFAULT,
    writes: str = "",
    media_in: bool = False,
    media_out: bool = False,
    searches: int = 0,
    region: str = "",
) -> int:
    """Return the most that a call can cost, in nano-dollars: what is reserved before it.

    Every token at the dearest rate that it could have: of the tier asked for or the usual one, as a cache
    write where the request asks for those (`writes`: longest kept, "5m", "1h" or "12h"; most providers with
    a write price write without being asked, so "5m" costs little and is safe), as audio, image or video
    where it carries some (`media_in`) or may produce some (`media_out`). `searches`: the most it may do.
    """
    ways_in = _WAYS_IN.get((writes, media_in)) or _WAYS_IN["12h", media_in]
    ways_out = _WAYS_OUT[media_out]
    terms = _terms(price, input_tokens, tier, ways_in, ways_out, searches, region)
    return dearest_of(terms, input_tokens, max_output)


Terms = tuple[tuple[int, int, int], ...]
"""What a call can cost, by input and output tokens: a rate for each and what comes on top, in nano-dollars by a
thousand million. The dearest of them holds."""


def dearest_of(terms: Terms, input_tokens: int, max_output: int) -> int:
    """Return the most that a call of this length can cost, in nano-dollars, rounded up."""
    worst = 0
    for into, out, more in terms:
        exact = input_tokens * into + max_output * out + more
        worst = max(worst, exact)
    return -(-worst // (MILLION * PER_MILLE))


def terms_of(
    price: Price, tier: Tier, writes: str, *, media_in: bool, media_out: bool, searches: int
) -> Terms | None:
    """Return the terms of the worst case (`worst_case`, without a region) for calls of every length; None where the
    price depends on the length."""
    if price.by_length:
        return None
    ways_in = _WAYS_IN.get((writes, media_in)) or _WAYS_IN["12h", media_in]
    return _terms(price, 0, tier, ways_in, _WAYS_OUT[media_out], searches, "")


def _terms(
    price: Price,
    input_tokens: int,
    tier: Tier,
    ways_in: tuple[Part, ...],
    ways_out: tuple[Part, ...],
    searches: int,
    region: str,
) -> Terms:
    uplift = price.region_per_mille(region)
    found: list[tuple[int, int, int]] = []
    for served in (tier,) if tier is Tier.DEFAULT else (tier, Tier.DEFAULT):
        card = price.card(served, input_tokens)
        pieces = card.rates[_REQUEST]
        if searches:
            pieces += searches * sum(card.rates[place] for place in _FEES)
        into, out = card.dearest(ways_in) * uplift, card.dearest(ways_out) * uplift
        found.append((into, out, pieces * PER_MILLE))
    return tuple(found)
