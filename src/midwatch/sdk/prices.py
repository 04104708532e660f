"""What well-known models cost: a small table inside the agent, so that a beat can tell dollars.

Source: genai-prices 0.2.3 (MIT, github.com/pydantic/genai-prices), read on 2026-11-21; US
dollars per million tokens. An estimate: the gateway's ledger is what counts, with the
complete and current table. A model that is not here has no cost, which is not a cost of 0.
"""

from __future__ import annotations

import re

READ_ON = "2026-11-21"
"""The day on which the table was taken from its source."""


class Price:
    """Dollars per million tokens. Above `above` input tokens the whole call costs `dear`."""

    __slots__ = ("above", "cache_write", "cached", "dear", "input", "output")

    def __init__(
        self,
        input: float,  # noqa: A002
        cached: float | None,
        cache_write: float | None,
        output: float | None,
        above: int | None = None,
        dear: Price | None = None,
    ) -> None:
        self.input = input
        self.cached = input if cached is None else cached
        self.cache_write = input if cache_write is None else cache_write
        self.output = output or 0.0
        self.above = above
        self.dear = dear


def cost_usd(
    model: str, input_tokens: int, output_tokens: int, cached_tokens: int, cache_write_tokens: int
) -> float | None:
    """Return the dollars for one call, or None for a model that is not in the table.

    `input_tokens` is all of the input, with what was read from and written to the cache.
    """
    price = find(model)
    if price is None:
        return None
    if price.above is not None and price.dear is not None and input_tokens > price.above:
        price = price.dear
    fresh = max(input_tokens - cached_tokens - cache_write_tokens, 0)
    return (
        fresh * price.input
        + cached_tokens * price.cached
        + cache_write_tokens * price.cache_write
        + output_tokens * price.output
    ) / 1_000_000


def find(model: str) -> Price | None:
    """Return the price of a model, under its name with or without provider and date."""
    name = model.rsplit("/", 1)[-1].lower()
    found = TABLE.get(name)
    if found is None:
        name = _DATE.sub("", name)
        found = TABLE.get(_OTHER_NAMES.get(name, name))
    return found


_DATE = re.compile(r"(?:[-@](?:\d{8}|\d{4}-\d{2}-\d{2}|latest))$")

_OTHER_NAMES = {
    "claude-opus-4": "claude-opus-4-0",
    "claude-sonnet-4": "claude-sonnet-4-0",
    "gpt-3.5-turbo-0125": "gpt-3.5-turbo",
}

