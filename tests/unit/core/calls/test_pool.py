"""Keys of a pool: shares, those kept for a task, rests, and the forecast of an empty pool."""

from __future__ import annotations

from collections import Counter

from midwatch.core.calls.pool import MAX_REST_S, Forecast, KeyHealth, KeyState, forecast, pick

NONE: frozenset[str] = frozenset()


def keys() -> list[KeyHealth]:
    return [KeyHealth("a", weight=3), KeyHealth("b"), KeyHealth("last", weight=0), KeyHealth("m", reserve="monitoring")]  # fmt: skip


def picked(pool: list[KeyHealth], task: str | None = None, now: float = 0.0) -> Counter[str]:
    chosen = (pick(pool, task, now, n / 100, NONE) for n in range(100))
    return Counter(key.name if key else "" for key in chosen)


def test_the_weight_is_the_share() -> None:
    assert picked(keys()) == {"a": 75, "b": 25}


def test_a_key_of_weight_0_serves_when_no_other_is_left() -> None:
    pool = keys()
    for key in pool[:2]:
        key.rest(0.0, KeyState.QUOTA, "used up", None)
    assert picked(pool) == {"last": 100}
    pool[2].rest(0.0, KeyState.REFUSED, "401", None)
    assert picked(pool) == {"": 100}


def test_a_reserved_key_serves_its_task_first_and_nobody_else() -> None:
    pool = keys()
    assert picked(pool, "monitoring") == {"m": 100}
    pool[3].rest(0.0, KeyState.COOLING, "429", 30.0)
    assert set(picked(pool, "monitoring")) == {"a", "b"}
    for key in pool[:3]:
        key.rest(0.0, KeyState.QUOTA, "used up", None)
    assert picked(pool, "other", now=40.0) == {"": 100}


def test_a_key_rests_for_as_long_as_the_provider_says_within_reason() -> None:
    key = KeyHealth("a")
    assert key.rest(100.0, KeyState.COOLING, "429", 7.0)
    assert not key.rest(101.0, KeyState.COOLING, "429", 1.0)  # no news, and no earlier end
    assert (key.rests(106.9), key.rests(107.0)) == (True, False)
    key.answered(107.0)
    assert (key.state, key.reason) == (KeyState.ACTIVE, "")
    key.rest(200.0, KeyState.QUOTA, "see you next year", 1e9)
    assert key.until == 200.0 + MAX_REST_S


def test_an_answer_from_before_the_rest_does_not_end_it() -> None:
    key = KeyHealth("a")
    key.rest(0.0, KeyState.REFUSED, "401", None)
    key.answered(1.0)
    assert key.rests(1.0)


def ran_out(*at: float, count: int = 13) -> list[KeyHealth]:
    pool = [KeyHealth(f"k{n}") for n in range(count)]
    for key, when in zip(pool, at, strict=False):
        key.rest(when, KeyState.QUOTA, "used up", 86_400.0)
    return pool


def test_the_pace_at_which_quotas_run_out_tells_when_the_pool_is_empty() -> None:
    # the story: 13 keys, the first used up at 11:23, the second at 11:31
    pool = ran_out(0.0, 480.0)
    assert forecast(pool, 480.0) == Forecast(11, 11 * 480.0)  # 88 minutes: before 13:00
    assert forecast(pool, 480.0 + 240.0) == Forecast(11, 11 * 480.0 - 240.0)


def test_one_used_up_key_gives_no_pace_and_two_at_once_are_one_account() -> None:
    assert forecast(ran_out(0.0), 10.0) is None
    assert forecast(ran_out(0.0, 0.4), 10.0) is None


def test_the_longer_nothing_runs_out_the_slower_the_pace() -> None:
    pool = ran_out(0.0, 60.0)
    soon, later = forecast(pool, 60.0), forecast(pool, 1800.0)
    assert soon is not None
    assert later is not None
    assert later.empty_in_s > soon.empty_in_s * 10


def test_an_empty_pool_is_empty_now() -> None:
    assert forecast(ran_out(0.0, 1.0, count=2), 5.0) == Forecast(0, 0.0)


def spending(*keys: tuple[int | None, int, int]) -> list[KeyHealth]:
    """Keys by what they may spend, have spent, and spent within the last hour."""
    return [
        KeyHealth(f"k{n}", budget_nusd=budget, spent_nusd=spent, hour_nusd=hour)
        for n, (budget, spent, hour) in enumerate(keys)
    ]


def test_the_pace_at_which_budgets_are_spent_tells_when_the_pool_is_empty() -> None:
    # $15 are left of two budgets, $10 were spent within the last hour
    pool = spending((100, 90, 8), (50, 45, 2))
    assert forecast(pool, 0.0) == Forecast(2, 1.5 * 3600, "budgets")
    assert forecast(spending((100, 120, 8), (50, 45, 2)), 0.0) == Forecast(1, 1800, "budgets")
    assert forecast(spending((100, 120, 8)), 0.0) == Forecast(0, 0.0, "budgets")


def test_a_key_without_a_budget_has_no_end_and_what_is_not_spent_no_pace() -> None:
    assert forecast(spending((100, 90, 8), (None, 45, 2)), 0.0) is None
    assert forecast(spending((100, 90, 0)), 0.0) is None


def test_the_sooner_of_quotas_and_budgets_is_told() -> None:
    pool = [*ran_out(0.0, 60.0, count=3)]
    for key in pool:
        key.budget_nusd, key.spent_nusd, key.hour_nusd = 1_000, 0, 1
    assert forecast(pool, 60.0) == Forecast(1, 60.0)
    for key in pool:
        key.spent_nusd, key.hour_nusd = 999, 3_600
    assert forecast(pool, 60.0) == Forecast(1, 1 / 3, "budgets")


def test_a_key_that_rests_spends_nothing_more_and_its_pace_is_taken_over_by_the_others() -> None:
    pool = spending((100, 50, 10), (100, 90, 0))
    pool[0].rest(0.0, KeyState.REFUSED, "401", 3600.0)
    assert forecast(pool, 1.0) == Forecast(1, 3600.0, "budgets")
