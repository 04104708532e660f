"""One call under way: who asked for what, what has been tried, what it has come to so far."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from midwatch.core.calls.account import Payer
from midwatch.core.calls.ask import Ask, Dialect
from midwatch.core.calls.budget import Admitted, Limit, Refused
from midwatch.core.calls.chain import Place
from midwatch.core.calls.charge import Charge
from midwatch.core.calls.classes import Failure
from midwatch.core.calls.exchange import Try
from midwatch.core.calls.labels import Labels
from midwatch.core.models import Calls
from midwatch.gateway import worth
from midwatch.gateway.dialects import Refusal, Route
from midwatch.gateway.http.port import Headers
from midwatch.gateway.settings import Settings
from midwatch.gateway.translate import Asked, CannotTranslate


@dataclass(slots=True)
class Attempted:
    """What became of one attempt, for the ledger, the span and the client."""

    place: Place
    key: str
    began: float
    """Monotonic."""
    ended: float = 0.0
    first_s: float | None = None
    """Seconds to the first content."""
    status: int = 0
    outcome: str = ""
    """`ok`, the class of its failure, `cut`, `gone`, `killed`."""
    reason: str = ""
    code: str = ""
    """The provider's code of its failure, or the phase in which it broke."""
    worst_nusd: int = 0
    """What was reserved for it."""
    window: int | None = None
    """Tokens that fit into the model's window, where that is known."""
    served: str = ""
    """The model that served, in the provider's word."""
    response_id: str = ""
    finish: str | None = None
    charge: Charge | None = None
    """None: nothing is charged."""
    cost_nusd: int = 0
    tokens: int = 0
    estimated: bool = False
    left_out: tuple[str, ...] = ()
    """Fields that a provider of another kind was not told, because it has no word for them."""
    declined: bool = False
    """The model, or a filter, declined to answer."""
    cache_saved_nusd: int | None = None
    """What the provider's prompt cache saved, where this gateway set the marks; below 0: it cost to write."""
    told: bool = False
    """Its failure was told when it happened."""
    mended: bool = False
    """It broke off in mid-stream, and another attempt went on: the client saw one whole answer."""
    unproven: bool = False
    """It went on with an answer that broke off because a request asked for the rest: nothing proves the seam."""

    def to_json(self) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "place": self.place.name,
            "key": self.key,
            "status": self.status,
            "outcome": self.outcome,
            "seconds": round(self.ended - self.began, 3),
        }
        if self.left_out:
            shown["left_out"] = list(self.left_out)
        if self.cache_saved_nusd is not None:
            shown["cache_saved_nusd"] = self.cache_saved_nusd
        if self.unproven:
            shown["seam"] = "unproven"
        return {**shown, "reason": self.reason} if self.reason else shown


