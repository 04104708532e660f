"""Budgets: which limits hold for a call, whether it may be made, and the sentence that says why not.

Invariant: a call is admitted only if, for every limit, what was spent, what calls in flight may still cost, and
the most that this one may cost are together no more than the limit. So concurrent calls cannot pass a budget,
and a budget is passed only by facts: a provider that bills more than the worst case, or a correction.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from midwatch.core.calls.account import FLEET, Payer, clean, in_words, tag_account
from midwatch.core.calls.period import SLOT_S, SLOTS, Calendar, Window, slot_start
from midwatch.core.calls.tally import NOTHING, Spent, Tally
from midwatch.core.fleet import Fleet
from midwatch.core.sealed import sealed
from midwatch.core.terms import Budget, SharedBudget
from midwatch.core.times import show_time
from midwatch.core.units import show_money

IN_FLIGHT_RETRY_S: Final = 2.0
"""Retry-After where a call would fit but for those in flight: they settle for less than they may cost."""

UNAVAILABLE_RETRY_S: Final = 2.0
"""Retry-After while the ledger cannot be written: it looks again each second."""

REFUSE: Final = "refuse"
PARK: Final = "park"


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit of one account."""

    account: str
    window: Window
    limit_nusd: int
    warn_at: float = 0.8
    on_exhausted: str = REFUSE
    """`refuse`, `park`, or the model (`provider/model`) that is tried instead."""
    who: str = ""
    """The account in words, where its name does not say enough."""

    @property
    def whose(self) -> str:
        """Return the account as a sentence names it."""
        return self.who or in_words(self.account)


@dataclass(frozen=True, slots=True)
class Budgets:
    """All budgets of a fleet file."""

    fleet: Budget = field(default_factory=Budget)
    groups: Mapping[str, Budget] = field(default_factory=dict[str, Budget])
    agents: Mapping[str, Budget] = field(default_factory=dict[str, Budget])
    """By the agent's name in the fleet file."""
    shared: tuple[SharedBudget, ...] = ()
    """The list `budgets`: of tags, sub-agents and keys."""

    @staticmethod
    def of(fleet: Fleet) -> Budgets:
        """Return the budgets of a resolved fleet."""
        return Budgets(
            fleet.budget,
            {name: group.budget for name, group in fleet.groups.items()},
            {name: agent.budget for name, agent in fleet.agents.items()},
            tuple(fleet.budgets),
        )


def limits_of(payer: Payer, budgets: Budgets, key: Budget | None = None) -> tuple[Limit, ...]:
    """Return every limit that holds for a payer's calls; `key` is the budget of its long-lived key."""
    found = list(_limits(FLEET, budgets.fleet, payer))
    if payer.group and payer.group in budgets.groups:
        found += _limits(f"group:{clean(payer.group)}", budgets.groups[payer.group], payer)
    tree = payer.tree()
    if tree and tree[0] in budgets.agents:
        found += _limits(f"agent:{tree[0]}", budgets.agents[tree[0]], payer)
    if payer.key and key is not None:
        found += _limits(f"key:{clean(payer.key)}", key, payer)
    for shared in budgets.shared:
        for account in _matches(shared, payer, tree):
            found += _limits(account, shared, payer)
    return tuple(found)


def _matches(shared: SharedBudget, payer: Payer, tree: Sequence[str]) -> Iterator[str]:
    if shared.tag is not None:
        name, equals, value = shared.tag.partition("=")
        if name in payer.tags and (not equals or payer.tags[name] == value):
            yield tag_account(name, payer.tags[name])
    if shared.key is not None and payer.key == shared.key:
        yield f"key:{clean(shared.key)}"
    if shared.agent is not None:
        above, star = shared.agent.removesuffix(":*"), shared.agent.endswith(":*")
        for name in tree:
            if name == shared.agent or (star and name.rpartition(":")[0] == above):
                yield f"agent:{name}"


def _limits(account: str, budget: Budget, payer: Payer) -> Iterator[Limit]:
    """Yield a budget's limits. What is per run, session or call holds for each one that the payer has."""
    owner = payer.tree()[0] if payer.agent else in_words(account)
    run = f"this run of {owner}"
    session, window_of_session, who_of_session = payer.session_account, Window.TOTAL, ""
    if session is None:
        # whoever names no session has one all the same: its run, or the day of its key
        who_of_session = f"calls of {owner} without a session"
        session = payer.run_account
        if session is None and payer.key:
            session, window_of_session = f"key:{clean(payer.key)}", Window.DAY
    for limit, window, where, who in (
        (budget.per_call, Window.CALL, account, ""),
        (budget.per_run, Window.TOTAL, payer.run_account, run),
        (budget.per_session, window_of_session, session, who_of_session),
        (budget.per_hour, Window.HOUR, account, ""),
        (budget.per_day, Window.DAY, account, ""),
        (budget.per_month, Window.MONTH, account, ""),
        (budget.total, Window.TOTAL, account, ""),
    ):
        if limit is not None and where is not None:
            yield Limit(where, window, limit, budget.warn_at, budget.on_exhausted, who)


