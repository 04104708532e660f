"""Which models there are, for whoever asks `/v1/models`: what this agent could call.

Names of chains, what providers say they serve, what the fleet file tells `about`, and what the price lists know of
each provider, in this order and bounded; models that are translated for the client come last. A name that would lead
to another provider is listed with its own in front. What the policy denies the agent, or its key may not use, is
left out.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
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

Told = Mapping[str, Sequence[str] | None]
"""By provider: what it says that it serves; None: it was asked, and told nothing."""

NOTHING: Told = {}


@dataclass(frozen=True, slots=True)
class Listed:
    """One model."""

    name: str
    provider: str
    window: int | None = None
    max_output: int | None = None


def models(
    settings: Settings, payer: Payer, patterns: Sequence[str], kind: Kind, told: Told = NOTHING
) -> list[Listed]:
    """Return what a payer may call in the dialects of a kind, each once: what its own kind of provider serves
    first, then what is translated for it."""
    found: dict[str, Listed] = {}
    for name in _names(settings, kind, told):
        if name not in found and len(found) < MAX_LISTED:
            listed = _allowed(settings, payer, patterns, kind, name)
            if listed is not None:
                found[name] = listed
    return list(found.values())


def model(
    settings: Settings,
    payer: Payer,
    patterns: Sequence[str],
    kind: Kind,
    name: str,
    told: Told = NOTHING,
) -> Listed | None:
    """Return one model; None when nobody serves it, or the payer may not call it. It may be of another dialect:
    then calls are translated.

    Somebody serves what is a chain, what fleet file, price lists or the provider itself (`told`) name, and any
    name at a provider of whose models nobody says anything.
    """
    place = _first(settings, kind, name)
    if place is None:
        return None
    if name not in settings.models.chains and not _known(settings, place):
        listed = settings.providers[place.provider].given.models or told.get(place.provider)
        if listed is not None and place.model not in listed:
            return None
    return _allowed(settings, payer, patterns, kind, name)


def unsure(settings: Settings, kind: Kind, name: str = "") -> list[str]:
    """Return the providers that are to be asked what they serve: for one model, the one that it would go to when
    nobody else knows of it; for all, those of whose models neither fleet file nor price lists say anything."""
    if not name:
        return [
            p.name
            for p in settings.providers.values()
            if not p.given.models and not _sold(settings, p)
        ]
    place = _first(settings, kind, name)
    if place is None or name in settings.models.chains or _known(settings, place):
        return []
    return [] if settings.providers[place.provider].given.models else [place.provider]


def _first(settings: Settings, kind: Kind, name: str) -> Place | None:
    """Return the first place that a name leads to."""
    ask = Ask(kind, Dialect.MODELS, name)
    try:
        return next(iter(settings.chains.places(ask, lambda: facts(Payer(""), ask))), None)
    except NoPlace:
        return None


def _known(settings: Settings, place: Place) -> bool:
    """Tell whether fleet file or price lists know a model at its place."""
    provided = settings.providers[place.provider]
    listed = provided.given.models
    if listed:
        return any(fnmatch.fnmatchcase(place.model, pattern) for pattern in listed)
    if place.model in settings.models.about:
        return True
    found = settings.shelf.find(place.provider, provided.seller, place.model)
    if found.own is not None and not provided.given.free:
        return True
    # the lists find `x/gpt-4o` as gpt-4o, whoever x is
    return any(
        not listing.borrowed and ("/" in listing.name or "/" not in place.model)
        for listing in found.listings
    )


def _allowed(
    settings: Settings, payer: Payer, patterns: Sequence[str], kind: Kind, name: str
) -> Listed | None:
    """Return a model at the first of its places that policy and key allow."""
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


def _names(settings: Settings, kind: Kind, told: Told) -> Iterator[str]:
    yield from (name for name in settings.models.chains if not name.startswith("task:"))
    own = [p for p in settings.providers.values() if p.kind is kind]
    others = [p for p in settings.providers.values() if p.kind is not kind]
    for provided in own:
        yield from _asked_as(settings, kind, provided, _said(provided, told))
    yield from settings.models.about
    for provided in own:
        yield from _asked_as(settings, kind, provided, _of_lists(settings, provided))
    for provided in others:  # only answers are translated: vectors are not
        served = (*_said(provided, told), *_of_lists(settings, provided))
        yield from _asked_as(settings, kind, provided, (n for n in served if "embed" not in n))


def _asked_as(
    settings: Settings, kind: Kind, provided: Provided, served: Iterable[str]
) -> Iterator[str]:
    """Yield the names by which a provider's models are asked for: their own, where these lead to it."""
    for name in served:
        first = _first(settings, kind, name)
        own = first is not None and first.provider == provided.name and first.model == name
        yield name if own else f"{provided.name}/{name}"


def _said(provided: Provided, told: Told) -> tuple[str, ...]:
    """Return what fleet file and provider say that it serves."""
    named = [name for name in provided.given.models if _WILD.search(name) is None]
    return (*named, *(told.get(provided.name) or ()))


def _sold(settings: Settings, provided: Provided) -> bool:
    """Tell whether the price lists know what a provider sells."""
    return any(book.models(provided.seller) for book in settings.shelf.books)


def _of_lists(settings: Settings, provided: Provided) -> Iterator[str]:
    if provided.given.models:
        return  # it says itself what it serves
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
            "owned_by": one.provider,
        }
    shown: Json = {
        "name": f"models/{one.name}",
        "baseModelId": one.name,
        "version": "",
        "displayName": one.name,
        "description": f"served by {one.provider}",
        "supportedGenerationMethods": ["generateContent", "countTokens"],
    }
    if one.window is not None:
        shown["inputTokenLimit"] = one.window
    if one.max_output is not None:
        shown["outputTokenLimit"] = one.max_output
    return shown
