"""What the gateway tells the hub: a span of each call, sums of calls, and what is out of the usual.

Telemetry fails open: nothing here waits or raises, and what cannot be kept is counted. In the event loop a call
costs the keeping of references and a few additions; spans are made by the transport's worker. No event per call:
sums of each run go every `SUM_S` seconds, and what may repeat is gathered (`gathered`).

Used from the event loop alone. `keep` runs as long as the gateway does.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from midwatch.core.calls.ask import Dialect
from midwatch.core.calls.budget import Notice
from midwatch.core.calls.news import News
from midwatch.core.calls.period import Window
from midwatch.core.calls.policy import Judged, Outcome, Verdict
from midwatch.core.calls.pool import forecast
from midwatch.core.calls.route import Change
from midwatch.core.calls.served import same
from midwatch.core.calls.sums import Sums
from midwatch.core.detection import MIDWATCH
from midwatch.core.plain import clean
from midwatch.gateway import spans
from midwatch.gateway.carried import Attempted, Carried
from midwatch.gateway.gathered import Gathered, Ration
from midwatch.gateway.house import House
from midwatch.gateway.paces import Seen
from midwatch.gateway.sending import Sender
from midwatch.sdk.transport import TRACES_PATH
from midwatch.wire.limits import MAX_NAME

SUM_S: Final = 10.0
"""How often sums of calls are told while no house was joined; then `gateway.tell_every` says it."""

FLEET_S: Final = 60.0
"""How often those of the whole gateway are."""

MAX_SUMS: Final = 5_000
"""Runs whose calls are summed at one time; calls of more are told by their spans alone, and counted."""

REFUSED_PER_MIN: Final = 60
"""Refused calls of one agent and its sub-agents that have spans of their own; ten at once. What goes on asking all
the same would fill the hub: the rest of it is summed."""

DAY_S: Final = 86_400.0

FULL: Final = 0.9
"""The share of a model's window from which on it is told."""

SOON_S: Final = 2 * 3600.0
"""A pool of keys that will be used up within this time is told."""

_PASSED_BY: Final = frozenset((Dialect.COUNT, Dialect.MODELS))
"""Not calls of a model: no sums."""

_TIMES: Final = frozenset(("head", "between", "total"))
"""Phases of a failure that is the end of somebody's patience."""


