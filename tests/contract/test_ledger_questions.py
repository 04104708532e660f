"""One suite for the ledger, what it answers: in memory, on SQLite and on PostgreSQL."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from midwatch.core.calls.account import Payer
from midwatch.core.calls.budget import Limit
from midwatch.core.calls.charge import By, CallQuery, CallState, Cost
from midwatch.core.calls.period import Window
from midwatch.gateway.ledger import schema
from midwatch.gateway.ledger.opening import ledger_at
from midwatch.gateway.ledger.postgres import PostgresEngine
from midwatch.gateway.ledger.sqlite import SqliteEngine

sys.path.insert(0, str(Path(__file__).parents[1]))
from ledgers import CENT, DAY_S, DOLLAR, INBOX, NOON, PARIS, AnyLedger, asked, charge, counted, made

pytestmark = pytest.mark.xdist_group("postgres")


async def fill(ledger: AnyLedger) -> list[str]:
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
        (By.SENT_KEY, {"openai/": 10}),
        (By.TAG, {"customer=acme": 4, "customer=other": 4, "tier=gold": 3}),
        (By.DAY, {"2026-03-31": 4, "2026-03-30": 3, "2026-03-29": 2, "2026-03-28": 1}),
    ],
)
async def test_cost_is_summed_by_any_name(
    ledger: AnyLedger, by: By, expected: dict[str, int]
) -> None:
    await fill(ledger)
    rows = await ledger.cost(by, CallQuery())
    assert {row.name: row.cost_nusd // CENT for row in rows} == expected
    if by is By.DAY:
        assert [row.name for row in rows] == list(expected)


async def test_a_sum_says_how_many_calls_it_counts_and_how_sure_it_is(
    ledger: AnyLedger,
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
    ledger: AnyLedger, query: CallQuery, found: list[int]
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


async def test_old_calls_become_daily_sums_and_no_sum_changes(ledger: AnyLedger) -> None:
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


async def test_totals_of_words_that_agents_said_are_forgotten_when_they_are_old(
    ledger: AnyLedger,
) -> None:
    payer = replace(INBOX, agent="inbox:search")
    call_id = await made(ledger, CENT, payer=payer)
    assert await ledger.call(call_id) is not None  # and so it is written
    later = NOON + 900 * DAY_S
    while await ledger.roll(later, keep_days=90):
        pass
    accounts = ("agent:inbox", "group:support", "agent:inbox:search", "tag:customer=acme")
    totals = [Limit(account, Window.TOTAL, 1) for account in accounts]
    spent = [one for one, _ in await counted(ledger, *totals, at=later)]
    assert spent == [CENT, CENT, 0, 0]


async def test_tables_of_the_version_before_are_brought_forward_with_what_they_hold(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == "memory":
        pytest.skip("what is in memory has no version before")
    with monkeypatch.context() as before:
        before.setattr(schema, "VERSION", 1)
        old = (
            PostgresEngine(place) if place.startswith("postgresql:") else SqliteEngine(Path(place))
        )
        old.open()
        old.begin()
        old.run(
            "INSERT INTO calls (id, state, gateway, agent, tags, accounts, model_asked, day, slot, reserved_at,"
            " deadline_at, reserved_nusd) VALUES ('old', 'open', 'g', 'inbox', '{}', '[\"fleet\"]', 'm',"
            " '2026-03-28', 'h2026-03-28T11:00', ?, ?, 5)",
            (NOON, NOON + 600),
        )
        old.commit()
        old.close()
    ledger = ledger_at(place, PARIS)
    await ledger.start()
    call = await ledger.call("old")
    assert call is not None
    assert (call.reserved_nusd, call.sent_key, call.response) == (5, "", "")
    assert await ledger.reconcile("old", charge(3), "ana") == "settled"
    (kept,) = await ledger.corrections("old")
    assert (kept.by, kept.was_nusd, kept.cost_nusd) == ("ana", 5, 3)
    await ledger.stop()
