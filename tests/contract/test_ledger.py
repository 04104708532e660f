"""One suite for the ledger, what it decides: in memory, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from midwatch.core.calls.account import Payer
from midwatch.core.calls.budget import Admitted, Limit, Notice, Reason, Refused
from midwatch.core.calls.charge import MAX_NUSD, By, Call, CallQuery, CallState
from midwatch.core.calls.period import Window
from midwatch.gateway.ledger import reading

sys.path.insert(0, str(Path(__file__).parents[1]))
from ledgers import (
    CENT,
    DAY,
    DAY_S,
    DOLLAR,
    INBOX,
    NOON,
    AnyLedger,
    Open,
    asked,
    charge,
    counted,
    made,
)

pytestmark = pytest.mark.xdist_group("postgres")


async def test_a_call_is_reserved_settled_and_remembered_with_all_that_its_cost_came_from(
    ledger: AnyLedger,
) -> None:
    reservation = asked(10 * CENT, DAY, task="triage")
    assert await ledger.reserve(reservation) == Admitted(90 * CENT, DAY)
    was = await ledger.call(reservation.call_id)
    assert was is not None
    assert (was.state, was.charged_nusd, was.settled_at) == (CallState.OPEN, 10 * CENT, None)
    came = charge(
        7 * CENT,
        usage={"input": 10, "cached": 3, "détails": ["ü", None]},
        input_tokens=10,
        output_tokens=20,
        price_version="2026-03-01",
        costs={"genai-prices": 7 * CENT, "second": 6 * CENT},
        disputed=True,
        attempts=({"model": "openai/gpt-4o-mini", "status": 200},),
    )
    ledger.settle(reservation.call_id, came)
    assert await ledger.call(reservation.call_id) == Call(
        call_id=reservation.call_id,
        state=CallState.SETTLED,
        agent="inbox",
        group="support",
        run="r1",
        session="s1",
        key="ci",
        task="triage",
        tags={"customer": "acme"},
        accounts=INBOX.accounts(),
        day="2026-03-28",
        reserved_at=NOON,
        deadline_at=NOON + 600,
        settled_at=NOON + 1,
        reserved_nusd=10 * CENT,
        cost_nusd=7 * CENT,
        saved_nusd=0,
        model_asked="openai/gpt-4o-mini",
        model="openai/gpt-4o-mini",
        provider="openai",
        usage=came.usage,
        input_tokens=10,
        output_tokens=20,
        price_version="2026-03-01",
        costs=came.costs,
        disputed=True,
        estimated=False,
        attempts=tuple(came.attempts),
        outcome="ok",
        gateway="g1",
    )
    assert await counted(ledger, DAY) == [(7 * CENT, 0)]
    assert await ledger.audit() == {}


async def test_what_was_never_sent_costs_nothing(ledger: AnyLedger) -> None:
    reservation = asked(DOLLAR, DAY)
    assert isinstance(await ledger.reserve(reservation), Admitted)
    assert isinstance(await ledger.reserve(asked(CENT, DAY)), Refused)
    ledger.release(reservation.call_id, NOON + 1, "refused by policy")
    assert isinstance(await ledger.reserve(asked(DOLLAR, DAY)), Admitted)
    was = await ledger.call(reservation.call_id)
    assert was is not None
    assert (was.state, was.charged_nusd, was.outcome) == ("released", 0, "refused by policy")


async def test_of_64_calls_at_once_exactly_as_many_are_made_as_fit(ledger: AnyLedger) -> None:
    verdicts = await asyncio.gather(*(ledger.reserve(asked(3 * CENT, DAY)) for _ in range(64)))
    assert sum(isinstance(v, Admitted) for v in verdicts) == 33
    assert {v.reason for v in verdicts if isinstance(v, Refused)} == {Reason.IN_FLIGHT}
    assert await counted(ledger, DAY) == [(0, 99 * CENT)]


async def test_of_64_calls_at_once_through_three_gateways_as_many_are_made_as_fit(
    another: Open,
) -> None:
    gateways = [await another() for _ in range(3)]
    verdicts = await asyncio.gather(
        *(gateways[n % 3].reserve(asked(3 * CENT, DAY)) for n in range(64))
    )
    assert sum(isinstance(v, Admitted) for v in verdicts) == 33
    assert await counted(gateways[0], DAY) == [(0, 99 * CENT)]
    assert await gateways[1].audit() == {}


async def test_every_level_is_charged_whether_or_not_it_has_a_budget(ledger: AnyLedger) -> None:
    await made(ledger, 5 * CENT)
    limits = [Limit(account, Window.TOTAL, 1) for account in INBOX.accounts()]
    assert await counted(ledger, *limits) == [(5 * CENT, 0)] * 7


async def test_a_budget_that_is_set_later_knows_what_was_spent_before(
    ledger: AnyLedger,
) -> None:
    flying = asked(40 * CENT)
    await ledger.reserve(flying)
    await made(ledger, 55 * CENT)
    refused = await ledger.reserve(asked(10 * CENT, DAY))
    assert isinstance(refused, Refused)
    assert (refused.spent_nusd, refused.reserved_nusd) == (55 * CENT, 40 * CENT)
    raised = replace(DAY, limit_nusd=2 * DOLLAR)
    assert isinstance(await ledger.reserve(asked(10 * CENT, raised)), Admitted)


async def test_a_charge_belongs_to_the_day_of_its_reservation(ledger: AnyLedger) -> None:
    """Midnight in Paris on the day the clock is set forward: that day begins 23 hours before it ends."""
    before = datetime(2026, 3, 28, 22, 59, 59, tzinfo=UTC).timestamp()
    after = before + 1
    flying = asked(DOLLAR, DAY, at=before)
    assert isinstance(await ledger.reserve(flying), Admitted)
    assert isinstance(await ledger.reserve(asked(CENT, DAY, at=before)), Refused)
    assert isinstance(await ledger.reserve(asked(DOLLAR, DAY, at=after)), Admitted)
    ledger.settle(flying.call_id, charge(30 * CENT, after))
    assert await counted(ledger, DAY, at=before) == [(30 * CENT, 0)]
    assert await counted(ledger, DAY, at=after) == [(0, DOLLAR)]
    assert isinstance(await ledger.reserve(asked(CENT, DAY, at=after + 22.9 * 3600)), Refused)
    assert isinstance(await ledger.reserve(asked(CENT, DAY, at=after + 23 * 3600)), Admitted)


async def test_a_clock_that_jumps_over_midnight_and_back_opens_no_second_budget(
    ledger: AnyLedger,
) -> None:
    await made(ledger, 90 * CENT, DAY)
    await made(ledger, 90 * CENT, DAY, at=NOON + DAY_S)
    assert isinstance(await ledger.reserve(asked(20 * CENT, DAY)), Refused)
    assert isinstance(await ledger.reserve(asked(20 * CENT, DAY, at=NOON + DAY_S)), Refused)


async def test_an_hours_budget_renews_as_its_calls_grow_old(ledger: AnyLedger) -> None:
    hour = Limit("agent:inbox", Window.HOUR, DOLLAR)
    await made(ledger, 60 * CENT, hour)
    await made(ledger, 40 * CENT, hour, at=NOON + 1800)
    refused = await ledger.reserve(asked(50 * CENT, hour, at=NOON + 2400))
    assert isinstance(refused, Refused)
    assert refused.renews_at is not None
    assert NOON + 3600 <= refused.renews_at <= NOON + 3900
    admitted = await ledger.reserve(asked(50 * CENT, hour, at=refused.renews_at))
    assert admitted == Admitted(10 * CENT, hour)


async def test_a_settlement_counts_once(ledger: AnyLedger) -> None:
    call_id = await made(ledger, 5 * CENT, DAY)
    ledger.settle(call_id, charge(6 * CENT))
    ledger.release(call_id, NOON)
    assert await counted(ledger, DAY) == [(5 * CENT, 0)]
    assert ledger.counts["settled", "again"] == 2


async def test_a_settlement_of_an_unknown_call_is_counted_as_such(ledger: AnyLedger) -> None:
    ledger.settle("nobody", charge(6 * CENT))
    assert await ledger.reconcile("nobody", charge(1)) == "unknown"
    assert ledger.counts["settled", "unknown"] == 2


async def test_a_charge_that_comes_after_a_release_counts(ledger: AnyLedger) -> None:
    reservation = asked(10 * CENT)
    await ledger.reserve(reservation)
    ledger.release(reservation.call_id, NOON)
    ledger.settle(reservation.call_id, charge(4 * CENT))
    assert await counted(ledger, DAY) == [(4 * CENT, 0)]


@pytest.mark.parametrize("exact", [2 * CENT, 9 * CENT])
async def test_exact_figures_that_come_later_correct_balances_both_ways(
    ledger: AnyLedger, exact: int
) -> None:
    call_id = await made(ledger, 5 * CENT, DAY)
    assert await ledger.reconcile(call_id, charge(exact)) == "corrected"
    assert await ledger.reconcile(call_id, charge(exact)) == "corrected"
    assert await counted(ledger, DAY) == [(exact, 0)]
    assert await ledger.audit() == {}


async def test_reservations_of_a_dead_gateway_count_until_they_are_expired_at_their_worst_case(
    ledger: AnyLedger, another: Open
) -> None:
    dead = await another()
    reservation = asked(60 * CENT, DAY)
    await dead.reserve(reservation)
    await dead.stop()
    assert [call.call_id for call in await ledger.unsettled()] == [reservation.call_id]
    assert await ledger.expire(NOON + 599) == []
    assert isinstance(await ledger.reserve(asked(50 * CENT, DAY)), Refused)
    assert await ledger.expire(NOON + 600) == [reservation.call_id]
    assert await counted(ledger, DAY) == [(60 * CENT, 0)]
    was = await ledger.call(reservation.call_id)
    assert was is not None
    assert (was.state, was.cost_nusd, was.estimated) == ("settled", 60 * CENT, True)
    assert await ledger.unsettled() == []


async def test_no_number_of_calls_that_nobody_can_look_up_hides_one_that_can_be(
    ledger: AnyLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "MAX_ROWS", 2)
    said = {"p": "", "q": "", "r": "answer", "s": ""}
    ids: dict[str, str] = {}
    for number, (provider, response) in enumerate(said.items()):
        one = replace(asked(CENT), provider=provider, at=NOON + number)
        await ledger.reserve(one)
        ids[one.call_id] = provider
        if response:
            ledger.note(one.call_id, response)

    async def seen(*lists: list[str]) -> list[str]:
        return [ids[call.call_id] for call in await ledger.doubtful(NOON, *lists)]

    assert await seen(["s"]) == ["s"]
    assert await seen(["s"], ["q", "r"]) == ["r", "s"]
    assert await seen(["p", "q", "s"]) == ["p", "q"]
    assert await seen([], ["q"]) == await seen([]) == []


async def test_a_gateway_that_was_only_slow_settles_what_another_has_expired(
    ledger: AnyLedger, another: Open
) -> None:
    slow = await another()
    reservation = asked(60 * CENT, DAY)
    await slow.reserve(reservation)
    await ledger.expire(NOON + 600)
    slow.settle(reservation.call_id, charge(20 * CENT))
    assert await counted(slow, DAY) == [(20 * CENT, 0)]
    assert await counted(ledger, DAY) == [(20 * CENT, 0)]
    assert slow.in_flight == 0


async def test_a_release_that_comes_after_its_expiry_gives_the_money_back(
    ledger: AnyLedger,
) -> None:
    reservation = asked(60 * CENT, DAY)
    await ledger.reserve(reservation)
    await ledger.expire(NOON + 600)  # the machine slept, or its clock was set forward
    ledger.release(reservation.call_id, NOON + 601)
    assert await counted(ledger, DAY) == [(0, 0)]
    assert ledger.counts["settled", "late"] == 1
    found = await ledger.call(reservation.call_id)
    assert found is not None
    assert (found.state, found.cost_nusd, found.estimated) == (CallState.RELEASED, 0, False)
    assert await ledger.audit() == {}


async def test_what_one_gateway_has_reserved_another_settles(
    ledger: AnyLedger, another: Open
) -> None:
    other = await another()
    reservation = asked(60 * CENT, DAY)
    await ledger.reserve(reservation)
    assert await other.reconcile(reservation.call_id, charge(20 * CENT)) == "settled"
    ledger.settle(reservation.call_id, charge(20 * CENT))
    assert await counted(ledger, DAY) == [(20 * CENT, 0)]


async def test_a_warning_is_told_once_by_whichever_gateway_meets_it_first(
    ledger: AnyLedger, another: Open
) -> None:
    other = await another()
    told: list[Notice] = []
    ledger.on_notice = other.on_notice = told.append
    for gateway in (ledger, other, ledger, other):
        await made(gateway, 20 * CENT, DAY)
        await gateway.left([DAY], NOON)
    assert await counted(other, DAY) == [(80 * CENT, 0)]
    assert [n.sentence for n in told] == ["inbox has spent $0.80 of $1.00 today, 80%"]
    for gateway in (ledger, other):
        await gateway.reserve(asked(30 * CENT, DAY))
        await made(gateway, CENT, DAY)
        await gateway.left([DAY], NOON)
    assert [n.kind for n in told] == ["warned", "exhausted"]
    await made(other, 90 * CENT, DAY, at=NOON + DAY_S)
    await other.left([DAY], NOON)
    assert [n.kind for n in told] == ["warned", "exhausted", "warned"]


async def test_a_warning_comes_before_the_end_of_the_budget_in_one_batch_too(
    ledger: AnyLedger,
) -> None:
    told: list[Notice] = []
    ledger.on_notice = told.append
    spent = asked(90 * CENT, DAY)
    await ledger.reserve(spent)
    ledger.settle(spent.call_id, charge(90 * CENT))
    refused = await ledger.reserve(asked(30 * CENT, DAY))
    assert isinstance(refused, Refused)
    await ledger.left([DAY], NOON)
    assert [n.kind for n in told] == ["warned", "exhausted"]


async def test_a_settlement_is_on_record_before_the_ledger_closes(another: Open) -> None:
    first = await another()
    ids = [await made(first, CENT, DAY) for _ in range(20)]
    await first.stop()
    second = await another()
    calls = await second.calls(CallQuery(limit=50))
    assert [call.call_id for call in calls] == sorted(ids, reverse=True)
    assert {call.state for call in calls} == {CallState.SETTLED}
    assert await counted(second, DAY) == [(20 * CENT, 0)]


async def test_a_caller_that_goes_away_leaves_no_reservation_behind(ledger: AnyLedger) -> None:
    wanted = [asked(CENT, DAY) for _ in range(10)]
    tasks = [asyncio.create_task(ledger.reserve(reservation)) for reservation in wanted]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    for reservation, answer in zip(wanted, answers, strict=True):
        if not isinstance(answer, asyncio.CancelledError):
            ledger.release(reservation.call_id, NOON)  # it was there to hear the answer
    async with asyncio.timeout(20):
        while await ledger.unsettled():
            await asyncio.sleep(0.01)
    assert await counted(ledger, DAY) == [(0, 0)]


async def test_hostile_names_are_kept_apart_and_harm_nobody(ledger: AnyLedger) -> None:
    names = ["a\0b", "a\nb", "\ud800", "x" * 5000, "';--", "%s", "{many}", "?", "é\u202e"]
    for name in names:
        payer = Payer(name, group=name, run=name, session=name, key=name, tags={name: name})
        reservation = asked(CENT, Limit("fleet", Window.DAY, DOLLAR), payer=payer, task=name)
        assert isinstance(await ledger.reserve(reservation), Admitted)
        junk = {name: [name], "deep": "y" * 50_000}
        ledger.settle(
            reservation.call_id,
            replace(charge(CENT), model=name, usage=junk, outcome=name, attempts=[junk]),
        )
    assert len(await ledger.calls(CallQuery())) == len(names)
    assert [row.cost_nusd for row in await ledger.cost(By.SESSION, CallQuery())] == [CENT] * 9
    assert ledger.counts["unwritable", ""] == 0
    assert await ledger.audit() == {}


async def test_an_order_that_no_database_takes_harms_no_other(ledger: AnyLedger) -> None:
    twice = asked(CENT, DAY)
    verdicts = await asyncio.gather(
        ledger.reserve(asked(CENT, DAY)),
        ledger.reserve(twice),
        ledger.reserve(twice),
        ledger.reserve(asked(CENT, DAY)),
    )
    assert sorted(type(v).__name__ for v in verdicts) == ["Admitted"] * 3 + ["Refused"]
    assert await counted(ledger, DAY) == [(0, 3 * CENT)]
    assert await ledger.audit() == {}


async def test_whatever_came_before_a_bad_order_the_next_one_is_taken(another: Open) -> None:
    """Drivers prepare a statement at its sixth use, and a failure may fall on just that."""
    for before in range(8):
        ledger = await another()
        twice = asked(CENT)
        assert isinstance(await ledger.reserve(twice), Admitted)
        assert isinstance(await ledger.reserve(twice), Refused)
        for _ in range(before):
            assert isinstance(await ledger.reserve(asked(CENT)), Admitted)
        assert isinstance(await ledger.reserve(twice), Refused)
        assert isinstance(await ledger.reserve(asked(CENT)), Admitted)
        await ledger.stop()


async def test_the_largest_amounts_are_exact(ledger: AnyLedger) -> None:
    call_id = await made(ledger, MAX_NUSD - 1)
    await made(ledger, 1)
    total = Limit("fleet", Window.TOTAL, 1)
    assert await counted(ledger, total) == [(MAX_NUSD, 0)]
    was = await ledger.call(call_id)
    assert was is not None
    assert was.cost_nusd == MAX_NUSD - 1
    with pytest.raises(ValueError, match="worst case"):
        asked(MAX_NUSD + 1)
