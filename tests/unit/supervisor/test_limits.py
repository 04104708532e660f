"""Limits of a run: warned of, forecast, acted on. Hours pass on a clock by hand."""

from __future__ import annotations

import errno
import signal
from collections.abc import Callable
from typing import Any

import pytest

from midwatch.core.exits import Wish
from midwatch.core.states import State
from midwatch.supervisor.machine.fake import FakeProcess
from midwatch.wire.notify import Notice

MIB = 1024 * 1024
GIB = 1024 * MIB
HOUR = 3600.0


def live(
    house: Any, hours: float, *, change: Callable[[FakeProcess, float], None], beats: bool = False
) -> None:
    """Let the agent live: its numbers follow `change` (hours since the start), sampled as ever."""
    start = house.system.now()
    for _ in range(int(hours * HOUR / 10)):
        house.system.advance(10.0)
        if house.keeper.run is None:
            continue
        change(house.process, (house.system.now() - start) / HOUR)
        if beats:
            house.keeper.hear(Notice(beat=True))
        if house.keeper.run is not None:
            process = house.keeper.run.process
            house.keeper.sampled(house.system.sample([process]).get(process.pid))


def leak(mib_an_hour: float, base: float = 200) -> Callable[[FakeProcess, float], None]:
    """Each life begins anew at `base` MiB."""
    grown: dict[int, float] = {}

    def change(process: FakeProcess, _hours: float) -> None:
        grown[process.pid] = grown.get(process.pid, 0.0) + mib_an_hour * 10 / HOUR
        process.rss_bytes = int((base + grown[process.pid]) * MIB)

    return change


def steady(process: FakeProcess, _hours: float) -> None:
    process.rss_bytes = int(0.92 * GIB)


def stages(house: Any) -> list[str]:
    return [e["stage"] for e in house.events("run.leaking")]


def test_a_leak_is_forecast_and_the_agent_restarted_between_two_cycles(make: Any) -> None:
    house = make(limits={"memory": GIB})
    house.keeper.begin(resumed=False)
    live(house, 5, change=leak(160), beats=True)
    told = house.events("run.leaking")
    assert stages(house) == ["forecast", "near", "restart"]
    assert told[0]["per_hour"] == pytest.approx(160 * MIB, rel=0.02)
    full_at = house.system.wall() - 5 * HOUR + (1024 - 200) / 160 * HOUR
    assert told[0]["reaches_at"] == pytest.approx(full_at, abs=300)
    (ended,) = house.events("run.ended")
    assert (ended["end"], ended["expected"], ended["next"]) == ("planned-restart", True, "restart")
    assert house.system.launched[0].signals[0] == signal.SIGTERM
    assert len(house.system.launched) == 2
    assert house.keeper.failures == 0
    states = [e["state"] for e in house.events("agent.state")]
    assert states[states.index("draining") - 1] == "running"


def test_a_planned_restart_waits_for_the_beat_and_no_longer_than_for_a_hang(make: Any) -> None:
    house = make(
        limits={"open_files": 1000, "leak_after": 600.0}, heartbeat={"every": 60, "missed": 2}
    )
    house.keeper.begin(resumed=False)
    house.keeper.hear(Notice(beat=True))

    def grow(process: FakeProcess, hours: float) -> None:
        process.open_files = int(min(980, 100 + 4000 * hours))

    live(house, 0.2, change=grow, beats=True)
    while house.keeper.state is not State.DRAINING:
        live(house, 10 / HOUR, change=lambda p, _: setattr(p, "open_files", p.open_files + 15))
        assert house.process.open_files < 1000
    assert house.process.signals == []
    assert house.keeper.reason.endswith("restarted after this cycle")
    house.keeper.hear(Notice(beat=True))
    assert house.system.launched[0].signals[0] == signal.SIGTERM
    house.system.advance(0.1)
    assert house.events("run.ended")[0]["end"] == "planned-restart"


