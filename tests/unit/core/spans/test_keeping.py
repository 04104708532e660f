"""What may stay: ages, sizes, and the room on the disk."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.ports import Room
from midwatch.core.spans.form import Signal
from midwatch.core.spans.keeping import NEVER, Expiry, Level, cut, due, guard
from midwatch.core.spans.store import Footprint, Held, Piece
from midwatch.core.telemetry import AgentKeep, Keep

NOW = 1_790_000_000.0
DAY_S = 86_400.0
S = 10**9


def holding(*pieces: Piece, size: int | None = None, **agents: int) -> Footprint:
    whole = sum(piece.size_bytes for piece in pieces) if size is None else size
    held = {a: {Signal.SPANS: Held(1, each)} for a, each in agents.items()}
    return Footprint(whole, {}, held, pieces=pieces)


def piece(from_s: float, to_s: float, size: int, **agents: int) -> Piece:
    return Piece(round(from_s * S), round(to_s * S), size, agents or {"inbox": 10})


def test_ages_are_by_signal_and_contents_never_outlive_their_spans() -> None:
    keep = Keep(spans=2 * DAY_S, contents=30 * DAY_S, points=None, logs=DAY_S)
    expiry = due(keep, holding(), NOW)
    two_days_ago = round((NOW - 2 * DAY_S) * 1e9)
    assert expiry.before_ns(Signal.SPANS, "anyone") == two_days_ago
    assert expiry.before_ns(Signal.CONTENTS, "anyone") == two_days_ago
    assert expiry.before_ns(Signal.POINTS, "anyone") == NEVER
    assert expiry.before_ns(Signal.LOGS, "anyone") == round((NOW - DAY_S) * 1e9)


def test_an_agent_may_be_kept_for_another_time_than_the_others() -> None:
    keep = Keep(spans=DAY_S, agents={"audit": AgentKeep(spans=365 * DAY_S)})
    expiry = due(keep, holding(), NOW)
    assert expiry.before_ns(Signal.SPANS, "inbox") == round((NOW - DAY_S) * 1e9)
    assert expiry.before_ns(Signal.SPANS, "audit") == round((NOW - 365 * DAY_S) * 1e9)


def test_nothing_goes_where_nothing_has_an_age_or_a_size() -> None:
    keep = Keep(spans=None, contents=None, points=None, logs=None)
    assert not due(keep, holding(piece(1, 2, 10**12)), NOW).lets_go


def test_sums_by_minute_go_with_the_last_spans_and_the_others_by_their_own_age() -> None:
    keep = Keep(spans=DAY_S, sums=90 * DAY_S, agents={"audit": AgentKeep(spans=2 * DAY_S)})
    assert due(keep, holding(), NOW).sums_since_s == {
        "minutes": round(NOW - 2 * DAY_S),
        "hours": round(NOW - 90 * DAY_S),
        "days": round(NOW - 90 * DAY_S),
    }
    for_ever = Keep(spans=DAY_S, sums=None, agents={"audit": AgentKeep(spans=None)})
    assert "hours" not in due(for_ever, holding(), NOW).sums_since_s


def test_over_its_size_the_oldest_pieces_go_whole() -> None:
    keep = Keep(spans=None, contents=None, points=None, logs=None, size=100)
    held = holding(piece(30, 40, 60), piece(10, 20, 60), piece(20, 30, 60))
    expiry = due(keep, held, NOW)
    # 180 are held: two of 60 must go
    assert {expiry.before_ns(s, "inbox") for s in Signal} == {30 * S + 1}


def test_an_agent_over_its_size_loses_its_own_alone() -> None:
    keep = Keep(spans=None, contents=None, points=None, logs=None, agents={"chatty": AgentKeep(size=50)})  # fmt: skip
    shared = [piece(10 * n, 10 * n + 5, 100, inbox=50, chatty=50) for n in range(3)]
    expiry = due(keep, holding(*shared, inbox=150, chatty=150), NOW)
    assert expiry.before_ns(Signal.SPANS, "inbox") == NEVER
    assert expiry.before_ns(Signal.SPANS, "chatty") == 15 * S + 1


@given(
    st.lists(st.tuples(st.integers(0, 100), st.integers(0, 20), st.integers(1, 50)), max_size=12),
    st.integers(-10, 400),
)
def test_a_cut_frees_enough_and_one_piece_less_would_not(
    parts: list[tuple[int, int, int]], excess: int
) -> None:
    pieces = [Piece(at, at + length, size, {"a": 1}) for at, length, size in parts]
    at = cut(pieces, excess)
    gone = sum(p.size_bytes for p in pieces if p.to_ns < at)
    total = sum(p.size_bytes for p in pieces)
    assert gone >= min(excess, total)
    ends = sorted({p.to_ns for p in pieces if p.to_ns < at})
    if ends:
        before = sum(p.size_bytes for p in pieces if p.to_ns < ends[-1])
        assert before < excess, "the newest that goes was needed"


GIB = 1024**3


@pytest.mark.parametrize(
    ("free", "before", "level"),
    [
        (3 * GIB, Level.FINE, Level.FINE),
        (2 * GIB, Level.FINE, Level.FINE),
        (2 * GIB - 1, Level.FINE, Level.LOW),
        (GIB, Level.LOW, Level.LOW),
        (GIB - 1, Level.LOW, Level.FULL),
        (GIB - 1, Level.FINE, Level.FULL),
        (GIB, Level.FULL, Level.FULL),  # at the border it does not flap
        (round(1.11 * GIB), Level.FULL, Level.LOW),
        (2 * GIB, Level.LOW, Level.LOW),
        (round(2.21 * GIB), Level.LOW, Level.FINE),
        (0, Level.FINE, Level.FULL),
    ],
)
def test_a_disk_is_warned_of_before_telemetry_is_refused(
    free: int, before: Level, level: Level
) -> None:
    found = guard(Room(free, 100 * GIB), GIB, before)
    assert found.level is level


def test_a_full_disk_says_what_to_do() -> None:
    found = guard(Room(GIB // 2, 100 * GIB), GIB)
    assert found.reason == (
        "512 MiB of 100 GiB are free on the hub's disk, fewer than hub.keep.free (1.0 GiB): telemetry is refused"
        " until there is room; free some, or keep less (hub.keep.size, midwatch forget)"
    )


def test_an_expiry_of_nothing_lets_nothing_go() -> None:
    assert not Expiry().lets_go
    assert Expiry().before_ns(Signal.SPANS, "inbox") == NEVER
