"""The gateway's own noes: each with its type, its status, and whether the client may come again by itself.

402 and 403 are tried again by no official client, 429 and 5xx are, unless they are told not to. What time
heals soon (a rate, an overload) may be tried again; what it does not (a budget, a policy, a suspension) not,
so that no SDK sleeps until midnight inside a call and looks hung.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from midwatch.core.calls.budget import Reason, Refused
from midwatch.core.calls.chain import Place
from midwatch.core.calls.exchange import GiveUp, Why
from midwatch.core.calls.labels import Labels, unfit
from midwatch.gateway import dialects
from midwatch.gateway.carried import Carried, dollars
from midwatch.gateway.dialects import Refusal
from midwatch.gateway.holds import Hold, HoldKind
from midwatch.gateway.http.port import Outgoing

GONE = "client_gone"

ALL_REST_S = 30.0
"""Retry-After when nobody knows when a provider will answer again."""


def answer(out: Outgoing, call: Carried, refusal: Refusal, now: float) -> None:
    """Give a refusal to the client of a call; nothing when it has left or has a part of an answer."""
    call.refused = refusal.type
    if out.gone.done() or out.begun:
        return
    status, headers, body = dialects.refusal(call.ask.kind, refusal, array=call.route.array)
    out.answer(status, headers + call.told(now), body)


def gone() -> Refusal:
    """The client has left; nobody reads this."""
    return Refusal(GONE, "the client left", 499)


def held(hold: Hold, agent: str) -> Refusal:
    """Refuse the calls of an agent that is held, itself or with an agent above it."""
    whose = "" if hold.agent == agent else f" with {hold.agent}"
    what = {
        HoldKind.SUSPENDED: f"{agent} is suspended{whose}",
        HoldKind.KILLED: f"{agent} was stopped{whose} by the kill switch",
        HoldKind.LOOP: f"{agent} is held{whose} since it went round in circles",
        HoldKind.BUDGET: f"{agent} is parked{whose} since its budget is used up",
    }[hold.kind]
    why = f": {hold.why}" if hold.why else ""
    facts = (("since", datetime.fromtimestamp(hold.since, UTC).isoformat()), ("by", hold.by))
    said = f"{what}{why}. Lift it with: midwatch resume {hold.agent}"
    return Refusal(_HELD[hold.kind], said, 403, facts=facts)


_HELD: Final = {
    HoldKind.SUSPENDED: "midwatch_suspended",
    HoldKind.KILLED: "midwatch_suspended",
    HoldKind.LOOP: "midwatch_loop",
    HoldKind.BUDGET: "midwatch_budget",
}


def key_over(why: str) -> Refusal:
    """Refuse, or end, the calls of a key that is good no more."""
    return Refusal("midwatch_key", why, 401)


def stopping() -> Refusal:
    """End what is under way when the gateway stops; it comes back."""
    return Refusal("midwatch_stopping", "the gateway stops; ask again in a moment", 503, 1, True)


def fault() -> Refusal:
    """Answer what went wrong here in a way that nobody foresaw. Not tried again by itself: the same may happen, and
    what was asked before that is charged."""
    said = "the gateway failed at this request, and its log says why; others are carried on"
    return Refusal("midwatch_fault", said, 500)


def not_for_key(key: str, models: Sequence[str]) -> Refusal:
    """Refuse a model that a key may not use."""
    allowed = ", ".join(models)[:300]
    return Refusal("midwatch_policy", f"the key {key!r} may use {allowed} alone", 403)


def loop(agent: str, sentence: str) -> Refusal:
    """Refuse the calls of an agent that goes round in circles."""
    said = f"{sentence}: this looks like a loop, and no further call is carried. When it is none: midwatch resume {agent}"
    return Refusal("midwatch_loop", said, 429)


def policy(denied: str, rule: str) -> Refusal:
    """Refuse a call that the fleet file's rules do not allow."""
    return Refusal("midwatch_policy", f"{denied} ({rule})", 403, facts=(("rule", rule),))


