"""Which models there are, as far as providers have to be asked: those of whose models neither fleet file nor price
lists know anything (`listing` decides). What they say is kept for a minute, so that no client makes us ask more often.

A provider that does not answer soon, or not with a list, told nothing: then any name is believed there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final, cast

from pydantic_core import from_json

from midwatch.core.calls.account import Payer
from midwatch.core.calls.ask import Dialect, Kind
from midwatch.gateway import dialects, listing
from midwatch.gateway.dialects.bodies import values_of
from midwatch.gateway.house import House
from midwatch.gateway.intake import owner
from midwatch.gateway.listing import Listed
from midwatch.gateway.settings import Provided, Settings
from midwatch.gateway.translate import ANTHROPIC_VERSION
from midwatch.gateway.upstream.port import Request, UpstreamError

KEPT_S: Final = 60.0
"""For how long a provider's word is good."""

ASKED_S: Final = 3.0
"""How long a provider is waited for: whoever asks for the models waits, too."""

MAX_BYTES: Final = 4 * 1024 * 1024
MAX_MODELS: Final = 2_000
MAX_VALUES: Final = 200_000
"""In a list: OpenRouter's has 30,000; to read so many takes 40 ms."""

MAX_LISTS: Final = 200
"""Lists that are kept: one for each agent, kind and set of patterns."""

MAX_OWN: Final = 20
"""Of an agent and its sub-agents."""

_QUERY: Final = {Kind.OPENAI: "", Kind.ANTHROPIC: "?limit=1000", Kind.GEMINI: "?pageSize=1000"}


@dataclass(frozen=True, slots=True)
class _Word:
    """What a provider said; None: nothing."""

    models: tuple[str, ...] | None
    until: float


class Catalogue:
    """The models of one gateway."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._settings: Settings | None = None
        """Those that what is kept here belongs to."""
        self._said: dict[str, asyncio.Task[_Word]] = {}
        self._lists: dict[tuple[Any, ...], list[Listed]] = {}
        self._turns: dict[str, asyncio.Lock] = {}
        """By agent, while a list is made for it."""

    async def models(self, payer: Payer, patterns: Sequence[str], kind: Kind) -> list[Listed]:
        """Return what a payer may call in the dialects of a kind. A thousand names are 50 ms of work, made aside: one list
        after the other for each agent, whatever its sub-agents are called."""
        settings = self._fresh()
        told = await self._told(settings, listing.unsure(settings, kind))
        name = owner(payer)
        if not settings.policy.rules and not settings.models.chains:
            payer = replace(
                payer, agent=payer.agent.partition(":")[0]
            )  # it is the same for all below
        key = (name, kind, payer.agent, payer.entry, payer.group, tuple(patterns), tuple(told.items()))  # fmt: skip
        found = self._lists.get(key)
        if found is not None:
            return found
        turn = self._turns.setdefault(name, asyncio.Lock())
        try:
            async with turn:
                found = self._lists.get(key)
                if found is None:
                    make = partial(listing.models, settings, payer, patterns, kind, dict(told))
                    found = await asyncio.to_thread(make)
                    if settings is self._settings:
                        self._keep(key, found)
        finally:
            if not turn.locked():
                self._turns.pop(name, None)
        return found

    def _keep(self, key: tuple[Any, ...], found: list[Listed]) -> None:
        """Keep a list. What an agent's lists are too many, is taken from its own."""
        own = [one for one in self._lists if one[0] == key[0]]
        if len(own) >= MAX_OWN:
            del self._lists[own[0]]
        if len(self._lists) >= MAX_LISTS:
            del self._lists[next(iter(self._lists))]
        self._lists[key] = found

    async def model(
        self, payer: Payer, patterns: Sequence[str], kind: Kind, name: str
    ) -> Listed | None:
        """Return one model, or None where nobody serves it, or the payer may not call it."""
        settings = self._fresh()
        told = await self._told(settings, listing.unsure(settings, kind, name))
        return listing.model(settings, payer, patterns, kind, name, told)

    def _fresh(self) -> Settings:
        settings = self._house.settings
        if settings is not self._settings:
            self._settings = settings
            self._said.clear()
            self._lists.clear()
        return settings

    async def _told(
        self, settings: Settings, providers: Sequence[str]
    ) -> dict[str, tuple[str, ...] | None]:
        """Return what some providers say. The rehearsal model serves whatever it is asked for."""
        if self._house.rehearsed:
            return {}
        asked = [self._word(settings.providers[name]) for name in providers]
        # a client that leaves ends its own waiting, not the question that others wait for, too
        words = await asyncio.gather(*(asyncio.shield(task) for task in asked))
        return {name: word.models for name, word in zip(providers, words, strict=True)}

    def _word(self, provided: Provided) -> asyncio.Task[_Word]:
        task = self._said.get(provided.name)
        if task is None or (task.done() and _over(task, self._house.now())):
            task = self._said[provided.name] = asyncio.create_task(self._ask(provided))
        return task

    async def _ask(self, provided: Provided) -> _Word:
        """Ask a provider. Raises nothing."""
        house = self._house
        models: tuple[str, ...] | None = None
        try:
            async with asyncio.timeout(ASKED_S):
                reply = await house.upstream.open(_request(provided))
                try:
                    body = await reply.whole(ASKED_S, MAX_BYTES)
                    models = names_in(body) if reply.status == 200 else None
                finally:
                    await reply.close()
        except (UpstreamError, TimeoutError):
            models = None
        house.counts[f"models.{'asked' if models is not None else 'untold'}"] += 1
        return _Word(models, house.now() + KEPT_S)


def _over(task: asyncio.Task[_Word], now: float) -> bool:
    """Tell whether what a provider said is too old, or was never said: a fault of ours is not kept for an answer."""
    return task.cancelled() or task.exception() is not None or task.result().until <= now


def _request(provided: Provided) -> Request:
    kind = provided.kind
    headers = [("accept", "application/json"), ("accept-encoding", "identity")]
    if kind is Kind.ANTHROPIC:
        headers.append(("anthropic-version", ANTHROPIC_VERSION))
    headers += dialects.credentials(kind, next(iter(provided.secrets.values()), ""))
    return Request(
        method="GET",
        url=provided.url + dialects.target(kind, Dialect.MODELS, "") + _QUERY[kind],
        headers=dialects.overridden(headers, provided.given.headers),
        body=b"",
        connect_s=ASKED_S,
        head_s=ASKED_S,
    )


def names_in(body: bytes) -> tuple[str, ...] | None:
    """Return the models that a list names, in the words of any kind of provider; None for no such list."""
    if values_of(body, MAX_VALUES) > MAX_VALUES:
        return None
    try:
        value = from_json(body)
    except ValueError:
        return None
    if isinstance(value, dict):
        given = cast("dict[str, Any]", value)
        value = given.get("data", given.get("models"))
    if not isinstance(value, list):
        return None
    found: list[str] = []
    for item in cast("list[object]", value)[:MAX_MODELS]:
        entry = cast("dict[str, object]", item) if isinstance(item, dict) else {}
        name = entry.get("id", entry.get("name"))
        if isinstance(name, str):
            name = name.removeprefix("models/")
            if 0 < len(name) <= 200 and name.isprintable() and name == name.strip():
                found.append(name)
    return tuple(dict.fromkeys(found))
