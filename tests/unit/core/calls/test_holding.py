"""Who of supervisor and gateway is right about a held agent."""

from __future__ import annotations

import pytest

from midwatch.core.calls.holding import OF_GATEWAY, ORDER_S, Mend, mend
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


@pytest.mark.parametrize(
    ("then", "held_s", "same_run", "todo"),
    [
        ("", 0.0, True, Mend.SUSPEND),
        ("restart", 0.0, True, Mend.NOTHING),
        ("restart", ORDER_S, True, Mend.RESTART),
        ("restart", 0.0, False, Mend.LIFT),
        ("stop", 0.0, True, Mend.NOTHING),
        ("stop", ORDER_S, True, Mend.STOP),
        ("stop", ORDER_S, False, Mend.STOP),
    ],
)
def test_what_follows_a_loop_is_the_hubs_order_and_after_a_while_the_supervisors_own(
    then: str, held_s: float, same_run: bool, todo: Mend
) -> None:
    given = {"then": then, "held_s": held_s, "same_run": same_run}
    assert mend("loop", suspended=False, resting=False, **given) is todo  # type: ignore[arg-type]
    assert mend("loop", suspended=False, resting=True, **given) is Mend.NOTHING  # type: ignore[arg-type]
    assert mend("loop", suspended=True, resting=False, **given) is Mend.NOTHING  # type: ignore[arg-type]


def test_every_kind_of_hold_that_no_person_makes_is_the_gateways_own() -> None:
    of_people = {HoldKind.SUSPENDED, HoldKind.KILLED}
    assert {kind.value for kind in HoldKind if kind not in of_people} == OF_GATEWAY
