"""What one call used, in parts that never overlap: each token stands in exactly one part, so each part has
one price and the parts add up to the provider's own totals.

Providers nest their figures (cached tokens within or beside the input, reasoning within or beside the
output). The readers take that apart; whoever holds a `Usage` adds and multiplies and needs to know nothing
of dialects. Figures are whole numbers from 0 to MAX_COUNT.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from enum import StrEnum
from itertools import compress
from operator import attrgetter
from typing import Any, Final, cast

from midwatch.core.sealed import sealed

MAX_COUNT: Final = 1_000_000_000
"""Tokens of one part. No call has a thousand million; a larger figure is a slip or a lie."""

MAX_NUSD: Final = 10**15
"""A million dollars for one call: what a provider reports above that is not believed."""

VERSION: Final = 1
"""Of the stored form: a reader of the ledger may meet older ones."""

MAX_ASIDE: Final = 32
"""Inner calls that are told apart; the rest of them is added to the last."""


class Tier(StrEnum):
    """How urgently the call was served, by what the provider said. Each has its own price."""

    DEFAULT = "default"
    BATCH = "batch"
    FLEX = "flex"
    PRIORITY = "priority"
    FAST = "fast"
    ULTRAFAST = "ultrafast"
    COMMITTED = "committed"
    """Capacity that was bought beforehand. Its price per token is in a contract."""
    OTHER = "other"
    """A name that is not known here, or calls of several tiers added up: the dearest one is reckoned with."""


class Doubt(StrEnum):
    """Why a figure may be wrong."""

    MALFORMED = "malformed"
    """A figure was none: negative, broken, absurdly large. It was left out."""
    CLIPPED = "clipped"
    """Parts exceeded their whole, and were cut down to it."""
    INCOMPLETE = "incomplete"
    """Input or output was not told at all: estimate what is missing."""
    TIER = "tier"
    """The name of the service tier is not known."""
    ASIDE = "aside"
    """More inner calls than are told apart."""


class Part(StrEnum):
    """What has a price of its own. The values are the names of `Usage`'s fields."""

    INPUT_TEXT = "input_text"
    INPUT_AUDIO = "input_audio"
    INPUT_IMAGE = "input_image"
    INPUT_VIDEO = "input_video"
    CACHE_READ = "cache_read"
    CACHE_READ_AUDIO = "cache_read_audio"
    CACHE_READ_IMAGE = "cache_read_image"
    CACHE_WRITE_5M = "cache_write_5m"
    CACHE_WRITE_1H = "cache_write_1h"
    CACHE_WRITE_12H = "cache_write_12h"
    OUTPUT_TEXT = "output_text"
    REASONING = "reasoning"
    OUTPUT_AUDIO = "output_audio"
    OUTPUT_IMAGE = "output_image"
    CITATION = "citation"
    REQUESTS = "requests"
    WEB_SEARCHES = "web_searches"
    FILE_SEARCHES = "file_searches"
    MAP_SEARCHES = "map_searches"


INPUTS: Final = (
    Part.INPUT_TEXT,
    Part.INPUT_AUDIO,
    Part.INPUT_IMAGE,
    Part.INPUT_VIDEO,
    Part.CACHE_READ,
    Part.CACHE_READ_AUDIO,
    Part.CACHE_READ_IMAGE,
    Part.CACHE_WRITE_5M,
    Part.CACHE_WRITE_1H,
    Part.CACHE_WRITE_12H,
)
OUTPUTS: Final = (Part.OUTPUT_TEXT, Part.REASONING, Part.OUTPUT_AUDIO, Part.OUTPUT_IMAGE)
TOKENS: Final = (*INPUTS, *OUTPUTS, Part.CITATION)
FEES: Final = (Part.REQUESTS, Part.WEB_SEARCHES, Part.FILE_SEARCHES, Part.MAP_SEARCHES)
"""Billed by the piece."""

_NAMES: Final = tuple(part.value for part in Part)

counts = attrgetter(*_NAMES)
"""Every part of a usage, in the order of `Part`."""
_inputs = attrgetter(*(part.value for part in INPUTS))
_outputs = attrgetter(*(part.value for part in OUTPUTS))