class Reason(StrEnum):
    """Why a call was not admitted."""

    BUDGET = "budget"
    IN_FLIGHT = "in_flight"
    """It would fit if calls in flight cost nothing: worth another try soon."""
    PER_CALL = "per_call"
    """Dearer than one call may be; it never fits."""
    UNAVAILABLE = "unavailable"
    """The ledger cannot be written: no answer means no."""


@sealed
class Admitted:
    """The call may be made; its worst case is reserved."""

    left_nusd: int | None = None
    """What the tightest budget has left after this reservation; None without any budget."""
    limit: Limit | None = None
    """The tightest."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The call may not be made; nothing is reserved."""

    reason: Reason
    sentence: str
    retry_after_s: float | None = None
    """None: waiting does not help."""
    renews_at: float | None = None
    limit: Limit | None = None
    """The tightest of those that refuse; None when the ledger is unavailable."""
    spent_nusd: int = 0
    reserved_nusd: int = 0
    left_nusd: int = 0
    """The most that a call may cost to be admitted now: bound its output to this, and ask again."""
    then: str = REFUSE
    """What the fleet file wants done: `refuse`, `park` (hold the agent until it is resumed), or a cheaper
    model that is to be asked instead."""


def unavailable(why: str) -> Refused:
    """Return the refusal of a ledger that cannot be written: budgets fail closed."""
    return Refused(
        Reason.UNAVAILABLE,
        f"budgets cannot be checked: {why}; the call was not made, try again in a moment",
        UNAVAILABLE_RETRY_S,
    )


@dataclass(frozen=True, slots=True)
class Left:
    """How one limit stands."""

    limit: Limit
    spent_nusd: int
    reserved_nusd: int
    left_nusd: int
    """Never below 0."""
    renews_at: float | None


NoticeKey = tuple[str, str, str, int]
"""Account, period, kind, limit: a budget that was raised is told of anew."""


@dataclass(frozen=True, slots=True)
class Notice:
    """A budget that reached its warning or its end; told once per period and limit."""

    kind: str
    """`warned` or `exhausted`."""
    limit: Limit
    period: str
    spent_nusd: int
    at: float
    sentence: str

    @property
    def key(self) -> NoticeKey:
        """Return what is told once."""
        return (self.limit.account, self.period, self.kind, self.limit.limit_nusd)


def admit(
    limits: Sequence[Limit], worst_nusd: int, at: float, tally: Tally, calendar: Calendar
) -> Admitted | Refused:
    """Decide whether a call that may cost `worst_nusd` fits into all limits at `at` (Unix seconds).

    Every account of `limits` must be loaded in `tally`. A call that costs nothing is always admitted. Of the
    limits that refuse, the one with the least left is named; Retry-After waits for all of them.
    """
    periods = calendar.periods(at)
    tightest: Limit | None = None
    least = 0
    short: list[tuple[int, Limit, Spent]] = []
    for limit in limits:
        if limit.window is Window.CALL:
            left, spent = limit.limit_nusd, NOTHING
        else:
            spent = tally.spent(limit.account, limit.window, at, periods)
            left = limit.limit_nusd - spent.spent - spent.reserved
        if worst_nusd > left and worst_nusd > 0:
            short.append((left, limit, spent))
        elif limit.window is not Window.CALL and (tightest is None or left < least):
            tightest, least = limit, left
    if not short:
        return Admitted(None if tightest is None else max(0, least - worst_nusd), tightest)
    return _refuse(short, worst_nusd, at, tally, calendar)


def _refuse(
    short: list[tuple[int, Limit, Spent]],
    worst_nusd: int,
    at: float,
    tally: Tally,
    calendar: Calendar,
) -> Refused:
    left, limit, spent = min(short, key=lambda one: one[0])
    never = any(worst_nusd > one.limit_nusd for _, one, _ in short)
    held = not never and all(worst_nusd <= one.limit_nusd - s.spent for _, one, s in short)
    renewals = [_renews(one, worst_nusd, at, tally, calendar) for _, one, _ in short]
    known = [r for r in renewals if r is not None]
    renews_at = max(known) if len(known) == len(renewals) and not never else None
    retry = IN_FLIGHT_RETRY_S if held else None if renews_at is None else max(1.0, renews_at - at)
    then = _then([one for _, one, _ in short], limit)
    if limit.window is Window.CALL:
        reason = Reason.PER_CALL
    else:
        reason = Reason.IN_FLIGHT if held else Reason.BUDGET
    if reason is not Reason.BUDGET and then == PARK:
        then = REFUSE  # nothing is used up: no person is needed
    own = _renews(limit, worst_nusd, at, tally, calendar)
    sentence = _sentence(limit, spent, worst_nusd, at, own, calendar, held=held)
    return Refused(
        reason,
        sentence,
        retry,
        renews_at,
        limit,
        spent.spent,
        spent.reserved,
        max(0, left),
        then,
    )


