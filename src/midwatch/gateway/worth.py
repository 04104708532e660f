"""What a call may cost at a place, and what it came to. Arithmetic on prices; nothing is stored here.

Reserved is the most that the call can cost; charged is what the provider's own count comes to. Where that is
missing, the charge is estimated from above and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from midwatch.core.calls.ask import Ask
from midwatch.core.calls.chain import Place
from midwatch.core.calls.charge import Charge
from midwatch.core.pricing import cost
from midwatch.core.pricing.shelf import Basis
from midwatch.core.pricing.usage import Doubt, Tier, Usage
from midwatch.core.sealed import sealed
from midwatch.gateway.settings import Settings

UNTOLD_OUTPUT: Final = 32_768
"""Tokens of an answer of which neither client, fleet file nor price lists say a bound."""

UNTOLD_WINDOW: Final = 200_000
"""Tokens of input that may come from elsewhere (previous_response_id) into a window of unknown size."""

SEARCHES: Final = 10
"""Paid searches that are reckoned with where nobody bounds them; more are charged when they are known."""

MADE_PER_S: Final = 250
"""Tokens that a provider makes in a second of one answer, from above: those that are asked and keep silent are
not the fastest ones."""

_TIERS: Final = {tier.value: tier for tier in Tier}


@sealed
class Worst:
    """The most that a call can cost at a place."""

    nusd: int
    known: bool = True
    """False: no price is known, and `nusd` is a guess by the provider's dearest model, or 0."""
    window: int | None = None
    """Tokens that fit into the model's window, where that is known."""


def worst(settings: Settings, ask: Ask, place: Place, at: float) -> Worst:
    """Return what is to be reserved. `at`: Unix seconds."""
    provided = settings.providers[place.provider]
    found = settings.shelf.find(place.provider, provided.seller, place.model)
    about = settings.chains.about(place.model)
    window = about.context or found.window
    tokens = _input(ask, window)
    output = _longest(ask, about.max_output or found.max_output)
    facts: dict[str, Any] = {
        "tier": _TIERS.get(ask.tier, Tier.OTHER),
        "writes": ask.cache_write or "5m",
        "media_in": ask.images or ask.audio,
        "media_out": ask.draws or ask.audio,
        "searches": ask.searches or (SEARCHES if ask.unbounded else 0),
        "region": ask.region,
    }
    tokens = min(tokens, window) if window is not None else tokens
    bound = found.worst_case(at, input_tokens=tokens, max_output=output * ask.choices, **facts)
    if bound is not None:
        return Worst(bound, window=window)
    dearest = settings.shelf.dearest(provided.seller, at)
    if dearest is None:
        return Worst(0, known=False, window=window)
    guess = cost.worst_case(dearest, tokens, output * ask.choices, **facts)
    return Worst(guess, known=False, window=window)


def bounded(settings: Settings, ask: Ask, place: Place) -> Ask:
    """Return a call with the most input that it can have at a place. Where a part of that is not in the request,
    what is charged without the provider's own count must not be less than what was reserved."""
    if not ask.unseen:
        return ask
    return replace(ask, input_tokens=_input(ask, window(settings, place)))


def window(settings: Settings, place: Place) -> int | None:
    """Return the tokens that fit into the window of a place's model; None: nobody knows."""
    provided = settings.providers[place.provider]
    told = settings.chains.about(place.model).context
    return told or settings.shelf.find(place.provider, provided.seller, place.model).window


def larger(settings: Settings, place: Place, than: Place) -> bool:
    """Tell whether a place may take what did not fit into the window of another one. Unknown is yes."""
    here, there = window(settings, place), window(settings, than)
    return here is None or there is None or here > there


def _input(ask: Ask, window: int | None) -> int:
    return max(ask.input_tokens, window or UNTOLD_WINDOW) if ask.unseen else ask.input_tokens


def longest(settings: Settings, ask: Ask, place: Place) -> int:
    """Return the tokens of the longest answer that a call can get at a place."""
    provided = settings.providers[place.provider]
    found = settings.shelf.find(place.provider, provided.seller, place.model)
    return _longest(ask, settings.chains.about(place.model).max_output or found.max_output)


def _longest(ask: Ask, limit: int | None) -> int:
    output = ask.max_output if ask.max_output is not None else limit or UNTOLD_OUTPUT
    return output if limit is None else min(output, limit)


def unheard(settings: Settings, ask: Ask, place: Place) -> Usage:
    """Return the most that an answer can have used of which nothing was heard."""
    output = longest(settings, ask, place) * ask.choices
    return Usage(input_text=ask.input_tokens, output_text=output, estimated=True)


