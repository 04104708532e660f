"""What is admitted, what is refused, and how that reads."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from midwatch.core.calls.account import Payer
from midwatch.core.calls.budget import (
    Admitted,
    Budgets,
    Limit,
    Reason,
    Refused,
    admit,
    exhausted,
    limits_of,
    notices,
    standing,
)
from midwatch.core.calls.period import Calendar, Window
from midwatch.core.calls.tally import Spent, Tally, cells, first_slot
from midwatch.core.fleet import Agent, Fleet, Group
from midwatch.core.terms import Budget, SharedBudget

DOLLAR = 10**9
PARIS = Calendar(ZoneInfo("Europe/Paris"))
NOON = datetime(2026, 3, 28, 11, 2, tzinfo=UTC).timestamp()  # 12:02 in Paris
INBOX = Payer("inbox", group="support", run="r1", session="s1", tags={"customer": "acme"})


class Spending:
    """A tally in which everything is known, and the accounts of `INBOX` are charged."""

    def __init__(self, payer: Payer = INBOX) -> None:
        self.payer = payer
        self.tally = Tally()
        for account in payer.accounts():
            self.tally.load(account, NOON, PARIS.periods(NOON), [])

    def charge(self, spent: int, reserved: int = 0, at: float = NOON) -> Spending:
        self.tally.charge(cells(self.payer.accounts(), PARIS.periods(at)), spent, reserved)
        return self

    def admit(self, *limits: Limit, worst: int, at: float = NOON) -> Admitted | Refused:
        return admit(limits, worst, at, self.tally, PARIS)

    def refuse(self, *limits: Limit, worst: int, at: float = NOON) -> Refused:
        verdict = self.admit(*limits, worst=worst, at=at)
        assert isinstance(verdict, Refused)
        return verdict


DAY = Limit("agent:inbox", Window.DAY, 10 * DOLLAR)
HOUR = Limit("agent:inbox", Window.HOUR, 2 * DOLLAR)
TOTAL = Limit("agent:inbox", Window.TOTAL, 50 * DOLLAR)
CALL = Limit("agent:inbox", Window.CALL, DOLLAR // 2)


def test_a_call_that_fits_is_admitted_and_hears_what_the_tightest_budget_has_left() -> None:
    verdict = Spending().charge(DOLLAR).admit(DAY, HOUR, TOTAL, CALL, worst=DOLLAR // 4)
    assert verdict == Admitted(3 * DOLLAR // 4, HOUR)


def test_without_a_budget_everything_is_admitted() -> None:
    assert Spending().admit(worst=10**18) == Admitted(None, None)


def test_a_call_that_fits_to_the_nano_dollar_is_admitted_and_one_more_is_not() -> None:
    spending = Spending().charge(9 * DOLLAR)
    assert isinstance(spending.admit(DAY, worst=DOLLAR), Admitted)
    assert isinstance(spending.admit(DAY, worst=DOLLAR + 1), Refused)


def test_a_call_that_costs_nothing_is_admitted_even_above_the_budget() -> None:
    assert Spending().charge(11 * DOLLAR).admit(DAY, worst=0) == Admitted(0, DAY)


def test_the_sentence_says_who_what_is_left_and_when_it_renews() -> None:
    refused = Spending().charge(9_970_000_000).refuse(DAY, worst=120_000_000)
    assert refused.sentence == (
        "inbox has used $9.97 of $10.00 today; the call may cost $0.12;"
        " new budget at 00:00 Europe/Paris"
    )
    midnight = datetime(2026, 3, 28, 23, tzinfo=UTC).timestamp()
    assert (refused.renews_at, refused.retry_after_s) == (midnight, midnight - NOON)
    assert (refused.reason, refused.left_nusd, refused.limit) == (Reason.BUDGET, 30_000_000, DAY)


@pytest.mark.parametrize(
    ("limit", "ending"),
    [
        (Limit("fleet", Window.MONTH, DOLLAR), "new budget at 00:00 on 1 Apr Europe/Paris"),
        (Limit("group:support", Window.HOUR, DOLLAR), "room again at 13:05 Europe/Paris"),
        (Limit("run:r1", Window.TOTAL, DOLLAR), "this budget does not renew; raise it to go on"),
    ],
)
def test_each_window_says_when_there_is_room_again(limit: Limit, ending: str) -> None:
    refused = Spending().charge(DOLLAR).refuse(limit, worst=DOLLAR // 2)
    assert refused.sentence.endswith(f"; {ending}")


@pytest.mark.parametrize(
    ("account", "who"),
    [
        ("fleet", "the fleet"),
        ("group:support", "group support"),
        ("session:inbox/s1", "session s1 of inbox"),
        ("tag:customer=acme", "customer=acme"),
    ],
)
def test_each_account_is_named_in_words(account: str, who: str) -> None:
    refused = Spending().charge(DOLLAR).refuse(Limit(account, Window.TOTAL, DOLLAR), worst=1)
    assert refused.sentence.startswith(f"{who} has used $1.00 of $1.00; ")


def test_calls_in_flight_count_and_a_call_that_waits_for_them_alone_may_ask_again_soon() -> None:
    refused = Spending().charge(4 * DOLLAR, reserved=6 * DOLLAR).refuse(DAY, worst=DOLLAR)
    assert refused.reason is Reason.IN_FLIGHT
    assert refused.retry_after_s == 2.0
    assert refused.sentence == (
        "inbox has used $10.00 of $10.00 today, $6.00 of it held by calls in flight;"
        " the call may cost $1.00; ask again when they have ended"
    )


def test_a_call_larger_than_the_whole_budget_is_told_that_waiting_does_not_help() -> None:
    refused = Spending().refuse(DAY, worst=11 * DOLLAR)
    assert (refused.retry_after_s, refused.renews_at) == (None, None)
    assert refused.sentence.endswith("that is more than the whole budget")


def test_one_call_may_not_be_dearer_than_per_call() -> None:
    refused = Spending().refuse(CALL, worst=DOLLAR)
    assert (refused.reason, refused.left_nusd) == (Reason.PER_CALL, DOLLAR // 2)
    assert refused.retry_after_s is None
    assert "one call of inbox may cost $0.50 at most" in refused.sentence


def test_of_several_limits_the_one_with_the_least_left_is_named_and_all_are_waited_for() -> None:
    month = Limit("fleet", Window.MONTH, 9 * DOLLAR)
    refused = Spending().charge(9_500_000_000).refuse(DAY, month, worst=DOLLAR)
    assert refused.limit == month
    assert refused.renews_at == datetime(2026, 3, 31, 22, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("wishes", "then"),
    [
        (["refuse", "refuse"], "refuse"),
        (["openai/gpt-4o-mini", "openai/gpt-5-nano"], "openai/gpt-5-nano"),
        (["openai/gpt-4o-mini", "refuse"], "refuse"),
        (["refuse", "park"], "park"),
    ],
)
def test_the_strictest_wish_of_the_limits_that_refuse_is_followed(
    wishes: list[str], then: str
) -> None:
    limits = [
        replace(DAY, limit_nusd=(10 - n) * DOLLAR, on_exhausted=wish)
        for n, wish in enumerate(wishes)
    ]
    assert Spending().charge(10 * DOLLAR).refuse(*limits, worst=1).then == then


def test_nobody_is_parked_for_what_calls_in_flight_hold() -> None:
    parking = replace(DAY, on_exhausted="park")
    assert Spending().charge(0, 10 * DOLLAR).refuse(parking, worst=DOLLAR).then == "refuse"


@given(
    charges=st.lists(st.tuples(st.integers(0, 3 * 3600), st.integers(1, DOLLAR)), max_size=60).map(
        sorted
    )
)
def test_in_any_sixty_minutes_no_more_is_admitted_than_an_hours_budget(
    charges: list[tuple[int, int]],
) -> None:
    spending = Spending()
    admitted: list[tuple[float, int]] = []
    for offset, cost in charges:
        at = NOON + offset
        if isinstance(spending.admit(HOUR, worst=cost, at=at), Admitted):
            spending.charge(0, cost, at)
            admitted.append((at, cost))
    for start, _ in admitted:
        assert sum(c for at, c in admitted if start <= at <= start + 3600) <= HOUR.limit_nusd


@given(offset=st.integers(0, 7200), spent=st.integers(1, 2 * DOLLAR), worst=st.integers(1, DOLLAR))
def test_an_hours_budget_has_room_when_it_said_it_would(
    offset: int, spent: int, worst: int
) -> None:
    spending = Spending().charge(spent, at=NOON + offset)
    verdict = spending.admit(HOUR, worst=worst, at=NOON + offset)
    if isinstance(verdict, Refused):
        assert verdict.renews_at is not None
        assert isinstance(spending.admit(HOUR, worst=worst, at=verdict.renews_at), Admitted)
        assert isinstance(spending.admit(HOUR, worst=worst, at=verdict.renews_at - 1), Refused)


def test_the_last_hour_is_never_forgotten_when_the_clock_is_set_back() -> None:
    spending = Spending().charge(2 * DOLLAR, at=NOON + 7200)
    assert isinstance(spending.admit(HOUR, worst=1, at=NOON), Refused)


def test_a_tally_never_takes_what_it_has_not_loaded_for_nothing() -> None:
    spending = Spending()
    tomorrow = NOON + 86_400
    assert spending.tally.knows("fleet", NOON, PARIS.periods(NOON))
    assert not spending.tally.knows("fleet", tomorrow, PARIS.periods(tomorrow))
    assert spending.tally.knows("run:r1", tomorrow, PARIS.periods(tomorrow))
    with pytest.raises(KeyError):
        spending.admit(Limit("agent:other", Window.DAY, 1), worst=1)


def test_old_slots_are_forgotten_without_a_change_of_what_counts() -> None:
    spending = Spending()
    for minute in range(0, 60 * 72, 5):
        spending.charge(DOLLAR // 100, at=NOON + minute * 60)
        at = NOON + minute * 60
        now = spending.tally.spent("fleet", Window.HOUR, at, PARIS.periods(at))
        assert now == Spent(min(13, minute // 5 + 1) * DOLLAR // 100, 0)
    assert not spending.tally.knows("fleet", NOON, PARIS.periods(NOON))
    assert first_slot(NOON) < first_slot(at)


def test_a_warning_counts_what_is_settled_alone_and_is_given_once_per_limit() -> None:
    spending = Spending().charge(7 * DOLLAR, reserved=3 * DOLLAR)
    assert list(notices([DAY], NOON, spending.tally, PARIS)) == []
    (notice,) = notices([DAY, CALL], NOON, spending.charge(DOLLAR).tally, PARIS)
    assert (notice.kind, notice.period) == ("warned", "d2026-03-28")
    assert notice.sentence == "inbox has spent $8.00 of $10.00 today, 80%"
    assert list(notices([DAY], NOON, spending.tally, PARIS, {notice.key})) == []
    raised = replace(DAY, limit_nusd=10 * DOLLAR - 1)
    assert len(list(notices([raised], NOON, spending.tally, PARIS, {notice.key}))) == 1


def test_a_refusal_for_want_of_budget_is_a_notice_and_one_for_want_of_a_moment_is_not() -> None:
    gone = Spending().charge(10 * DOLLAR).refuse(DAY, worst=1)
    notice = exhausted(gone, NOON, PARIS)
    assert notice is not None
    assert (notice.kind, notice.sentence) == ("exhausted", gone.sentence)
    held = Spending().charge(0, 10 * DOLLAR).refuse(DAY, worst=1)
    assert exhausted(held, NOON, PARIS) is None
    assert exhausted(Refused(Reason.UNAVAILABLE, "the disk is full"), NOON, PARIS) is None


def test_what_is_left_is_told_for_each_limit_and_never_below_nothing() -> None:
    found = standing([DAY, HOUR, CALL], NOON, Spending().charge(3 * DOLLAR).tally, PARIS)
    assert [(x.limit, x.spent_nusd, x.left_nusd) for x in found] == [
        (DAY, 3 * DOLLAR, 7 * DOLLAR),
        (HOUR, 3 * DOLLAR, 0),
    ]


# -- which limits hold ----------------------------------------------------------------------------


def fleet(**more: object) -> Budgets:
    return Budgets.of(
        Fleet(
            agents={
                "inbox": Agent(command=["x"], budget=Budget(per_day=10, per_run=1, per_session=2)),
                "other": Agent(command=["x"], budget=Budget(per_day=99)),
            },
            groups={"support": Group(budget=Budget(per_hour=5))},
            budget=Budget(per_month=200, per_call=3, per_run=7),
            **more,  # type: ignore[arg-type]
        )
    )


def shown(limits: tuple[Limit, ...]) -> list[tuple[str, str, int]]:
    return [(x.account, x.window.value, x.limit_nusd) for x in limits]


def test_every_level_that_a_call_belongs_to_has_its_limits() -> None:
    assert shown(limits_of(INBOX, fleet())) == [
        ("fleet", "call", 3),
        ("run:r1", "total", 7),
        ("fleet", "month", 200),
        ("group:support", "hour", 5),
        ("run:r1", "total", 1),
        ("session:inbox/s1", "total", 2),
        ("agent:inbox", "day", 10),
    ]


def test_instances_and_sub_agents_share_the_budget_of_their_agent() -> None:
    payer = Payer("inbox.2:search", entry="inbox")
    assert payer.accounts() == ("fleet", "agent:inbox", "agent:inbox:search")
    assert ("agent:inbox", "day", 10) in shown(limits_of(payer, fleet()))


def test_tags_sub_agents_and_keys_have_budgets_of_their_own() -> None:
    budgets = fleet(
        budgets=[
            SharedBudget(tag="customer", per_day=5),
            SharedBudget(tag="customer=acme", per_day=50),
            SharedBudget(tag="customer=other", per_day=51),
            SharedBudget(agent="inbox:search", per_day=4),
            SharedBudget(agent="inbox:*", per_day=6),
            SharedBudget(key="ci", total=8),
        ]
    )
    payer = Payer("inbox:search:deep", key="ci", tags={"customer": "acme"})
    limits = shown(limits_of(payer, budgets, Budget(per_day=9)))
    assert limits[-5:] == [
        ("tag:customer=acme", "day", 5),
        ("tag:customer=acme", "day", 50),
        ("agent:inbox:search", "day", 4),
        ("agent:inbox:search", "day", 6),
        ("key:ci", "total", 8),
    ]
    assert ("key:ci", "day", 9) in limits


def test_every_limit_is_on_an_account_that_the_call_is_charged_to() -> None:
    budgets = fleet(budgets=[SharedBudget(tag="customer", per_day=5)])
    accounts = set(INBOX.accounts())
    assert {limit.account for limit in limits_of(INBOX, budgets)} <= accounts


@pytest.mark.parametrize("value", ["cheaper", "openai/", "/x", "", "Park"])
def test_on_exhausted_takes_a_word_or_a_model_with_its_provider(value: str) -> None:
    with pytest.raises(ValidationError, match="refuse, park, or PROVIDER/MODEL"):
        Budget(on_exhausted=value)


@pytest.mark.parametrize("keys", [{}, {"tag": "a", "key": "b"}])
def test_a_shared_budget_is_of_exactly_one_thing(keys: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="exactly one of tag, agent and key"):
        SharedBudget(per_day=1, **keys)  # type: ignore[arg-type]


def test_who_names_no_session_has_that_of_its_run_or_of_its_keys_day() -> None:
    """Else leaving the header out would be the way round per_session."""
    session = [limit for limit in limits_of(INBOX, fleet()) if limit.account.startswith("session:")]
    (limit,) = session
    for payer, account, window in (
        (replace(INBOX, session=None), "run:r1", Window.TOTAL),
        (Payer("inbox", key="ci"), "key:ci", Window.DAY),
    ):
        found = [one for one in limits_of(payer, fleet()) if one.limit_nusd == limit.limit_nusd]
        assert [(one.account, one.window) for one in found] == [(account, window)]
        assert found[0].whose == "calls of inbox without a session"
        assert account in payer.accounts()
