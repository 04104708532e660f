"""Usage as Gemini's dialect tells it: generateContent and streamGenerateContent, also of Vertex AI.

What it means: `promptTokenCount` contains the cached content; what tools brought in
(`toolUsePromptTokenCount`) and what was thought (`thoughtsTokenCount`) stand beside prompt and candidates.
Some versions of Vertex count thoughts within the candidates: the total tells. Details give the same tokens
again by modality; documents are billed as images are. In a stream each chunk repeats the figures so far,
some chunks without some of them: of each figure the largest holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from midwatch.core.pricing.figures import Figures, elements, members
from midwatch.core.pricing.parts import split_input, split_output
from midwatch.core.pricing.usage import MAX_COUNT, Doubt, Tier, Usage

TIERS: Final = {
    "standard": Tier.DEFAULT,
    "on_demand": Tier.DEFAULT,
    "unspecified": Tier.DEFAULT,
    "traffic_type_unspecified": Tier.DEFAULT,
    "service_tier_unspecified": Tier.DEFAULT,
    "batch": Tier.BATCH,
    "flex": Tier.FLEX,
    "on_demand_flex": Tier.FLEX,
    "priority": Tier.PRIORITY,
    "on_demand_priority": Tier.PRIORITY,
    "provisioned_throughput": Tier.COMMITTED,
}
"""`serviceTier` (Gemini API) and `trafficType` (Vertex AI), in small letters."""

_MODALITIES: Final = {"AUDIO": "audio", "IMAGE": "image", "DOCUMENT": "image", "VIDEO": "video"}

_MAX_DETAILS: Final = 64


def read(answer: object, asked: Tier = Tier.DEFAULT) -> Usage | None:
    """Return the usage of an answer. None when it tells none.

    `asked`: the tier that was asked for; the answer's own word for it wins.
    """
    body = members(answer)
    usage = body.get("usageMetadata")
    if not isinstance(usage, dict) or not usage:
        return None
    return usage_of(cast("Mapping[str, Any]", usage), asked, searches_of(body))


def usage_of(
    usage: Mapping[str, Any], asked: Tier = Tier.DEFAULT, searches: tuple[int, int] = (0, 0)
) -> Usage:
    """Return the usage of a `usageMetadata` object. `searches`: on the web and on maps."""
    told = Figures(usage)
    prompt = told.told("promptTokenCount")
    answered = told.told("candidatesTokenCount", "responseTokenCount")
    if prompt is None:
        told.doubts.add(Doubt.INCOMPLETE)
    total = told.told("totalTokenCount")
    tools, thoughts = told.count("toolUsePromptTokenCount"), told.count("thoughtsTokenCount")
    within = (
        thoughts
        and total == (prompt or 0) + (answered or 0) + tools
        and (answered or 0) >= thoughts
    )
    asked_in = by_modality(usage.get("promptTokensDetails"), told.doubts)
    brought = by_modality(usage.get("toolUsePromptTokensDetails"), told.doubts)
    kept = by_modality(usage.get("cacheTokensDetails"), told.doubts)
    made = by_modality(
        usage.get("candidatesTokensDetails") or usage.get("responseTokensDetails"), told.doubts
    )
    given: dict[str, Any] = split_input(
        min((prompt or 0) + tools, MAX_COUNT),
        told.doubts,
        cached=told.count("cachedContentTokenCount"),
        cached_audio=kept["audio"],
        cached_image=kept["image"],
        audio=asked_in["audio"] + brought["audio"],
        image=asked_in["image"] + brought["image"],
        video=asked_in["video"] + brought["video"],
    )
    given |= split_output(
        min((answered or 0) + (0 if within else thoughts), MAX_COUNT),
        told.doubts,
        reasoning=thoughts,
        audio=made["audio"],
        image=made["image"] + made["video"],
    )
    return Usage(
        **given,
        web_searches=searches[0],
        map_searches=searches[1],
        tier=_tier(told, asked),
        doubts=frozenset(told.doubts),
    )


def by_modality(details: object, doubts: set[Doubt]) -> dict[str, int]:
    """Return the tokens of audio, image and video in a list of details; text is the rest of the total."""
    found = {"audio": 0, "image": 0, "video": 0}
    for entry in elements(details)[:_MAX_DETAILS]:
        told = Figures(entry, doubts)
        modality = told.data.get("modality")
        kind = _MODALITIES.get(modality) if isinstance(modality, str) else None
        if kind is not None:
            found[kind] = min(found[kind] + told.count("tokenCount"), MAX_COUNT)
    return found


def searches_of(body: Mapping[str, Any]) -> tuple[int, int]:
    """Return the searches on the web and on maps that an answer is billed for.

    From Gemini 3 on each query counts, before that each answer that used any.
    """
    version = body.get("modelVersion")
    each = not (isinstance(version, str) and version.startswith(("gemini-1", "gemini-2")))
    web = maps = 0
    for candidate in elements(body.get("candidates"))[:_MAX_DETAILS]:
        grounding = members(members(candidate).get("groundingMetadata"))
        queries = [
            q for q in elements(grounding.get("webSearchQueries")) if isinstance(q, str) and q
        ]
        web += len(queries)
        chunks = [members(c) for c in elements(grounding.get("groundingChunks"))]
        maps += any("maps" in chunk for chunk in chunks)
    return (web if each else min(web, 1), maps)


def _tier(told: Figures, asked: Tier) -> Tier:
    for key in ("serviceTier", "trafficType"):
        name = told.data.get(key)
        if isinstance(name, str) and name:
            tier = TIERS.get(name.lower(), Tier.OTHER)
            if tier is Tier.OTHER:
                told.doubts.add(Doubt.TIER)
            # answers of a batch do not call themselves one
            return asked if tier is Tier.DEFAULT and asked is Tier.BATCH else tier
    return asked


class Stream:
    """Usage of a stream of chunks."""

    __slots__ = ("_asked", "_searches", "_told")

    def __init__(self, asked: Tier = Tier.DEFAULT) -> None:
        self._asked = asked
        self._told: dict[str, Any] = {}
        self._searches = (0, 0)

    def feed(self, event: object) -> None:
        body = members(event)
        web, maps = searches_of(body)
        self._searches = (max(self._searches[0], web), max(self._searches[1], maps))
        for key, value in members(body.get("usageMetadata")).items():
            if value is None or key not in _KNOWN:
                continue
            old = self._told.get(key)
            if isinstance(value, int) and isinstance(old, int):
                self._told[key] = max(old, value)
            elif not isinstance(value, list) or _sum(value) >= _sum(old):  # pyright: ignore[reportUnknownArgumentType]
                self._told[key] = value

    def usage(self) -> Usage | None:
        return usage_of(self._told, self._asked, self._searches) if self._told else None


_KNOWN: Final = frozenset(
    (
        "promptTokenCount",
        "cachedContentTokenCount",
        "candidatesTokenCount",
        "responseTokenCount",
        "toolUsePromptTokenCount",
        "thoughtsTokenCount",
        "totalTokenCount",
        "promptTokensDetails",
        "cacheTokensDetails",
        "candidatesTokensDetails",
        "responseTokensDetails",
        "toolUsePromptTokensDetails",
        "serviceTier",
        "trafficType",
    )
)


def _sum(details: object) -> int:
    return sum(Figures(entry).count("tokenCount") for entry in elements(details)[:_MAX_DETAILS])