def charge(
    settings: Settings,
    ask: Ask,
    place: Place,
    usage: Usage | None,
    at: float,
    *,
    said: str = "",
    outcome: str = "ok",
    attempts: Sequence[dict[str, Any]] = (),
    now: float,
) -> Charge:
    """Return what an attempt is charged. `usage` None: the provider told nothing, so that input and what was
    `said` are counted here. `at`: when it began, `now`: when it ended, both Unix seconds."""
    provided = settings.providers[place.provider]
    said_bytes = len(said.encode("utf-8", "replace"))
    counted = usage if usage is not None else estimate(ask, said)
    counted = counted if counted.estimated else heard(ask, counted, said_bytes, finished=True)
    if counted.estimated and not counted.region:
        counted = replace(counted, region=ask.region)
    quote = settings.shelf.quote(counted, place.provider, provided.seller, place.model, at)
    amount = quote.nusd
    estimated = counted.estimated
    if amount is None:  # unknown: the dearest of the provider, or 0 where nothing is known of it
        dearest = settings.shelf.dearest(provided.seller, at)
        worst_of = settings.models.unknown_price == "worst" and dearest is not None
        amount = cost.cost(counted, dearest) if worst_of and dearest is not None else 0
        estimated = True
    return Charge(
        cost_nusd=amount,
        at=now,
        model=place.model,
        provider=place.provider,
        usage=counted.to_json(),
        input_tokens=counted.input_tokens,
        output_tokens=counted.output_tokens,
        price_version=quote.version,
        costs={bill.source: bill.nusd for bill in quote.bills},
        disputed=quote.basis is Basis.DISPUTED,
        estimated=estimated,
        attempts=attempts,
        outcome=outcome,
    )


def cache_saving(settings: Settings, place: Place, usage: Usage, at: float) -> int | None:
    """Return what the provider's prompt cache saved: the cost without it less the cost with it. Below 0: the
    prefix was written this time, and is dearer for that. None: no price is known, or nothing was cached."""
    cached = usage.cache_read + usage.cache_write_5m + usage.cache_write_1h
    if not cached:
        return None
    seller = settings.providers[place.provider].seller
    plain = replace(
        usage,
        input_text=usage.input_text + cached,
        cache_read=0,
        cache_write_5m=0,
        cache_write_1h=0,
    )
    costs = [
        settings.shelf.quote(one, place.provider, seller, place.model, at).nusd
        for one in (plain, usage)
    ]
    return None if costs[0] is None or costs[1] is None else costs[0] - costs[1]


def estimate(ask: Ask, said: str) -> Usage:
    """Return what a call used of which the provider told nothing: the bound of its input, and at most two
    bytes for a token of what was said."""
    return Usage(
        input_text=ask.input_tokens,
        output_text=tokens_said(len(said.encode("utf-8", "replace"))),
        estimated=True,
    )


def tokens_said(size_bytes: int) -> int:
    """Return the tokens of what was said, from above."""
    return (size_bytes + 1) // 2


def heard(ask: Ask, told: Usage | None, said_bytes: int, *, finished: bool) -> Usage:
    """Return what a stream used: what was told, where that is the whole; else an estimate from above.

    What a model thinks without showing it is in no estimate.
    """
    if told is None or not finished or Doubt.INCOMPLETE in told.doubts:
        return broken_off(ask, told, said_bytes)
    if said_bytes and not told.output_tokens:
        return broken_off(ask, told, said_bytes)  # Gemini leaves out what is 0, some say 0 of all
    return told


def made(settings: Settings, ask: Ask, place: Place, seconds: float) -> int:
    """Return the most tokens that can have been made in a time of which nothing else is known."""
    most = longest(settings, ask, place)
    return min(most, int(seconds * MADE_PER_S)) * ask.choices


def thought(settings: Settings, ask: Ask, place: Place, silent_s: float, said_bytes: int) -> int:
    """Return the most tokens that can have been made unseen beside what was said, in so many seconds of silence."""
    left = longest(settings, ask, place) * ask.choices - tokens_said(said_bytes)
    return max(0, min(left, made(settings, ask, place, silent_s)))


def unanswered(settings: Settings, ask: Ask, place: Place, waited_s: float) -> Usage:
    """Return what a call used that was given up before anything of its answer came: what may have been made
    in that time."""
    output = made(settings, ask, place, waited_s)
    return Usage(input_text=ask.input_tokens, output_text=output, estimated=True)


def broken_off(ask: Ask, told: Usage | None, said_bytes: int, thought: int = 0) -> Usage:
    """Return what a stream used that did not come to its end: what was told so far is not the whole. Anthropic
    tells a first token at the beginning and the sum at the end; most others tell nothing until then.

    `thought`: tokens that may have been made without being shown.
    """
    said = tokens_said(said_bytes) + thought
    if told is None:
        return Usage(input_text=ask.input_tokens, output_text=said, estimated=True)
    more = max(0, said - told.output_tokens)
    inside = 0 if told.input_tokens else ask.input_tokens
    return replace(
        told,
        input_text=told.input_text + inside,
        output_text=told.output_text + more,
        estimated=True,
    )
