"""One suite for the ledger, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from midwatch.core.calls.account import Payer
from midwatch.core.calls.budget import Admitted, Limit, Notice, Reason, Refused
from midwatch.core.calls.charge import (
    MAX_NUSD,
    By,
    Call,
    CallQuery,
    CallState,
    Charge,
    Cost,
    Reservation,
)
from midwatch.core.calls.period import Calendar, Window
from midwatch.gateway.ledger.durable import DurableLedger
from midwatch.gateway.ledger.opening import ledger_at
from midwatch.wire.ids import new_id

sys.path.insert(0, str(Path(__file__).parents[1]))
from databases import Postgres, postgres

DOLLAR = 10**9
CENT = DOLLAR // 100
NOON = datetime(2026, 3, 28, 11, 2, tzinfo=UTC).timestamp()
DAY_S = 86_400
INBOX = Payer("inbox", group="support", run="r1", session="s1", key="ci", tags={"customer": "acme"})
DAY = Limit("agent:inbox", Window.DAY, DOLLAR)

Open = Callable[[], Any]


pytestmark = pytest.mark.xdist_group("postgres")


@pytest.fixture(scope="module", autouse=True)  # before the house counts a test's children
def server() -> Iterator[Postgres]:
    with postgres() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, server: Postgres, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "ledger.db")
    return server.fresh()


@pytest.fixture
async def another(place: str) -> AsyncIterator[Open]:
    """Opens one more ledger on the same database."""
    opened: list[DurableLedger] = []

    async def start() -> DurableLedger:
        ledger = ledger_at(place, Calendar(ZoneInfo("Europe/Paris")))
        await ledger.start()
        opened.append(ledger)
        return ledger

    yield start
    for ledger in opened:
        await ledger.stop()


@pytest.fixture
async def ledger(another: Open) -> DurableLedger:
    return await another()


def asked(
    worst: int = 10 * CENT, *limits: Limit, payer: Payer = INBOX, at: float = NOON, **more: Any
) -> Reservation:
    values = {"deadline_at": at + 600, "model_asked": "openai/gpt-4o-mini", "gateway": "g1"}
    return Reservation(new_id(int(at * 1000)), payer, worst, at, limits=limits, **{**values, **more})


def charge(cost: int, at: float = NOON + 1, **more: Any) -> Charge:
    return Charge(cost, at, model="openai/gpt-4o-mini", provider="openai", **more)


async def made(ledger: DurableLedger, cost: int, *limits: Limit, **more: Any) -> str:
    """Reserve and settle a call."""
    reservation = asked(cost, *limits, **more)
    assert isinstance(await ledger.reserve(reservation), Admitted)
    ledger.settle(reservation.call_id, charge(cost, reservation.at + 1))
    return reservation.call_id


async def counted(ledger: DurableLedger, *limits: Limit, at: float = NOON) -> list[tuple[int, int]]:
    return [(x.spent_nusd, x.reserved_nusd) for x in await ledger.left(limits, at)]


async def test_a_call_is_reserved_settled_and_remembered_with_all_that_its_cost_came_from(
    ledger: DurableLedger,
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


async def test_what_was_never_sent_costs_nothing(ledger: DurableLedger) -> None:
    reservation = asked(DOLLAR, DAY)
    assert isinstance(await ledger.reserve(reservation), Admitted)
    assert isinstance(await ledger.reserve(asked(CENT, DAY)), Refused)
    ledger.release(reservation.call_id, NOON + 1, "refused by policy")
    assert isinstance(await ledger.reserve(asked(DOLLAR, DAY)), Admitted)
    was = await ledger.call(reservation.call_id)
    assert was is not None
    assert (was.state, was.charged_nusd, was.outcome) == ("released", 0, "refused by policy")


async def test_of_64_calls_at_once_exactly_as_many_are_made_as_fit(ledger: DurableLedger) -> None:
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


async def test_every_level_is_charged_whether_or_not_it_has_a_budget(ledger: DurableLedger) -> None:
    await made(ledger, 5 * CENT)
    limits = [Limit(account, Window.TOTAL, 1) for account in INBOX.accounts()]
    assert await counted(ledger, *limits) == [(5 * CENT, 0)] * 7


async def test_a_budget_that_is_set_later_knows_what_was_spent_before(
    ledger: DurableLedger,
) -> None:
    flying = asked(40 * CENT)
    await ledger.reserve(flying)
    await made(ledger, 55 * CENT)
    refused = await ledger.reserve(asked(10 * CENT, DAY))
    assert isinstance(refused, Refused)
    assert (refused.spent_nusd, refused.reserved_nusd) == (55 * CENT, 40 * CENT)
    raised = replace(DAY, limit_nusd=2 * DOLLAR)
    assert isinstance(await ledger.reserve(asked(10 * CENT, raised)), Admitted)


async def test_a_charge_belongs_to_the_day_of_its_reservation(ledger: DurableLedger) -> None:
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
    ledger: DurableLedger,
) -> None:
    await made(ledger, 90 * CENT, DAY)
    await made(ledger, 90 * CENT, DAY, at=NOON + DAY_S)
    assert isinstance(await ledger.reserve(asked(20 * CENT, DAY)), Refused)
    assert isinstance(await ledger.reserve(asked(20 * CENT, DAY, at=NOON + DAY_S)), Refused)


async def test_an_hours_budget_renews_as_its_calls_grow_old(ledger: DurableLedger) -> None:
    hour = Limit("agent:inbox", Window.HOUR, DOLLAR)
    await made(ledger, 60 * CENT, hour)
    await made(ledger, 40 * CENT, hour, at=NOON + 1800)
    refused = await ledger.reserve(asked(50 * CENT, hour, at=NOON + 2400))
    assert isinstance(refused, Refused)
    assert refused.renews_at is not None
    assert NOON + 3600 <= refused.renews_at <= NOON + 3900
    admitted = await ledger.reserve(asked(50 * CENT, hour, at=refused.renews_at))
    assert admitted == Admitted(10 * CENT, hour)


async def test_a_settlement_counts_once(ledger: DurableLedger) -> None:
    call_id = await made(ledger, 5 * CENT, DAY)
    ledger.settle(call_id, charge(6 * CENT))
    ledger.release(call_id, NOON)
    assert await counted(ledger, DAY) == [(5 * CENT, 0)]
    assert ledger.counts["settled", "again"] == 2


async def test_a_settlement_of_an_unknown_call_is_counted_as_such(ledger: DurableLedger) -> None:
    ledger.settle("nobody", charge(6 * CENT))
    assert await ledger.reconcile("nobody", charge(1)) == "unknown"
    assert ledger.counts["settled", "unknown"] == 2


async def test_a_charge_that_comes_after_a_release_counts(ledger: DurableLedger) -> None:
    reservation = asked(10 * CENT)
    await ledger.reserve(reservation)
    ledger.release(reservation.call_id, NOON)
    ledger.settle(reservation.call_id, charge(4 * CENT))
    assert await counted(ledger, DAY) == [(4 * CENT, 0)]


@pytest.mark.parametrize("exact", [2 * CENT, 9 * CENT])
async def test_exact_figures_that_come_later_correct_balances_both_ways(
    ledger: DurableLedger, exact: int
) -> None:
    call_id = await made(ledger, 5 * CENT, DAY)
    assert await ledger.reconcile(call_id, charge(exact)) == "corrected"
    assert await ledger.reconcile(call_id, charge(exact)) == "corrected"
    assert await counted(ledger, DAY) == [(exact, 0)]
    assert await ledger.audit() == {}


async def test_reservations_of_a_dead_gateway_count_until_they_are_expired_at_their_worst_case(
    ledger: DurableLedger, another: Open
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


async def test_a_gateway_that_was_only_slow_settles_what_another_has_expired(
    ledger: DurableLedger, another: Open
) -> None:
    slow = await another()
    reservation = asked(60 * CENT, DAY)
    await slow.reserve(reservation)
    await ledger.expire(NOON + 600)
    slow.settle(reservation.call_id, charge(20 * CENT))
    assert await counted(slow, DAY) == [(20 * CENT, 0)]
    assert await counted(ledger, DAY) == [(20 * CENT, 0)]
    assert slow.in_flight == 0


async def test_what_one_gateway_has_reserved_another_settles(
    ledger: DurableLedger, another: Open
) -> None:
    other = await another()
    reservation = asked(60 * CENT, DAY)
    await ledger.reserve(reservation)
    assert await other.reconcile(reservation.call_id, charge(20 * CENT)) == "settled"
    ledger.settle(reservation.call_id, charge(20 * CENT))
    assert await counted(ledger, DAY) == [(20 * CENT, 0)]


async def test_a_warning_is_told_once_by_whichever_gateway_meets_it_first(
    ledger: DurableLedger, another: Open
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


async def test_a_settlement_is_on_record_before_the_ledger_closes(another: Open) -> None:
    first = await another()
    ids = [await made(first, CENT, DAY) for _ in range(20)]
    await first.stop()
    second = await another()
    calls = await second.calls(CallQuery(limit=50))
    assert [call.call_id for call in calls] == sorted(ids, reverse=True)
    assert {call.state for call in calls} == {CallState.SETTLED}
    assert await counted(second, DAY) == [(20 * CENT, 0)]


async def test_a_caller_that_goes_away_leaves_no_reservation_behind(ledger: DurableLedger) -> None:
    tasks = [asyncio.create_task(ledger.reserve(asked(CENT, DAY))) for _ in range(10)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    async with asyncio.timeout(20):
        while await ledger.unsettled():
            await asyncio.sleep(0.01)
    assert await counted(ledger, DAY) == [(0, 0)]


async def test_hostile_names_are_kept_apart_and_harm_nobody(ledger: DurableLedger) -> None:
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


async def test_an_order_that_no_database_takes_harms_no_other(ledger: DurableLedger) -> None:
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


async def test_the_largest_amounts_are_exact(ledger: DurableLedger) -> None:
    call_id = await made(ledger, MAX_NUSD - 1)
    await made(ledger, 1)
    total = Limit("fleet", Window.TOTAL, 1)
    assert await counted(ledger, total) == [(MAX_NUSD, 0)]
    was = await ledger.call(call_id)
    assert was is not None
    assert was.cost_nusd == MAX_NUSD - 1
    with pytest.raises(ValueError, match="worst case"):
        asked(MAX_NUSD + 1)


# -- questions ------------------------------------------------------------------------------------


async def fill(ledger: DurableLedger) -> list[str]:
    ids: list[str] = []
    for n, payer in enumerate(
        [
            INBOX,
            Payer("inbox:search", group="support", run="r1", session="s1"),
            Payer("prices", run="r2", tags={"customer": "acme", "tier": "gold"}),
            Payer("prices", run="r3", tags={"customer": "other"}),
        ]
    ):
        reservation = asked(DOLLAR, payer=payer, at=NOON + n * DAY_S, task="triage" if n else None)
        await ledger.reserve(reservation)
        came = charge((n + 1) * CENT, NOON + n * DAY_S, input_tokens=n, output_tokens=1)
        ledger.settle(reservation.call_id, replace(came, estimated=n == 3, disputed=n == 2))
        ids.append(reservation.call_id)
    released = asked(DOLLAR)
    await ledger.reserve(released)
    ledger.release(released.call_id, NOON)
    return ids


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        (By.AGENT, {"prices": 7, "inbox:search": 2, "inbox": 1}),
        (By.GROUP, {"": 7, "support": 3}),
        (By.MODEL, {"openai/gpt-4o-mini": 10}),
        (By.PROVIDER, {"openai": 10}),
        (By.SESSION, {"": 7, "s1": 3}),
        (By.RUN, {"r3": 4, "r2": 3, "r1": 3}),
        (By.TASK, {"triage": 9, "": 1}),
        (By.KEY, {"": 9, "ci": 1}),
        (By.TAG, {"customer=acme": 4, "customer=other": 4, "tier=gold": 3}),
        (By.DAY, {"2026-03-31": 4, "2026-03-30": 3, "2026-03-29": 2, "2026-03-28": 1}),
    ],
)
async def test_cost_is_summed_by_any_name(
    ledger: DurableLedger, by: By, expected: dict[str, int]
) -> None:
    await fill(ledger)
    rows = await ledger.cost(by, CallQuery())
    assert {row.name: row.cost_nusd // CENT for row in rows} == expected
    if by is By.DAY:
        assert [row.name for row in rows] == list(expected)


async def test_a_sum_says_how_many_calls_it_counts_and_how_sure_it_is(
    ledger: DurableLedger,
) -> None:
    await fill(ledger)
    rows = await ledger.cost(By.AGENT, CallQuery(agent="prices"))
    assert rows == [Cost("prices", 2, 7 * CENT, 0, 5, 2, 1, 1)]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (CallQuery(agent="inbox"), [1, 0]),
        (CallQuery(agent="inbox:search"), [1]),
        (CallQuery(group="support"), [1, 0]),
        (CallQuery(run="r3"), [3]),
        (CallQuery(session="s1"), [1, 0]),
        (CallQuery(key="ci"), [0]),
        (CallQuery(tag="customer"), [3, 2, 0]),
        (CallQuery(tag="customer=acme"), [2, 0]),
        (CallQuery(since=NOON + DAY_S, until=NOON + 3 * DAY_S), [2, 1]),
        (CallQuery(model="openai/gpt-4o-mini", limit=1), [3]),
    ],
)
async def test_calls_are_found_the_newest_first(
    ledger: DurableLedger, query: CallQuery, found: list[int]
) -> None:
    ids = await fill(ledger)
    calls = await ledger.calls(replace(query, state=CallState.SETTLED))
    assert [ids.index(call.call_id) for call in calls] == found
    if calls:
        older = await ledger.calls(
            replace(query, state=CallState.SETTLED, before=calls[0].call_id, limit=100)
        )
        assert [ids.index(call.call_id) for call in older] == (
            [2, 1, 0] if query.model else found[1:]
        )


async def test_old_calls_become_daily_sums_and_no_sum_changes(ledger: DurableLedger) -> None:
    ids = await fill(ledger)
    flying = asked(DOLLAR, payer=Payer("inbox", run="old"))
    await ledger.reserve(flying)
    questions = (By.AGENT, By.GROUP, By.MODEL, By.PROVIDER, By.KEY, By.DAY)
    before = [await ledger.cost(by, CallQuery()) for by in questions]
    later = NOON + 92 * DAY_S
    assert await ledger.roll(later, keep_days=90) > 0
    assert await ledger.roll(later, keep_days=90) == 0
    assert {call.call_id for call in await ledger.calls(CallQuery())} == {
        *ids[2:],
        flying.call_id,
    }
    assert [await ledger.cost(by, CallQuery()) for by in questions] == before
    assert await ledger.audit() == {}
    total = Limit("fleet", Window.TOTAL, 1)
    assert await counted(ledger, total, at=later) == [(10 * CENT, DOLLAR)]
    # the run's account is as old as its calls; what is in flight keeps its own
    runs = [Limit(f"run:{name}", Window.TOTAL, 1) for name in ("r1", "r3", "old")]
    assert await counted(ledger, *runs, at=later) == [(0, 0), (4 * CENT, 0), (0, DOLLAR)]