@dataclass(slots=True, eq=False)
class Carried:
    """One call of a client."""

    id: str
    route: Route
    ask: Ask
    body: bytes
    headers: Headers
    """Of the request, as they came."""
    query: str
    payer: Payer
    limits: tuple[Limit, ...]
    calls: Calls
    """How the agent's calls are treated."""
    settings: Settings
    """Those in force when it began: a reload in the middle of a call does not move its ground."""
    at: float
    """Unix seconds."""
    began: float
    """Monotonic."""
    attempts: list[Attempted] = field(default_factory=list[Attempted])
    failure: Failure | None = None
    """Of the last attempt."""
    admitted: Admitted | None = None
    waited_s: float = 0.0
    """Spent waiting for providers: the rest of the call's time is ours."""
    refused: str = ""
    """The type of the refusal that its client got from us."""
    unpriced: str = ""
    """A place whose price nobody knows."""
    models: tuple[str, ...] = ()
    """Patterns of the models that its key may use; all when empty."""
    may_say: Labels | None = None
    """What its key may say of task and tags; None: what its agent may."""
    tokens_taken: int | None = None
    """Of its agent's tokens a minute; None: it was not let in, or nothing limits it."""
    translations: dict[str, Asked | CannotTranslate] = field(
        default_factory=dict[str, Asked | CannotTranslate]
    )
    """By place of another kind: what is asked there, or why it cannot be."""
    cached: bool | None = None
    """Answered from the cache; None: nothing is kept for its agent, or its client wants none of it."""
    cache_key: str = ""
    """What is the same for the same request; empty until somebody asked for it."""
    saved_nusd: int = 0
    """What its answer cost when it was made."""
    moved: str = ""
    """The cheaper place that it went to since its budget was used up."""
    exhausted: Refused | None = None
    """The budget that it did not fit into."""
    task: asyncio.Task[Any] | None = None
    """The one that carries it, where it is known: to ask for it costs a system call."""
    killed: Refusal | None = None
    """Why it is to end now."""
    interrupt: Callable[[], object] | None = None
    """Ends what it waits for."""
    ended: bool = False
    over: Callable[[], object] | None = None
    """Called when it has ended."""

    def kill(self, why: Refusal) -> None:
        """End the call: what its client has of a stream ends with an error. Again is no change."""
        if self.killed is not None:
            return
        self.killed = why
        if self.interrupt is not None:
            self.interrupt()

    @property
    def metered(self) -> bool:
        """Whether it costs anything: to have tokens counted is free."""
        return self.ask.dialect is not Dialect.COUNT

    def attempt_id(self, attempt: Try) -> str:
        """Return the ledger's name of an attempt: the call's own for the first."""
        return self.id if attempt.number == 1 else f"{self.id}.{attempt.number}"

    @property
    def tokens(self) -> int:
        """Return tokens in and out, of all attempts."""
        attempts = self.attempts
        return attempts[0].tokens if len(attempts) == 1 else sum([a.tokens for a in attempts])

    @property
    def cost_nusd(self) -> int:
        attempts = self.attempts
        return attempts[0].cost_nusd if len(attempts) == 1 else sum([a.cost_nusd for a in attempts])

    @property
    def unproven(self) -> bool:
        """Whether its client has text behind a seam that nothing proves."""
        return any(attempt.unproven for attempt in self.attempts)

    def told(self, now: float, served: Place | None = None) -> list[tuple[str, str]]:
        """Return the headers that tell the client about its call."""
        headers = [
            ("x-midwatch-call", self.id),
            ("x-midwatch-attempts", str(len(self.attempts))),
            ("x-midwatch-overhead-ms", f"{max(0.0, now - self.began - self.waited_s) * 1e3:.1f}"),
        ]
        if self.cached is not None:
            headers.append(("x-midwatch-cache", "hit" if self.cached else "miss"))
        if served is not None:
            headers.append(("x-midwatch-model", served.name))
            if served.position > 0:
                headers.append(("x-midwatch-fallback", str(served.position)))
                if marks := self.marks(served):
                    headers.append(("x-midwatch-fallback-is", ", ".join(marks)))
        if self.translations:
            headers += self._translated(served)
        if self.admitted is not None and self.admitted.left_nusd is not None:
            headers.append(("x-midwatch-budget-left-usd", dollars(self.admitted.left_nusd)))
        return headers

    def marks(self, served: Place) -> tuple[str, ...]:
        """Return what a fallback is beside the first place of its chain, as far as that is known: `dearer` at its
        worst, `weaker` by rank."""
        settings = self.settings
        first = settings.chains.places(self.ask, self.facts)[0]
        was, now = (worth.worst(settings, self.ask, place, self.at) for place in (first, served))
        found = ["dearer"] if was.known and now.known and now.nusd > was.nusd else []
        ranks = [settings.chains.about(place.model).rank for place in (first, served)]
        if ranks[0] is not None and ranks[1] is not None and ranks[1] < ranks[0]:
            found.append("weaker")
        return tuple(found)

    def _translated(self, served: Place | None) -> list[tuple[str, str]]:
        """Return what the client is told of translation: whose dialect, what went unsaid, who was passed over."""
        headers: list[tuple[str, str]] = []
        asked = self.translations.get(served.name) if served is not None else None
        if served is not None and isinstance(asked, Asked):
            headers.append(("x-midwatch-translated", asked.ask.dialect.value))
            if asked.left_out:
                headers.append(("x-midwatch-left-out", ", ".join(asked.left_out)))
        passed = [
            f"{n} ({e.name})"
            for n, e in self.translations.items()
            if isinstance(e, CannotTranslate)
        ]
        return [*headers, ("x-midwatch-passed-over", ", ".join(passed))] if passed else headers

    def left_out(self, place: Place) -> tuple[str, ...]:
        """Return what went unsaid at a place of another kind."""
        asked = self.translations.get(place.name)
        return asked.left_out if isinstance(asked, Asked) else ()

    def facts(self) -> Mapping[str, Any]:
        """Return what conditions of chains and rules may speak of."""
        return facts(self.payer, self.ask)


def facts(payer: Payer, ask: Ask) -> Mapping[str, Any]:
    """Return what conditions of chains and rules may speak of."""
    return {
        "agent": payer.agent,
        "group": payer.group or "",
        "model": ask.model,
        "task": ask.task or "",
        "tags": dict(ask.tags),
        "prompt": ask.prompt,
        "stream": ask.stream,
        "tools": ask.tools,
        "images": ask.images,
        "input_tokens": ask.input_tokens,
        "max_output": ask.max_output or 0,
        "unbounded": list(ask.unbounded),
    }


def dollars(nusd: int) -> str:
    """Return nano-dollars as a decimal number of dollars, all nine digits when needed."""
    whole, rest = divmod(nusd, 1_000_000_000)
    return f"{whole}.{rest:09d}".rstrip("0").rstrip(".") if rest else str(whole)