def test_who_needs_92_percent_from_its_start_is_restarted_twice_then_told_and_left_alone(
    make: Any,
) -> None:
    house = make(limits={"memory": GIB})
    house.keeper.begin(resumed=False)
    live(house, 0.8, change=steady, beats=True)
    assert stages(house) == ["near", "restart", "near", "restart", "near", "needs"]
    assert [e["end"] for e in house.events("run.ended")] == ["planned-restart"] * 2
    assert [e["expected"] for e in house.events("run.ended")] == [True, True]
    assert (house.keeper.failures, house.keeper.state) == (0, State.RUNNING)
    restart, needs = (house.events("run.leaking")[i] for i in (1, 5))
    assert restart["above_s"] == pytest.approx(600, abs=20)
    assert needs["tries"] == 2
    assert "per_hour" not in needs
    assert "over its soft limit for 10 minutes" in restart["reason"]
    said = [line for line in house.said if "below what it needs" in line]
    assert len(said) == 1
    # between two cycles, through draining
    states = [e["state"] for e in house.events("agent.state")]
    assert states[states.index("draining") - 1] == "running"


def test_a_restart_that_helped_for_a_while_may_be_made_again_and_again(make: Any) -> None:
    """A cache fills within half an hour and stays: each life is below the soft limit for twenty minutes."""
    house = make(limits={"memory": GIB})
    lives: dict[int, int] = {}

    def fill(process: FakeProcess, _hours: float) -> None:
        lives[process.pid] = lives.get(process.pid, 0) + 10
        process.rss_bytes = int((0.92 if lives[process.pid] > 1200 else 0.3) * GIB)

    house.keeper.begin(resumed=False)
    live(house, 2.2, change=fill)
    assert "needs" not in stages(house)
    assert stages(house).count("restart") >= 4


def test_a_peak_over_the_soft_limit_restarts_nobody(make: Any) -> None:
    house = make(limits={"memory": GIB})
    house.keeper.begin(resumed=False)
    peaks = lambda p, h: setattr(p, "rss_bytes", int((0.95 if h % 0.2 < 0.15 else 0.5) * GIB))  # noqa: E731
    live(house, 1, change=peaks)  # nine minutes above, three below
    assert stages(house) == ["near"]
    assert len(house.system.launched) == 1


def test_without_restart_after_only_growth_leads_to_a_planned_restart(make: Any) -> None:
    house = make(limits={"memory": GIB, "restart_after": None})
    house.keeper.begin(resumed=False)
    live(house, 0.3, change=steady)
    assert stages(house) == ["near"]


def test_open_files_that_stay_at_the_soft_limit_are_treated_alike(make: Any) -> None:
    house = make(limits={"open_files": 1000})
    house.keeper.begin(resumed=False)
    live(house, 0.8, change=lambda p, _h: setattr(p, "open_files", 920))
    assert [e["stage"] for e in house.events("run.leaking")][-1] == "needs"
    assert len(house.system.launched) == 3


def test_who_opens_all_files_whatever_we_do_is_not_restarted_as_planned_for_ever(make: Any) -> None:
    house = make(limits={"open_files": 1000})
    lives: dict[int, int] = {}

    def climb(process: FakeProcess, _hours: float) -> None:
        lives[process.pid] = lives.get(process.pid, 0) + 10
        process.open_files = 850 if lives[process.pid] < 30 else 1000

    house.keeper.begin(resumed=False)
    live(house, 3, change=climb)
    ends = [e["end"] for e in house.events("run.ended")]
    assert ends[:2] == ["planned-restart"] * 2
    assert set(ends[2:]) == {"limit"}  # a failure, which the restart rules count
    assert house.keeper.state is State.PARKED


def test_a_person_who_starts_it_or_a_changed_entry_gives_restarts_another_chance(make: Any) -> None:
    house = make(limits={"memory": GIB})
    house.keeper.begin(resumed=False)
    live(house, 0.8, change=steady)
    assert len(house.system.launched) == 3
    house.keeper.take(house.keeper.agent.model_copy(update={"group": "night"}))
    house.keeper.finish(Wish.CHANGE, "its entry changed")
    house.system.advance(1.0)
    live(house, 0.8, change=steady)
    assert len(house.system.launched) == 6


