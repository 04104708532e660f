"""Whose fault a failure is: the place's, when nobody is answered there; a key's, when others are."""

from __future__ import annotations

from typing import Any

from midwatch.core.calls.ask import Kind
from midwatch.core.calls.chain import Place
from midwatch.core.calls.classes import ErrorClass, Failure
from midwatch.core.calls.exchange import Try
from midwatch.core.calls.pool import MAX_MODELS, KeyHealth
from midwatch.core.calls.route import (
    Change,
    Health,
    Route,
    note_answer,
    note_begun,
    note_failure,
    note_nothing,
)
from midwatch.core.models import Breaker

HERE = Place("a", Kind.OPENAI, "m")
DOWN = Failure(ErrorClass.TRANSIENT, "503")
KEYS = ("k1", "k2", "k3", "k4")


class Scene:
    """A pool of keys, some of which fail; each call takes a second and a key by turns of chance."""

    def __init__(self, *keys: str, **terms: Any) -> None:
        self.health = Health(Breaker(**terms), pools={"a": [KeyHealth(k) for k in keys or KEYS]})
        self.now = 1000.0
        self.calls = 0
        self.changes: list[Change] = []
        self.asked: list[str] = []

    def key(self, name: str) -> KeyHealth:
        found = self.health.key("a", name)
        assert found is not None
        return found

    def take(self, model: str = "m") -> Try | None:
        """Let a call through, when one may."""
        self.calls += 1
        place = Place("a", Kind.OPENAI, model)
        chance = (self.calls * 0.381966) % 1.0
        route = Route([place], self.health, None, lambda: chance, lambda *_: True)
        name = route.take(place, self.now)
        if name is None:
            return None
        self.asked.append(name)
        return Try(place, name, 1, self.now + 60, self.now + 60, self.now)

    def play(self, count: int, *broken: str, model: str = "m") -> None:
        """Make so many calls, a second apart; those with a broken key fail."""
        for _ in range(count):
            attempt = self.take(model)
            if attempt is not None and attempt.key in broken:
                self.changes += note_failure(self.health, attempt, DOWN, self.now)
            elif attempt is not None:
                self.changes += note_answer(self.health, attempt, self.now)
            self.now += 1.0


def test_an_outage_is_the_places_after_five_failures_whatever_the_keys_and_no_key_rests() -> None:
    scene = Scene()
    scene.play(30, *KEYS)
    assert [c.kind for c in scene.changes][:1] == ["breaker.opened"]
    assert len(scene.asked) < 5 + 3, "five, and a probe after each cooldown"
    assert all(not key.rests(scene.now, "m") for key in scene.health.pools["a"])
    scene.now += 300.0
    scene.asked.clear()
    scene.play(20)
    assert len(set(scene.asked)) == 4, "all of them serve again at once"


def test_a_key_that_alone_fails_rests_for_that_model_and_the_others_serve() -> None:
    scene = Scene()
    scene.play(40, "k2")
    cooling = [c for c in scene.changes if c.kind == "key.cooling"]
    assert {c.kind for c in scene.changes} == {"key.cooling"}
    assert (cooling[0].key, cooling[0].model, cooling[0].for_s) == ("k2", "m", 15.0)
    assert cooling[0].reason == "503"
    assert scene.health.breaker(HERE).closed
    assert scene.key("k2").rests(scene.now, "m") or len(cooling) > 1
    assert not scene.key("k2").rests(scene.now, "other"), "of another model it is not known"
    assert scene.key("k2").resting(scene.now).keys() <= {"m"}


def test_after_its_rest_it_is_asked_with_one_call_and_rests_twice_as_long_when_that_fails() -> None:
    scene = Scene("k1", "k2")
    scene.play(20, "k2")
    first = scene.asked.count("k2")
    assert first == 5
    scene.play(25, "k2")
    assert scene.asked.count("k2") == first + 1
    assert [c.for_s for c in scene.changes] == [15.0, 30.0]
    scene.play(120)
    assert scene.key("k2").failing == {}, "it answers: nothing is held against it any more"
    assert scene.asked[-20:].count("k2") > 5


def test_while_its_probe_is_under_way_nobody_else_is_sent_with_it() -> None:
    scene = Scene("k1", "k2")
    scene.play(20, "k2")
    scene.now = 1100.0
    probe = next(t for t in (scene.take() for _ in range(50)) if t is not None and t.key == "k2")
    assert all((t := scene.take()) is not None and t.key == "k1" for _ in range(50))
    note_nothing(scene.health, probe)  # its client went away: the next one is the probe
    again = next(t for t in (scene.take() for _ in range(50)) if t is not None and t.key == "k2")
    note_begun(scene.health, again)
    assert {t.key for t in (scene.take() for _ in range(20)) if t is not None} == {"k1", "k2"}


def test_a_pool_of_one_key_has_the_places_breaker_alone() -> None:
    scene = Scene("k1")
    scene.play(40, "k1")
    assert {c.kind for c in scene.changes} == {"breaker.opened"}
    assert scene.key("k1").failing == {}


def test_what_is_held_against_a_key_before_an_outage_stays_and_what_the_outage_adds_goes() -> None:
    scene = Scene()
    scene.play(40, "k2")
    assert not scene.key("k2").failing["m"].closed
    scene.play(8, *KEYS)
    assert not scene.health.breaker(HERE).closed
    assert [name for name in KEYS if scene.key(name).failing] == ["k2"]


def test_an_answer_in_between_begins_the_count_of_a_key_anew() -> None:
    scene = Scene("k1", "k2")
    for _ in range(30):
        scene.play(3, "k2")
        scene.play(4)
    assert scene.changes == []


def test_models_that_are_remembered_of_a_key_are_bounded() -> None:
    scene = Scene("k1", "k2")
    for number in range(MAX_MODELS * 3):
        scene.play(3, "k1", model=f"m{number}")
    assert len(scene.key("k1").failing) <= MAX_MODELS
