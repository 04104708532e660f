"""The loop breaker: runaways against the agent's own pace, repeats with the same result, and honest work."""

from __future__ import annotations

import random

import pytest

from midwatch.core.calls.ask import Ask, Dialect, Kind
from midwatch.core.calls.judgement import FINE, Level
from midwatch.core.calls.pace import Pace
from midwatch.core.models import Calls
from midwatch.core.terms import Loop


def pace(**calls: float) -> Pace:
    return Pace(Loop(), Calls.model_validate(calls))


def ask(request: str, result: str | None = None, **tags: str) -> Ask:
    return Ask(Kind.OPENAI, Dialect.CHAT, "m", request_hash=request, result_hash=result, tags=tags)


def used(breaker: Pace, tokens: int, minutes: int, start: float = 0.0) -> float:
    """Spend `tokens` in each of so many minutes, in ten calls; return the time after them."""
    for minute in range(minutes):
        for call in range(10):
            at = start + minute * 60 + call * 6
            assert breaker.settled(tokens // 10, 0, at) == FINE, (minute, call)
    return start + minutes * 60


def test_from_200_to_40000_tokens_a_minute_is_told_and_then_stopped() -> None:
    breaker = pace()
    now = used(breaker, 200, 20)
    levels: list[Level] = []
    sentence = ""
    for call in range(100):  # 40,000 a minute: 400 each 0.6 s
        judged = breaker.settled(400, 0, now + call * 0.6)
        levels.append(judged.level)
        sentence = judged.sentence or sentence
        if judged.level is Level.LOOP:
            break
    assert levels[-1] is Level.LOOP
    assert (
        len(levels) * 0.6 < 10
    )  # the floor of 5,000 tokens is reached, and that is more than ten times the usual
    assert sentence == "5,360 tokens within 60 s, usual 200 tokens"


def test_a_large_but_usual_minute_is_fine() -> None:
    used(pace(), 40_000, 60)


def test_three_times_the_usual_is_fine_five_times_is_told_ten_times_is_stopped() -> None:
    for factor, level in ((3, Level.FINE), (6, Level.WARN), (11, Level.LOOP)):
        breaker = pace()
        now = used(breaker, 10_000, 10)
        worst = max(breaker.settled(1000 * factor, 0, now + n * 5.9).level for n in range(10))
        assert worst is level, factor


def test_a_runaway_does_not_become_usual() -> None:
    breaker = pace()
    now = used(breaker, 1_000, 10)
    for minute in range(100):
        breaker.settled(50_000, 0, now + minute * 60)
    assert breaker.settled(50_000, 0, now + 6001).level is Level.LOOP


def test_an_agent_without_a_past_is_only_told_of_an_enormous_minute() -> None:
    breaker = pace()
    assert breaker.settled(200_000, 0, 0.0) == FINE
    judged = breaker.settled(400_000, 0, 1.0)
    assert judged.level is Level.WARN
    assert "nothing known to compare it with" in judged.sentence


def test_money_counts_as_tokens_do() -> None:
    breaker = pace()
    for minute in range(10):
        breaker.settled(100, 10_000_000, minute * 60.0)
    judged = breaker.settled(100, 150_000_000, 600.0)
    assert (judged.level, judged.sentence) == (Level.LOOP, "$0.15 within 60 s, usual $0.01")


def test_after_it_was_forgiven_it_counts_anew_and_still_knows_what_is_usual() -> None:
    breaker = pace()
    now = used(breaker, 1_000, 10)
    assert breaker.settled(20_000, 0, now).level is Level.LOOP
    breaker.forgive()
    assert breaker.settled(500, 0, now + 1) == FINE
    again = pace()
    again.recall(breaker.to_json())
    assert again.settled(20_000, 0, now).level is Level.LOOP


def test_the_same_call_with_the_same_result_is_told_at_3_and_stopped_at_5() -> None:
    breaker = pace()
    levels = [breaker.asked(ask(f"r{n}", "search(x)=nothing"), n).level for n in range(6)]
    assert levels == [Level.FINE, Level.FINE, Level.WARN, Level.WARN, Level.LOOP, Level.LOOP]


def test_two_calls_in_turns_are_a_loop_too() -> None:
    breaker = pace()
    judged = [breaker.asked(ask(f"r{n}", "ab"[n % 2]), n) for n in range(12)]
    assert judged[-1].level is Level.LOOP
    assert "two tool calls in turns" in judged[-1].sentence
    assert judged[5].level is Level.WARN


def test_polling_with_a_result_that_changes_is_honest() -> None:
    breaker = pace()
    assert all(breaker.asked(ask(f"r{n}", f"status={n}%"), n * 5.0) == FINE for n in range(500))


def test_a_declared_poll_may_repeat_where_the_fleet_file_allows_it() -> None:
    breaker = pace(polling=True)
    assert all(breaker.asked(ask("same", "same", poll="1"), n) == FINE for n in range(500))


def test_a_poll_that_nobody_allowed_is_a_loop_like_any_other_and_says_why() -> None:
    breaker = pace()
    judged = [breaker.asked(ask("same", poll=""), n) for n in range(12)]
    assert judged[-1].level is Level.LOOP
    assert judged[-1].sentence.endswith("(the tag poll counts with calls.polling: true alone)")


def test_a_poll_that_does_not_wait_is_a_loop_even_where_polling_is_allowed() -> None:
    breaker = pace(polling=True)
    levels = [breaker.asked(ask("same", "same", poll=""), n * 0.5).level for n in range(700)]
    assert levels.index(Level.LOOP) == 599


def test_a_poll_in_between_hides_no_row_of_the_same_result() -> None:
    breaker = pace(polling=True)
    for n in range(4):
        breaker.asked(ask(f"r{n}", "same"), n)
        assert breaker.asked(ask("is it done?", "no", poll=""), n) == FINE
    assert breaker.asked(ask("r4", "same"), 5).level is Level.LOOP


def test_polling_does_not_hide_a_runaway() -> None:
    breaker = pace(polling=True)
    now = used(breaker, 1_000, 10)
    breaker.asked(ask("same", poll=""), now)
    assert breaker.settled(20_000, 0, now).level is Level.LOOP


def test_a_tree_may_ask_the_same_four_times_as_often_and_rows_of_its_results_say_nothing() -> None:
    tree = pace()
    levels = [tree.asked_within(ask("same", "same"), n).level for n in range(50)]
    assert levels.index(Level.LOOP) == 47
    assert set(levels[:47]) == {Level.FINE}


def test_new_work_in_between_ends_the_row() -> None:
    breaker = pace()
    for n in range(40):
        result = None if n % 4 == 3 else "same"
        assert breaker.asked(ask(f"r{n}", result), n).level <= Level.WARN


def test_the_same_request_again_and_again_is_a_loop_whatever_its_spacing() -> None:
    breaker = pace()
    levels = [breaker.asked(ask("same"), n * 5.0).level for n in range(14)]
    assert levels.index(Level.LOOP) == 11
    spread = pace()
    assert all(spread.asked(ask("same"), n * 120.0) == FINE for n in range(100))


def test_a_round_of_many_that_stay_as_they_are_is_no_loop_and_one_of_three_is() -> None:
    shop, circle = pace(), pace()
    assert all(shop.asked(ask(f"page {n % 8}"), n * 2.5) == FINE for n in range(1_000))
    levels = [circle.asked(ask(f"step {n % 3}"), n * 2.5).level for n in range(40)]
    assert levels.index(Level.LOOP) == 33, "the twelfth of the first"


def test_what_is_remembered_is_bounded() -> None:
    breaker = pace()
    for n in range(10_000):
        breaker.asked(ask(f"r{n}"), n * 0.001)
    assert len(breaker._requests) <= 256


@pytest.mark.parametrize("seed", range(5))
def test_a_night_of_honest_work_of_changing_size_is_never_stopped(seed: int) -> None:
    chance = random.Random(seed)
    breaker, now = pace(), 0.0
    for n in range(5_000):
        now += chance.expovariate(1 / 8)
        size = int(chance.lognormvariate(7, 0.8))
        result = chance.choice([None, f"result {n}", f"query {n % 7}: not found"])
        assert breaker.asked(ask(f"r{n}", result), now).level <= Level.WARN
        assert breaker.settled(size, size * 3_000, now).level <= Level.WARN
