"""Three clocks tell a sleeping host from a clock that was set and from a supervisor that stood still."""

from __future__ import annotations

import pytest

from midwatch.core.absence import Absence, Look, between, while_away

BEFORE = Look(wall=10_000.0, now=500.0, asleep=40.0, due=530.0)


@pytest.mark.parametrize(
    ("after", "reason", "began"),
    [
        (Look(12_030.0, 530.0, 2_040.0), "the machine was asleep", 10_000.0),
        (
            Look(13_630.0, 530.0, 40.0),
            "the clock went forward by 1 hour: it was set, or the machine stood still",
            10_000.0,
        ),
        (Look(10_130.0, 630.0, 40.0), "Midwatch stood still", 10_030.0),
        (Look(10_030.05, 530.05, 40.0), "the starts came faster than they could be made", None),
        (Look(10_030.7, 530.7, 40.0), "Midwatch was late by 700 ms", None),
        (Look(10_030.05, 530.05, 40.9), "the starts came faster than they could be made", None),
        (Look(9_030.0, 530.0, 40.0), "the starts came faster than they could be made", None),
    ],
    ids=["asleep", "set forward", "stood still", "nothing", "late", "rounding", "set back"],
)
def test_the_clocks_tell_what_happened(after: Look, reason: str, began: float | None) -> None:
    found = between(BEFORE, after)
    assert (found.reason, found.began) == (reason, began)


def test_before_the_first_look_midwatch_was_not_running() -> None:
    assert while_away(5.0, 9.0) == Absence("Midwatch was not running", 5.0, 9.0)
