"""Which models there are, for whoever asks `/v1/models`: what this agent could call.

Names of chains, what providers say they serve, what the fleet file tells `about`, and what the price lists know of
each provider of the dialect, in this order and bounded. What the policy denies the agent, or its key may not use, is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qs

from midwatch.core.calls.account import Payer
from midwatch.core.calls.ask import Ask, Dialect, Kind
from midwatch.core.calls.chain import NoPlace, Place
from midwatch.core.calls.policy import Outcome
from midwatch.gateway.carried import facts
from midwatch.gateway.scopes import may_use
from midwatch.gateway.settings import Provided, Settings

MAX_LISTED: Final = 1_000
"""Models of one answer."""

MAX_OF_LIST: Final = 300
"""Models of one provider that come from the price lists."""

_WILD: Final = re.compile(r"[*?\[]")

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Listed:
    """One model."""

    name: str
    provider: str
    window: int | None = None
    max_output: int | None = None


def models(settings: Settings, payer: Payer, patterns: Sequence[str], kind: Kind) -> list[Listed]:
    """Return what a payer may call in the dialects of a kind, each once."""
    found: dict[str, Listed] = {}
    for name in _names(settings, kind):
        if name not in found and len(found) < MAX_LISTED:
            listed = model(settings, payer, patterns, kind, name)
            if listed is not None:
                found[name] = listed
    return list(found.values())


def model(
    settings: Settings, payer: Payer, patterns: Sequence[str], kind: Kind, name: str
) -> Listed | None:
    """Return one model; None when nobody serves it, or the payer may not call it. It may be of another dialect:
    then calls are translated."""
    ask = Ask(kind, Dialect.MODELS, name)
    said = facts(payer, ask)
    try:
        places = settings.chains.places(ask, lambda: said)
    except NoPlace:
        return None
    for place in places:
        if patterns and not may_use(patterns, place):
            continue
        about = settings.chains.about(place.model)
        outcome = Outcome(place.provider, place.model, about, 0, place.position > 0)
        if settings.policy.judge(said, outcome).denied is not None:
            continue
        return _listed(settings, name, place, kind)
    return None


def _listed(settings: Settings, name: str, place: Place, kind: Kind) -> Listed:
    if kind is not Kind.GEMINI:  # the others do not say how large a model is
        return Listed(name, place.provider)
    about = settings.chains.about(place.model)
    seller = settings.providers[place.provider].seller
    known = settings.shelf.find(place.provider, seller, place.model)
    window, longest = about.context or known.window, about.max_output or known.max_output
    return Listed(name, place.provider, window, longest)


def _names(settings: Settings, kind: Kind) -> Iterator[str]:
    yield from (name for name in settings.models.chains if not name.startswith("task:"))
    of_kind = [p for p in settings.providers.values() if p.kind is kind]
    for provided in of_kind:
        yield from (name for name in provided.given.models if _WILD.search(name) is None)
    yield from settings.models.about
    for provided in of_kind:
        yield from _of_lists(settings, provided)


def _of_lists(settings: Settings, provided: Provided) -> Iterator[str]:
    named = {name for book in settings.shelf.books for name in book.models(provided.seller)}
    usable = (name for name in sorted(named) if len(name) <= 120 and name.isprintable())
    for _, name in zip(range(MAX_OF_LIST), usable, strict=False):
        yield name


# -- in each dialect's words -----------------------------------------------------------------------


def page(kind: Kind, listed: Sequence[Listed], query: str) -> Json:
    """Return the answer to a question for all models."""
    if kind is Kind.OPENAI:
        return {"object": "list", "data": [entry(kind, one) for one in listed]}
    if kind is Kind.GEMINI:
        return {"models": [entry(kind, one) for one in listed]}
    asked = parse_qs(query)
    names = [one.name for one in listed]
    after = asked.get("after_id", [""])[0]
    start = names.index(after) + 1 if after in names else 0
    limit = asked.get("limit", ["1000"])[0]
    count = max(1, min(int(limit), MAX_LISTED)) if limit.isascii() and limit.isdigit() else 20
    shown = listed[start : start + count]
    return {
        "data": [entry(kind, one) for one in shown],
        "has_more": start + count < len(listed),
        "first_id": shown[0].name if shown else None,
        "last_id": shown[-1].name if shown else None,
    }


def entry(kind: Kind, one: Listed) -> Json:
    """Return one model."""
    if kind is Kind.OPENAI:
        return {"id": one.name, "object": "model", "created": 0, "owned_by": one.provider}
    if kind is Kind.ANTHROPIC:
        return {
            "type": "model",
            "id": one.name,
            "display_name": one.name,
            "created_at": "1970-01-01T00:00:00Z",
        }
    shown: Json = {
        "name": f"models/{one.name}",
        "baseModelId": one.name,
        "version": "",
        "displayName": one.name,
        "supportedGenerationMethods": ["generateContent", "countTokens"],
    }
    if one.window is not None:
        shown["inputTokenLimit"] = one.window
    if one.max_output is not None:
        shown["outputTokenLimit"] = one.max_output
    return shown