def _then(short: Sequence[Limit], tightest: Limit) -> str:
    """Return the strictest of what the limits ask for: park, then refuse, then the tightest one's model."""
    asked = {limit.on_exhausted for limit in short}
    return PARK if PARK in asked else REFUSE if REFUSE in asked else tightest.on_exhausted


def _renews(
    limit: Limit, worst_nusd: int, at: float, tally: Tally, calendar: Calendar
) -> float | None:
    """Return when there is room for `worst_nusd` if nothing else is spent; None: not by itself."""
    if limit.window is not Window.HOUR:
        return calendar.ends(limit.window, at)
    slots = tally.slots(limit.account, at)
    charged = sum(cell.charged for _, cell in slots)
    for slot, cell in slots:
        charged -= cell.charged
        if charged + worst_nusd <= limit.limit_nusd:
            return slot_start(slot) + (SLOTS + 1) * SLOT_S
    return None


_WHEN: Final = {
    Window.TOTAL: "",
    Window.HOUR: " in the last hour",
    Window.DAY: " today",
    Window.MONTH: " this month",
}


def _sentence(
    limit: Limit,
    spent: Spent,
    worst_nusd: int,
    at: float,
    renews_at: float | None,
    calendar: Calendar,
    *,
    held: bool,
) -> str:
    cost = f"the call may cost {dollars(worst_nusd)}"
    if limit.window is Window.CALL:
        return (
            f"{cost}, and one call of {limit.whose} may cost {dollars(limit.limit_nusd)} at most;"
            " ask for a shorter answer or a cheaper model, or raise per_call"
        )
    flight = f", {dollars(spent.reserved)} of it held by calls in flight" if spent.reserved else ""
    until = (
        "ask again when they have ended"
        if held
        else _renewal(limit, worst_nusd, at, renews_at, calendar)
    )
    return (
        f"{limit.whose} has used {dollars(spent.charged)} of {dollars(limit.limit_nusd)}"
        f"{_WHEN[limit.window]}{flight}; {cost}; {until}"
    )


def _renewal(
    limit: Limit, worst_nusd: int, at: float, renews_at: float | None, calendar: Calendar
) -> str:
    if worst_nusd > limit.limit_nusd:
        return "that is more than the whole budget"
    if renews_at is None:
        return "this budget does not renew; raise it to go on"
    what = "room again at" if limit.window is Window.HOUR else "new budget at"
    # seen from the day that begins then: today's midnight needs no date, a month's first day does
    seen = renews_at if renews_at - at < 86_400 else at
    return f"{what} {show_time(renews_at, seen, calendar.zone)} {calendar.name}"


def dollars(nusd: int) -> str:
    """Return `$9.97`, `$10.00`, `$0.0038`."""
    shown = show_money(nusd)
    return shown if "." in shown else f"{shown}.00"


def standing(
    limits: Sequence[Limit], at: float, tally: Tally, calendar: Calendar
) -> tuple[Left, ...]:
    """Return how each limit stands at `at`; those on one call are left out."""
    periods = calendar.periods(at)
    found: list[Left] = []
    for limit in limits:
        if limit.window is Window.CALL:
            continue
        spent = tally.spent(limit.account, limit.window, at, periods)
        renews = _renews(limit, 0, at, tally, calendar)
        left = max(0, limit.limit_nusd - spent.charged)
        found.append(Left(limit, spent.spent, spent.reserved, left, renews))
    return tuple(found)


def notices(
    limits: Sequence[Limit],
    at: float,
    tally: Tally,
    calendar: Calendar,
    told: Container[NoticeKey] = (),
) -> Iterator[Notice]:
    """Yield a warning for each limit whose settled cost has reached its warning share, but those in `told`.

    Settled cost alone: worst cases of calls in flight would warn of money that is never spent.
    """
    periods = calendar.periods(at)
    for limit in limits:
        if limit.window is Window.CALL or limit.limit_nusd <= 0:
            continue
        spent = tally.spent(limit.account, limit.window, at, periods).spent
        if spent < limit.warn_at * limit.limit_nusd:
            continue
        period = calendar.period(limit.window, at)
        if (limit.account, period, "warned", limit.limit_nusd) not in told:
            share = spent * 100 // limit.limit_nusd
            yield Notice(
                "warned",
                limit,
                period,
                spent,
                at,
                f"{limit.whose} has spent {dollars(spent)} of {dollars(limit.limit_nusd)}"
                f"{_WHEN[limit.window]}, {share}%",
            )


def exhausted(refused: Refused, at: float, calendar: Calendar) -> Notice | None:
    """Return the notice of a refusal for want of budget; None for other reasons."""
    if refused.limit is None or refused.reason is not Reason.BUDGET:
        return None
    period = calendar.period(refused.limit.window, at)
    return Notice("exhausted", refused.limit, period, refused.spent_nusd, at, refused.sentence)
