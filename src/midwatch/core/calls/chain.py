"""Chains: the places where a call may be answered, in order.

A model with a chain follows it; `task:NAME` wins over the model's. Otherwise a name with a provider in
front (`openai/gpt-4o`) means that provider, a provider that lists the model serves it, then the first
provider of the kind whose dialect is spoken, then the kind that the name is known for.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from midwatch.core.calls.ask import Ask, Kind
from midwatch.core.conditions import BadCondition, Condition
from midwatch.core.models import DEFAULT_TIMEOUTS, About, Link, Models, Provider, Timeouts

_FAMILIES: Final = (
    ("claude-*", Kind.ANTHROPIC),
    ("gemini-*", Kind.GEMINI),
    ("gemma-*", Kind.GEMINI),
    ("gpt-*", Kind.OPENAI),
    ("o[134]*", Kind.OPENAI),
    ("text-embedding-*", Kind.OPENAI),
)
"""Names of models that are one kind's alone."""


MAX_KNOWN: Final = 4_096
"""Models whose place is kept at hand. Names come from clients."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a call may be answered: a provider and the model's name there."""

    provider: str
    kind: Kind
    model: str
    position: int = 0
    """In its chain; 0 is what was asked for, everything after is a fallback."""
    timeouts: Timeouts = DEFAULT_TIMEOUTS

    @property
    def name(self) -> str:
        return f"{self.provider}/{self.model}"


class NoPlace(Exception):
    """No provider serves the model. The text says what to do."""


@dataclass(frozen=True, slots=True)
class _Compiled:
    link: Link
    condition: Condition


@dataclass(slots=True)
class Chains:
    """The chains of one `models` section, compiled. Raises BadCondition for a condition that is none."""

    models: Models
    _chains: dict[str, list[_Compiled]] = field(init=False)
    _direct_places: dict[tuple[str, Kind], Place] = field(
        init=False, default_factory=dict[tuple[str, Kind], Place]
    )

    def __post_init__(self) -> None:
        self._chains = {
            asked: [_Compiled(link, Condition(link.when)) for link in chain]
            for asked, chain in self.models.chains.items()
        }

    def places(self, ask: Ask, names: Callable[[], Mapping[str, Any]]) -> list[Place]:
        """Return the places for a call, in order; `names` gives what conditions may speak of, but `error`.

        Conditions that speak of `error` are decided again with `admits` when a place has failed.
        Raises NoPlace.
        """
        chain = self._chains.get(f"task:{ask.task}") if ask.task is not None else None
        if chain is None:
            chain = self._chains.get(ask.model)
        if chain is None:
            return [self._direct(ask)]
        return [
            self.place(compiled.link.use, position)
            for position, compiled in enumerate(chain)
            if compiled.condition.source == "true"
            or "error" in compiled.condition.source
            or _holds(compiled.condition, {**names(), "error": ""})
        ]

    def admits(
        self, ask: Ask, place: Place, names: Callable[[], Mapping[str, Any]], error: str
    ) -> bool:
        """Tell whether a place's condition holds now that the one before has failed with `error`."""
        chain = self._chains.get(f"task:{ask.task}") or self._chains.get(ask.model) or []
        if place.position >= len(chain):
            return True
        condition = chain[place.position].condition
        return "error" not in condition.source or _holds(condition, {**names(), "error": error})

    def place(self, target: str, position: int = 0) -> Place:
        """Return the place that `PROVIDER/MODEL` names; the provider is known to exist."""
        provider, _, model = target.partition("/")
        given = self.models.providers[provider]
        return Place(provider, given.kind, model, position, self._timeouts(given, model))

    def about(self, model: str) -> About:
        return self.models.about.get(model) or _NOTHING

    def _timeouts(self, provider: Provider, model: str) -> Timeouts:
        wider = self.models.timeouts.over(DEFAULT_TIMEOUTS)
        return self.about(model).timeouts.over(provider.timeouts.over(wider))

    def _direct(self, ask: Ask) -> Place:
        """Return the place of a model without a chain; those asked for before are at hand."""
        known = self._direct_places.get((ask.model, ask.kind))
        if known is None:
            if len(self._direct_places) >= MAX_KNOWN:
                self._direct_places.clear()
            known = self._direct_places[ask.model, ask.kind] = self._look(ask)
        return known

    def _look(self, ask: Ask) -> Place:
        providers = self.models.providers
        head, slash, _ = ask.model.partition("/")
        if slash and head in providers:
            return self.place(ask.model)
        for name, provider in providers.items():
            if any(fnmatch.fnmatchcase(ask.model, pattern) for pattern in provider.models):
                return self.place(f"{name}/{ask.model}")
        family = next((k for p, k in _FAMILIES if fnmatch.fnmatchcase(ask.model, p)), ask.kind)
        for kind in dict.fromkeys((family, ask.kind)):
            # one that lists its models serves those alone
            named = (n for n, p in providers.items() if p.kind is kind and not p.models)
            if (name := next(named, None)) is not None:
                return self.place(f"{name}/{ask.model}")
        raise NoPlace(_no_place(ask, providers))


_NOTHING: Final = About()


def _holds(condition: Condition, names: Mapping[str, Any]) -> bool:
    """A condition that cannot be decided, as of a tag that is not given, does not hold."""
    try:
        return condition.holds(names)
    except BadCondition:
        return False


def _no_place(ask: Ask, providers: Mapping[str, Provider]) -> str:
    known = ", ".join(providers) or "none"
    return (
        f"no provider serves the model {ask.model!r} (providers: {known}); name one as PROVIDER/MODEL,"
        " give it a chain under models.chains, or export the provider's key before midwatch up"
    )