@sealed
class Usage:
    """Tokens and pieces of one call. Raises ValueError for a negative or absurd figure.

    Input: fresh text, audio, image and video tokens; what was read from a cache; what was written to one,
    by how long it is kept (`cache_write_5m` is the short kind of any provider, 30 minutes with OpenAI).
    Output: text, reasoning (billed as output, shown apart), audio, image.
    """

    input_text: int = 0
    input_audio: int = 0
    input_image: int = 0
    input_video: int = 0
    cache_read: int = 0
    cache_read_audio: int = 0
    cache_read_image: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    cache_write_12h: int = 0
    output_text: int = 0
    reasoning: int = 0
    output_audio: int = 0
    output_image: int = 0
    citation: int = 0
    """Of sources that were read and cited, where they are billed (Perplexity); neither in- nor output."""
    requests: int = 1
    web_searches: int = 0
    file_searches: int = 0
    map_searches: int = 0
    tier: Tier = Tier.DEFAULT
    region: str = ""
    """Where it was served, when the client asked for a place and the place costs more: us, eu."""
    reported_nusd: int | None = None
    """What the provider itself says it charges. None: it says nothing."""
    estimated: bool = False
    """Counted or guessed here, because the provider told nothing."""
    doubts: frozenset[Doubt] = frozenset()
    aside: tuple[tuple[str, Usage], ...] = ()
    """Calls that the provider made within this one and bills beside it: model ("" is the same) and usage."""

    def __post_init__(self) -> None:
        figures: tuple[int, ...] = counts(self)
        if min(figures) < 0 or max(figures) > MAX_COUNT:
            raise ValueError(f"expected counts from 0 to {MAX_COUNT}, got {figures!r}")

    @property
    def input_tokens(self) -> int:
        """All of the input: fresh, read from and written to a cache."""
        return sum(_inputs(self))

    @property
    def cached_tokens(self) -> int:
        """Input that was read from a cache."""
        return self.cache_read + self.cache_read_audio + self.cache_read_image

    @property
    def cache_write_tokens(self) -> int:
        """Input that was written to a cache."""
        return self.cache_write_5m + self.cache_write_1h + self.cache_write_12h

    @property
    def output_tokens(self) -> int:
        """All of the output, with the reasoning."""
        return sum(_outputs(self))

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens + self.citation

    def __add__(self, other: Usage) -> Usage:
        """Return the sum of two calls, for display.

        Its cost is the sum of the costs only where no price depends on the length of one call or on its
        tier: add costs, not usages, where money counts. A reported cost that one side lacks is lacking.
        """
        mine, theirs = self.reported_nusd, other.reported_nusd
        summed = {
            part.value: min(a + b, MAX_COUNT)
            for part, a, b in zip(Part, counts(self), counts(other), strict=True)
        }
        return Usage(
            **summed,
            tier=self.tier if self.tier is other.tier else Tier.OTHER,
            region=self.region if self.region == other.region else self.region or other.region,
            reported_nusd=None if mine is None or theirs is None else mine + theirs,
            estimated=self.estimated or other.estimated,
            doubts=self.doubts | other.doubts,
            aside=_bounded((*self.aside, *other.aside)),
        )

    def doubted(self, *doubts: Doubt) -> Usage:
        """Return this with more doubts."""
        return replace(self, doubts=self.doubts | frozenset(doubts))

    def to_json(self) -> dict[str, Any]:
        """Return the stored form: what differs from nothing, and its version."""
        figures: tuple[int, ...] = counts(self)
        stored: dict[str, Any] = dict(compress(zip(_NAMES, figures, strict=True), figures))
        stored["v"] = VERSION
        if self.requests == 1:
            del stored[Part.REQUESTS]
        elif not self.requests:
            stored[Part.REQUESTS.value] = 0
        if self.tier is not Tier.DEFAULT:
            stored["tier"] = self.tier.value
        if self.region:
            stored["region"] = self.region
        if self.reported_nusd is not None:
            stored["reported_nusd"] = self.reported_nusd
        if self.estimated:
            stored["estimated"] = True
        if self.doubts:
            stored["doubts"] = sorted(self.doubts)
        if self.aside:
            stored["aside"] = [[model, usage.to_json()] for model, usage in self.aside]
        return stored

    @classmethod
    def from_json(cls, stored: object) -> Usage:
        """Return the usage of a stored form. Raises ValueError for what `to_json` did not write; what a
        newer version added is passed over."""
        if not isinstance(stored, dict):
            raise ValueError(f"expected a stored usage, got {stored!r:.60}")
        data = cast("Mapping[str, Any]", stored)
        if not isinstance(data.get("v"), int):
            raise ValueError(f"expected a version under 'v' in a stored usage, got {data!r:.60}")
        given: dict[str, Any] = {}
        for part in Part:
            value = data.get(part.value)
            if value is not None:
                given[part.value] = _whole(part.value, value)
        if data.get("reported_nusd") is not None:
            given["reported_nusd"] = _whole("reported_nusd", data["reported_nusd"])
        tiers = {tier.value: tier for tier in Tier}
        doubts = {doubt.value: doubt for doubt in Doubt}
        aside = cast("list[tuple[str, object]]", data.get("aside") or [])
        return cls(
            **given,
            tier=tiers.get(data.get("tier", "default"), Tier.OTHER),
            region=str(data.get("region", "")),
            estimated=data.get("estimated") is True,
            doubts=frozenset(doubts[d] for d in data.get("doubts", ()) if d in doubts),
            aside=tuple((str(model), cls.from_json(usage)) for model, usage in aside),
        )


def with_aside(usage: Usage, inner: Iterable[tuple[str, Usage]]) -> Usage:
    """Return a usage with the calls that were made within it."""
    listed = tuple(inner)
    bounded = _bounded(listed)
    doubts = usage.doubts | {Doubt.ASIDE} if len(bounded) < len(listed) else usage.doubts
    return replace(usage, aside=bounded, doubts=frozenset(doubts)) if listed else usage


def _bounded(inner: tuple[tuple[str, Usage], ...]) -> tuple[tuple[str, Usage], ...]:
    if len(inner) <= MAX_ASIDE:
        return inner
    kept, rest = inner[: MAX_ASIDE - 1], inner[MAX_ASIDE - 1 :]
    model, summed = rest[0]
    for _, usage in rest[1:]:
        summed = summed + usage
    return (*kept, (model, summed))


def _whole(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(
            f"expected a whole number under {name!r} in a stored usage, got {value!r:.60}"
        )
    return value


assert [f.name for f in fields(Usage)][: len(Part)] == [part.value for part in Part]