def test_planned_restarts_keep_their_cooldown(make: Any) -> None:
    rules = {"when": "failure", "attempts": 3, "backoff": (1.0, 8.0), "cooldown": HOUR}
    house = make(limits={"memory": GIB}, restart=rules)
    house.keeper.begin(resumed=False)
    live(house, 2, change=leak(1800))
    ends = house.events("run.ended")
    planned = [e for e in ends if e["end"] == "planned-restart"]
    assert 2 <= len(planned) <= 3
    assert len(ends) > len(planned)  # in between it ran into its limit, as it would have without us


@pytest.mark.parametrize(
    "entry",
    [
        {"restart": {"when": "never"}},
        {"schedule": {"every": 90_000.0}},
    ],
    ids=["never", "of-a-schedule"],
)
def test_who_may_not_be_restarted_is_only_told_of(make: Any, entry: dict[str, Any]) -> None:
    house = make(limits={"memory": GIB}, **entry)
    house.keeper.begin(resumed=False)
    if house.keeper.run is None:
        house.keeper.release("a test")
    live(house, 1.6, change=leak(480))
    assert stages(house) == ["forecast", "near"]
    assert len(house.system.launched) == 1


def _glance(house: Any, before: list[int]) -> None:
    """Glance as `Sampling` does: who uses what he used before is not told of."""
    if house.keeper.run is not None:
        sample = house.system.sample([house.process], light=True)[house.process.pid]
        if before != [sample.rss_bytes]:
            before[:] = [sample.rss_bytes]
            house.keeper.glanced(sample)


@pytest.mark.parametrize("begins_s", [0.0, 1.3, 27.0])
@pytest.mark.parametrize("mib_s", [300, 1500])
def test_a_run_that_races_to_its_limit_is_killed_there_and_not_a_glance_later(
    make: Any, begins_s: float, mib_s: int
) -> None:
    house = make(limits={"memory": 4 * GIB})
    house.keeper.begin(resumed=False)
    house.process.rss_bytes = 100 * MIB
    before: list[int] = []
    for tick in range(1, 6_000):
        house.system.advance(0.01)
        now_s = tick * 0.01
        if house.keeper.run is None or house.keeper.run.wish is not None:
            break
        house.process.rss_bytes = int((100 + max(0.0, now_s - begins_s) * mib_s) * MIB)
        if tick % 100 == 0:
            _glance(house, before)
    over = house.process.rss_bytes - 4 * GIB
    assert 0 <= over < 0.25 * mib_s * MIB


@pytest.mark.parametrize(
    ("held", "looks_at"),
    [("sampling", [0.5, 1.0]), ("cgroup", [0.5, 1.0, 2.0, 4.0, 8.0])],
)
def test_a_young_run_that_is_glanced_at_is_not_looked_at_beside_that(
    make: Any, held: str, looks_at: list[float]
) -> None:
    house = make(limits={"memory": GIB})
    house.system.held["memory"] = held
    house.keeper.begin(resumed=False)
    house.process.rss_bytes = 100 * MIB
    began, found = house.system.now(), list[float]()
    for _ in range(100):
        passes = len(house.system.passes)
        house.system.advance(0.1)
        found += [round(house.system.now() - began, 1)] * (len(house.system.passes) - passes)
    assert found == looks_at


def test_too_many_processes_are_killed_at_the_next_look_and_named(make: Any) -> None:
    house = make(limits={"processes": 64})
    house.keeper.begin(resumed=False)
    for _ in range(200):
        house.system.add_member(house.process)
    sample = house.system.sample([house.process], light=True)[house.process.pid]
    house.keeper.glanced(sample)
    house.system.advance(0.1)
    (over,) = house.events("run.over_limit")
    assert (over["limit"], over["used"], over["bound"], over["held"]) == (
        "processes",
        201,
        64,
        "killed",
    )
    (ended,) = house.events("run.ended")
    assert ended["end"] == "limit"
    assert "201 processes, limits.processes is 64" in ended["reason"]
    assert house.keeper.state is State.BACKING_OFF