class Telling:
    """Implements `house.Tell`."""

    def __init__(
        self,
        sender: Sender,
        *,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.counts: Counter[str] = Counter()
        """What was not told, by reason."""
        self._sender = sender
        self._now = now
        self._wall = wall
        self._gathered = Gathered(self._event, self._lose)
        self._sums: dict[tuple[str, str | None], Sums] = {}
        self._fleet: Sums | None = None
        self._refused = Ration(REFUSED_PER_MIN)
        self._open: set[str] = set()
        """Places whose breaker is open."""
        self._house: House | None = None

    def join(self, house: House) -> None:
        """Begin to tell of a gateway: its ledger's notices, its keys' forecasts, its models' names."""
        self._house = house
        house.ledger.on_notice = self.budget

    @property
    def _sum_s(self) -> float:
        house = self._house
        return SUM_S if house is None else house.settings.fleet.gateway.tell_every

    async def keep(self) -> None:
        """Tell what was gathered and summed, until cancelled."""
        while True:
            await asyncio.sleep(min(1.0, self._sum_s / 4))
            self.tick()

    def tick(self) -> None:
        """Tell what is due."""
        now, wall = self._now(), self._wall()
        self._gathered.tick(now)
        for key, sums in list(self._sums.items()):
            if wall - sums.began_at >= self._sum_s or wall < sums.began_at:
                self._tell_sums(key, wall)
        if self._fleet is not None and not 0 <= wall - self._fleet.began_at < FLEET_S:
            self._tell_fleet(wall)

    def close(self) -> None:
        """Tell everything that waits: the gateway ends."""
        wall = self._wall()
        self._gathered.flush()
        for key in list(self._sums):
            self._tell_sums(key, wall)
        if self._fleet is not None:
            self._tell_fleet(wall)

    def ready(
        self, problems: tuple[str, ...] = (), open_calls: int = 0, open_nusd: int = 0
    ) -> None:
        """A gateway begins to serve: its breakers are closed, whatever an earlier one told. `open_calls`: in flight
        when it died, reserved for `open_nusd`."""
        house = self._house
        providers = [] if house is None else sorted(house.settings.providers)[:50]
        data: dict[str, Any] = {
            "providers": providers,
            "problems": [clean(p, 300) for p in problems[:20]],
        }
        if open_calls:
            data |= {"open_calls": open_calls, "open_nusd": open_nusd}
        self._event(News.READY, MIDWATCH, None, data)

    # -- the protocol ----------------------------------------------------------------------------

    def ended(self, call: Carried, *, cached: bool = False, saved_nusd: int = 0) -> None:
        """A call is over. `cached`: answered without asking anybody, which saved so much."""
        took = self._now() - call.began
        told = spans.Told(
            call.id, call.at, took, call.began, call.ask, call.payer, call.attempts, call.refused,
            spans.parent_of(call.headers), cached, saved_nusd,
        )  # fmt: skip
        if call.refused and not call.attempts and not self._refused.take(call.payer, self._now()):
            self._lose("refused_summed")
        else:
            self._sender.submit(TRACES_PATH, partial(_first, told, self._sender))
        if call.ask.dialect in _PASSED_BY:
            return
        self._add(call, told.error, saved_nusd)
        if call.attempts:
            last = call.attempts[-1]
            if len(call.attempts) > 1 or last.place.position or last.outcome != "ok":
                self._attempts(call)
            self._look(call, last)
        if call.unpriced:
            self._unpriced(call)

    def failed(self, call: Carried, attempt: Attempted) -> None:
        """An attempt failed. Told at once: what follows it may take a minute."""
        attempt.told = True
        kind = _kind(attempt)
        if kind is not None:
            self._note(kind, call, attempt.place.name, partial(_broken, call, attempt))

    def change(self, change: Change, call: Carried) -> None:
        """A breaker or a key changed because of a call."""
        place = f"{change.provider}/{change.model}"
        if change.kind == News.OPENED:
            self._open.add(place)
        elif change.kind == News.CLOSED:
            self._open.discard(place)
        data: dict[str, Any] = {
            "provider": change.provider,
            "model": clean(change.model),
            "key": change.key or None,
            "reason": clean(change.reason, 300) or None,
            "for_s": round(change.for_s, 1) or None,
            "by": call.payer.agent or None,
            "call": call.id,
        }
        if change.kind in (News.OPENED, News.CLOSED):
            data["open"] = sorted(self._open)[:50]
        else:
            data["until"] = round(self._wall() + change.for_s, 3)
            data |= self._pool(change.provider)
        self._event(change.kind, MIDWATCH, None, data)
        if change.kind == News.QUOTA:
            self.pool(change.provider)

    def shadow(self, call: Carried, judged: Judged) -> None:
        """A rule in shadow would have acted."""
        said = {"effect": clean(judged.effect, 300), "would": judged.forces or "deny"}
        self._ruled(News.SHADOW, call, judged.rule, said)

    def policy(self, call: Carried, verdict: Verdict) -> None:
        """A rule denied or moved the call."""
        if verdict.denied is not None:
            self._ruled(News.DENIED, call, verdict.rule, {"reason": clean(verdict.denied, 300)})
        else:
            self._ruled(News.MOVED, call, verdict.rule, {"to": clean(verdict.forced or "")})

    def loop(self, call: Carried, seen: Seen, then: str | None = None) -> None:
        """An agent's pace, or what it repeats, is out of the usual."""
        judged, agent, run = seen.judged, seen.agent, call.payer.run
        spent = self._sums.get((agent, run))

        def data() -> dict[str, Any]:
            return {
                "loop": judged.kind,
                "sentence": clean(judged.sentence, 300),
                "evidence": dict(judged.evidence),
                "level": judged.level.name.lower(),
                "call": call.id,
                "spent_nusd": None if spent is None else spent.cost_nusd,
                "then": then,
            }

        if then is not None:
            self._event(News.LOOP_HELD, agent, run, data())
        else:
            key = (str(News.LOOP_WARNED), agent, f"{judged.kind}.{judged.level}")
            self._gathered.note(key, self._now(), run, data)

    def revoked(self, key: str, agent: str, why: str) -> None:
        """Somebody shows a key that was revoked. `key`: its name; `agent` is empty for a person's or a team's."""
        data = {"key": clean(key), "why": clean(why, 300)}
        about = (str(News.REVOKED), agent or MIDWATCH, key)
        self._gathered.note(about, self._now(), None, lambda: data)

    def pool(self, provider: str) -> None:
        """Tell of a pool that is empty, or soon will be."""
        keys = [] if self._house is None else self._house.health.pools.get(provider, [])
        seen = forecast(keys, self._now()) if keys else None
        if seen is not None and seen.empty_in_s <= SOON_S:
            data = {"provider": provider, **seen.to_json(self._wall()), **self._pool(provider)}
            self._event(News.POOL, MIDWATCH, None, data)

    # -- what others of the gateway tell ---------------------------------------------------------

    def budget(self, notice: Notice) -> None:
        """A budget reached its warning, or its end."""
        limit = notice.limit
        agent = _account_agent(limit.account, limit.who)
        data = {
            "account": clean(limit.account),
            "whose": clean(limit.whose),
            "window": limit.window.value,
            "period": notice.period,
            "limit_nusd": limit.limit_nusd,
            "spent_nusd": notice.spent_nusd,
            "sentence": clean(notice.sentence, 300),
            "then": clean(limit.on_exhausted),
            "renews_at": self._renews(limit.window, notice.at),
        }
        kind = News.WARNED if notice.kind == "warned" else News.EXHAUSTED
        self._event(kind, agent, None, data)

    # -- a call that is over -----------------------------------------------------------------------

    def _add(self, call: Carried, error: str | None, saved_nusd: int) -> None:
        key = (call.payer.agent or MIDWATCH, call.payer.run)
        sums = self._sums.get(key)
        if sums is None:
            if len(self._sums) >= MAX_SUMS:
                self._lose("sums_crowded")
                return
            sums = self._sums[key] = Sums(self._wall())
        fleet = self._fleet
        if fleet is None:
            fleet = self._fleet = Sums(self._wall())
        for one in (sums, fleet):
            one.calls += 1
            if error is None:
                one.served += 1
            else:
                one.failed(error)
        fleet.cost_nusd += call.cost_nusd
        sums.saved_nusd += saved_nusd
        sums.system_tokens += call.ask.system_tokens - call.ask.tool_tokens
        sums.tool_tokens += call.ask.tool_tokens
        if call.unpriced:
            sums.unpriced += 1
        for attempt in call.attempts:
            _count(sums, attempt)
        if call.attempts and call.attempts[-1].place.position:
            place = _passed_over(call)
            sums.fell(place)
            fleet.fell(place)

    def _attempts(self, call: Carried) -> None:
        """Tell what became of attempts that did not go well, and of a fallback."""
        for attempt in call.attempts:
            if not attempt.told and attempt.outcome not in ("ok", "gone", "killed", ""):
                self.failed(call, attempt)
        last = call.attempts[-1]
        if last.place.position and last.outcome == "ok":
            about = f"{_passed_over(call)} {last.place.name}"
            self._note(News.FALLBACK, call, about, partial(self._fallback, call, last))

    def _fallback(self, call: Carried, last: Attempted) -> dict[str, Any]:
        failed = [a for a in call.attempts if a.outcome != "ok"]
        marks = call.marks(last.place)
        return {
            "asked": clean(call.ask.model),
            "from": _passed_over(call),
            "to": last.place.name,
            "why": "budget" if call.moved else failed[-1].outcome if failed else "resting",
            "reason": clean(failed[-1].reason, 300) if failed else None,
            "attempts": len(call.attempts),
            "call": call.id,
            "dearer": "dearer" in marks,
            "weaker": "weaker" in marks,
        }

    def _look(self, call: Carried, last: Attempted) -> None:
        """Tell what a call's own figures show: a price in doubt, another model, a window nearly full."""
        charge = last.charge
        if not same(last.place.model, last.served):
            self._mismatch(call, last)
        if charge is None:
            return
        if charge.disputed:
            # of a model, whoever calls it; it lasts until somebody says which price is right
            about = (str(News.DISPUTED), MIDWATCH, last.place.name)
            self._gathered.note(about, self._now(), None, lambda: {
                "model": last.place.name, "costs": dict(charge.costs), "call": call.id,
                "price_version": charge.price_version, "cost_nusd": charge.cost_nusd,
            }, DAY_S)  # fmt: skip
        if charge.cost_nusd > last.worst_nusd:
            self._note(News.SHORT, call, last.place.name, lambda: {
                "model": last.place.name, "reserved_nusd": last.worst_nusd,
                "cost_nusd": charge.cost_nusd, "call": call.id,
            })  # fmt: skip
        if last.window is not None and charge.input_tokens >= FULL * last.window:
            self._note(News.FILLING, call, last.place.name, lambda: {
                "model": last.place.name, "input_tokens": charge.input_tokens,
                "window": last.window, "call": call.id,
                "system_tokens": call.ask.system_tokens - call.ask.tool_tokens,
                "tool_tokens": call.ask.tool_tokens,
            })  # fmt: skip

    def _mismatch(self, call: Carried, last: Attempted) -> None:
        """Tell of another model than the one that was asked for, when its name is one that lists know: a
        deployment's own name says nothing."""
        settings, place = call.settings, last.place
        provided = settings.providers.get(place.provider)
        seller = "" if provided is None else provided.seller
        if not settings.shelf.find(place.provider, seller, place.model).listings:
            return
        outcome = Outcome(
            place.provider, last.served, settings.chains.about(last.served), None, fallback=True
        )
        forbidden = settings.policy.judge(call.facts(), outcome, moved=True).denied
        self._note(News.MISMATCH, call, place.name, lambda: {
            "asked": place.name, "served": clean(last.served), "call": call.id,
            "forbidden": None if forbidden is None else clean(forbidden, 300),
        })  # fmt: skip

    def _unpriced(self, call: Carried) -> None:
        self._note(News.UNPRICED, call, call.unpriced, lambda: {
            "model": clean(call.unpriced), "call": call.id, "refused": bool(call.refused),
            "cost_nusd": call.cost_nusd,
        })  # fmt: skip

    # -- sending -----------------------------------------------------------------------------------

    def _ruled(self, kind: News, call: Carried, rule: str, said: Mapping[str, Any]) -> None:
        data = {"rule": clean(rule), "model": clean(call.ask.model), "task": call.ask.task, **said}
        self._note(kind, call, f"{rule} {call.ask.model} {call.ask.task}", lambda: {**data, "call": call.id})  # fmt: skip

    def _note(
        self, kind: News, call: Carried, about: str, make: Callable[[], dict[str, Any]]
    ) -> None:
        agent, run = _owner(call)
        self._gathered.note((str(kind), agent, about), self._now(), run, make)

    def _pool(self, provider: str) -> dict[str, Any]:
        """Return how many keys a provider has, and how many of them serve."""
        if self._house is None:
            return {}
        keys = self._house.health.pools.get(provider, [])
        now = self._now()
        return {"keys": len(keys), "keys_left": sum(1 for key in keys if not key.rests(now))}

    def _renews(self, window: Window, at: float) -> float | None:
        if self._house is None:
            return None
        if window is Window.HOUR:
            return at + 3600.0
        return self._house.ledger.calendar.ends(window, at)

    def _tell_sums(self, key: tuple[str, str | None], wall: float) -> None:
        agent, run = key
        self._event(News.ENDED, agent, run, self._sums.pop(key).to_json(wall))

    def _tell_fleet(self, wall: float) -> None:
        fleet, self._fleet = self._fleet, None
        if fleet is not None:
            self._event(News.CALLS, MIDWATCH, None, fleet.to_json(wall))

    def _event(self, kind: str, agent: str, run: str | None, data: dict[str, Any]) -> None:
        known = {name: value for name, value in data.items() if value is not None}
        item: dict[str, Any] = {"agent": agent[:MAX_NAME], "kind": str(kind), "data": known}
        item["at"] = self._wall()
        if run is not None:
            item["run_id"] = run[:MAX_NAME]
        if not self._sender.submit("event", item):
            self._lose("event_not_taken")

    def _lose(self, reason: str) -> None:
        self.counts[reason] += 1


def _first(told: spans.Told, sender: Sender) -> dict[str, Any]:
    """Return the call's span; those of its attempts follow. Runs in the transport's worker."""
    first, *rest = told.spans()
    for span in rest:
        sender.submit(TRACES_PATH, span)
    return first


def _owner(call: Carried) -> tuple[str, str | None]:
    return call.payer.agent or MIDWATCH, call.payer.run


def _passed_over(call: Carried) -> str:
    """Return the place that did not answer; the model that was asked for when its place rests."""
    first = call.attempts[0].place
    return clean(call.ask.model) if first.position else first.name


def _account_agent(account: str, who: str) -> str:
    """Return the agent that an account is about; Midwatch's own name when it is nobody's alone."""
    kind, _, name = account.partition(":")
    if kind == "agent":
        return name
    if kind == "session":
        owner = name.partition("/")[0]
    else:
        owner = who.removeprefix("this run of ") if kind == "run" else ""
    return owner if owner and " " not in owner else MIDWATCH


def _kind(attempt: Attempted) -> News | None:
    """Return what a failed attempt is told as; None for what its own event tells (keys, breakers)."""
    if attempt.outcome == "cut":
        return News.STALLED if attempt.code in _TIMES else News.CUT
    if attempt.code in _TIMES:
        return News.SLOW if attempt.first_s is None else News.STALLED
    if attempt.code == "body":
        return News.CUT
    return News.RETRIED


def _broken(call: Carried, attempt: Attempted) -> dict[str, Any]:
    return {
        "model": attempt.place.name,
        "why": attempt.outcome,
        "code": clean(attempt.code) or None,
        "status": attempt.status or None,
        "reason": clean(attempt.reason, 300),
        "after_s": round(max(0.0, attempt.ended - attempt.began), 3),
        "first_s": None if attempt.first_s is None else round(attempt.first_s, 3),
        "stream": call.ask.stream,
        "told": attempt.outcome == "cut" and not attempt.mended,
        "mended": attempt.mended or None,
        "seam": "unproven" if call.unproven else None,
        "call": call.id,
    }


def _count(sums: Sums, attempt: Attempted) -> None:
    charge = attempt.charge
    if attempt.outcome != "ok":
        sums.retries += 1
    if attempt.first_s is not None and attempt.first_s > sums.slowest_first_s:
        sums.slowest_first_s = attempt.first_s
    if charge is None:
        return
    tokens = charge.input_tokens + charge.output_tokens
    sums.input_tokens += charge.input_tokens
    sums.output_tokens += charge.output_tokens
    sums.cached_tokens += charge.usage.get("cache_read", 0)
    sums.longest_input = max(sums.longest_input, charge.input_tokens)
    sums.cost_nusd += charge.cost_nusd
    sums.estimated += charge.estimated
    sums.disputed += charge.disputed
    spent = sums.spent(attempt.place.name)
    spent.calls += 1
    spent.tokens += tokens
    spent.cost_nusd += charge.cost_nusd
