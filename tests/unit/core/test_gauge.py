"""What is told of one limited resource, and when a planned restart is due."""

from __future__ import annotations

from collections.abc import Callable

from midwatch.core.gauge import Gauge, Reading
from midwatch.core.terms import Limits

HOUR = 3600.0
TERMS = Limits()


def told(
    curve: Callable[[float], float], hours: float, *, refused: bool = False, every: float = 10.0
) -> list[tuple[float, str]]:
    """Return (hour, stage) of everything that is told of a curve in percent, and where a restart is due."""
    gauge = Gauge(1_000_000, TERMS, 0.0, refused=refused)
    seen: list[tuple[float, str]] = []
    for index in range(int(hours * HOUR / every)):
        now = index * every
        reading = gauge.take(now, int(curve(now / HOUR) * 10_000))
        if reading.stage is not None:
            seen.append((round(now / HOUR, 1), reading.stage))
        if reading.restart and (not seen or seen[-1][1] != "restart"):
            seen.append((round(now / HOUR, 1), "restart"))
    return seen


def stages(curve: Callable[[float], float], hours: float, *, refused: bool = False) -> list[str]:
    return [stage for _, stage in told(curve, hours, refused=refused)]


def test_a_leak_is_forecast_then_near_then_restarted() -> None:
    assert stages(lambda h: 20 + 10 * h, 7.5) == ["forecast", "near", "restart"]
    assert stages(lambda h: 78 + 2 * h if h > 1 else 20, 8) == ["near", "forecast", "restart"]


def test_who_sits_at_92_percent_is_warned_once_and_has_no_trend() -> None:
    for refused in (False, True):
        assert stages(lambda _h: 92, 72, refused=refused) == ["near"]


def test_a_step_to_92_percent_is_warned_of_once() -> None:
    for refused in (False, True):
        assert stages(lambda h: 30 if h < 3 else 92, 72, refused=refused) == ["near"]


def test_open_files_that_go_on_growing_at_the_soft_limit_are_restarted_without_a_trend() -> None:
    # from 30 to 100 % in seven minutes: too short for a trend
    assert stages(lambda h: min(30 + 600 * (h - 3), 98) if h > 3 else 30, 4, refused=True) == [
        "near",
        "restart",
    ]


def test_memory_is_restarted_for_a_trend_only() -> None:
    assert stages(lambda h: min(30 + 600 * (h - 3), 98) if h > 3 else 30, 4) == ["near"]


def test_a_sawtooth_across_the_warning_is_told_once_in_three_days() -> None:
    assert stages(lambda h: 40 + 45 * (h % 0.1) / 0.1, 72) == ["near"]


def test_a_warning_ends_after_an_hour_well_below_it_and_may_come_again() -> None:
    assert told(lambda h: 85 if h < 1 or 5 <= h < 6 else 30, 8) == [
        (0.0, "near"),
        (2.0, "calm"),
        (5.0, "near"),
        (7.0, "calm"),
    ]


def test_what_races_to_its_limit_is_not_warned_of_on_the_way() -> None:
    gauge = Gauge(1000, TERMS, 0.0, refused=True)
    values = [100, 400, 850, 1000, 1000]
    readings = [gauge.take(100 + index, used) for index, used in enumerate(values)]
    assert [r.stage for r in readings] == [None, None, None, "full", None]
    assert not gauge.warned
    assert readings[-1].full_s(110.0) == 7.0


def test_a_race_that_stops_short_is_warned_of_after_all() -> None:
    gauge = Gauge(1000, TERMS, 0.0, refused=False)
    readings = [gauge.take(100.0 + i, used) for i, used in enumerate([100, 850, 850, 850, 850])]
    assert [r.stage for r in readings] == [None, None, None, None, "near"]


def test_what_was_warned_of_and_then_is_full_is_the_same_story() -> None:
    gauge = Gauge(1000, TERMS, 0.0, refused=True)
    readings: list[Reading] = [gauge.take(t * 60.0, used) for t, used in enumerate([820, 820, 995])]
    assert [r.stage for r in readings] == ["near", None, "full"]
    assert gauge.warned
