"""What a model costs: nano-dollars per million tokens by part, by length of the prompt, by tier. Integers.

A list seldom names each part. What it leaves out is filled in by rules (`ASSUMED`), never with 0, and the
part is remembered as assumed, so that a price which only looks complete is not believed as one that is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from midwatch.core.pricing.usage import FEES, INPUTS, OUTPUTS, TOKENS, Part, Tier

MILLION: Final = 1_000_000
PER_MILLE: Final = 1_000

MAX_RATE: Final = 10**15
"""Nano-dollars per million tokens: a million dollars. No list has a price above it."""

WRITE_PER_MILLE: Final = {
    Part.CACHE_WRITE_5M: 1_250,
    Part.CACHE_WRITE_1H: 2_000,
    Part.CACHE_WRITE_12H: 2_500,
}
"""Cache writes against input, where a list has no price for them: what Anthropic asks for 5 minutes and an
hour, and OpenAI for 30 minutes and 12 hours."""

SURCHARGE_PER_MILLE: Final = {
    Tier.PRIORITY: 2_000,
    Tier.FAST: 6_000,
    Tier.ULTRAFAST: 6_000,
}
"""Tiers against the usual price, where a list has no price for them: the most that was ever asked. Cheaper
tiers (batch, flex) are reckoned at the usual price then."""

REGION_PER_MILLE: Final = 1_100
"""A call that is kept in one place on request: both who offer it ask a tenth more for each token."""

FEE_NUSD: Final = {
    Part.REQUESTS: 0,
    Part.WEB_SEARCHES: 35_000_000,
    Part.FILE_SEARCHES: 2_500_000,
    Part.MAP_SEARCHES: 25_000_000,
}
"""Pieces that a list has no fee for, each: the most that OpenAI, Anthropic and Google ask."""

Rates = Mapping[Part, int]
"""By part: tokens in nano-dollars per million, pieces (FEES) in nano-dollars each."""
Bands = tuple[tuple[int, Rates], ...]
"""From the lowest: above so many input tokens these rates hold for the whole call."""

NO_RATES: Final[Rates] = {}


@dataclass(frozen=True, slots=True)
class Table:
    """The rates of one tier."""

    rates: Rates
    bands: Bands = ()


@dataclass(frozen=True, slots=True)
class Card:
    """The rates of one tier and one length, all parts filled in, in the order of `Part`; pieces are scaled
    to the million, too."""

    rates: tuple[int, ...]
    assumed: tuple[int, ...] = ()
    """Places of the parts that no list named."""
    assumed_tier: bool = False
    above: int = 0
    """The band: it holds above so many input tokens."""
    _dearest: dict[tuple[Part, ...], int] = field(
        default_factory=dict[tuple["Part", ...], int], compare=False, repr=False
    )

    def dearest(self, parts: tuple[Part, ...]) -> int:
        """Return the highest rate of some parts."""
        rate = self._dearest.get(parts)
        if rate is None:
            rate = self._dearest[parts] = max(self.rates[_PLACES[part]] for part in parts)
        return rate


_PLACES: Final = {part: place for place, part in enumerate(Part)}


@dataclass(frozen=True, slots=True)
class Price:
    """The price of a model, and whose word it is."""

    table: Table
    tiers: Mapping[Tier, Table] = field(default_factory=dict[Tier, Table])
    uplift: Mapping[str, int] = field(default_factory=dict[str, int])
    """Per mille of the usual price by region."""
    source: str = ""
    """Name and version of the list: genai-prices 0.2.3, litellm 1.109.1, fleet file, prices set."""
    name: str = ""
    """The entry that was found."""
    _cards: dict[tuple[Tier, int], Card] = field(
        default_factory=dict[tuple[Tier, int], Card], compare=False, repr=False
    )

    def card(self, tier: Tier, input_tokens: int) -> Card:
        """Return the rates for a call of this tier and length."""
        bands = self.table.bands
        above = 0
        tabled = self.tiers.get(tier)
        if bands or (tabled is not None and tabled.bands):
            starts = (*(start for start, _ in bands), *(s for s, _ in (tabled or self.table).bands))
            above = max((start for start in starts if input_tokens > start), default=0)
        known = self._cards.get((tier, above))
        if known is None:
            known = self._cards[tier, above] = _resolve(self, tier, above)
        return known

    @property
    def by_length(self) -> bool:
        """Whether the rates depend on the length of the input."""
        return bool(self.table.bands) or any(table.bands for table in self.tiers.values())

    def region_per_mille(self, region: str) -> int:
        """Return what a region costs against the usual."""
        return self.uplift.get(region, REGION_PER_MILLE) if region else PER_MILLE


FREE: Final = Price(
    Table({**dict.fromkeys(TOKENS, 0), **dict.fromkeys(FEES, 0)}),
    uplift={},
    source="free",
    name="free",
)
"""Of a machine of one's own: nothing is paid by the token."""


