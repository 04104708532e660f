"""`slow-but-alive` and its variants on a clock by hand: nobody who works is ended, whatever happens to
time, hub or disk; and beside each, its counterpart that really hangs and must be found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from midwatch.core.fleet import Agent
from midwatch.core.states import State
from midwatch.supervisor.journal import Journal
from midwatch.supervisor.keeper import Keeper
from midwatch.supervisor.machine.fake import FakeSystem
from midwatch.supervisor.output.capture import Capture, Writer
from midwatch.supervisor.reporter import Recorder, Reports
from midwatch.supervisor.surroundings import Surroundings
from midwatch.wire.items import Item, Kind
from midwatch.wire.notify import Notice

HOUR = 3600.0
DAY = 86_400.0
RESTART = {"when": "failure", "attempts": 3, "backoff": (1.0, 8.0), "cooldown": 100.0}
BEATS: dict[str, Any] = {
    "liveness": "heartbeat",
    "heartbeat": {"every": 60.0, "missed": 2},
    "restart": RESTART,
}
BEAT = Notice(beat=True)


class AwayHub(Recorder):
    """A transport whose spool is full as well: every report is dropped."""

    def submit(self, kind: Kind, item: Item) -> bool:
        super().submit(kind, item)
        return False


@dataclass
class Night:
    """One agent under its keeper, and a socket in which its words wait until somebody reads."""

    system: FakeSystem
    keeper: Keeper
    recorder: Recorder
    socket: list[Notice] = field(default_factory=list[Notice])

    def hear_now(self, _name: str = "") -> None:
        waiting, self.socket[:] = list(self.socket), []
        for notice in waiting:
            self.keeper.hear(notice)

    def say(self, notice: Notice) -> None:
        self.socket.append(notice)
        self.hear_now()

    def work(
        self, seconds: float, act: Callable[[], None] | None = None, every: float = 30.0
    ) -> None:
        """Let time pass as usual; the agent beats, or does `act`, again and again."""
        end = self.system.now() + seconds
        while self.system.now() < end:
            (act or (lambda: self.say(BEAT)))()
            self.system.advance(min(every, end - self.system.now()))
        if act is None:
            self.say(BEAT)

    def stand_still(self, seconds: float, *, heard_first: bool = True) -> None:
        """Nobody of us runs for a while; then timers ring late, and the tick sees how late it is."""
        self.system.stand_still(seconds)
        if heard_first:
            self.keeper.forgive(seconds)
            self.system.advance(0.0)
        else:
            self.system.advance(0.0)
            self.keeper.forgive(seconds)

    @property
    def lives(self) -> int:
        return len(self.system.launched)

    @property
    def hung(self) -> int:
        return len(self.recorder.events("run.hung"))

    def must_be_untouched(self) -> None:
        assert (self.lives, self.hung) == (1, 0)
        assert self.system.launched[0].signals == []
        assert self.keeper.state in (State.RUNNING, State.DRAINING)

    def must_be_found(self, within_s: float) -> None:
        self.system.advance(within_s)
        assert self.hung >= 1
        assert self.lives >= 2


@pytest.fixture(scope="module")
def writer() -> Any:
    shared = Writer()
    yield shared
    shared.close()


@pytest.fixture
def night(tmp_path: Path, writer: Writer) -> Callable[..., Night]:
    def make(
        recorder: Recorder | None = None, journal: Journal | None = None, **entry: Any
    ) -> Night:
        system = FakeSystem()
        system.programs["agent"] = ()
        recorder = recorder or Recorder()
        kept: list[Night] = []
        around = Surroundings(
            system=system,
            journal=journal or Journal(tmp_path / "journal"),
            reports=Reports(recorder, "here"),
            say=lambda _: None,
            environment=lambda _name, _entry, run_id: {"MIDWATCH_RUN_ID": run_id},
            directory=lambda _: "/",
            fingerprint=lambda entry: str(entry.command),
            hear_now=lambda name: kept[0].hear_now(name),
            random=lambda: 0.0,
        )
        agent = Agent.model_validate({**BEATS, "command": ["agent"], **entry})
        keeper = Keeper("inbox", agent, around, Capture(writer, tmp_path))
        kept.append(Night(system, keeper, recorder))
        keeper.begin(resumed=False)
        system.advance(1.0)
        return kept[0]

    return make


Make = Callable[..., Night]


# -- what it declares ----------------------------------------------------------------------------


def test_a_tool_call_of_40_minutes(night: Make) -> None:
    one = night()
    one.work(300.0)
    one.say(Notice(call="open"))
    one.system.advance(2400.0)
    one.say(Notice(call="done"))
    one.work(600.0)
    one.must_be_untouched()


def test_a_declared_step_of_40_minutes(night: Make) -> None:
    one = night()
    one.work(300.0)
    one.say(Notice(extend_s=2400.0, status="downloading 3 GB"))
    one.system.advance(2399.0)
    one.work(600.0)
    one.must_be_untouched()


def test_a_silent_model_call_of_10_minutes(night: Make) -> None:
    one = night()
    one.work(300.0)
    one.say(Notice(call="open"))
    one.system.advance(600.0)
    one.must_be_untouched()


def test_many_calls_in_one_long_cycle(night: Make) -> None:
    one = night()
    one.say(BEAT)
    for _ in range(60):
        one.say(Notice(call="open"))
        one.system.advance(90.0)
        one.say(Notice(call="done"))
        one.system.advance(30.0)
    one.must_be_untouched()


def test_children_that_work_for_an_hour(night: Make) -> None:
    one = night()
    one.say(BEAT)

    def compile_on() -> None:
        one.system.launched[0].children_cpu_s += 20.0

    one.work(HOUR, compile_on)
    one.must_be_untouched()


def test_a_clean_up_that_takes_minutes(night: Make) -> None:
    one = night()
    one.work(300.0)
    one.say(Notice(draining=True))
    one.system.advance(500.0)
    one.must_be_untouched()


@pytest.mark.parametrize(
    "excuse",
    [
        Notice(),
        Notice(call="open"),
        Notice(extend_s=2400.0),
        Notice(draining=True),
    ],
    ids=["nothing", "a call", "a step", "draining"],
)
def test_whoever_falls_silent_beyond_every_excuse_is_found(night: Make, excuse: Notice) -> None:
    one = night()
    one.work(300.0)
    one.say(excuse)
    one.must_be_found(within_s=HOUR + 130.0)


def test_a_side_thread_that_prints_and_computes_hides_no_hang(night: Make) -> None:
    one = night()
    one.work(300.0)

    def answer_health_checks() -> None:
        process = one.system.launched[0]
        process.launch.on_output(b"health check: ok\n")
        process.own_cpu_s += 5.0

    one.work(115.0, answer_health_checks, every=1.0)
    assert one.hung == 0
    one.work(10.0, answer_health_checks, every=1.0)
    assert (one.hung, one.lives) == (1, 2)


# -- what happens to the host --------------------------------------------------------------------


@pytest.mark.parametrize("heard_first", [True, False], ids=["tick first", "timers first"])
@pytest.mark.parametrize(
    "doing",
    [BEAT, Notice(call="open"), Notice(extend_s=2400.0), Notice(draining=True)],
    ids=["between beats", "in a call", "in a step", "draining"],
)
def test_a_laptop_that_sleeps_an_hour_with_a_clock_that_goes_on(
    night: Make, doing: Notice, heard_first: bool
) -> None:
    """As CLOCK_BOOTTIME counts: every timer is late at once."""
    one = night()
    one.work(300.0)
    one.say(doing)
    one.system.advance(100.0)
    one.stand_still(HOUR, heard_first=heard_first)
    one.system.advance(15.0)
    one.work(300.0)
    one.must_be_untouched()


def test_a_laptop_that_sleeps_an_hour_with_a_clock_that_stops(night: Make) -> None:
    """As CLOCK_MONOTONIC counts on Linux: only the wall clock jumps."""
    one = night()
    one.work(300.0)
    one.system.advance(100.0)
    one.system.jump_wall(HOUR)
    one.system.advance(15.0)
    one.work(300.0)
    one.must_be_untouched()


def test_a_night_of_many_short_sleeps(night: Make) -> None:
    one = night()
    for _ in range(50):
        one.work(60.0)
        one.stand_still(600.0)
    one.must_be_untouched()


def test_whoever_does_not_wake_up_with_the_laptop_is_found(night: Make) -> None:
    one = night()
    one.work(300.0)
    one.stand_still(HOUR)
    assert one.hung == 0
    one.must_be_found(within_s=125.0)


def test_a_supervisor_that_is_stopped_and_continued_hears_first_and_judges_then(
    night: Make,
) -> None:
    """SIGSTOP and SIGCONT: the agent went on meanwhile, and its words wait in the socket."""
    one = night()
    one.work(300.0)
    one.system.advance(100.0)
    one.socket.extend([BEAT] * 20)
    one.stand_still(HOUR, heard_first=False)
    one.system.advance(100.0)
    one.must_be_untouched()


def test_a_hang_that_began_while_the_supervisor_was_stopped_is_found(night: Make) -> None:
    one = night()
    one.work(300.0)
    one.stand_still(HOUR, heard_first=False)
    one.must_be_found(within_s=125.0)


@pytest.mark.parametrize("by", [DAY, -DAY], ids=["a day ahead", "a day back"])
def test_a_wall_clock_that_is_set(night: Make, by: float) -> None:
    one = night()
    one.work(300.0)
    one.system.jump_wall(by)
    one.work(300.0)
    one.system.jump_wall(-by)
    one.work(300.0)
    one.must_be_untouched()


@pytest.mark.parametrize("by", [DAY, -DAY], ids=["a day ahead", "a day back"])
def test_a_wall_clock_that_is_set_hides_no_hang(night: Make, by: float) -> None:
    one = night()
    one.work(300.0)
    one.system.jump_wall(by)
    one.must_be_found(within_s=125.0)


@pytest.mark.parametrize("by", [DAY, -DAY], ids=["a day ahead", "a day back"])
def test_a_limit_of_time_is_not_measured_on_the_wall(night: Make, by: float) -> None:
    one = night(limits={"wall": 2 * HOUR})
    one.work(HOUR)
    one.system.jump_wall(by)
    one.work(HOUR - 60.0)
    one.must_be_untouched()
    one.work(90.0)
    assert one.recorder.events("run.ended")[0]["end"] == "wall-clock"


@pytest.mark.parametrize("by", [DAY, -DAY], ids=["a day ahead", "a day back"])
def test_a_scheduled_run_is_not_ended_by_a_clock_that_is_set(night: Make, by: float) -> None:
    one = night(schedule={"cron": "0 * * * *"}, liveness="process")
    while one.lives == 0:
        one.system.advance(60.0)
    one.system.advance(60.0)
    one.system.jump_wall(by)
    one.system.advance(300.0)
    one.must_be_untouched()


# -- what happens to us --------------------------------------------------------------------------


def test_a_hub_that_is_away_for_an_hour(night: Make) -> None:
    away = AwayHub()
    one = night(recorder=away)
    one.work(HOUR)
    one.must_be_untouched()
    assert away.items  # it was told, and nobody took it


def test_a_hang_while_the_hub_is_away_is_ended_all_the_same(night: Make) -> None:
    one = night(recorder=AwayHub())
    one.work(300.0)
    one.must_be_found(within_s=125.0)


def test_a_disk_that_takes_half_a_minute_for_a_line(night: Make, tmp_path: Path) -> None:
    """The loop stands still in a write; the agent beats on, into the socket."""
    one = night(journal=Journal(tmp_path / "slow"))
    one.work(300.0)
    for _ in range(20):
        one.socket.extend([BEAT] * 3)
        one.stand_still(100.0, heard_first=False)
        one.system.advance(2.0)
    one.must_be_untouched()


# -- modes ---------------------------------------------------------------------------------------


def _print(one: Night) -> None:
    one.system.launched[-1].launch.on_output(b"still here\n")


def _compute(one: Night) -> None:
    one.system.launched[-1].own_cpu_s += 3.0


SIGNS: dict[str, Callable[[Night], None]] = {
    "beat": lambda one: one.say(BEAT),
    "output": _print,
    "call": lambda one: one.say(Notice(call="done")),
    "processor": _compute,
    "nothing": lambda _: None,
}
ALIVE = {
    "heartbeat": {"beat", "call"},
    "activity": {"beat", "output", "call", "processor"},
    "output": {"beat", "output", "call"},
    "process": set(SIGNS),
    "none": set(SIGNS),
}


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("mode", ALIVE)
def test_each_mode_knows_its_own_signs_of_life(night: Make, mode: str, sign: str) -> None:
    one = night(liveness=mode)
    one.work(600.0, lambda: SIGNS[sign](one), every=30.0)
    assert (one.hung == 0) == (sign in ALIVE[mode])


def test_computing_alone_is_seen_by_samples_and_counts_as_activity(night: Make) -> None:
    """A model that runs inside of the agent: no word, no line, hours of work."""
    one = night(liveness="activity")

    def infer() -> None:
        one.system.launched[0].own_cpu_s += 9.0

    one.work(2 * HOUR, infer, every=10.0)
    one.must_be_untouched()
    one.must_be_found(within_s=200.0)
