"""Usage as providers with OpenAI's dialect tell it: chat completions, responses, embeddings.

What they mean:
- the input (`prompt_tokens`, `input_tokens`) contains what was read from a cache, what was written to one,
  and audio and images (OpenAI, Azure, Groq, Mistral, OpenRouter, DeepSeek, Moonshot);
- the output contains reasoning, audio and rejected predictions. xAI's chat puts reasoning beside it: the
  total tells (prompt + completion + reasoning). Perplexity's deep research does, too, and says so by the
  citations or searches that stand next to it;
- some report what they charge: OpenRouter and others as `cost` in dollars, Perplexity as
  `cost.total_cost`, xAI in ticks of 10^-10 dollars, DeepInfra as `estimated_cost`. With a key of one's own
  at OpenRouter (`is_byok`), `cost` is its fee and the inference comes on top.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from midwatch.core.pricing.figures import Figures, elements, members
from midwatch.core.pricing.parts import split_input, split_output
from midwatch.core.pricing.usage import Doubt, Part, Tier, Usage

TIERS: Final = {
    "default": Tier.DEFAULT,
    "auto": Tier.DEFAULT,
    "standard": Tier.DEFAULT,
    "on_demand": Tier.DEFAULT,
    "batch": Tier.BATCH,
    "flex": Tier.FLEX,
    "priority": Tier.PRIORITY,
    "performance": Tier.PRIORITY,
    "fast": Tier.FAST,
    "ultrafast": Tier.ULTRAFAST,
    "scale": Tier.COMMITTED,
}
"""`service_tier` of an answer, with Groq's names (on_demand, performance)."""

TICKS_PER_USD: Final = 10**10

_PAID_ITEMS: Final = {
    "web_search_call": Part.WEB_SEARCHES,
    "web_search_preview_call": Part.WEB_SEARCHES,
    "file_search_call": Part.FILE_SEARCHES,
}
"""Items of a response's output that are billed by the call."""

_MAX_ITEMS: Final = 10_000


def read(answer: object, asked: Tier = Tier.DEFAULT) -> Usage | None:
    """Return the usage of an answer: chat, response or embeddings. None when it tells none.

    `asked`: the tier that was asked for; the answer's own word for it wins.
    """
    body = members(answer)
    usage = _find(body)
    if usage is None:
        return None
    return usage_of(usage, _tier(body.get("service_tier"), asked), paid_items(body.get("output")))


def usage_of(
    usage: object, tier: Tier = Tier.DEFAULT, items: Mapping[Part, int] | None = None
) -> Usage:
    """Return the usage of a `usage` object. `items`: pieces billed by the call."""
    told = Figures(usage)
    asked_in = told.told("prompt_tokens", "input_tokens")
    asked_out = told.told("completion_tokens", "output_tokens")
    total = told.told("total_tokens")
    if asked_in is None:
        asked_in = 0 if total is None else max(total - (asked_out or 0), 0)
        if total is None:
            told.doubts.add(Doubt.INCOMPLETE)
    if asked_out is None:
        # embeddings have no output: their total is their input
        asked_out = 0 if total is None else max(total - asked_in, 0)
        if total is None:
            told.doubts.add(Doubt.INCOMPLETE)
    given: dict[str, Any] = _input(told, asked_in)
    given |= _output(told, asked_in, asked_out, total)
    given["web_searches"] = told.count("num_search_queries", "num_sources_used")
    if items:
        given["web_searches"] = max(given["web_searches"], items.get(Part.WEB_SEARCHES, 0))
        given["file_searches"] = items.get(Part.FILE_SEARCHES, 0)
    if tier is Tier.OTHER:
        told.doubts.add(Doubt.TIER)
    reported = reported_nusd(told)
    return Usage(**given, tier=tier, reported_nusd=reported, doubts=frozenset(told.doubts))


_CACHED_ELSEWHERE: Final = frozenset(
    (
        # DeepSeek; Moonshot and Together; Mistral; a proxy before Anthropic
        "prompt_cache_hit_tokens",
        "cached_tokens",
        "num_cached_tokens",
        "cache_read_input_tokens",
        "cache_creation_input_tokens",
    )
)
"""Where those tell of their caches who have no details for it."""


def _input(told: Figures, total: int) -> dict[str, int]:
    details = _details(told, "prompt_tokens_details", "input_tokens_details", "input_token_details")
    elsewhere = not _CACHED_ELSEWHERE.isdisjoint(told.data)
    if details.quiet and not elsewhere:
        return {"input_text": total}
    cached = details.count("cached_tokens", "cache_read_input_tokens")
    written = details.count("cache_write_tokens")
    if elsewhere:
        cached = max(
            cached,
            told.count("prompt_cache_hit_tokens"),
            told.count("cached_tokens", "num_cached_tokens"),
            told.count("cache_read_input_tokens"),
        )
        written = max(written, told.count("cache_creation_input_tokens"))
    media = {
        "audio": details.count("audio_tokens"),
        "image": details.count("image_tokens"),
        "video": details.count("video_tokens"),
    }
    if not (cached or written or any(media.values())):
        return {"input_text": total}
    by_kind = details.within("cached_tokens_details")
    kept = details.within("cache_write_tokens_details")
    half_day = min(kept.count("ttl_12h_tokens"), written)
    hour = min(told.within("cache_creation").count("ephemeral_1h_input_tokens"), written - half_day)
    return split_input(
        total,
        told.doubts,
        cached=cached,
        cached_audio=by_kind.count("audio_tokens"),
        cached_image=by_kind.count("image_tokens"),
        writes=(written - hour - half_day, hour, half_day),
        **media,
    )