def test_a_browser_full_of_threads_is_no_fork_bomb(make: Any) -> None:
    house = make()
    house.keeper.begin(resumed=False)
    for _ in range(40):
        house.system.add_member(house.process)
    house.process.threads = 1200
    live(house, 1, change=lambda _p, _h: None)
    assert house.events("run.over_limit") == []


def test_all_files_open_at_once_are_told_with_the_limit_and_the_agent_is_stopped(make: Any) -> None:
    house = make(limits={"open_files": 1000})
    house.keeper.begin(resumed=False)
    live(
        house,
        0.02,
        change=lambda p, h: setattr(p, "open_files", 1000 if 0.008 < h < 0.013 else 20),
    )
    (over,) = house.events("run.over_limit")
    assert (over["limit"], over["used"], over["held"]) == ("open_files", 1000, "refused")
    assert stages(house) == []
    assert [e["end"] for e in house.events("run.ended")] == ["limit"]


def test_a_moment_with_all_files_open_stops_nobody(make: Any) -> None:
    house = make(limits={"open_files": 1000})
    house.keeper.begin(resumed=False)
    live(
        house,
        1,
        change=lambda p, h: setattr(p, "open_files", 1000 if 0.5 < h < 0.503 else 20),
    )
    assert house.events("run.ended") == []


def test_the_time_limit_is_told_when_it_is_reached_and_then_with_the_end(make: Any) -> None:
    house = make(limits={"wall": 60.0, "stop_grace": 20.0})
    house.keeper.begin(resumed=False)
    house.process.ignores.add(signal.SIGTERM)
    house.system.advance(60.0)
    (over,) = house.events("run.over_limit")
    assert (over["limit"], over["held"]) == ("wall", "draining")
    assert house.keeper.state is State.DRAINING
    assert house.events("run.ended") == []
    house.system.advance(20.1)
    assert house.events("run.ended")[0]["end"] == "wall-clock"
    assert [e["grace_s"] for e in house.events("run.ignored_sigterm")] == [20.0]


def test_a_scheduled_job_over_its_time_is_not_tried_again_before_its_next_time(make: Any) -> None:
    house = make(limits={"wall": 60.0}, schedule={"every": 86_400.0})
    house.keeper.begin(resumed=False)
    house.keeper.release("a test")
    house.system.advance(600.0)
    (ended,) = house.events("run.ended")
    assert (ended["end"], ended["next"]) == ("wall-clock", "stop")
    assert house.keeper.state is State.SCHEDULED
    assert len(house.system.launched) == 1


@pytest.mark.parametrize(
    ("lines", "code", "number"),
    [
        ([], None, signal.SIGXFSZ),
        ([], 128 + signal.SIGXFSZ, None),
        (["Traceback (most recent call last):", "OSError: [Errno 27] File too large"], 1, None),
        (["Error: EFBIG: file too large, write"], 1, None),
    ],
    ids=["signal", "through-a-shell", "python", "node"],
)
def test_a_file_that_may_grow_no_further_explains_the_end(
    make: Any, lines: list[str], code: int | None, number: int | None
) -> None:
    house = make(limits={"disk": 64 * MIB})
    house.keeper.begin(resumed=False)
    for line in lines:
        house.process.launch.on_output(line.encode() + b"\n")
    house.system.end(house.process, code=code, by=number)
    house.system.advance(0.1)
    (ended,) = house.events("run.ended")
    assert ended["end"] == "limit"
    assert "limits.disk, 64 MiB" in ended["reason"]


def test_without_a_disk_limit_the_same_words_are_an_ordinary_failure(make: Any) -> None:
    house = make()
    house.keeper.begin(resumed=False)
    house.process.launch.on_output(f"OSError: [Errno {errno.EFBIG}] File too large\n".encode())
    house.system.end(house.process, code=1)
    house.system.advance(0.1)
    assert house.events("run.ended")[0]["end"] != "limit"


