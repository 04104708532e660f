"""Reads figures out of JSON that a provider sent: anything may stand anywhere, and nothing raises.

Absent and null mean "not told"; what is told and is no figure is a doubt, and counts as not told.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final, cast

from midwatch.core.pricing.usage import MAX_COUNT, MAX_NUSD, Doubt

_NONE: Final[Mapping[str, Any]] = {}
_WHOLE: Final[frozenset[type]] = frozenset((int,))


def members(value: object) -> Mapping[str, Any]:
    """Return an object's members; none for anything else."""
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else _NONE


def elements(value: object) -> list[Any]:
    """Return a list's elements; none for anything else."""
    return cast("list[Any]", value) if isinstance(value, list) else []


class Figures:
    """The figures of one object, and the doubts that reading them raised."""

    __slots__ = ("data", "doubts")

    def __init__(self, value: object, doubts: set[Doubt] | None = None) -> None:
        self.data = members(value)
        self.doubts: set[Doubt] = set() if doubts is None else doubts

    def within(self, key: str) -> Figures:
        """Return the figures of the object under a key; none when there is no object."""
        value = self.data.get(key)
        return Figures(value, self.doubts) if value else NOTHING

    @property
    def quiet(self) -> bool:
        """Whether nothing is told here but zeros: so most answers say that they used nothing of the kind."""
        values = self.data.values()
        return not any(values) and _WHOLE.issuperset(map(type, values))

    def told(self, *keys: str) -> int | None:
        """Return the first of these that is told, or None."""
        for key in keys:
            value = self.data.get(key)
            if value is None:
                continue
            if type(value) is int and 0 <= value <= MAX_COUNT:
                return value
            count = _count(value)
            if count is not None:
                return count
            self.doubts.add(Doubt.MALFORMED)
        return None

    def count(self, *keys: str) -> int:
        """Return the first of these that is told, or 0."""
        data = self.data
        for key in keys:
            if key in data:
                return self.told(*keys) or 0
        return 0

    def nusd(self, key: str, per_usd: int = 1) -> int | None:
        """Return an amount in nano-dollars, rounded up, or None when none is told.

        `per_usd`: how many of the provider's units make a dollar.
        """
        value = self.data.get(key)
        if value is None:
            return None
        amount = _amount(value, per_usd)
        if amount is None:
            self.doubts.add(Doubt.MALFORMED)
        return amount


NOTHING: Final = Figures(None)
"""Nothing is told here, and so nothing doubted."""


def _count(value: object) -> int | None:
    """Return a count that is written in another way: 12.0, "12" (protobuf's JSON writes int64 as text)."""
    if isinstance(value, float) and value.is_integer() and 0 <= value <= MAX_COUNT:
        return int(value)
    if isinstance(value, str) and 0 < len(value) <= 10 and value.isascii() and value.isdigit():
        count = int(value)
        return count if count <= MAX_COUNT else None
    return None


def _amount(value: object, per_usd: int) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    if isinstance(value, str) and len(value) > 40:
        return None
    if isinstance(value, int) and not 0 <= value <= MAX_NUSD * per_usd:
        return None
    try:
        # through repr: 0.1 is meant as a tenth, not as its binary neighbour
        exact = Decimal(value if isinstance(value, str | int) else repr(value))
    except InvalidOperation:
        return None
    if not exact.is_finite() or exact < 0 or exact > Decimal(MAX_NUSD) * per_usd:
        return None
    return ceil_nusd(exact * 1_000_000_000 / per_usd)


def ceil_nusd(amount: Decimal) -> int:
    """Return an amount as whole nano-dollars, rounded up; beyond MAX_NUSD that bound."""
    whole = int(amount)
    return min(whole + (amount > whole), MAX_NUSD)
