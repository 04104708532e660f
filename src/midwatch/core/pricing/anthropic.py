"""Usage as Anthropic's dialect tells it: messages, streamed or not.

What it means: `input_tokens` is fresh input alone; what was read from the cache and written to it stands
beside it; `cache_creation` tells how long the written part is kept (all of it 5 minutes when it is absent).
`output_tokens` contains the thinking. In a stream, message_start tells a beginning and message_delta
cumulative figures; some compatible providers tell everything only at the end and zeros before: of each
figure the largest holds. Compaction and advisors are calls of their own within the call (`iterations`),
billed beside the figures at the top.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from midwatch.core.pricing.figures import Figures, elements, members
from midwatch.core.pricing.parts import split_output
from midwatch.core.pricing.usage import MAX_COUNT, Doubt, Tier, Usage, with_aside

TIERS: Final = {
    "standard": Tier.DEFAULT,
    "batch": Tier.BATCH,
    "priority": Tier.COMMITTED,
}
"""`service_tier`. Priority is capacity that was bought beforehand."""

_ASIDE: Final = ("compaction", "advisor_message")
"""Kinds of iterations whose tokens the figures at the top do not contain."""

_NO_PLACE: Final = ("", "global", "not_available")
"""`inference_geo` of calls that cost no more for the place they are served in."""


def read(answer: object, asked: Tier = Tier.DEFAULT) -> Usage | None:
    """Return the usage of a message. None when it tells none.

    `asked`: the tier that was asked for; the answer's own word for it wins.
    """
    usage = members(answer).get("usage")
    return (
        usage_of(cast("Mapping[str, Any]", usage), asked)
        if isinstance(usage, dict) and usage
        else None
    )


def region_of(place: object) -> str:
    """Return the place of an `inference_geo`, of a request or of a usage, where that is dearer; "" where it is not."""
    return place[:16] if isinstance(place, str) and place not in _NO_PLACE else ""


def usage_of(usage: Mapping[str, Any], asked: Tier = Tier.DEFAULT) -> Usage:
    """Return the usage of a `usage` object."""
    told = Figures(usage)
    given: dict[str, Any] = _tokens(told)
    if told.told("input_tokens") is None or told.told("output_tokens") is None:
        told.doubts.add(Doubt.INCOMPLETE)
    searches = told.within("server_tool_use").count("web_search_requests")
    whole = Usage(
        **given,
        web_searches=searches,
        tier=_tier(told, asked),
        region=region_of(usage.get("inference_geo")),
        doubts=frozenset(told.doubts),
    )
    return with_aside(whole, _aside(usage.get("iterations"), whole))


def _tokens(told: Figures) -> dict[str, int]:
    """Return the parts; nothing overlaps here but thinking and output, and the kinds of cache writes."""
    written = told.told("cache_creation_input_tokens")
    kept = told.within("cache_creation")
    short, hour = kept.told("ephemeral_5m_input_tokens"), kept.count("ephemeral_1h_input_tokens")
    if written is None:
        written = min((short or 0) + hour, MAX_COUNT)
    elif hour + (short or 0) > written:
        # the whole is what is billed
        told.doubts.add(Doubt.CLIPPED)
    hour = min(hour, written)
    thinking = told.within("output_tokens_details").count("thinking_tokens")
    return {
        "input_text": told.count("input_tokens"),
        "cache_read": told.count("cache_read_input_tokens"),
        "cache_write_5m": written - hour,
        "cache_write_1h": hour,
        **split_output(told.count("output_tokens"), told.doubts, reasoning=thinking),
    }


def _tier(told: Figures, asked: Tier) -> Tier:
    if told.data.get("speed") == "fast":
        return Tier.FAST
    name = told.data.get("service_tier")
    if not isinstance(name, str):
        return asked
    tier = TIERS.get(name, Tier.OTHER)
    if tier is Tier.OTHER:
        told.doubts.add(Doubt.TIER)
    return tier


def _aside(iterations: object, whole: Usage) -> list[tuple[str, Usage]]:
    """Return the calls within the call, with the model of each where it is another one."""
    found: list[tuple[str, Usage]] = []
    for entry in elements(iterations):
        told = Figures(entry)
        if told.data.get("type") not in _ASIDE:
            continue
        model = told.data.get("model")
        given: dict[str, Any] = _tokens(told)
        usage = Usage(
            **given, requests=0, tier=whole.tier, region=whole.region, doubts=frozenset(told.doubts)
        )
        found.append((model[:200] if isinstance(model, str) else "", usage))
    return found


class Stream:
    """Usage of a stream of message events."""

    __slots__ = ("_asked", "_told")

    def __init__(self, asked: Tier = Tier.DEFAULT) -> None:
        self._asked = asked
        self._told: dict[str, Any] = {}

    def feed(self, event: object) -> None:
        body = members(event)
        kind = body.get("type")
        if kind == "message_start":
            self._merge(members(members(body.get("message")).get("usage")))
        elif kind == "message_delta":
            self._merge(members(body.get("usage")))

    def _merge(self, usage: Mapping[str, Any]) -> None:
        for key, value in usage.items():
            if value is not None and key in _KNOWN:
                self._told[key] = _larger(self._told.get(key), value)

    def usage(self) -> Usage | None:
        return usage_of(self._told, self._asked) if self._told else None


_KNOWN: Final = frozenset(
    (
        "input_tokens",
        "output_tokens",
        "cache_creation_input_tokens",
        "cache_read_input_tokens",
        "cache_creation",
        "output_tokens_details",
        "server_tool_use",
        "service_tier",
        "inference_geo",
        "speed",
        "iterations",
    )
)


def _larger(old: object, new: object) -> object:
    """Return the larger of two figures, member by member; of anything else the newer."""
    if isinstance(old, dict) and isinstance(new, dict):
        mine, theirs = cast("dict[str, Any]", old), cast("dict[str, Any]", new)
        merged = dict(mine)
        for key in theirs if len(theirs) <= 64 else ():
            value = theirs[key]
            merged[key] = _larger(mine.get(key), value) if not isinstance(value, dict) else value
        return merged
    both = isinstance(old, int | float) and isinstance(new, int | float)
    return max(old, new) if both else new  # pyright: ignore[reportArgumentType, reportUnknownVariableType]
