"""A wall clock that jumps, told."""

from __future__ import annotations

from midwatch.core.detection import Facts, Verdict, load
from midwatch.core.fleet import Agent
from midwatch.core.incident import Clear, Finding

NOW = 1_750_000_000.0


def verdict(kind: str, reason: str, agent: str = "midwatch") -> Verdict:
    item = {"id": "i", "agent": agent, "at": NOW, "kind": kind, "data": {"reason": reason}}
    (asked,) = [one for one in load().values() if kind in one.on]
    assert asked.kind == "clock-jump"
    return asked.judge(Facts(agent, item, NOW, Agent(command=["x"])))


def test_a_clock_that_jumped_is_a_warning_until_it_goes_evenly_again() -> None:
    found = verdict("clock.jumped", "the clock is a year ahead")
    assert isinstance(found, Finding)
    assert (found.kind, found.agent, found.severity) == ("clock-jump", "midwatch", "warning")
    assert found.sentence == "midwatch: the clock is a year ahead"
    assert found.evidence == {"reason": "the clock is a year ahead"}
    ended = verdict("clock.steady", "it goes evenly")
    assert ended == Clear("clock-jump", "midwatch", "it goes evenly", NOW)


def test_an_agent_has_no_word_about_the_hubs_clock() -> None:
    assert verdict("clock.jumped", "it jumped", agent="inbox") is None


def test_of_several_hubs_each_has_its_own_incident() -> None:
    for kind, name, word in (("clock.jumped", "clock-jump", Finding), ("disk.full", "disk-full", Finding), ("disk.fine", "disk-full", Clear)):  # fmt: skip
        data = {"reason": "it is", "node": "hub2"}
        item = {"id": "i", "agent": "midwatch", "at": NOW, "kind": kind, "data": data}
        told = load()[name].judge(Facts("midwatch", item, NOW, Agent(command=["x"])))
        assert isinstance(told, word)
        assert told.subject == "hub2"
        assert not isinstance(told, Finding) or told.sentence == "midwatch: hub2: it is"
