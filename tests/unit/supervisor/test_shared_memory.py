"""A tree whose processes share pages: judged by what was measured now, never by the sum, never late."""

from __future__ import annotations

from typing import Any

import pytest

from midwatch.core.footprint import LASTS_S, Judgeable, Measure, patience_s, weigh
from midwatch.core.states import State

GIB = 1 << 30
LIMIT = 4 * GIB


def shared(make: Any, exact: int | None, *, takes_s: float | None = 0.0) -> Any:
    """Three workers whose resident sizes add up to thrice the limit."""
    house = make(limits={"memory": LIMIT})
    house.keeper.begin(resumed=False)
    house.process.children, house.process.rss_bytes = 3, 3 * LIMIT
    house.process.footprint_bytes, house.system.measuring_s = exact, takes_s
    return house


def look(house: Any, seconds: float, every: float = 1.0) -> None:
    for _ in range(int(seconds / every)):
        house.system.advance(every)
        if house.keeper.run is not None:
            house.keeper.look(house.keeper.run)


def ends(house: Any) -> list[str]:
    return [e["end"] for e in house.events("run.ended")]


def test_a_model_that_its_workers_share_is_counted_once_and_measured_seldom(make: Any) -> None:
    house = shared(make, 3 * GIB)
    look(house, 60.0)
    assert (house.keeper.state, len(house.system.launched)) == (State.RUNNING, 1)
    assert len(house.system.measured) <= 14
    house.process.footprint_bytes = 5 * GIB  # they write to it, and each has its own
    look(house, LASTS_S + 1.0)
    house.system.advance(0.1)
    assert ends(house) == ["out-of-memory"]


def test_nothing_is_judged_while_the_measure_is_on_its_way(make: Any) -> None:
    house = shared(make, 3 * GIB, takes_s=9.0)
    look(house, 8.0)
    assert (ends(house), house.events("run.leaking")) == ([], [])
    assert len(house.system.measured) == 1
    look(house, 60.0)
    assert (ends(house), house.keeper.state) == ([], State.RUNNING)


def test_a_tree_over_its_limit_ends_with_the_measure_and_waits_for_no_look(make: Any) -> None:
    house = shared(make, 5 * GIB, takes_s=0.9)
    look(house, 1.0)  # the first came at half a second
    assert (house.system.measured, ends(house)) == ([1000.5], [])
    house.system.advance(0.5)
    assert ends(house) == ["out-of-memory"]


def test_memory_that_was_given_back_while_it_was_measured_kills_nobody(make: Any) -> None:
    house = shared(make, 5 * GIB, takes_s=4.0)
    look(house, 2.0)
    house.process.rss_bytes -= 2 * GIB
    house.process.footprint_bytes = 3 * GIB
    look(house, 60.0)
    assert ends(house) == []


def test_a_measure_that_never_comes_leaves_the_limit_to_the_sum_after_a_bounded_time(
    make: Any,
) -> None:
    house = shared(make, 5 * GIB, takes_s=None)
    bound = patience_s(3 * LIMIT)
    look(house, bound - 1.0)
    assert ends(house) == []
    look(house, 3.0)
    assert ends(house) == ["out-of-memory"]
    assert "cannot be measured in time" in "\n".join(house.said)


def test_a_measure_that_was_overdue_counts_when_it_comes_after_all(make: Any) -> None:
    house = shared(make, 3 * GIB, takes_s=100.0)
    house.process.rss_bytes = LIMIT - 1  # below, also by the sum
    look(house, 90.0)
    assert len(house.system.measured) == 1
    assert [e["used"] for e in house.events("run.leaking")] == [LIMIT - 1]
    look(house, 20.0)
    house.process.rss_bytes, house.system.measuring_s = 3 * LIMIT, 0.0
    look(house, 60.0)
    assert ends(house) == []


def test_what_cannot_be_measured_is_judged_by_the_sum_at_once(make: Any) -> None:
    house = shared(make, None)
    look(house, 1.0)
    house.system.advance(0.1)
    assert ends(house) == ["out-of-memory"]


def test_time_in_which_we_stood_still_is_no_time_to_measure_in(make: Any) -> None:
    house = shared(make, 3 * GIB, takes_s=5.0)
    look(house, 1.0)
    house.system.stand_still(3600.0)
    house.system.advance(0.0)
    look(house, 30.0)
    assert ends(house) == []


def test_a_measure_of_an_earlier_run_judges_nobody(make: Any) -> None:
    house = shared(make, 5 * GIB, takes_s=3.0)
    look(house, 1.0)
    house.system.end(house.process, code=1)
    house.system.advance(0.5)
    look(house, 10.0)
    assert len(house.system.launched) == 2
    assert ends(house) == ["failed"]


@pytest.mark.parametrize(
    ("resident", "last", "now", "fresh", "expected"),
    [
        (3.0, None, 0.0, False, (3.0, False)),
        (9.0, None, 0.0, False, (None, True)),
        (9.0, (9.0, 2.0), 1.0, True, (2.0, False)),
        (8.0, (9.0, 4.5), 1.0, True, (3.5, False)),
        (12.0, (9.0, 3.5), 1.0, True, (3.5, False)),
        (9.0, (9.0, 2.0), 4.0, False, (2.0, False)),
        (9.5, (9.0, 2.0), 4.0, False, (2.5, False)),
        (9.0, (9.0, 2.0), 7.0, False, (None, True)),
        (9.0, (9.0, 3.6), 1.5, False, (None, False)),
        (9.0, (9.0, 3.6), 5.5, False, (None, True)),
        (9.5, (9.0, 3.6), 1.5, False, (None, True)),
    ],
    ids=[
        "far", "unknown", "fresh", "given-back", "taken-meanwhile", "lasts", "grown-but-far", "old",
        "near-and-just-measured", "near-and-rested", "may-be-over",
    ],
)  # fmt: skip
def test_the_figure_that_a_limit_is_judged_by(
    resident: float,
    last: tuple[float, float] | None,
    now: float,
    fresh: bool,
    expected: tuple[float | None, bool],
) -> None:
    """In GiB, at a limit of four of which 3.2 are near; the measure took from 0 to 1 s."""
    measure = None if last is None else Measure(0.0, 1.0, int(last[0] * GIB), int(last[1] * GIB))
    found = weigh(
        int(resident * GIB), near=0.8 * LIMIT, limit=LIMIT, last=measure, now=now, fresh=fresh
    )
    used, asks = expected
    assert found == Judgeable(None if used is None else int(used * GIB), asks, found.reason)