_MADE_ELSEWHERE: Final = frozenset(("reasoning_tokens", "citation_tokens"))
"""Where those tell of more output who have no details for it."""


def _output(told: Figures, asked_in: int, answered: int, total: int | None) -> dict[str, int]:
    details = _details(
        told, "completion_tokens_details", "output_tokens_details", "output_token_details"
    )
    if details.quiet and _MADE_ELSEWHERE.isdisjoint(told.data):
        return {"output_text": answered, "citation": 0}
    outside = told.count("reasoning_tokens")
    reasoning = max(details.count("reasoning_tokens"), outside)
    cited = told.count("citation_tokens")
    audio, image = details.count("audio_tokens"), details.count("image_tokens")
    if not (reasoning or audio or image):
        return {"output_text": answered, "citation": cited}
    searched = "citation_tokens" in told.data or "num_search_queries" in told.data
    beside = (outside > 0 and searched) or total == asked_in + answered + reasoning
    parts = split_output(
        min(answered + reasoning, 1_000_000_000) if beside else answered,
        told.doubts,
        reasoning=reasoning,
        audio=audio,
        image=image,
    )
    return {**parts, "citation": cited}


def _details(told: Figures, *names: str) -> Figures:
    """Return the first of the objects that is there: chat, responses and realtime name it differently."""
    for name in names:
        if told.data.get(name) is not None:
            return told.within(name)
    return told.within(names[0])


def reported_nusd(told: Figures) -> int | None:
    """Return what the provider says it charges, in nano-dollars, or None."""
    ticks = told.nusd("cost_in_usd_ticks", TICKS_PER_USD)
    if ticks is not None:
        return ticks
    cost = told.data.get("cost")
    if isinstance(cost, dict):
        return told.within("cost").nusd("total_cost")
    if cost is None:
        return told.nusd("estimated_cost")
    charged = told.nusd("cost")
    if charged is None or told.data.get("is_byok") is not True:
        return charged
    inference = told.within("cost_details").nusd("upstream_inference_cost")
    if inference is None:
        # the fee alone is not what the call cost
        told.doubts.add(Doubt.MALFORMED)
        return None
    return charged + inference


def paid_items(output: object) -> dict[Part, int]:
    """Return the items of a response's output that are billed by the call, counted."""
    found: dict[Part, int] = {}
    for item in elements(output)[:_MAX_ITEMS]:
        shown = members(item)
        kind = shown.get("type")
        part = _PAID_ITEMS.get(kind) if isinstance(kind, str) else None
        # opening a page or looking for a word on it is no search
        action = members(shown.get("action")).get("type", "search")
        if part is not None and (part is not Part.WEB_SEARCHES or action == "search"):
            found[part] = found.get(part, 0) + 1
    return found


def _find(body: Mapping[str, Any]) -> object:
    """Return where usage stands: at the top, with Groq's streams under x_groq, with Moonshot's in a choice."""
    usage = body.get("usage")
    if isinstance(usage, dict) and usage:
        return usage  # pyright: ignore[reportUnknownVariableType]
    for place in (members(body.get("x_groq")), members(_first(body.get("choices")))):
        usage = place.get("usage")
        if isinstance(usage, dict) and usage:
            return usage  # pyright: ignore[reportUnknownVariableType]
    return None


def _first(value: object) -> object:
    items = elements(value)
    return items[0] if items else None


def _tier(told: object, asked: Tier) -> Tier:
    if told is None:
        return asked
    if told in ("auto", "default") and asked is Tier.BATCH:
        return asked  # answers of a batch do not call themselves one
    return TIERS.get(told, Tier.OTHER) if isinstance(told, str) else asked


class Stream:
    """Usage of a stream of chat chunks or of response events.

    Figures are cumulative wherever a provider tells them more than once: the last one holds.
    """

    __slots__ = ("_asked", "_items", "_tier", "_usage")

    def __init__(self, asked: Tier = Tier.DEFAULT) -> None:
        self._asked = asked
        self._tier: object = None
        self._usage: object = None
        self._items: dict[Part, int] = {}

    def feed(self, event: object) -> None:
        body = members(event)
        inner = members(body.get("response")) or body
        usage = _find(inner)
        if usage is not None:
            self._usage = usage
        tier = inner.get("service_tier")
        if isinstance(tier, str):
            self._tier = tier
        output = inner.get("output")
        if isinstance(output, list) and output:
            self._items = paid_items(output)  # pyright: ignore[reportUnknownArgumentType]
        elif body.get("type") == "response.output_item.done":
            for part, count in paid_items([body.get("item")]).items():
                self._items[part] = self._items.get(part, 0) + count

    def usage(self) -> Usage | None:
        if self._usage is None:
            return None
        return usage_of(self._usage, _tier(self._tier, self._asked), self._items)
