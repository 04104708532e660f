"""Every price there is, in the order in which it holds: one's own, what a provider reports that is known to
report what it charges, the lists.

`Shelf.quote` says what a call costs, and why it says so. Both lists are asked; where they differ by more
than 2 % the cost is disputed, and the higher one is charged. A model that no list knows has no cost, which
is not a cost of 0: what follows is a policy, and decided elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from midwatch.core.pricing import cost
from midwatch.core.pricing.book import Book, Listing, bundled
from midwatch.core.pricing.cost import Bill, Terms
from midwatch.core.pricing.names import maker
from midwatch.core.pricing.own import Own, OwnPrices
from midwatch.core.pricing.price import FREE, Card, Price, complete, named
from midwatch.core.pricing.usage import INPUTS, Part, Tier, Usage, counts
from midwatch.core.sealed import sealed

DISPUTE_PERCENT: Final = 2
"""Lists that differ by more of the lower amount disagree; below that they round."""

REPORTERS: Final = frozenset(
    ("openrouter", "x-ai", "perplexity", "deepinfra", "vercel", "requesty", "nanogpt")
)
"""Sellers whose answers say what they charge, by their own documents: their word is the invoice. Whoever
else reports a cost (a proxy, an upstream that lies) is not believed when a list says more."""

MAX_FOUND: Final = 8_192
"""Models whose prices are kept at hand. Names come from clients; whoever makes up new ones pays with
slower look-ups, not we with memory."""

MAX_TERMS: Final = 64
"""Kinds of requests whose worst case is kept at hand for each model; how many searches one may do, it says itself."""


class Basis(StrEnum):
    """Whose word a cost is."""

    OWN = "own"
    FREE = "free"
    REPORTED = "reported"
    AGREED = "agreed"
    """Both lists, within 2 %: the higher one."""
    SINGLE = "single"
    """One list: the other does not know the seller's model, or not this tier of it."""
    DISPUTED = "disputed"
    """Both lists, and they differ: the higher one."""
    UNKNOWN = "unknown"


@sealed
class Quote:
    """What a call costs."""

    nusd: int | None
    """What is charged. None: no price is known."""
    basis: Basis
    bills: tuple[Bill, ...] = ()
    """What each list says, and one's own price."""
    reason: str = ""
    version: str = ""
    """The lists that were asked, with their versions: kept with the call, so that it can be told later why."""
    reported_nusd: int | None = None
    assumed: tuple[str, ...] = ()
    """What was used and has no price of its own in the list that is charged by."""

    @property
    def disputed(self) -> bool:
        return self.basis is Basis.DISPUTED


