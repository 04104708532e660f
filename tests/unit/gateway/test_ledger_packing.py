"""What is said between a gateway and its ledger's process arrives as it was meant."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.calls.account import Payer
from midwatch.core.calls.budget import Admitted, Left, Limit, Notice, Reason, Refused
from midwatch.core.calls.charge import MAX_NUSD, Charge, Reservation
from midwatch.core.calls.period import Calendar, Window
from midwatch.gateway.ledger.books import Settled
from midwatch.gateway.ledger.orders import (
    Expire,
    Look,
    Note,
    Order,
    Pass,
    Release,
    Reserve,
    Roll,
    Settle,
)
from midwatch.gateway.ledger.packing import (
    Frames,
    Packer,
    Unpacker,
    answer_in,
    answer_out,
    calendar_in,
    calendar_out,
    frame,
    notice_in,
)

TEXT = st.text(max_size=20)  # with half characters: an agent's words are no one's promise
NAME = st.none() | TEXT
NUSD = st.integers(0, MAX_NUSD)
AT = st.floats(0, 4e9)
LIMITS = st.lists(
    st.builds(Limit, TEXT, st.sampled_from(Window), NUSD, st.floats(0, 1), TEXT, TEXT), max_size=3
).map(tuple)
PAYERS = st.builds(Payer, TEXT, TEXT, NAME, NAME, NAME, NAME, st.dictionaries(TEXT, TEXT))
RESERVES = st.builds(
    Reserve,
    st.builds(
        Reservation, TEXT, PAYERS, NUSD, AT, AT, LIMITS, TEXT, NAME, TEXT, TEXT, TEXT, TEXT
    ),
)  # fmt: skip
CHARGES = st.builds(
    Charge, NUSD, AT, TEXT, TEXT, st.dictionaries(TEXT, st.integers(0, 2**70) | st.booleans()),
    NUSD, NUSD, TEXT, st.dictionaries(TEXT, NUSD), st.booleans(), st.booleans(), NUSD,
    st.lists(st.dictionaries(TEXT, AT | TEXT | st.lists(TEXT)), max_size=2), TEXT,
)  # fmt: skip
ORDERS = st.one_of(
    RESERVES,
    st.builds(Settle, TEXT, CHARGES, st.booleans(), TEXT),
    st.builds(Release, TEXT, AT, TEXT),
    st.builds(Note, TEXT, TEXT),
    st.builds(Expire, AT),
    st.builds(Look, LIMITS, AT),
    st.builds(Roll, AT, st.integers(0, 999), st.integers(1, 999)),
    st.just(Pass()),
)


def sent(*messages: object, piece: int = 1 << 20) -> list[Any]:
    frames, line = Frames(), b"".join(map(frame, messages))
    pieces = [line[at : at + piece] for at in range(0, len(line), piece)]
    return [message for one in pieces for message in frames.take(one)]


@given(st.lists(ORDERS, max_size=5), st.integers(1, 300))
def test_orders_arrive_whatever_pieces_they_come_in(orders: list[Order], piece: int) -> None:
    packer, unpacker = Packer(), Unpacker()
    # twice: the second time their limits are known by a number
    heard = sent(*(packer.order(order) for order in orders * 2), piece=piece)
    assert [unpacker.order(one) for one in heard] == orders * 2


LIMIT = Limit("agent:inbox", Window.DAY, 10**9, on_exhausted="park", who="inbox")
RESERVE = Reserve(
    Reservation("c", Payer("inbox"), 5, 1.0, 2.0, (Limit("fleet", Window.HOUR, 7), LIMIT))
)


@pytest.mark.parametrize(
    ("order", "answer"),
    [
        (RESERVE, Admitted(12, LIMIT)),
        (RESERVE, Admitted()),
        (RESERVE, Refused(Reason.IN_FLIGHT, "no", 2.0, 99.5, LIMIT, 1, 2, 3, "park")),
        (RESERVE, Refused(Reason.UNAVAILABLE, "no\ud800", None)),
        (Settle("c", Charge(1, 2.0)), Settled("late", 5, 1)),
        (Release("c", 1.0), Settled("released")),
        (Look((LIMIT,), 1.0), (Left(LIMIT, 1, 2, 3, None), Left(LIMIT, 0, 0, 9, 4.5))),
        (Look((), 1.0), ()),
        (Expire(1.0), ["a", "b"]),
        (Expire(1.0), []),
        (Roll(1.0, 92), 7),
        (Pass(), None),
    ],
    ids=lambda one: type(one).__name__,
)
def test_answers_arrive(order: Order, answer: Any) -> None:
    (heard,) = sent(answer_out(order, answer))
    assert answer_in(order, heard) == answer


def test_the_limit_of_an_answer_is_the_one_that_was_asked_with() -> None:
    asked = RESERVE.reservation.limits[1]
    found = answer_in(RESERVE, sent(answer_out(RESERVE, Admitted(1, asked)))[0])
    assert isinstance(found, Admitted)
    assert found.limit is asked


def test_a_notice_and_a_calendar_arrive() -> None:
    notice = Notice("warned", LIMIT, "d2026-03-29", 8, 1.5, "most of it is used")
    packed = ["warned", list(vars_of(LIMIT)), "d2026-03-29", 8, 1.5, "most of it is used"]
    assert notice_in(sent(packed)[0]) == notice
    calendar = Calendar(ZoneInfo("Europe/Paris"), "ours")
    found = calendar_in(sent(calendar_out(calendar))[0])
    assert (found.zone, found.name) == (calendar.zone, "ours")


def vars_of(limit: Limit) -> list[Any]:
    return [getattr(limit, name) for name in limit.__slots__]
