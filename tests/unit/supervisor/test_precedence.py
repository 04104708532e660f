"""Agents come after one of ours that starves for seconds, and after nobody else."""

from __future__ import annotations

from midwatch.core.starving import Turns
from midwatch.supervisor.machine.fake import FakeSystem
from midwatch.supervisor.machine.system import Launch
from midwatch.supervisor.precedence import GIVE_WAY_S, LOOKS, Precedence


class Night:
    """A second at a time, in which we ran and waited for so long."""

    def __init__(self) -> None:
        self.system = FakeSystem()
        self.system.programs["agent"] = []
        nothing = Launch(["agent"], {}, "/", "run", lambda _: None, lambda _: None, agent="one")
        self.system.spawn(nothing)
        self.system.own_turns = Turns(0.0, 0.0)
        self.said: list[str] = []
        self.precedence = Precedence("midwatch", self.system, self.said.append)
        self.precedence.look()

    def second(self, ran_s: float, waited_s: float) -> None:
        had = self.system.own_turns
        assert had is not None
        self.system.own_turns = Turns(had.ran_s + ran_s, had.waited_s + waited_s)
        for _ in range(10):  # however often we are asked to look
            self.system.advance(0.1)
            self.precedence.look()

    @property
    def give_way(self) -> bool:
        return self.system.now() < self.system.behind_until


def test_agents_give_way_after_some_bad_seconds_in_a_row() -> None:
    night = Night()
    for _ in range(LOOKS):
        assert not night.give_way
        night.second(0.02, 0.9)
    assert night.give_way
    assert night.said == [
        "midwatch: the agents leave it too little of the processor; they come after it"
        " until it was well for 10 minutes"
    ]


def test_bad_seconds_with_a_good_one_between_them_change_nothing() -> None:
    night = Night()
    for _ in range(5):
        for _ in range(LOOKS - 1):
            night.second(0.02, 0.9)
        night.second(0.5, 0.4)
    assert (night.give_way, night.said) == (False, [])


def test_it_lasts_from_the_last_bad_second_and_is_told_once() -> None:
    night = Night()
    for _ in range(60):
        night.second(0.02, 0.9)
    night.system.advance(GIVE_WAY_S - 2)
    assert night.give_way
    night.system.advance(4)
    assert not night.give_way
    night.precedence.begin()
    for _ in range(LOOKS + 1):
        night.second(0.02, 0.9)
    assert (night.give_way, len(night.said)) == (True, 1)


def test_where_turns_are_not_told_nobody_gives_way() -> None:
    night = Night()
    night.system.own_turns = None
    for _ in range(10):
        night.system.advance(1.0)
        night.precedence.look()
    assert not night.give_way
