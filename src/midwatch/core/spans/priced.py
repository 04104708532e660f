"""What calls cost whose emitter tells their usage and not their price: by our price lists, when they arrive.

The ledger's word stays, and so does an emitter's, unless it is the 0 of one that knows no prices. What no list knows
has no cost, which is not a cost of 0.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cached_property
from typing import Final

from midwatch.core.pricing.flat import Rates, flat
from midwatch.core.pricing.names import canonical, maker
from midwatch.core.pricing.shelf import Shelf
from midwatch.core.pricing.usage import Usage
from midwatch.core.spans.form import (
    CACHE_WRITE_1H_TOKENS,
    CACHE_WRITE_TOKENS,
    CACHED_TOKENS,
    COST_FROM,
    COST_NUSD,
    COUNTED,
    INPUT_TOKENS,
    MODEL,
    OUTPUT_TOKENS,
    PRICE_VERSION,
    PROVIDER,
    RANK,
    REASONING_TOKENS,
    RESPONSE_MODEL,
    ROLE,
    START_NS,
    USAGE,
    CostFrom,
    Rank,
    Row,
)
from midwatch.core.spans.usage import parts
from midwatch.wire.limits import MAX_COST_USD, NUSD_PER_USD

MAX_KNOWN: Final = 8_192
"""Models whose rates are at hand; emitters choose the names, and one more makes all of them be looked up again."""

MAX_COST_NUSD: Final = round(MAX_COST_USD * NUSD_PER_USD)

_CALLS: Final = frozenset(role.value for role in COUNTED)
_ENDED: Final = Rank.ENDED.value
_REPORTED, _PRICED = CostFrom.REPORTED.value, CostFrom.PRICED.value


class Pricer:
    """Prices rows by a shelf, which is made when the first call needs it: a fleet whose calls the gateway carries has
    no use for six megabytes of prices here. `sellers`: providers of the fleet file → whose price list holds."""

    def __init__(
        self, shelf: Callable[[], Shelf], sellers: Mapping[str, str] | None = None
    ) -> None:
        self._make = shelf
        self._sellers = dict(sellers or {})
        self._flat: dict[tuple[str | None, str], tuple[Rates, str]] = {}

    @cached_property
    def _shelf(self) -> Shelf:
        return self._make()

    def price(self, rows: Iterable[Row]) -> None:
        """Set cost, whose word it is, and price list, wherever a call that ended tells usage and no cost."""
        for row in rows:
            if (
                row[ROLE] not in _CALLS
                or row[RANK] != _ENDED
                or (row[INPUT_TOKENS] is None and row[OUTPUT_TOKENS] is None)
                or not (
                    row[COST_NUSD] is None or (row[COST_NUSD] == 0 and row[COST_FROM] == _REPORTED)
                )
            ):
                continue
            model = row[RESPONSE_MODEL] or row[MODEL]
            if model is not None:
                self._price(row, model)

    @property
    def models(self) -> set[str]:
        """The models that were priced of late."""
        return {model for _, model in self._flat}

    def windows(self, models: Collection[str]) -> dict[str, int]:
        """Return, of those models of which it is known, the tokens of input that they take."""
        found: dict[str, int] = {}
        for model in models:
            name, seller = self._names(None, model)
            window = self._shelf.find(name, seller, model).window
            if window is not None:
                found[model] = window
        return found

    def _price(self, row: Row, model: str) -> None:
        rates, version = self._rates(row[PROVIDER], model)
        if rates.lists and row[USAGE] is None and row[START_NS] >= rates.since * 1e9:
            figures = (
                row[INPUT_TOKENS] or 0,
                row[OUTPUT_TOKENS] or 0,
                row[CACHED_TOKENS] or 0,
                row[CACHE_WRITE_TOKENS] or 0,
                row[CACHE_WRITE_1H_TOKENS] or 0,
                row[REASONING_TOKENS] or 0,
            )
            costs = [cost for each in rates.lists if (cost := each.nusd(*figures)) is not None]
            if len(costs) == len(rates.lists):
                _set(row, max(costs), version)
                return
        usage = parts(row) if row[USAGE] is None else Usage.from_json(json.loads(row[USAGE]))
        # a proxy may answer under a name of its own, which no list has
        for name in dict.fromkeys((model, row[MODEL] or model)):
            provider, seller = self._names(row[PROVIDER], name)
            quote = self._shelf.quote(usage, provider, seller, name, row[START_NS] / 1e9)
            if quote.nusd is not None:
                _set(row, quote.nusd, quote.version)
                return

    def _rates(self, provider: str | None, model: str) -> tuple[Rates, str]:
        key = (provider, model)
        known = self._flat.get(key)
        if known is None:
            if len(self._flat) >= MAX_KNOWN:
                self._flat.clear()
            name, seller = self._names(provider, model)
            found = self._shelf.find(name, seller, model)
            version = self._shelf.version if found.own is None else found.own.source
            known = self._flat[key] = flat(found), version
        return known

    def _names(self, provider: str | None, model: str) -> tuple[str, str]:
        name = provider or maker(model)
        return name, self._sellers.get(name) or canonical(name)


def _set(row: Row, nusd: int, version: str) -> None:
    if nusd <= MAX_COST_NUSD:
        row[COST_NUSD], row[COST_FROM], row[PRICE_VERSION] = nusd, _PRICED, version
