"""`/self*`: what an agent, or whoever holds a key, may know of itself: who it is, what its budgets have left,
what a call came to. Nobody learns of another's calls: they are not found.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from typing import Any, Final

from midwatch.core.calls.ask import Kind
from midwatch.core.calls.budget import limits_of
from midwatch.core.calls.charge import Call, CallState
from midwatch.core.calls.labels import Labels, own_tags
from midwatch.core.calls.period import Window
from midwatch.gateway import dialects, shown
from midwatch.gateway.app import App
from midwatch.gateway.dialects import BadRequest, Refusal
from midwatch.gateway.http.port import Incoming, Outgoing
from midwatch.gateway.identify import Known
from midwatch.gateway.routes import Asked, Json, Table, Wrong

MAX_ATTEMPTS: Final = 256
"""Attempts of one call: more than retries and chains allow."""


class SelfRoutes:
    """Answers `/self*` of one gateway."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def handle(self, incoming: Incoming, out: Outgoing) -> None:
        """Answer one request, for the key that it shows."""
        headers = dict(incoming.headers)
        shown_key = dialects.presented(headers, incoming.query)
        known = self._app.identify(shown_key, headers.get("x-midwatch-agent", ""))
        if isinstance(known, Refusal):
            self._app.house.counts[f"refused.{known.type}"] += 1
            out.answer(*dialects.refusal(Kind.OPENAI, known))
            return
        try:
            told = dialects.labels(headers)
        except BadRequest as bad:
            out.answer(*dialects.refusal(Kind.OPENAI, dialects.of_bad_request(bad)))
            return
        asker = _Asker(self._app, known, told)
        table = Table(
            ("GET", "/self", asker.who),
            ("GET", "/self/budget", asker.budget),
            ("GET", "/self/calls/{id}", asker.call),
        )
        await table.answer(incoming, out)


class _Asker:
    """Who asks, and what is told it."""

    def __init__(self, app: App, known: Known, told: dict[str, Any]) -> None:
        self._app = app
        self._known = known
        payer = known.payer
        calls = app.house.settings.calls(payer.entry or payer.agent)
        allowed = known.labels or Labels(calls.tasks, calls.tags)
        # what others spent under a tag is no business of whoever may say any tag
        tags = own_tags(allowed, told.get("tags", {}))
        self._payer = replace(payer, session=told.get("session"), tags=tags)

    async def who(self, _: Asked) -> tuple[int, Json]:
        payer, known = self._payer, self._known
        hold = self._app.holds.find(payer.agent) if payer.agent else None
        return 200, {
            "agent": payer.agent or None,
            "group": payer.group,
            "run": payer.run,
            "key": payer.key,
            "models": list(known.models),
            "expires_at": known.expires_at,
            "accounts": list(payer.accounts()),
            "held": hold.to_json() if hold is not None else None,
            "version": version("midwatch"),
        }

    async def budget(self, _: Asked) -> tuple[int, Json]:
        app = self._app
        limits = limits_of(self._payer, app.house.settings.budgets, self._known.budget)
        standing = await app.ledger.left(limits, app.house.wall())
        least = min((one.left_nusd for one in standing), default=None)
        return 200, {
            "agent": self._payer.agent or None,
            "key": self._payer.key,
            "left_usd": None if least is None else least / 1e9,
            "left_nusd": least,
            "limits": [shown.left(one) for one in standing],
            "per_call": [shown.limit(one) for one in limits if one.window is Window.CALL],
        }

    async def call(self, asked: Asked) -> tuple[int, Json]:
        call_id = asked.names["id"]
        first = await self._app.ledger.call(call_id)
        if first is None or not self._is_own(first) or "." in call_id:
            raise Wrong(404, f"no call of yours has the id {call_id[:80]!r}")
        attempts = [first]
        while len(attempts) < MAX_ATTEMPTS:
            following = await self._app.ledger.call(f"{call_id}.{len(attempts) + 1}")
            if following is None:
                break
            attempts.append(following)
        return 200, _sum(call_id, attempts)

    def _is_own(self, call: Call) -> bool:
        payer = self._payer
        if not payer.agent:
            return call.key == payer.key
        return call.agent == payer.agent or call.agent.startswith(f"{payer.agent}:")


def _sum(call_id: str, attempts: list[Call]) -> Json:
    """Return what a call came to with all its attempts; it is settled when each of them is."""
    last = attempts[-1]
    states = {attempt.state for attempt in attempts}
    is_open = CallState.OPEN in states
    state = CallState.OPEN if is_open else CallState.SETTLED
    if states == {CallState.RELEASED}:
        state = CallState.RELEASED
    return {
        "call": call_id,
        "state": state.value,
        **shown.usd("cost", sum(a.cost_nusd for a in attempts)),
        **shown.usd(
            "reserved", sum(a.reserved_nusd for a in attempts if a.state is CallState.OPEN)
        ),
        **shown.usd("saved", sum(a.saved_nusd for a in attempts)),
        "input_tokens": sum(a.input_tokens for a in attempts),
        "output_tokens": sum(a.output_tokens for a in attempts),
        "model_asked": last.model_asked,
        "model": last.model,
        "provider": last.provider,
        "outcome": last.outcome,
        "estimated": any(a.estimated for a in attempts),
        "disputed": any(a.disputed for a in attempts),
        "attempts": [
            {
                "call": a.call_id,
                "state": a.state.value,
                "place": f"{a.provider}/{a.model}" if a.provider else "",
                "outcome": a.outcome,
                **_seam(a),
                **shown.usd("cost", a.cost_nusd),
                "usage": dict(a.usage),
                "price_version": a.price_version,
            }
            for a in attempts
        ],
    }


def _seam(attempt: Call) -> Json:
    """Return `seam` for an attempt that went on with an answer where nothing proves that both parts fit."""
    if not attempt.attempts or "seam" not in attempt.attempts[-1]:
        return {}
    return {"seam": attempt.attempts[-1]["seam"]}
