"""Where two price lists disagree, model by model and part by part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from midwatch.core.pricing.book import Book
from midwatch.core.pricing.price import Rates
from midwatch.core.pricing.shelf import DISPUTE_PERCENT


@dataclass(frozen=True, slots=True)
class Difference:
    """One part of one model's price on which two lists do not agree."""

    seller: str
    model: str
    part: str
    """A part, with the length above which it holds: `input_text above 200000`."""
    first: int
    second: int
    """Nano-dollars per million tokens, or per piece."""

    @property
    def percent(self) -> float | None:
        """How much the higher is above the lower; None when the lower is 0."""
        low, high = sorted((self.first, self.second))
        return (high - low) * 100 / low if low else None


def differences(first: Book, second: Book, at: float, seller: str = "") -> Iterator[Difference]:
    """Yield what two lists disagree about by more than 2 %, of models that both have from the seller itself.

    `seller`: of this one alone. A part that one of them leaves out is no disagreement.
    """
    for name in sorted({*first.sellers} & {*second.sellers}):
        if seller and name != seller:
            continue
        seen: set[tuple[str, str]] = set()
        for model in sorted({*first.models(name), *second.models(name)}):
            one, two = first.find(name, model), second.find(name, model)
            if one is None or two is None or one.borrowed or two.borrowed:
                continue
            if (one.name, two.name) in seen:
                continue
            seen.add((one.name, two.name))
            mine, theirs = one.at(at).table, two.at(at).table
            yield from _apart(name, model, "", mine.rates, theirs.rates)
            longer = dict(theirs.bands)
            for above, rates in mine.bands:
                yield from _apart(name, model, f" above {above}", rates, longer.get(above, {}))


def _apart(
    seller: str, model: str, suffix: str, mine: Rates, theirs: Rates
) -> Iterator[Difference]:
    for part, rate in mine.items():
        other = theirs.get(part)
        if other is None:
            continue
        low, high = sorted((rate, other))
        if (high - low) * 100 > DISPUTE_PERCENT * low:
            yield Difference(seller, model, part.value + suffix, rate, other)