@dataclass(slots=True)
class _Spell:
    """The time for which prices hold, and the worst cases of all lengths by them, by what requests ask for."""

    since: float
    until: float
    prices: list[Price]
    _terms: dict[tuple[Tier, str, bool, bool, int], Terms | None] = field(
        default_factory=dict[tuple[Tier, str, bool, bool, int], "Terms | None"]
    )
    """None: they depend on the length."""

    @classmethod
    def of(cls, own: Price | None, listings: Sequence[Listing], at: float) -> _Spell:
        """Return the spell that holds at a time (Unix seconds)."""
        if own is not None:
            return cls(-math.inf, math.inf, [own])
        since, until = -math.inf, math.inf
        for listing in listings:
            if len(listing.periods) == 1:
                continue
            for start, from_minute, _ in listing.periods:
                if from_minute:  # it changes within the day: nothing is kept
                    since, until = math.inf, -math.inf
                elif start <= at:
                    since = max(since, start)
                else:
                    until = min(until, start)
        return cls(since, until, [listing.at(at) for listing in listings])

    def terms(self, *asked: *tuple[Tier, str, bool, bool, int]) -> Terms | None:
        """Return what the dearest of the prices comes to, by input and output (`cost.terms_of`)."""
        terms = self._terms.get(asked)
        if terms is None and asked not in self._terms:
            if len(self._terms) >= MAX_TERMS:
                self._terms.clear()
            terms = self._terms[asked] = self._worked_out(*asked)
        return terms

    def _worked_out(
        self, tier: Tier, writes: str, media_in: bool, media_out: bool, searches: int
    ) -> Terms | None:
        found: dict[tuple[int, int, int], None] = {}
        for price in self.prices:
            terms = cost.terms_of(
                price, tier, writes, media_in=media_in, media_out=media_out, searches=searches
            )
            if terms is None:
                return None
            found |= dict.fromkeys(terms)
        return tuple(found) or None


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of one provider's model."""

    own: Price | None
    listings: tuple[Listing, ...]
    like: str = ""
    window: int | None = None
    """Tokens of input that the model takes: the smallest that a list says."""
    max_output: int | None = None
    """Tokens of its longest answer: the largest that a list says."""
    _pairs: dict[tuple[int, int], tuple[Card, ...]] = field(
        default_factory=dict[tuple[int, int], tuple[Card, ...]], compare=False, repr=False
    )
    _spells: list[_Spell] = field(default_factory=list["_Spell"], compare=False, repr=False)
    """The one of the last call, which is nearly always that of the next."""

    def _spell(self, at: float) -> _Spell:
        if self._spells:
            spell = self._spells[0]
            if spell.since <= at < spell.until:
                return spell
        self._spells[:] = [spell := _Spell.of(self.own, self.listings, at)]
        return spell

    def bills(self, usage: Usage, at: float) -> tuple[Bill, ...]:
        """Return what each list says that a usage costs. A part that one list does not name costs there
        what it costs by the other: so they differ by what they say, not by what they leave out."""
        figures: tuple[int, ...] = counts(usage)
        length, tier, prices = sum(figures[: len(INPUTS)]), usage.tier, self.prices(at)
        if len(prices) != 2:
            return tuple([cost.bill_by(usage, figures, p, p.card(tier, length)) for p in prices])
        one, two = prices
        first, second = one.card(tier, length), two.card(tier, length)
        pair = self._pairs.get((id(first), id(second)))
        if pair is None:
            # the cards are kept along, so that no others can take their ids
            pair = (complete(first, second), complete(second, first), first, second)
            self._pairs[id(first), id(second)] = pair
        return (
            cost.bill_by(usage, figures, one, pair[0]),
            cost.bill_by(usage, figures, two, pair[1]),
        )

    def prices(self, at: float) -> list[Price]:
        """Return the prices that hold at a time: one's own alone, or each list's. Empty: unknown."""
        return self._spell(at).prices

    def worst_case(
        self,
        at: float,
        *,
        input_tokens: int,
        max_output: int,
        tier: Tier = Tier.DEFAULT,
        writes: str = "12h",
        media_in: bool = False,
        media_out: bool = False,
        searches: int = 0,
        region: str = "",
    ) -> int | None:
        """Return what is to be reserved for a call, in nano-dollars: the most that it can cost by any list.
        None when no price is known. See `cost.worst_case`."""
        spell = self._spell(at)
        terms = None if region else spell.terms(tier, writes, media_in, media_out, searches)
        if terms is not None:
            return cost.dearest_of(terms, input_tokens, max_output)
        amounts = [
            cost.worst_case(
                price,
                input_tokens,
                max_output,
                tier=tier,
                writes=writes,
                media_in=media_in,
                media_out=media_out,
                searches=searches,
                region=region,
            )
            for price in spell.prices
        ]
        return max(amounts, default=None)

    @property
    def prefill(self) -> bool:
        """Whether a list says of this seller's own model that it goes on with an answer that is begun for it,
        and none says the contrary. What is not known counts as no: who rejects it says so with a 400."""
        told = {x.prefill for x in self.listings if x.prefill is not None and not x.borrowed}
        return told == {True}


