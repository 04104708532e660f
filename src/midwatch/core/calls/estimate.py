"""What a batch will cost, before it is begun: items × calls for each × the price of one call × a margin.

The two slips that make such estimates wrong by a multiple are to reckon with one call for each item where several
are made, and to forget the answer. So both are asked for, and what agents did so far is a better witness than a guess.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any, Final

MARGIN: Final = 1.3
"""What is added for retries, longer items and longer answers than thought of."""

TRIP: Final = 1.5
"""From this multiple of the estimate on, a batch is told to have gone wrong."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Money is nano-dollars."""

    items: int
    calls_per_item: float
    call_nusd: int
    margin: float = MARGIN

    def __post_init__(self) -> None:
        if self.items < 1 or self.calls_per_item <= 0 or self.call_nusd < 0 or self.margin < 1:
            raise ValueError(
                "expected at least one item, calls for each, a price from 0 up and a margin from 1 up,"
                f" got {self.items}, {self.calls_per_item}, {self.call_nusd}, {self.margin}"
            )

    @property
    def calls(self) -> int:
        return ceil(self.items * self.calls_per_item)

    @property
    def bare_nusd(self) -> int:
        """Without the margin."""
        return self.calls * self.call_nusd

    @property
    def nusd(self) -> int:
        return ceil(self.bare_nusd * self.margin)

    def progress(self, actual_nusd: int, done: int | None = None, trip: float = TRIP) -> Progress:
        """Compare with what was spent; `done` items, where that is known."""
        expected = self.nusd if not done else ceil(self.nusd * done / self.items)
        ratio = actual_nusd / expected if expected else (0.0 if not actual_nusd else float("inf"))
        forecast = None if not done else ceil(actual_nusd * self.items / done)
        return Progress(actual_nusd, expected, ratio, forecast, ratio > trip)


@dataclass(frozen=True, slots=True)
class Progress:
    """A batch under way against its estimate."""

    actual_nusd: int
    expected_nusd: int
    """For what is done; the whole estimate where that is not known."""
    ratio: float
    forecast_nusd: int | None
    """The whole batch, when it goes on like this."""
    tripped: bool

    def to_json(self) -> dict[str, Any]:
        usd = None if self.forecast_nusd is None else self.forecast_nusd / 1e9
        return {
            "actual_usd": self.actual_nusd / 1e9,
            "expected_usd": self.expected_nusd / 1e9,
            "ratio": round(self.ratio, 4) if self.ratio != float("inf") else None,
            "forecast_usd": usd,
            "tripped": self.tripped,
        }
