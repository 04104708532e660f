"""Who of supervisor and gateway is right about a held agent."""

from __future__ import annotations

import pytest

from midwatch.core.calls.holding import OF_GATEWAY, Mend, mend
from midwatch.gateway.holds import HoldKind


@pytest.mark.parametrize(
    ("hold", "suspended", "resting", "todo"),
    [
        (None, False, False, Mend.NOTHING),
        (None, True, False, Mend.TELL),
        ("suspended", True, False, Mend.NOTHING),
        ("loop", True, False, Mend.NOTHING),
        ("suspended", False, False, Mend.LIFT),
        ("suspended", False, True, Mend.LIFT),
        ("killed", False, False, Mend.LIFT),
        ("killed", False, True, Mend.NOTHING),
        ("loop", False, False, Mend.SUSPEND),
        ("budget", False, False, Mend.SUSPEND),
        ("loop", False, True, Mend.NOTHING),
    ],
)
def test_the_supervisor_knows_who_is_suspended_and_the_gateway_who_went_round_in_circles(
    hold: str | None, suspended: bool, resting: bool, todo: Mend
) -> None:
    assert mend(hold, suspended=suspended, resting=resting) is todo


def test_every_kind_of_hold_that_no_person_makes_is_the_gateways_own() -> None:
    of_people = {HoldKind.SUSPENDED, HoldKind.KILLED}
    assert {kind.value for kind in HoldKind if kind not in of_people} == OF_GATEWAY
