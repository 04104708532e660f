"""Takes each request through the stages: whose is it, what does it ask, may it, where to, at what price.

Each stage decides by a pure function and may refuse, in the client's own words. What passes them all is
carried (`carry`). Order matters: nobody unknown makes us read a body, nothing held costs a reservation.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from midwatch.core.calls.account import Payer
from midwatch.core.calls.ask import Ask, Dialect, Kind
from midwatch.core.calls.budget import PARK, limits_of
from midwatch.core.calls.chain import NoPlace, Place
from midwatch.core.calls.classes import ErrorClass, Failure
from midwatch.core.calls.judgement import Level
from midwatch.core.calls.policy import Outcome
from midwatch.core.calls.route import Route
from midwatch.core.models import CallLimits
from midwatch.gateway import again, dialects, listing, refusals, translating, worth
from midwatch.gateway.carried import Carried
from midwatch.gateway.carry import Carriage
from midwatch.gateway.catalogue import Catalogue
from midwatch.gateway.dialects import BadRequest, Closed, Refusal
from midwatch.gateway.holds import MAX_RESTARTS, RESTART, HoldKind, Holds
from midwatch.gateway.house import House
from midwatch.gateway.http.port import BodyRefused, ClientGone, Incoming, Outgoing
from midwatch.gateway.identify import Identify, Known
from midwatch.gateway.intake import Crowded, Intake
from midwatch.gateway.lines import Limiter, counts_tokens, limited
from midwatch.gateway.names import Names
from midwatch.gateway.nudging import nudge
from midwatch.gateway.paces import Paces, Seen
from midwatch.gateway.randomness import Randomness
from midwatch.gateway.scopes import may_use
from midwatch.gateway.settings import Settings
from midwatch.wire.ids import new_id

MAX_BODY_BYTES: Final = 64 * 1024 * 1024

CUT_S: Final = 1.0
"""How long the end of calls that are stopped is waited for."""

NO_FAULT: Final = frozenset(
    kind.value
    for kind in (
        ErrorClass.TRANSIENT,
        ErrorClass.OVERLOADED,
        ErrorClass.RATE_LIMIT,
        ErrorClass.QUOTA,
        ErrorClass.CREDENTIALS,
    )
)
"""Failures after which a client may well ask the same again."""

TOLD_S: Final = 60.0
"""For how long the end of a call is told to the supervisor, as a sign of life; it asks each second."""


@dataclass(frozen=True, slots=True)
class Cut:
    """What became of calls that were ended."""

    calls: tuple[Carried, ...]
    left: int
    """How many had not ended in time; they end when their provider lets them."""
    seconds: float


class Gateway:
    """All calls of one process."""

    def __init__(self, house: House, identify: Identify, holds: Holds) -> None:
        self.house = house
        self.paces = Paces(lambda: house.settings)
        self.under_way: dict[str, set[Carried]] = {}
        """By agent."""
        self._ended: dict[str, float] = {}
        """By agent: when its last call ended, the latest last; not longer ago than `TOLD_S`."""
        self._limiter = Limiter(house.now)
        self._catalogue = Catalogue(house)
        self._intake = Intake()
        self._identify = identify
        self._randomness = Randomness()
        self._names = Names(house.counts)
        self._holds = holds

    async def handle(self, incoming: Incoming, out: Outgoing) -> None:
        """Answer one request for a model."""
        headers = dict(incoming.headers)
        kind = Kind.OPENAI
        try:
            found = dialects.find(incoming.method, incoming.path, incoming.query, headers)
            if found is None:
                return _nothing_here(out)
            kind = found.kind
            shown = dialects.presented(headers, incoming.query)
            identity = self._identify(shown, headers.get("x-midwatch-agent", ""))
            if isinstance(identity, Refusal):
                return self._refuse(out, kind, identity)
            if isinstance(found, Closed):
                self.house.count("closed", found.what)
                refusal = Refusal("midwatch_not_carried", found.reason, found.status)
                return self._refuse(out, kind, refusal)
            if found.dialect is Dialect.MODELS:
                return await self._models(incoming, out, found, identity)
            agent = identity.payer.agent
            hold = self._holds.find(agent) if agent else None
            if hold is not None:
                return self._turn_away(incoming, out, found, identity, refusals.held(hold, agent))
            if found.dialect is not Dialect.COUNT:  # nothing is reserved for that
                self.house.ledger.expect()
            limit = min(_limits(self.house.settings, identity.payer).body, MAX_BODY_BYTES)
            taken = await self._intake.take(incoming, found, headers, identity.payer, limit)
            try:
                call = self._call(incoming, found, taken.ask, taken.body, identity)
                await self._answer(call, out)
            finally:
                taken.let_go()
        except Crowded as crowded:
            self._refuse(out, kind, crowded.refusal)
        except BadRequest as bad:
            self._refuse(out, kind, dialects.of_bad_request(bad))
        except BodyRefused as refused:
            refusal = Refusal("midwatch_bad_request", str(refused), refused.status)
            self._refuse(out, kind, refusal)
        except ClientGone:
            self.house.counts["client.gone_early"] += 1
        except Exception:
            # whoever called us logs it; its client hears of it in its own dialect
            self._refuse(out, kind, refusals.fault())
            raise
        return None

    async def _answer(self, call: Carried, out: Outgoing) -> None:
        """Answer a call whose body was read."""
        recorded = call.calls.record and self.house.records is not None
        if self.house.records is not None and recorded:
            out = self.house.records.tape(call, out)
        refused = self._may(call)
        if isinstance(refused, Seen):
            refused = await self._noticed(call, refused)
        if refused is None:
            refused = await self._carry(call, out)
        if refused is not None:
            refusals.answer(out, call, refused, self.house.now())
            self.house.tell.ended(call)
        if call.refused:
            self.house.counts[f"refused.{call.refused}"] += 1
        if self.house.records is not None and recorded:
            self.house.records.keep(call, out)

    def _turn_away(
        self,
        incoming: Incoming,
        out: Outgoing,
        route: dialects.Route,
        identity: Known,
        why: Refusal,
    ) -> None:
        """Refuse a call without a look at its body: there is no work in it for anybody but who sent it."""
        unread = Ask(route.kind, route.dialect, route.model, stream=route.stream)
        call = self._call(incoming, route, unread, b"", identity)
        refusals.answer(out, call, why, self.house.now())
        self.house.tell.ended(call)
        self.house.counts[f"refused.{call.refused}"] += 1

    async def _models(
        self, incoming: Incoming, out: Outgoing, route: dialects.Route, known: Known
    ) -> None:
        """Answer which models there are. It costs nothing."""
        kind = route.kind
        if not route.model:
            listed = await self._catalogue.models(known.payer, known.models, kind)
            return _json(out, listing.page(kind, listed, incoming.query))
        one = await self._catalogue.model(known.payer, known.models, kind, route.model)
        if one is not None:
            return _json(out, listing.entry(kind, one))
        said = f"the model {route.model[:100]!r} is not served here, or this agent may not use it"
        return self._refuse(out, kind, Refusal("midwatch_no_provider", said, 404))

    def _refuse(self, out: Outgoing, kind: Kind, refusal: Refusal) -> None:
        self.house.counts[f"refused.{refusal.type}"] += 1
        if not out.begun:
            out.answer(*dialects.refusal(kind, refusal))

    def _call(
        self, incoming: Incoming, route: dialects.Route, ask: Ask, body: bytes, identity: Known
    ) -> Carried:
        house = self.house
        payer, budgets = _payer(identity.payer, ask), house.settings.budgets
        payer = self._names.bound(payer, house.wall())
        entry = payer.entry or payer.agent
        return Carried(
            id=new_id(randomness=self._randomness),
            route=route,
            ask=ask,
            body=body,
            headers=incoming.headers,
            query=incoming.query,
            payer=payer,
            limits=identity.limits(budgets)
            if payer is identity.payer
            else limits_of(payer, budgets, identity.budget),
            calls=house.settings.calls(entry),
            settings=house.settings,
            models=identity.models,
            may_say=identity.labels,
            at=house.wall(),
            began=house.now(),
            task=asyncio.current_task(),
        )

    # -- may it --------------------------------------------------------------------------------

    def _may(self, call: Carried) -> Refusal | Seen | None:
        """Refuse the calls of agents that are held; return what is out of the usual of the others."""
        agent = call.payer.agent
        held = self._holds.find(agent) if agent else None
        if held is not None:
            return refusals.held(held, agent)
        said = refusals.labels(call)
        if said is not None:
            return said
        if not agent or not call.metered:
            return None
        seen = self.paces.asked(call, self.house.now())
        return None if seen.judged.level is Level.FINE else seen

    async def _noticed(self, call: Carried, seen: Seen) -> Refusal | None:
        """Refuse the calls of agents that turn in circles, and say a word to the model of one that begins to."""
        if seen.judged.level is Level.WARN and call.calls.nudge:
            await nudge(self.house, call, seen.judged)
            held = self._holds.find(call.payer.agent)
            if held is not None:  # since then
                return refusals.held(held, call.payer.agent)
        return self._judged(call, seen)

    def _judged(self, call: Carried, seen: Seen) -> Refusal | None:
        """Act on what the pace of an agent shows, or that of its whole tree."""
        judged = seen.judged
        if judged.level is Level.FINE:
            return None
        if judged.level is not Level.LOOP or seen.action == "notify":
            self.house.tell.loop(call, seen)
            return None
        run, holds = call.payer.run or "", self._holds
        helps = seen.action != RESTART or holds.may_restart(seen.agent)
        then = seen.action if run and helps else "suspend"
        self.house.tell.loop(call, seen, then)
        why = (
            judged.sentence if helps else f"{judged.sentence}; {MAX_RESTARTS} restarts did not help"
        )
        holds.hold(seen.agent, HoldKind.LOOP, why, run=run, then="" if then == "suspend" else then)
        return refusals.loop(seen.agent, f"{seen.agent}: {judged.sentence}")

    # -- where to ------------------------------------------------------------------------------

    async def _carry(self, call: Carried, out: Outgoing) -> Refusal | None:
        house, settings = self.house, call.settings
        try:
            places = settings.chains.places(call.ask, call.facts)
        except NoPlace as nowhere:
            return Refusal("midwatch_no_provider", str(nowhere), 404)
        if not places:
            return refusals.no_link(call.ask.model)
        if settings.policy.rules:
            ruled = self._ruled(call, places)
            if isinstance(ruled, Refusal):
                return ruled
            places = ruled
        if call.models:
            places = [place for place in places if may_use(call.models, place)]
            if not places:
                return refusals.not_for_key(call.payer.key or "", call.models)
        route = Route(
            places,
            house.health,
            call.ask.task,
            house.chance,
            lambda place, failure: self._admits(call, place, failure),
        )
        underway = self.under_way.setdefault(call.payer.agent, set())
        underway.add(call)
        try:
            refused = await self._enter(call, out, places[0])
            if refused is not None:
                self.paces.unasked(call, house.now())
                refusals.answer(out, call, refused, house.now())
                return None
            if not await again.give(house, call, out, places):
                heard = again.listen(house, call, out)
                await Carriage(house, call, route, heard).run()
                await again.keep(house, call, heard, places)
        finally:
            self._limiter.leave(call)
            underway.discard(call)
            if not underway:
                self.under_way.pop(call.payer.agent, None)
            self._note_end(call.payer.agent)
            call.ended = True
            if call.translations:
                house.counts["translation.passed_over"] += len(translating.passed_over(call))
            if call.over is not None:
                call.over()
            house.tell.ended(call, cached=call.cached is True, saved_nusd=call.saved_nusd)
        self._learn(call)
        return None

    def _ruled(self, call: Carried, places: Sequence[Place]) -> Sequence[Place] | Refusal:
        """Return the places that the rules leave to a call, or why they refuse it. Whatever a rule moves it to is
        judged by all of them, too: no rule is a way around another. The first that moves it decides where to."""
        house, settings = self.house, call.settings
        verdict = settings.policy.judge(call.facts(), self._outcome(call, places[0]))
        shadows = verdict.shadows
        if verdict.forced is not None:
            house.tell.policy(call, verdict)
            places = [settings.chains.place(verdict.forced)]
            outcome = self._outcome(call, places[0])
            verdict = settings.policy.judge(call.facts(), outcome, moved=True)
            shadows += tuple(one for one in verdict.shadows if one not in shadows)
        for shadow in shadows:
            house.tell.shadow(call, shadow)
        if verdict.denied is not None:
            house.tell.policy(call, verdict)
            return refusals.policy(verdict.denied, verdict.rule)
        return places

    async def _enter(self, call: Carried, out: Outgoing, place: Place) -> Refusal | None:
        """Let the call in by its agent's request limits, or say why not. An answer out of the cache, and a count of
        tokens, cost us as much as any other."""
        if not limited(call):
            return None
        tokens = 0
        if counts_tokens(call):
            longest = worth.longest(call.settings, call.ask, place) * call.ask.choices
            tokens = call.ask.input_tokens + longest
        return await self._limiter.enter(call, out, tokens)

    # -- stopping it ---------------------------------------------------------------------------

    def calls_of(self, agent: str) -> list[Carried]:
        """Return the calls under way of an agent and its sub-agents."""
        below = f"{agent}:"
        return [
            call
            for name, calls in self.under_way.items()
            if name == agent or name.startswith(below)
            for call in calls
        ]

    async def cut(self, calls: Sequence[Carried], why: Refusal, within_s: float = CUT_S) -> Cut:
        """End calls: each client is told why. Return when all have ended, or `within_s` is over."""
        loop = asyncio.get_running_loop()
        began = self.house.now()
        ends: list[asyncio.Future[None]] = []
        for call in calls:
            end = loop.create_future()
            call.over = _once(end, call.over)
            ends.append(end)
            call.kill(why)
        if ends:
            await asyncio.wait(ends, timeout=within_s)
        self.house.counts["call.killed"] += len(ends)
        left = sum(1 for end in ends if not end.done())
        return Cut(tuple(calls), left, self.house.now() - began)

    def working(self) -> dict[str, dict[str, float | None]]:
        """Return the agents with a call under way, or one that ended within `TOLD_S`: for how long the oldest
        has been open, and how long ago the last one ended, in seconds."""
        now = self.house.now()
        self._prune(now)
        return {
            agent: {
                "open_s": max((now - c.began for c in self.under_way.get(agent, ())), default=None),
                "ended_s": now - self._ended[agent] if agent in self._ended else None,
            }
            for agent in {**self._ended, **self.under_way}
            if agent
        }

    def _note_end(self, agent: str) -> None:
        now = self.house.now()
        self._ended.pop(agent, None)
        self._ended[agent] = now
        self._prune(now)

    def _prune(self, now: float) -> None:
        while self._ended and now - next(iter(self._ended.values())) > TOLD_S:
            del self._ended[next(iter(self._ended))]

    def _admits(self, call: Carried, place: Place, failure: Failure | None) -> bool:
        """Tell whether a place may serve a call: its chain's condition, its window, the dialect, and the policy, anew."""
        settings = call.settings
        error = failure.kind.value if failure is not None else ""
        if failure is not None and not settings.chains.admits(call.ask, place, call.facts, error):
            return False
        too_long = error == ErrorClass.CONTEXT_LENGTH and call.attempts
        if too_long and not worth.larger(settings, place, call.attempts[-1].place):
            return False
        if not translating.passes(call, place):
            return False
        if place.position == 0 or not settings.policy.rules:
            return True
        outcome = self._outcome(call, place)
        return settings.policy.judge(call.facts(), outcome, moved=True).denied is None

    def _outcome(self, call: Carried, place: Place) -> Outcome:
        settings = call.settings
        worst = worth.worst(settings, call.ask, place, call.at)
        return Outcome(
            place.provider,
            place.model,
            settings.chains.about(place.model),
            worst.nusd if worst.known else None,
            fallback=place.position > 0,
        )

    def _learn(self, call: Carried) -> None:
        """Let the agent's pace know what the call came to; a runaway ends here, not at the next hour's bill."""
        agent = call.payer.agent
        if not agent or not call.metered:
            return
        refused = call.exhausted
        if refused is not None and refused.then == PARK:
            self._holds.hold(agent, HoldKind.BUDGET, refused.sentence)
        now = self.house.now()
        in_vain = _in_vain(call)
        if in_vain:
            self.paces.unasked(call, now)
        seen = self.paces.settled(call, call.tokens, call.cost_nusd, now, in_vain=in_vain)
        self._judged(call, seen)


def _limits(settings: Settings, payer: Payer) -> CallLimits:
    return settings.calls(payer.entry or payer.agent).limits or settings.models.limits


def _in_vain(call: Carried) -> bool:
    """Tell whether a call got no answer for no fault of its own: to ask again is no loop."""
    return not call.attempts or call.attempts[-1].outcome in NO_FAULT


def _once(end: asyncio.Future[None], before: Callable[[], object] | None) -> Callable[[], object]:
    def over() -> None:
        if before is not None:
            before()
        if not end.done():
            end.set_result(None)

    return over


def _payer(payer: Payer, ask: Ask) -> Payer:
    """Return the payer with what the call itself says of session and tags."""
    if ask.session is None and not ask.tags:
        return payer
    return Payer(payer.agent, payer.entry, payer.group, payer.run, ask.session, payer.key, ask.tags)


def _nothing_here(out: Outgoing) -> None:
    message = "nothing here; see docs/reference/gateway.md"
    _json(out, {"error": {"message": message, "type": "not_found"}}, 404)


def _json(out: Outgoing, value: object, status: int = 200) -> None:
    out.answer(status, [("content-type", "application/json")], json.dumps(value).encode())