TABLE: dict[str, Price] = {
    "claude-3-5-haiku": Price(0.8, 0.08, 1, 4),
    "claude-3-7-sonnet": Price(3, 0.3, 3.75, 15),
    "claude-3-haiku": Price(0.25, 0.03, 0.3, 1.25),
    "claude-3-opus": Price(15, 1.5, 18.75, 75),
    "claude-fable-5": Price(10, 1, 12.5, 50),
    "claude-fable-5-1": Price(10, 0.25, 12.5, 50),
    "claude-fable-5-2": Price(8, 0.2, 10, 40),
    "claude-haiku-4-5": Price(1, 0.1, 1.25, 5),
    "claude-haiku-5-5": Price(
        0.1, 0.01, 0.125, 0.5, above=100000, dear=Price(0.5, 0.05, 0.625, 2.5)
    ),
    "claude-mythos-5-2": Price(8, 0.2, 10, 40),
    "claude-opus-4-0": Price(15, 1.5, 18.75, 75),
    "claude-opus-4-1": Price(15, 1.5, 18.75, 75),
    "claude-opus-4-5": Price(5, 0.5, 6.25, 25),
    "claude-opus-4-6": Price(5, 0.5, 6.25, 25),
    "claude-opus-4-7": Price(5, 0.5, 6.25, 25),
    "claude-opus-4-8": Price(5, 0.5, 6.25, 25),
    "claude-opus-5": Price(5, 0.5, 6.25, 25),
    "claude-opus-5-5": Price(4, 0.2, 5, 20),
    "claude-sonnet-4-0": Price(3, 0.3, 3.75, 15),
    "claude-sonnet-4-5": Price(3, 0.3, 3.75, 15, above=200000, dear=Price(6, 0.6, 7.5, 22.5)),
    "claude-sonnet-4-6": Price(3, 0.3, 3.75, 15),
    "claude-sonnet-5": Price(2, 0.2, 2.5, 10),
    "claude-sonnet-5-5": Price(2, 0.1, 2.5, 10),
    "gpt-3.5-turbo": Price(0.5, None, None, 1.5),
    "gpt-4": Price(30, None, None, 60),
    "gpt-4-turbo": Price(10, None, None, 30),
    "gpt-4.1": Price(2, 0.5, None, 8),
    "gpt-4.1-mini": Price(0.4, 0.1, None, 1.6),
    "gpt-4.1-nano": Price(0.1, 0.025, None, 0.4),
    "gpt-4o": Price(2.5, 1.25, None, 10),
    "gpt-4o-2024-05-13": Price(5, None, None, 15),
    "gpt-4o-mini": Price(0.15, 0.075, None, 0.6),
    "gpt-5": Price(1.25, 0.125, None, 10),
    "gpt-5-mini": Price(0.25, 0.025, None, 2),
    "gpt-5-nano": Price(0.05, 0.005, None, 0.4),
    "gpt-5-pro": Price(15, None, None, 120),
    "gpt-5.1": Price(1.25, 0.125, None, 10),
    "gpt-5.2": Price(1.75, 0.175, None, 14),
    "gpt-5.2-pro": Price(21, None, None, 168),
    "gpt-5.3": Price(1.75, 0.175, None, 14),
    "gpt-5.3-codex": Price(1.75, 0.175, None, 14),
    "gpt-5.4": Price(2.5, 0.25, None, 15, above=272000, dear=Price(5, 0.5, None, 22.5)),
    "gpt-5.4-mini": Price(0.75, 0.075, None, 4.5),
    "gpt-5.4-nano": Price(0.2, 0.02, None, 1.25),
    "gpt-5.4-pro": Price(30, None, None, 180, above=272000, dear=Price(60, None, None, 270)),
    "gpt-5.5": Price(5, 0.5, None, 30, above=272000, dear=Price(10, 1, None, 45)),
    "gpt-5.5-pro": Price(30, None, None, 180, above=272000, dear=Price(60, None, None, 270)),
    "gpt-5.6-luna": Price(0.2, 0.02, 0.25, 1.2, above=272000, dear=Price(0.4, 0.04, 0.5, 1.8)),
    "gpt-5.6-sol": Price(4, 0.4, 5, 20, above=272000, dear=Price(8, 0.8, 10, 30)),
    "gpt-5.6-terra": Price(2, 0.2, 2.5, 12, above=272000, dear=Price(4, 0.4, 5, 18)),
    "gpt-6-astra": Price(10, 1, 12.5, 50, above=272000, dear=Price(20, 2, 25, 75)),
    "gpt-6-luna": Price(0.1, 0.01, 0.125, 0.5, above=272000, dear=Price(0.2, 0.02, 0.25, 0.75)),
    "gpt-6-sol": Price(2, 0.2, 2.5, 10, above=272000, dear=Price(4, 0.4, 5, 15)),
    "gpt-6.1-sol": Price(2, 0.1, 2.5, 10, above=272000, dear=Price(4, 0.2, 5, 15)),
    "gpt-6.1-terra": Price(1, 0.05, 1.25, 5, above=272000, dear=Price(2, 0.1, 2.5, 7.5)),
    "o1": Price(15, 7.5, None, 60),
    "o1-mini": Price(1.1, 0.55, None, 4.4),
    "o1-preview": Price(15, 7.5, None, 60),
    "o1-pro": Price(150, None, None, 600),
    "o3": Price(2, 0.5, None, 8),
    "o3-mini": Price(1.1, 0.55, None, 4.4),
    "o3-pro": Price(20, None, None, 80),
    "o4-mini": Price(1.1, 0.275, None, 4.4),
    "text-embedding-3-large": Price(0.13, None, None, None),
    "text-embedding-3-small": Price(0.02, None, None, None),
    "text-embedding-ada-002": Price(0.1, None, None, None),
}
