"""Exchanges as scripts: what each place answers, and what was done about it, with the times."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.calls.ask import Kind
from midwatch.core.calls.chain import Place
from midwatch.core.calls.classes import ErrorClass, Failure
from midwatch.core.calls.exchange import Exchange, GiveUp, Pause, Step, Try, Why
from midwatch.core.calls.pool import KeyHealth, KeyState
from midwatch.core.calls.route import Change, Health, Route, note_answer, note_failure
from midwatch.core.models import Breaker, Retries, Timeouts

TIMES = Timeouts(connect=5.0, first_token=60.0, between=60.0, total=600.0)
A, B, C = (Place(name, Kind.OPENAI, "m", n, TIMES) for n, name in enumerate(("a", "b", "c")))


def fails(kind: str, retry_after_s: float | None = None) -> Failure:
    return Failure(ErrorClass(kind), kind, retry_after_s)


@dataclass
class Night:
    """Plays one exchange: each attempt takes a tenth of a second and is answered from the script."""

    script: dict[str, list[Failure | None]]
    places: Sequence[Place] = (A, B, C)
    retries: Retries = field(default_factory=lambda: Retries(attempts=2, backoff=(1.0, 8.0)))
    health: Health = field(default_factory=lambda: Health(Breaker()))
    task: str | None = None
    refused: set[str] = field(default_factory=set)
    now: float = 1000.0
    said: list[str] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)

    def play(self) -> Step:
        route = Route(self.places, self.health, self.task, lambda: 0.5, lambda p, _: p.name not in self.refused)  # fmt: skip
        exchange = Exchange(route, self.retries, self.now, 600.0, lambda: 0.5)
        step = exchange.begin(self.now)
        for _ in range(200):
            if isinstance(step, Pause):
                self.said.append(f"wait {step.until - self.now:g}")
                self.now = step.until
                step = exchange.resume(self.now)
            elif isinstance(step, Try):
                name = f"{step.place.provider}:{step.key}" if step.key else step.place.provider
                self.said.append(name)
                self.now += 0.1
                script = self.script.get(step.place.provider, [])
                failure = script.pop(0) if script else None
                if failure is None:
                    exchange.answered(step)
                    self.changes += note_answer(self.health, step, self.now)
                    return step
                self.changes += note_failure(self.health, step, failure, self.now)
                step = exchange.failed(step, failure, self.now)
            else:
                return step
        raise AssertionError("it does not end")


def played(script: dict[str, list[Failure | None]], **changes: Any) -> tuple[list[str], Step]:
    night = Night(script, **changes)
    step = night.play()
    return night.said, step


def test_a_good_answer_is_one_attempt() -> None:
    said, step = played({"a": [None]})
    assert (said, isinstance(step, Try)) == (["a"], True)


def test_a_failure_of_the_provider_is_tried_again_with_growing_jittered_pauses_then_elsewhere() -> None:  # fmt: skip
    said, step = played({"a": [fails("transient")] * 9, "b": [None]})
    assert said == ["a", "wait 0.5", "a", "wait 1", "a", "b"]
    assert isinstance(step, Try)


def test_when_all_places_fail_the_last_failure_is_the_answer() -> None:
    last = fails("overloaded")
    said, step = played({"a": [fails("transient")] * 3, "b": [fails("transient")] * 3, "c": [last] * 3})  # fmt: skip
    assert [s for s in said if not s.startswith("wait")] == ["a"] * 3 + ["b"] * 3 + ["c"] * 3
    assert step == GiveUp(Why.FAILED, last, None)


@pytest.mark.parametrize("kind", ["bad_request", "content_policy", "unknown"])
def test_what_is_the_requests_fault_is_passed_on_and_cools_nothing(kind: str) -> None:
    night = Night({"a": [fails(kind)] * 9})
    assert night.play() == GiveUp(Why.FAILED, fails(kind))
    assert (night.said, night.changes) == (["a"], [])


def test_a_retry_after_is_kept_unless_somebody_else_can_answer_sooner() -> None:
    limit = fails("rate_limit", 3.0)
    assert played({"a": [limit, None]})[0] == ["a", "wait 3", "a"]
    assert played({"a": [fails("rate_limit", 30.0), None]})[0] == ["a", "b"]
    assert played({"a": [fails("rate_limit", 30.0), None]}, places=[A])[0] == ["a", "wait 30", "a"]
    said, step = played({"a": [fails("rate_limit", 90.0)]}, places=[A])
    assert said == ["a"]
    assert isinstance(step, GiveUp)
    assert step.retry_after_s == pytest.approx(90.0)


def pool(*names: str) -> Health:
    return Health(Breaker(), pools={"a": [KeyHealth(name) for name in names]})


def test_another_key_is_asked_at_once_when_one_is_used_up() -> None:
    health = pool("k1", "k2", "k3")
    night = Night({"a": [fails("quota"), fails("credentials"), None]}, health=health)
    assert isinstance(night.play(), Try)
    assert len(set(night.said)) == 3
    assert {(c.kind, c.key) for c in night.changes} == {
        ("key.quota", night.said[0][2:]),
        ("key.refused", night.said[1][2:]),
    }
    # the next call asks neither
    again = Night({}, health=health, now=night.now)
    again.play()
    assert again.said == [night.said[2]]


def test_keys_do_not_multiply_the_attempts() -> None:
    said, step = played({"a": [fails("rate_limit")] * 99}, places=[A], health=pool(*"abcdefgh"))
    assert len([s for s in said if not s.startswith("wait")]) == 3
    assert isinstance(step, GiveUp)


def test_a_used_up_key_without_another_one_leads_to_the_next_place_without_a_pause() -> None:
    assert played({"a": [fails("quota")]}, health=pool("k"))[0] == ["a:k", "b"]


def test_a_place_that_the_policy_does_not_admit_is_passed_over() -> None:
    assert played({"a": [fails("not_found")]}, refused={"b/m"})[0] == ["a", "c"]
    said, step = played({}, refused={"a/m", "b/m", "c/m"})
    assert (said, step) == ([], GiveUp(Why.NO_PLACE, None, None))


def test_a_breaker_opens_after_failures_of_the_provider_and_is_probed_once() -> None:
    health = Health(Breaker(failures=3, cooldown=(15.0, 300.0)))
    night = Night({"a": [fails("transient")] * 3}, health=health)
    night.play()
    assert [c.kind for c in night.changes] == ["breaker.opened"]
    passed = Night({}, health=health, now=night.now)
    passed.play()
    assert passed.said == ["b"]
    probe = Night({"a": [None]}, health=health, now=night.now + 15.0)
    probe.play()
    assert (probe.said, [c.kind for c in probe.changes]) == (["a"], ["breaker.closed"])


def test_while_all_rest_for_a_short_time_it_is_waited_for_them_and_told_when_otherwise() -> None:
    health = pool("k")
    health.pools["a"][0].rest(1000.0, KeyState.COOLING, "429", 4.0)
    said, step = played({}, places=[A], health=health)
    assert (said, isinstance(step, Try)) == (["wait 4", "a:k"], True)
    health = pool("k")
    health.pools["a"][0].rest(1000.0, KeyState.QUOTA, "used up", 7200.0)
    assert played({}, places=[A], health=health) == ([], GiveUp(Why.NO_PLACE, None, 7200.0))


def test_a_reserved_key_is_not_waited_for_by_others() -> None:
    health = Health(Breaker(), pools={"a": [KeyHealth("m", reserve="monitoring")]})
    assert played({}, places=[A], health=health)[1] == GiveUp(Why.NO_PLACE, None, None)
    assert played({}, places=[A], health=health, task="monitoring")[0] == ["a:m"]


def test_after_the_total_no_place_is_asked_again_nor_waited_for() -> None:
    retries = Retries(attempts=10, backoff=(4.0, 60.0), total=10.0)
    night = Night({name: [fails("transient")] * 20 for name in "abc"}, retries=retries)
    night.play()
    assert night.said[-2:] == ["b", "c"], "but each of them is asked"
    assert night.now - 1000.0 <= 10.0 + 0.3


def slow(now: float, **more: Any) -> tuple[Exchange, Try]:
    """Return an exchange with all defaults whose first attempt began at 1000, and that attempt."""
    route = Route((A, B), Health(Breaker()), None, lambda: 0.5, lambda _place, _failure: True)
    exchange = Exchange(route, Retries(**more), 1000.0, 600.0, lambda: 0.5)
    first = exchange.begin(now)
    assert isinstance(first, Try)
    return exchange, first


def test_a_place_that_is_found_hung_after_the_total_is_left_for_the_next() -> None:
    exchange, first = slow(1000.0)
    step = exchange.failed(first, fails("transient"), 1060.1)
    assert isinstance(step, Try)
    assert (step.place, step.deadline) == (B, 1600.0)
    assert isinstance(exchange.failed(step, fails("transient"), 1120.2), GiveUp), "none is left"


def test_nothing_begins_after_the_deadline() -> None:
    exchange, first = slow(1000.0)
    assert isinstance(exchange.failed(first, fails("transient"), 1600.0), GiveUp)


def test_an_answer_that_broke_off_is_gone_on_with_at_the_same_place_however_old_it_is() -> None:
    exchange, first = slow(1000.0)
    step = exchange.broke(first, fails("transient"), 1400.0, here=True)
    assert isinstance(step, Pause)
    again = exchange.resume(step.until)
    assert isinstance(again, Try)
    assert again.place is A
    step = exchange.broke(again, fails("rate_limit", 100.0), 1420.0, here=True)
    assert isinstance(step, Try), (
        "but for no longer than the total, once more, is anybody waited for"
    )
    assert step.place is B


def test_a_pause_that_ends_after_the_total_leads_to_the_next_place() -> None:
    exchange, first = slow(1000.0)
    step = exchange.failed(first, fails("transient"), 1059.0)
    assert isinstance(step, Pause)
    late = exchange.resume(1060.5)
    assert isinstance(late, Try)
    assert late.place is B


def test_a_pause_for_whoever_wakes_first_ends_before_the_total() -> None:
    health = pool("k")
    health.pools["a"][0].rest(1000.0, KeyState.COOLING, "429", 4.0)
    retries = Retries(backoff=(9.9, 10.0), total=4.5)
    said, step = played({}, places=[A], health=health, retries=retries)
    assert (said, step) == ([], GiveUp(Why.NO_PLACE, None, 4.0))


def test_half_of_the_time_is_kept_for_the_places_behind() -> None:
    exchange, first = slow(1000.0)
    assert (first.head_by, first.deadline) == (1300.0, 1600.0)
    step = exchange.failed(first, fails("transient"), 1300.0)
    assert isinstance(step, Try)
    assert (step.head_by, step.deadline) == (1600.0, 1600.0)


def test_of_too_many_places_those_are_forgotten_of_which_nothing_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("midwatch.core.calls.route.MAX_BREAKERS", 5)
    health = Health(Breaker(failures=2))
    down = Place("a", Kind.OPENAI, "down", 0, TIMES)
    ill = Place("a", Kind.OPENAI, "ill", 0, TIMES)
    for _ in range(2):
        health.breaker(down).failed(1.0, "500", 1.0)
    health.breaker(ill).failed(1.0, "500", 1.0)
    for number in range(99):
        health.breaker(Place("a", Kind.OPENAI, f"m{number}", 0, TIMES))
    assert len(health.breakers) <= 5
    assert health.breaker(down).free_at(2.0) > 2.0
    assert health.breaker(ill).failed(2.0, "500", 2.0), "its first failure is known still"
    for number in range(99):
        health.breaker(Place("a", Kind.OPENAI, f"m{number}", 0, TIMES)).failed(3.0, "500", 3.0)
    assert len(health.breakers) <= 5
    assert health.breaker(down).free_at(4.0) > 4.0, "one that is open goes last"


outcomes = st.sampled_from([*ErrorClass, None])


@st.composite
def scripts(draw: st.DrawFn) -> Night:
    def script() -> Iterator[Failure | None]:
        for kind in draw(st.lists(outcomes, max_size=12)):
            after = draw(st.sampled_from([None, 0.0, 2.0, 20.0, 900.0]))
            yield None if kind is None else Failure(kind, "x", after)

    keys = draw(st.integers(0, 4))
    health = Health(Breaker(failures=draw(st.integers(1, 5))))
    if keys:
        health.pools["a"] = [KeyHealth(f"k{n}", weight=n % 3) for n in range(keys)]
    return Night(
        {name: list(script()) for name in "abc"},
        places=(A, B, C)[: draw(st.integers(1, 3))],
        retries=Retries(attempts=draw(st.integers(0, 4)), backoff=(0.5, 8.0), total=60.0),
        health=health,
    )


@given(scripts())
def test_no_script_makes_more_attempts_than_configured_nor_outlives_the_deadline(
    night: Night,
) -> None:
    bound, places = 1 + night.retries.attempts, len(night.places)
    night.play()
    for name in "abc":
        assert sum(1 for s in night.said if s.partition(":")[0] == name) <= bound
    assert len([s for s in night.said if not s.startswith("wait")]) <= bound * places
    assert night.now - 1000.0 <= 60.0 + 0.1 * places, "moving on has the call's own deadline"