class Shelf:
    """Prices of one's own and price lists. Immutable but for what it remembers; make a new one at reload.

    A provider is named as in the fleet file (`provider`) and by whose list holds (`seller`, see
    `names.seller`).
    """

    def __init__(
        self,
        own: Mapping[str, Own] | None = None,
        books: Sequence[Book] | None = None,
        free: Sequence[str] = (),
    ) -> None:
        """`free`: providers whose calls cost nothing."""
        self._own = OwnPrices(own or {})
        self._books = tuple(bundled() if books is None else books)
        self._free = frozenset(free)
        self._found: dict[tuple[str, str, str], Found] = {}
        self._dearest: dict[str, tuple[tuple[Price, ...], tuple[Listing, ...]]] = {}
        """By seller: of those in the fleet file."""
        self.version = " + ".join(book.source for book in self._books)
        """Names and versions of the lists."""

    @property
    def books(self) -> tuple[Book, ...]:
        return self._books

    def find(self, provider: str, seller: str, model: str) -> Found:
        """Return what is known of a model; the first look costs a millisecond or a few, the next ones nothing."""
        key = (provider, seller, model)
        found = self._found.get(key)
        if found is None:
            if len(self._found) >= MAX_FOUND:
                self._found.clear()
            found = self._found[key] = self._look(provider, seller, model)
        return found

    def _look(self, provider: str, seller: str, model: str) -> Found:
        own = self._own.find(provider, model)
        price = own.price if own is not None else None
        like = own.like if own is not None else ""
        if price is None and not like and provider in self._free:
            price = named(FREE, FREE.source, provider)
        known = [x for book in self._books if (x := book.find(seller, like or model)) is not None]
        if like and not known:
            known = [x for book in self._books if (x := book.find(maker(like), like)) is not None]
        # who knows the seller's own price outweighs who lends another seller's
        listings = tuple([x for x in known if not x.borrowed] or known)
        window = min((x.window for x in listings if x.window), default=None)
        longest = max((x.max_output for x in listings if x.max_output), default=None)
        return Found(price, listings, like, window, longest)

    def quote(self, usage: Usage, provider: str, seller: str, model: str, at: float) -> Quote:
        """Return what a call cost. `at`: when it began (Unix seconds), for prices that change with time."""
        quoted = self._quote(usage, provider, seller, model, at)
        for other, inner in usage.aside:
            quoted = _beside(quoted, self._quote(inner, provider, seller, other or model, at))
        return quoted

    def _quote(self, usage: Usage, provider: str, seller: str, model: str, at: float) -> Quote:
        found = self.find(provider, seller, model)
        bills = found.bills(usage, at)
        reported = usage.reported_nusd
        if found.own is not None:
            bill = bills[0]
            basis = Basis.FREE if bill.source == FREE.source else Basis.OWN
            return Quote(
                bill.nusd,
                basis,
                bills,
                f"price of {bill.source}",
                bill.source,
                reported,
                bill.assumed,
            )
        if reported is not None and (seller in REPORTERS or not bills):
            return Quote(
                reported, Basis.REPORTED, bills, "reported by the provider", self.version, reported
            )
        if not bills:
            reason = f"no list knows the model {model[:80]!r} of {seller[:40]!r}; add it under models.prices"
            return Quote(None, Basis.UNKNOWN, (), reason, self.version)
        listed = self._compare(bills)
        if reported is None or listed.nusd is None:
            return listed
        if reported > listed.nusd:
            reason = f"reported by the provider, above {listed.reason}"
            return replace(
                listed, nusd=reported, basis=Basis.REPORTED, reason=reason, reported_nusd=reported
            )
        return replace(listed, reported_nusd=reported)

    def _compare(self, bills: tuple[Bill, ...]) -> Quote:
        """Return the cost by the lists. Of two, one that does not know the tier gives way to one that does."""
        sure = bills
        if len(bills) > 1:
            sure = [bill for bill in bills if "tier" not in bill.assumed]
        if len(sure) == 1:
            return self._by(sure[0], Basis.SINGLE, bills)
        amounts = [bill.nusd for bill in bills]
        high, low = max(amounts), min(amounts)
        # one nano-dollar is rounding
        apart = (high - low) * 100 > DISPUTE_PERCENT * low and high - low > 1
        dearest = bills[amounts.index(high)]
        return self._by(dearest, Basis.DISPUTED if apart else Basis.AGREED, bills)

    def _by(self, bill: Bill, basis: Basis, bills: tuple[Bill, ...]) -> Quote:
        reason = f"{basis}: {bill.source}"
        return Quote(bill.nusd, basis, bills, reason, self.version, None, bill.assumed)

    def dearest(self, seller: str, at: float) -> Price | None:
        """Return the price of a seller's dearest model, for models whose price is not known; of any seller
        when the lists do not know this one. None without lists. The first look takes a tenth of a second."""
        known = self._dearest.get(seller)
        if known is None:
            known = self._dearest[seller] = self._dearest_of(seller)
        steady, changing = known
        prices = [*steady, *(listing.at(at) for listing in changing)]
        return max(prices, key=_weight, default=None)

    def _dearest_of(self, seller: str) -> tuple[tuple[Price, ...], tuple[Listing, ...]]:
        """Return the dearest price of those that do not change with time, and the listings of those that do."""
        listings = {
            id(listing): listing
            for book in self._books
            for name in (seller, *(() if book.models(seller) else book.sellers))
            for model in book.models(name)
            if (listing := book.find(name, model)) is not None
        }
        steady = [x.periods[0][2] for x in listings.values() if len(x.periods) == 1]
        changing = tuple([x for x in listings.values() if len(x.periods) > 1])
        return ((max(steady, key=_weight),) if steady else ()), changing


def _weight(price: Price) -> int:
    rates = price.table.rates
    return rates.get(Part.INPUT_TEXT, 0) + rates.get(Part.OUTPUT_TEXT, 0)


def _beside(whole: Quote, inner: Quote) -> Quote:
    """Return the cost of a call with a call made within it. One that is unknown makes the sum unknown."""
    known = whole.nusd is not None and inner.nusd is not None
    if whole.basis is Basis.REPORTED:
        return whole  # what is reported contains it
    worse = Basis.DISPUTED if inner.disputed else whole.basis
    return Quote(
        (whole.nusd or 0) + (inner.nusd or 0) if known else None,
        worse if known else Basis.UNKNOWN,
        (*whole.bills, *inner.bills),
        whole.reason if inner.nusd is not None else inner.reason,
        whole.version,
        whole.reported_nusd,
        tuple(dict.fromkeys((*whole.assumed, *inner.assumed))),
    )
