from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from midwatch.core.spans.shares import Shares, State, Ticket


def asked(shares: Shares, who: str, size: int) -> Ticket:
    ticket = shares.ask(who, size)
    assert ticket is not None
    return ticket


def test_who_finds_room_goes_in_at_once_and_something_huge_goes_in_alone() -> None:
    shares = Shares(inside_bytes=100)
    huge = asked(shares, "a", 1_000)
    assert huge.state is State.INSIDE
    assert asked(shares, "b", 1).state is State.WAITS
    shares.leave(huge)
    assert [ticket.who for ticket in shares.enter()] == ["b"]


def test_a_calm_sender_waits_for_one_round_and_not_for_the_flood() -> None:
    shares = Shares(inside_bytes=100, waiting_bytes=100_000, quantum=100)
    inside = asked(shares, "flood", 100)
    for _ in range(200):
        asked(shares, "flood", 100)
    for name in ("calm", "quiet"):
        asked(shares, name, 100)
    served: list[str] = []
    for _ in range(6):
        shares.leave(inside)
        (inside,) = shares.enter()
        served.append(inside.who)
    assert set(served[:4]) == {"flood", "calm", "quiet"}
    assert served.index("calm") <= 2
    assert served.index("quiet") <= 3


def test_turns_go_by_bytes_and_not_by_requests() -> None:
    shares = Shares(inside_bytes=100, waiting_bytes=10**9, quantum=100)
    inside = asked(shares, "first", 100)
    for _ in range(50):
        asked(shares, "large", 100)
    for _ in range(500):
        asked(shares, "small", 10)
    taken: Counter[str] = Counter()
    tickets = [inside]
    while sum(taken.values()) < 6_000:
        for ticket in tickets:
            shares.leave(ticket)
        tickets = shares.enter()
        for ticket in tickets:
            taken[ticket.who] += ticket.size
    assert abs(taken["large"] - taken["small"]) <= 300


def test_one_flood_leaves_half_of_the_room_and_two_leave_a_third() -> None:
    for floods in (1, 2, 3):
        shares = Shares(inside_bytes=1, waiting_bytes=1_200, waiting=10_000)
        asked(shares, "somebody", 1)
        held: Counter[str] = Counter()
        for _ in range(1_200):
            for flood in range(floods):
                if shares.ask(f"flood {flood}", 1) is not None:
                    held[f"flood {flood}"] += 1
        assert max(held.values()) - min(held.values()) <= 1
        assert 1_200 - shares.waiting == pytest.approx(1_200 / (floods + 1), abs=floods + 1)
        # there is room for whoever comes next
        assert shares.ask("calm", 200) is not None


def test_there_is_an_end_to_how_many_may_wait() -> None:
    shares = Shares(inside_bytes=1, waiting=3)
    asked(shares, "a", 1)
    # what has no size still takes a place once somebody waits
    assert [shares.ask(name, 1) is None for name in "bcde"] == [False, False, False, True]


def test_who_goes_away_while_waiting_leaves_nothing_behind() -> None:
    shares = Shares(inside_bytes=1)
    inside = asked(shares, "a", 1)
    waits = asked(shares, "b", 5)
    shares.leave(waits)
    shares.leave(waits)
    assert (shares.waiting, shares.senders) == (0, 0)
    shares.leave(inside)
    assert shares.enter() == []
    assert shares.inside == 0


@hypothesis_settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 60), st.integers(0, 5)), max_size=60)
)
def test_nothing_is_lost_or_let_in_twice_whatever_happens(
    steps: list[tuple[str, int, int]],
) -> None:
    shares = Shares(inside_bytes=50, waiting_bytes=200, waiting=20, quantum=16)
    inside: list[Ticket] = []
    waits: list[Ticket] = []
    for who, size, leaving in steps:
        ticket = shares.ask(who, size)
        if ticket is not None:
            (inside if ticket.state is State.INSIDE else waits).append(ticket)
        if leaving < len(inside):
            shares.leave(inside.pop(leaving))
        elif leaving == 5 and waits:
            shares.leave(waits.pop())
        for called in shares.enter():
            waits.remove(called)
            inside.append(called)
        assert shares.inside == sum(one.size for one in inside)
        assert shares.waiting == sum(one.size for one in waits) <= 200
        assert len(waits) <= 20
        assert len(inside) == 1 or shares.inside <= 50
        assert shares.senders == len({one.who for one in waits})
    while inside or waits:
        # whoever waits gets a turn in the end
        assert inside, "they wait for nobody"
        shares.leave(inside.pop())
        for called in shares.enter():
            waits.remove(called)
            inside.append(called)
