"""By what time ages are reckoned: jumps of the wall clock both ways, absences, and a clock that is wrong at the start."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.spans.reckoning import (
    AWAY_S,
    JUMP_S,
    LONG_S,
    PROOF_S,
    SLEW,
    Reckoned,
    agreed,
    confirmed,
    look,
)

NOON = 1_790_000_000.0
YEAR_S = 365 * 86_400.0
ROUND_S = 30.0


class Machine:
    """A wall clock that can be set, and one that counts on, until the machine is started anew."""

    def __init__(self) -> None:
        self.real = NOON
        self.off = 0.0
        self.boot = "b1"
        self.booted = NOON - 1_000.0
        self.known: Reckoned | None = None

    @property
    def wall(self) -> float:
        return self.real + self.off

    def look(self, newest: float | None = None) -> Reckoned:
        self.known = look(self.known, self.boot, self.wall, self.real - self.booted, newest)
        return self.known

    def run(self, seconds: float, step: float = ROUND_S) -> Reckoned:
        end = self.real + seconds
        found = self.look()
        while self.real < end:
            self.real += min(step, end - self.real)
            found = self.look()
        return found

    def restart(self, away_s: float, *, reboot: bool = True) -> Reckoned:
        self.real += away_s
        if reboot:
            self.boot, self.booted = f"{self.boot}+", self.real
        return self.look()


def test_a_clock_that_goes_evenly_is_believed() -> None:
    machine = Machine()
    found = machine.run(3 * 86_400.0, step=600.0)
    assert found.believed
    assert found.aged == machine.wall


@pytest.mark.parametrize("jump", [YEAR_S, 600.0, 3_600.0])
def test_nothing_ages_by_a_jump_ahead_until_the_clock_has_gone_evenly_for_a_day(
    jump: float,
) -> None:
    machine = Machine()
    machine.run(600.0)
    machine.off = jump
    found = machine.run(60.0)
    assert found.jumped
    assert found.off_s == pytest.approx(jump)
    assert found.aged == pytest.approx(machine.real)
    found = machine.run(PROOF_S - 120.0)
    assert found.jumped
    assert found.aged == pytest.approx(machine.real)
    found = machine.run(180.0)
    assert found.believed
    assert found.aged == machine.wall


def test_a_jump_that_is_taken_back_is_forgotten_at_once() -> None:
    machine = Machine()
    machine.run(600.0)
    machine.off = YEAR_S
    assert machine.run(3_600.0).jumped
    machine.off = 0.0
    found = machine.look()
    assert found.believed
    assert found.aged == pytest.approx(machine.real)


def test_a_clock_that_goes_back_makes_nothing_older_and_is_believed_after_a_day() -> None:
    machine = Machine()
    machine.run(600.0)
    machine.off = -YEAR_S
    found = machine.run(60.0)
    assert found.jumped
    assert found.aged == machine.wall
    assert "behind what was expected" in found.reason
    found = machine.run(PROOF_S + 60.0)
    assert found.believed
    # what it comes back to is ahead again, and has to prove itself
    machine.off = 0.0
    found = machine.run(60.0)
    assert found.jumped
    assert found.aged == pytest.approx(machine.real - YEAR_S, abs=1.0)


def test_a_clock_that_jumps_again_begins_its_day_anew() -> None:
    machine = Machine()
    machine.run(600.0)
    for hours in (1, 2, 3):
        machine.off = 3_600.0 * hours
        machine.run(PROOF_S - 3_600.0, step=600.0)
    found = machine.look()
    assert found.jumped
    assert found.aged == pytest.approx(machine.real)


def test_a_clock_that_runs_too_fast_is_noticed() -> None:
    machine = Machine()
    for _ in range(100):
        machine.real += ROUND_S
        machine.off += 9 * ROUND_S
        found = machine.look()
    assert not found.believed
    assert found.aged <= machine.real + JUMP_S


def test_small_steps_are_caught_up_with() -> None:
    machine = Machine()
    machine.run(600.0)
    machine.off = 100.0
    found = machine.run(3_600.0)
    assert found.believed
    assert machine.wall - 100.0 < found.aged < machine.wall
    found = machine.run(2 * 86_400.0, step=600.0)
    assert found.aged == pytest.approx(machine.wall)


def test_a_hub_that_was_away_on_a_machine_that_ran_on_asks_nothing() -> None:
    machine = Machine()
    machine.run(600.0)
    found = machine.restart(10 * 86_400.0, reboot=False)
    assert found.believed
    assert found.aged == machine.wall


@pytest.mark.parametrize(
    ("away", "wait"), [(60.0, 0.0), (AWAY_S, 0.0), (16 * 3_600.0, AWAY_S), (2 * LONG_S, PROOF_S)]
)
def test_after_an_absence_the_clock_is_waited_for_by_how_long_it_was(
    away: float, wait: float
) -> None:
    machine = Machine()
    before = machine.run(600.0).aged
    found = machine.restart(away)
    assert found.need_s == wait
    assert found.jumped is (wait == PROOF_S)
    assert found.aged == (machine.wall if wait == 0.0 else before)
    assert machine.run(wait + 60.0).aged == machine.wall


def test_a_machine_that_boots_with_a_clock_of_next_year_ages_nothing_until_it_is_set_right() -> (
    None
):
    machine = Machine()
    machine.run(600.0)
    machine.off = YEAR_S
    found = machine.restart(30.0)
    assert found.jumped
    assert found.aged == NOON + 600.0
    machine.run(3_000.0)
    machine.off = 0.0
    found = machine.look()
    assert found.believed
    assert found.aged <= machine.wall


def test_many_short_days_come_to_an_hour_in_the_end() -> None:
    machine = Machine()
    machine.run(600.0)
    for _ in range(6):
        machine.restart(16 * 3_600.0)
        found = machine.run(900.0)
    assert found.believed or found.waited_s > 0.0
    assert machine.wall - found.aged < 3 * 86_400.0


def test_the_first_look_compares_with_what_is_stored() -> None:
    machine = Machine()
    found = machine.look(newest=NOON - 1_000.0)
    assert (found.believed, found.aged) == (True, NOON)
    machine = Machine()
    machine.off = YEAR_S
    found = machine.look(newest=NOON - 1_000.0)
    assert found.jumped
    assert found.aged == NOON - 1_000.0


def test_a_person_may_say_that_it_is_right() -> None:
    machine = Machine()
    machine.run(600.0)
    machine.off = YEAR_S
    found = machine.look()
    assert "confirm it with midwatch trust-clock" in found.reason
    machine.known = confirmed(found)
    found = machine.run(60.0)
    assert found.believed
    assert found.aged == machine.wall


MOVES = st.lists(
    st.tuples(
        st.floats(0.0, 7_200.0),  # seconds that pass
        st.sampled_from([0.0, 0.0, 0.0, 1.0, -1.0, 400.0, -400.0, YEAR_S, -YEAR_S]),
        st.booleans(),  # the machine is started anew
    ),
    max_size=30,
)


@given(MOVES)
def test_ages_never_grow_faster_than_time_unless_the_clock_has_proven_itself(
    moves: list[tuple[float, float, bool]],
) -> None:
    machine = Machine()
    machine.look()
    for passed, jump, reboot in moves:
        before = machine.known
        assert before is not None
        machine.off += jump
        now = machine.restart(passed, reboot=reboot)
        assert now.aged <= now.wall
        believed_again = now.believed and not before.believed
        if not believed_again:
            away = AWAY_S if reboot else 0.0
            assert now.at <= before.at + passed * (1 + SLEW) + away + 1e-3


def away(gap_s: float) -> Reckoned:
    """Return what a hub knows that comes back after so long and does not believe its clock."""
    machine = Machine()
    machine.look()
    found = machine.restart(gap_s)
    assert not found.believed
    return found


@pytest.mark.parametrize(
    ("later_s", "holds"),
    [
        (0.0, True),
        (AWAY_S, True),
        (AWAY_S + 1, False),
        (-JUMP_S, True),
        (-JUMP_S - 1, False),
        (YEAR_S, False),
        (-YEAR_S, False),
    ],
)
def test_a_confirmation_holds_for_clocks_that_agree_with_the_one_that_was_looked_at(
    later_s: float, holds: bool
) -> None:
    before = away(2 * LONG_S)
    found = agreed(before, before.wall - later_s)
    assert found.believed is holds
    assert found.aged == (before.wall if holds else before.aged)
    assert found.heard == before.wall - later_s


@pytest.mark.parametrize("off", [AWAY_S / 2, YEAR_S])
def test_a_confirmation_counts_once(off: float) -> None:
    machine = Machine()
    machine.look()
    said = machine.restart(2 * LONG_S).wall
    machine.known = agreed(machine.look(), said)
    assert machine.known.believed
    machine.off = off
    assert not agreed(machine.look(), said).believed


def test_what_was_heard_is_known_after_a_restart() -> None:
    machine = Machine()
    machine.known = agreed(machine.look(), NOON)
    assert machine.restart(2 * LONG_S).heard == NOON


def test_a_clock_that_is_believed_hears_and_changes_nothing() -> None:
    machine = Machine()
    now = machine.run(600.0)
    assert agreed(now, now.wall) == replace(now, heard=now.wall)
