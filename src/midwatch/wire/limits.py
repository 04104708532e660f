"""Limits of what may travel. Each is a promise to both sides; docs/reference/limits.md lists them."""

from __future__ import annotations

MAX_BODY_BYTES = 16 * 1024 * 1024
"""One HTTP body, after decompression. Larger is answered 413."""

MAX_ITEMS = 10_000
"""Items in one list. The SDK sends at most 500."""

MAX_TEXT = 8_192
"""Characters of one string field; longer text is clipped and counted as `clipped`."""

MAX_FIELDS = 512
"""Fields of one item. The kinds know about twenty; the rest is an agent's own."""

MAX_NAME = 128
"""Characters of a name: agent, kind, run id."""

MAX_DATA_BYTES = 65_536
"""Encoded size of an event's `data`, or of the unknown fields of any item; larger is refused."""

MAX_FUTURE_S = 600.0
"""How far ahead of the hub's clock a time may lie. Clocks drift by seconds, not by minutes."""

MAX_PAST_S = 45 * 86_400.0
"""How far back a time may lie: a spool of six weeks is still welcome."""

MAX_NUMBER = 10**15
"""Largest count or duration: far over any real one, and small enough to be summed in 64 bits."""

MAX_COST_USD = 1_000_000.0
"""Largest cost of one item: in nano-dollars 9,000 of them fit into 64 bits."""

NUSD_PER_USD = 1_000_000_000
"""Money travels as dollars (`cost_usd`) and is kept as integer nano-dollars (`cost_nusd`)."""