def labels(call: Carried) -> Refusal | None:
    """Refuse a call that says of its task or its tags what it may not."""
    own = call.calls
    if call.may_say is None and own.tasks is None and own.tags is None:
        return None
    for whose, allowed in (
        (f"the key {call.payer.key!r}", call.may_say),
        (
            call.payer.agent,
            None if own.tasks is None and own.tags is None else Labels(own.tasks, own.tags),
        ),
    ):
        said = None if allowed is None else unfit(allowed, call.ask.task, call.ask.tags)
        if said is not None:
            more = "calls.tasks and calls.tags of the fleet file" if call.payer.agent else "the key"
            return Refusal("midwatch_policy", f"{said} is not for {whose} to say; see {more}", 403)
    return None


def busy(what: str, retry_after_s: float) -> Refusal:
    """Refuse a call above a rate; it may come again."""
    return Refusal("midwatch_limit", what, 429, retry_after_s, retry=True)


def no_link(model: str) -> Refusal:
    """Refuse a call for which no condition of its chain holds."""
    said = f"no place of the chain of {model!r} is for this call: none of its conditions holds"
    return Refusal("midwatch_no_provider", said, 404)


def unknown_price(place: Place) -> Refusal:
    """Refuse a call under a budget to a model whose price nobody knows."""
    said = (
        f"the price of {place.name} is not known, and a budget holds here; add it under models.prices,"
        " or choose another models.unknown_price"
    )
    return Refusal("midwatch_budget", said, 403)


def unpriced_share(
    place: Place, who: str, cap: int, used: int, wait_s: float, renews_at: float
) -> Refusal:
    """Refuse a call to a model without a known price above its tokens a day."""
    said = (
        f"the price of {place.name} is not known, and {who} may use {cap:,} tokens a day of such models"
        f" (models.unknown_cap); {used:,} are used or held by calls in flight"
    )
    when = datetime.fromtimestamp(renews_at, UTC).isoformat()
    facts = (("limit_tokens", cap), ("used_tokens", used), ("renews_at", when))
    return Refusal("midwatch_budget", said, 429, max(1.0, wait_s), facts=facts)


def budget(refused: Refused) -> Refusal:
    """Refuse a call that does not fit into its budgets."""
    limit = refused.limit
    facts: list[tuple[str, str]] = []
    if limit is not None:
        facts = [
            ("scope", limit.account),
            ("window", limit.window.value),
            ("limit_usd", dollars(limit.limit_nusd)),
            ("spent_usd", dollars(refused.spent_nusd)),
            ("reserved_usd", dollars(refused.reserved_nusd)),
        ]
        if refused.renews_at is not None:
            facts.append(("renews_at", datetime.fromtimestamp(refused.renews_at, UTC).isoformat()))
    if refused.reason is Reason.UNAVAILABLE:
        return Refusal("midwatch_budget", refused.sentence, 503, refused.retry_after_s, retry=True)
    soon = refused.reason is Reason.IN_FLIGHT
    status = 429 if refused.retry_after_s is not None else 403
    return Refusal(
        "midwatch_budget", refused.sentence, status, refused.retry_after_s, soon, facts=tuple(facts)
    )


def failed(end: GiveUp) -> Refusal:
    """Say that no provider answered."""
    if end.why is Why.NO_PLACE:
        wait = ALL_REST_S if end.retry_after_s is None else end.retry_after_s
        said = "every provider of this model rests after failures; see midwatch status"
        return Refusal("midwatch_no_provider", said, 503, wait)
    failure = end.failure
    reason = failure.reason if failure is not None else "no answer"
    status = 504 if failure is not None and failure.code in ("head", "total") else 502
    said = f"the provider gave no answer: {reason}"
    return Refusal("midwatch_upstream", said, status, end.retry_after_s)