def weigh(house: Any, *sizes: int | None) -> None:
    """Answer measurements with these sizes, the last one for ever."""
    queue = list(sizes)

    def answer(_name: str, done: Callable[[int | None], None]) -> None:
        done(queue.pop(0) if len(queue) > 1 else queue[0])

    house.keeper._around.weigh = answer


def test_a_directory_that_grows_over_the_limit_is_warned_of_then_stopped(make: Any) -> None:
    house = make(limits={"disk": 100 * MIB})
    weigh(house, 10 * MIB, 50 * MIB, 85 * MIB, 120 * MIB)
    house.keeper.begin(resumed=False)
    house.system.advance(180.0)
    assert [e["held"] for e in house.events("run.over_limit")][:2] == ["warned", "killed"]
    (ended,) = house.events("run.ended")
    assert ended["reason"] == "120 MiB in its directory, limits.disk is 100 MiB"


def test_what_lay_in_the_directory_before_is_not_held_against_the_run(make: Any) -> None:
    house = make(limits={"disk": 100 * MIB})
    weigh(house, 500 * MIB, 505 * MIB)
    house.keeper.begin(resumed=False)
    house.system.advance(HOUR)
    assert house.events("run.ended") == []
    assert [e["held"] for e in house.events("run.over_limit")] == ["warned"]


def test_a_directory_that_cannot_be_measured_stops_nobody(make: Any) -> None:
    house = make(limits={"disk": MIB})
    weigh(house, None)
    house.keeper.begin(resumed=False)
    house.system.advance(HOUR)
    assert house.events("run.over_limit") == []


def test_a_directory_that_could_not_be_measured_once_is_measured_again(make: Any) -> None:
    house = make(limits={"disk": 100 * MIB})
    weigh(house, None, None, 10 * MIB, 120 * MIB)
    house.keeper.begin(resumed=False)
    house.system.advance(200.0)
    assert house.events("run.over_limit")[0]["held"] == "killed"


def slowly(house: Any, took_s: float, *sizes: int) -> list[float]:
    """Answer measurements after so long; return when each was asked for."""
    queue, asked = list(sizes), []

    def answer(_name: str, done: Callable[[int | None], None]) -> None:
        asked.append(house.system.now())
        used = queue.pop(0) if len(queue) > 1 else queue[0]
        house.system.call_at(house.system.now() + took_s, lambda: done(used))

    house.keeper._around.weigh = answer
    return asked


def test_a_directory_that_takes_long_is_held_to_its_limit_and_that_is_told_once(make: Any) -> None:
    house = make(limits={"disk": 100 * MIB})
    asked = slowly(house, 300.0, 10 * MIB, 10 * MIB, 120 * MIB)
    house.keeper.begin(resumed=False)
    house.system.advance(1500.0 + 60.0)
    told = house.events("run.unmeasured")
    assert [(e["limit"], e["over"]) for e in told[:1]] == [("disk", False)]
    assert "takes longer than 1 minute to measure" in told[0]["reason"]
    assert [at - asked[0] for at in asked[:3]] == [0.0, 600.0, 1200.0]  # it rests as long
    ended = house.events("run.ended")[0]
    assert ended["reason"] == "120 MiB in its directory, limits.disk is 100 MiB"
    assert len({e["run_id"] for e in told}) == len(told)


def test_a_measurement_that_is_in_time_again_is_told_too(make: Any) -> None:
    house = make(limits={"disk": 100 * MIB})
    slowly(house, 90.0, 10 * MIB)
    house.keeper.begin(resumed=False)
    house.system.advance(100.0)
    slowly(house, 2.0, 10 * MIB)
    house.system.advance(HOUR)
    assert [e["over"] for e in house.events("run.unmeasured")] == [False, True]


def test_a_host_that_stood_still_measured_nothing_meanwhile(make: Any) -> None:
    house = make(limits={"disk": 100 * MIB})
    slowly(house, 40.0, 10 * MIB)
    house.keeper.begin(resumed=False)
    house.system.advance(30.0)
    house.system.stand_still(HOUR)
    house.system.advance(HOUR)
    assert house.events("run.unmeasured") == []