def _resolve(price: Price, tier: Tier, above: int) -> Card:
    """Return the full card.

    1. The rates of the tier at this length, as far as they are listed.
    2. A tier that is not listed: the usual rates, with a surcharge for the dearer ones.
    3. Parts that are not listed, by the rules of `_fill`.
    """
    usual, guessed = _at(price.table, above)
    tabled = price.tiers.get(tier)
    assumed_tier = False
    if tabled is not None:
        usual, guessed = _merge(price.table, tabled, above)
    elif tier is Tier.OTHER:
        known = [_merge(price.table, table, above)[0] for table in price.tiers.values()]
        dearest = _scale(usual, SURCHARGE_PER_MILLE[Tier.PRIORITY])
        for rates in known:
            dearest = {part: max(rate, rates.get(part, 0)) for part, rate in dearest.items()}
        usual, assumed_tier = dearest, True
    elif tier is not Tier.DEFAULT:
        usual, assumed_tier = _scale(usual, SURCHARGE_PER_MILLE.get(tier, PER_MILLE)), True
    filled = _fill(usual)
    assumed = tuple(
        place for place, part in enumerate(Part) if part in guessed or _is_assumed(part, usual)
    )
    rates = tuple(filled[part] * (MILLION if part in FEES else 1) for part in Part)
    return Card(rates, assumed, assumed_tier, above)


def _at(table: Table, above: int) -> tuple[Rates, frozenset[Part]]:
    """Return the rates at a length, and the parts that the band does not list: they grow as input does."""
    band = max((b for b in table.bands if b[0] <= above), key=lambda b: b[0], default=None)
    if band is None:
        return table.rates, frozenset()
    return _over(table.rates, band[1])


def _merge(usual: Table, tabled: Table, above: int) -> tuple[Rates, frozenset[Part]]:
    """Return the rates of a tier at a length; what the tier leaves out is derived from the usual ones."""
    base, guessed = _over(usual.rates, tabled.rates)
    if above and any(start <= above for start, _ in tabled.bands):
        rates, more = _at(Table(base, tabled.bands), above)
        return rates, guessed | more
    longer, more = _at(usual, above)
    if longer is usual.rates:
        return base, guessed
    grown: dict[Part, int] = {}
    for part, rate in base.items():
        before = usual.rates.get(part, 0)
        grown[part] = -(-rate * longer[part] // before) if before and part in TOKENS else rate
    return grown, guessed | more | frozenset(p for p in grown if p in TOKENS)


def _over(base: Rates, listed: Rates) -> tuple[Rates, frozenset[Part]]:
    """Return `listed` laid over `base`. A part that is only in the base is dearer if input is."""
    before, now = base.get(Part.INPUT_TEXT, 0), listed.get(Part.INPUT_TEXT, 0)
    grows = before and now > before
    merged = dict(listed)
    guessed: set[Part] = set()
    for part, rate in base.items():
        if part in merged:
            continue
        if part in FEES:
            merged[part] = rate
        else:
            merged[part] = -(-rate * now // before) if grows else rate
            guessed.add(part)
    return merged, frozenset(guessed)


def _scale(rates: Rates, per_mille: int) -> dict[Part, int]:
    return {
        part: rate if part in FEES else -(-rate * per_mille // PER_MILLE)
        for part, rate in rates.items()
    }


ASSUMED: Final = """
- reasoning costs what output costs (this is no assumption: every provider bills it so unless it says else);
- what is read from a cache costs what input costs; so do audio, images and video that are put in;
- cached audio and images cost what the cache costs, and no less than it does for text;
- cache writes: see WRITE_PER_MILLE; longer kept is never cheaper;
- audio and images that come out cost what output costs; output without a price costs what input costs;
- citations cost what input costs; searches: see FEE_NUSD.
"""
"""How the parts that a list leaves out are priced. Each but the first is told with the cost as assumed."""


def _fill(rates: Rates) -> dict[Part, int]:
    """Return a rate for every part, by the rules of ASSUMED."""
    fresh = rates.get(Part.INPUT_TEXT, rates.get(Part.OUTPUT_TEXT, 0))
    made = rates.get(Part.OUTPUT_TEXT, fresh)
    read = rates.get(Part.CACHE_READ, fresh)
    full: dict[Part, int] = {**FEE_NUSD}
    full |= dict.fromkeys(INPUTS, fresh) | dict.fromkeys(OUTPUTS, made)
    full[Part.CITATION] = fresh
    full[Part.CACHE_READ] = full[Part.CACHE_READ_AUDIO] = full[Part.CACHE_READ_IMAGE] = read
    longest = 0
    for part, per_mille in WRITE_PER_MILLE.items():
        longest = max(longest, rates.get(part, -(-fresh * per_mille // PER_MILLE)))
        full[part] = longest
    return full | dict(rates)


def _is_assumed(part: Part, rates: Rates) -> bool:
    if part in rates or part is Part.REQUESTS:
        return False
    return part is not Part.REASONING or Part.OUTPUT_TEXT not in rates


def complete(card: Card, other: Card) -> Card:
    """Return a card with the parts that it only assumes taken from another list's, where that knows them."""
    if other.assumed_tier or card.assumed_tier or not card.assumed:
        return card
    known = [place for place in card.assumed if place not in other.assumed]
    rates = list(card.rates)
    for place in known:
        rates[place] = other.rates[place]
    left = tuple(place for place in card.assumed if place not in known)
    return Card(tuple(rates), left, card.assumed_tier, card.above)


def named(price: Price, source: str, name: str) -> Price:
    """Return a price under another name, with cards of its own."""
    return replace(price, source=source, name=name, _cards={})
