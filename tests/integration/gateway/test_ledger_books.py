"""The books against a model of ten lines: two gateways on one file, crashes and failing transactions in between.

What holds after every step: balances are the sum of the calls, to the nano-dollar; a call is admitted exactly when
it fits; nothing that was committed is forgotten, nothing that failed is remembered.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    precondition,
    rule,
)

from midwatch.core.calls.account import Payer
from midwatch.core.calls.budget import Admitted, Budgets, Refused, limits_of
from midwatch.core.calls.charge import Charge, Reservation
from midwatch.core.calls.period import Calendar, Window, slot_of
from midwatch.core.calls.tally import cells
from midwatch.core.fleet import Agent, Fleet
from midwatch.core.terms import Budget, SharedBudget
from midwatch.gateway.ledger.books import Books, Settled
from midwatch.gateway.ledger.engine import LedgerDown
from midwatch.gateway.ledger.orders import Expire, Order, Release, Reserve, Settle
from midwatch.gateway.ledger.sqlite import SqliteEngine

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
PARIS = Calendar(ZoneInfo("Europe/Paris"))
BEFORE_MIDNIGHT = datetime(2026, 3, 28, 22, 40, tzinfo=UTC).timestamp()
BUDGETS = Budgets.of(
    Fleet(
        agents={
            "a": Agent(command=["x"], budget=Budget(per_day=1000, per_hour=700, per_run=900)),
            "b": Agent(command=["x"], budget=Budget(per_day=600, per_session=400)),
        },
        budget=Budget(per_month=2500),
        budgets=[SharedBudget(tag="customer", per_hour=500)],
    )
)
PAYERS = [
    Payer("a", run="r1"),
    Payer("a:sub", run="r1", session="s", tags={"customer": "x"}),
    Payer("b", run="r2", session="s"),
    Payer("b", run="r3", session="t", tags={"customer": "x"}),
]


class Failing(SqliteEngine):
    """The real engine, which fails when it is told to."""

    broken: str | None = None

    def run_many(self, sql: str, many: Any) -> None:
        if self.broken == "write" and "balances" in sql:
            raise LedgerDown("the disk is full", "full")
        super().run_many(sql, many)

    def commit(self) -> None:
        if self.broken == "commit":
            raise LedgerDown("the disk is gone", "disk", lost=True)
        super().commit()
        if self.broken == "after":
            raise LedgerDown("the line is cut", "away", lost=True)


@dataclass
class Made:
    """What the model knows of a call."""

    reservation: Reservation
    state: str = "open"
    cost: int = 0
    estimated: bool = False

    @property
    def charged(self) -> tuple[int, int]:
        worst = self.reservation.worst_nusd
        return (0, worst) if self.state == "open" else (self.cost, 0)


class TwoGateways(RuleBasedStateMachine):
    calls = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="ledger-", dir=MEMORY))
        self.now = BEFORE_MIDNIGHT
        self.made: dict[str, Made] = {}
        self.engines = [self.engine(), self.engine()]
        self.books = [Books(engine, PARIS) for engine in self.engines]
        self.count = 0
        self.db = sqlite3.connect(self.folder / "ledger.db")

    def engine(self) -> Failing:
        engine = Failing(self.folder / "ledger.db")
        engine.open()
        return engine

    def teardown(self) -> None:
        self.db.close()
        for engine in self.engines:
            engine.close()
        shutil.rmtree(self.folder)

    def apply(self, gateway: int, *orders: Order) -> list[Any] | None:
        """Return the answers; None when the transaction failed and is not in the database."""
        engine = self.engines[gateway]
        try:
            return self.books[gateway].apply(orders)
        except LedgerDown as error:
            assert engine.broken
            if error.lost:
                engine.close()
                engine.open()
            return [] if engine.broken == "after" else None
        finally:
            engine.broken = None

    def charged(self, account: str, period: str) -> int:
        return sum(
            sum(call.charged)
            for call in self.made.values()
            if (account, period)
            in cells(call.reservation.payer.accounts(), PARIS.periods(call.reservation.at))
        )

    def fits(self, asked: Reservation) -> bool:
        periods = PARIS.periods(asked.at)
        for limit in asked.limits:
            match limit.window.value:
                case "hour":
                    slots = [slot_of(asked.at - 300 * n) for n in range(13)]
                    charged = sum(self.charged(limit.account, slot) for slot in slots)
                case "day" | "month":
                    charged = self.charged(limit.account, getattr(periods, limit.window.value))
                case _:
                    charged = self.charged(limit.account, "t")
            if charged + asked.worst_nusd > limit.limit_nusd:
                return False
        return True

    @rule(
        target=calls,
        gateway=st.sampled_from([0, 1]),
        payer=st.sampled_from(PAYERS),
        worst=st.integers(1, 300),
    )
    def reserve(self, gateway: int, payer: Payer, worst: int) -> str:
        self.count += 1
        limits = limits_of(payer, BUDGETS)
        asked = Reservation(
            f"call-{self.count}", payer, worst, self.now, self.now + 600, limits=limits
        )
        fits = self.fits(asked)
        answers = self.apply(gateway, Reserve(asked))
        if answers:
            assert isinstance(answers[0], Admitted if fits else Refused), answers[0]
        if fits and answers is not None:
            self.made[asked.call_id] = Made(asked)
        return asked.call_id

    @rule(gateway=st.sampled_from([0, 1]), call=consumes(calls), cost=st.integers(0, 350))
    def settle(self, gateway: int, call: str, cost: int) -> None:
        answers = self.apply(gateway, Settle(call, Charge(cost, self.now)))
        self.ended(call, answers, cost)

    @rule(gateway=st.sampled_from([0, 1]), call=calls, cost=st.integers(0, 350))
    def settle_more_than_once(self, gateway: int, call: str, cost: int) -> None:
        self.ended(call, self.apply(gateway, Settle(call, Charge(cost, self.now))), cost)

    def ended(self, call: str, answers: list[Any] | None, cost: int) -> None:
        made = self.made.get(call)
        if made is not None and answers is not None:
            counts = made.state != "settled" or made.estimated
            if answers:
                assert (answers[0].result == "again") == (not counts)
            if counts:
                made.state, made.cost, made.estimated = "settled", cost, False
        elif answers:
            assert answers == [Settled("unknown")]

    @rule(gateway=st.sampled_from([0, 1]), call=calls)
    def release(self, gateway: int, call: str) -> None:
        answers = self.apply(gateway, Release(call, self.now))
        made = self.made.get(call)
        if made is None or answers is None or not (made.state == "open" or made.estimated):
            return
        made.state, made.cost, made.estimated = "released", 0, False

    @rule(gateway=st.sampled_from([0, 1]), call=calls, cost=st.integers(0, 350))
    def reconcile(self, gateway: int, call: str, cost: int) -> None:
        answers = self.apply(gateway, Settle(call, Charge(cost, self.now), exact=True))
        made = self.made.get(call)
        if made is not None and answers is not None:
            made.state, made.cost, made.estimated = "settled", cost, False

    @rule(gateway=st.sampled_from([0, 1]))
    def expire(self, gateway: int) -> None:
        overdue = {
            name
            for name, made in self.made.items()
            if made.state == "open" and made.reservation.deadline_at <= self.now
        }
        answers = self.apply(gateway, Expire(self.now))
        if answers:
            assert set(answers[0]) == overdue
        if answers is not None:
            for name in overdue:
                made = self.made[name]
                made.state, made.cost = "settled", made.reservation.worst_nusd
                made.estimated = True

    @rule(gateway=st.sampled_from([0, 1]))
    def crash(self, gateway: int) -> None:
        self.engines[gateway].close()
        self.engines[gateway] = self.engine()
        self.books[gateway] = Books(self.engines[gateway], PARIS)

    @rule(
        gateway=st.sampled_from([0, 1]),
        broken=st.sampled_from(["write", "commit", "after"]),
    )
    def break_the_next_transaction(self, gateway: int, broken: str) -> None:
        self.engines[gateway].broken = broken

    @rule(minutes=st.integers(1, 50))
    def wait(self, minutes: int) -> None:
        self.now += minutes * 60

    @precondition(lambda self: self.made)
    @invariant()
    def balances_are_the_sum_of_the_calls(self) -> None:
        sums: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
        for made in self.made.values():
            at = PARIS.periods(made.reservation.at)
            for cell in cells(made.reservation.payer.accounts(), at):
                sums[cell][0] += made.charged[0]
                sums[cell][1] += made.charged[1]
        rows = self.db.execute("SELECT account, period, spent_nusd, reserved_nusd FROM balances")
        stored = {(account, period): [s, r] for account, period, s, r in rows}
        states = dict(self.db.execute("SELECT id, state FROM calls").fetchall())
        assert stored == dict(sums)
        assert states == {name: made.state for name, made in self.made.items()}


TestTwoGateways = TwoGateways.TestCase
TestTwoGateways.settings = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestTwoGateways.pytestmark = [pytest.mark.timeout(110)]


def test_a_database_that_was_put_back_to_an_older_state_is_told_what_is_in_flight(
    tmp_path: Path,
) -> None:
    path = tmp_path / "ledger.db"
    engine = SqliteEngine(path)
    engine.open()
    books = Books(engine, PARIS)
    limits = limits_of(PAYERS[0], BUDGETS)
    asked = [
        Reservation(f"call-{n}", PAYERS[0], 300, BEFORE_MIDNIGHT, BEFORE_MIDNIGHT + 600, limits)
        for n in range(3)
    ]
    books.apply([Reserve(asked[0]), Reserve(asked[1])])
    for file in tmp_path.iterdir():
        file.unlink()
    with pytest.raises(LedgerDown, match="removed") as caught:
        books.apply([Reserve(asked[2])])
    assert caught.value.lost
    engine.close()
    engine.open()
    answers = books.apply([Settle("call-0", Charge(100, BEFORE_MIDNIGHT)), Reserve(asked[2])])
    assert answers[0] == Settled("settled", 100)
    # 100 spent and 300 in flight: a day of 700 an hour has 300 left
    assert isinstance(answers[1], Admitted)
    assert answers[1].left_nusd == 0
    engine.close()


def test_a_time_zone_that_changes_amid_a_batch_holds_from_the_next_one_on(tmp_path: Path) -> None:
    """Before midnight in Paris tomorrow has begun in Tokyo."""
    engine = SqliteEngine(tmp_path / "ledger.db")
    engine.open()
    books = Books(engine, PARIS)
    day = [limit for limit in limits_of(PAYERS[2], BUDGETS) if limit.window is Window.DAY]
    at = BEFORE_MIDNIGHT
    calls = [Reservation(f"call-{n}", PAYERS[2], 500, at, at + 600, tuple(day)) for n in range(3)]
    books.apply([Reserve(calls[0])])
    real = engine.rows

    def rows(sql: str, values: Any = ()) -> Any:
        found = real(sql, values)
        books.calendar = tokyo  # by another thread, just after the day was loaded
        return found

    tokyo = Calendar(ZoneInfo("Asia/Tokyo"))
    books = Books(engine, PARIS)  # with nothing in memory yet
    engine.rows = rows  # type: ignore[method-assign]
    (refused,) = books.apply([Reserve(calls[1])])
    assert isinstance(refused, Refused)
    (admitted,) = books.apply([Reserve(calls[2])])
    assert isinstance(admitted, Admitted)
    assert real("SELECT day FROM calls ORDER BY id") == [("2026-03-28",), ("2026-03-29",)]
    engine.close()
