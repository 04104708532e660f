"""One agent kept by the rules, on a system without processes and with time by hand."""

from __future__ import annotations

import errno
import signal
from typing import Any

import pytest

from midwatch.core.exits import Wish
from midwatch.core.states import State
from midwatch.supervisor.journal import Journal
from midwatch.supervisor.machine.system import StartError
from midwatch.wire.items import Kind
from midwatch.wire.notify import Notice


def test_an_agent_is_started_and_counts_as_running_after_a_moment(make: Any) -> None:
    house = make()
    house.keeper.begin(resumed=False)
    assert house.keeper.state is State.STARTING
    house.system.advance(1.0)
    assert house.keeper.state is State.RUNNING
    assert [e["state"] for e in house.events("agent.state")] == ["starting", "running"]
    assert house.events("run.started")[0]["why"] == "first start"
    assert house.journal.of("inbox").pid == house.process.pid


def test_a_key_on_its_command_line_is_given_to_it_but_told_to_nobody(make: Any) -> None:
    key = "hf_" + "a1B2" * 9
    house = make(command=["agent", f"--token={key}"])
    house.keeper.begin(resumed=False)
    (started,) = house.events("run.started")
    assert started["command"] == ["agent", "--token=hf_a1B2[redacted]"]
    assert house.system.launched[0].launch.command == ["agent", f"--token={key}"]


def test_ready_makes_it_running_at_once(make: Any) -> None:
    house = make()
    house.keeper.begin(resumed=False)
    house.keeper.hear(Notice(ready=True))
    assert house.keeper.state is State.RUNNING


def test_a_silent_exit_is_reported_and_restarted(make: Any) -> None:
    house = make([(5.0, "print working"), (10.0, "exit 0")])
    house.keeper.begin(resumed=False)
    house.system.advance(10.0)
    (ended,) = house.events("run.ended")
    assert {
        k: ended[k]
        for k in ("end", "exit_code", "expected", "next", "next_in_s", "failures", "tail")
    } == {
        "end": "silent",
        "exit_code": 0,
        "expected": False,
        "next": "restart",
        "next_in_s": 1.0,
        "failures": 1,
        "tail": ["working"],
    }
    assert house.keeper.state is State.BACKING_OFF
    house.system.advance(1.0)
    assert (house.keeper.state, len(house.system.launched)) == (State.STARTING, 2)


def test_done_and_exit_0_is_finished_without_an_incident(make: Any) -> None:
    house = make([(1.0, "exit 0")])
    house.keeper.begin(resumed=False)
    house.keeper.hear(Notice(done=True))
    house.system.advance(100.0)
    (ended,) = house.events("run.ended")
    assert (ended["end"], ended["expected"], house.keeper.state) == (
        "finished",
        True,
        State.STOPPED,
    )
    assert len(house.system.launched) == 1


def test_a_crash_loop_is_parked_after_its_attempts_and_stays_parked(make: Any) -> None:
    house = make([(0.1, "exit 1")])
    house.keeper.begin(resumed=False)
    house.system.advance(1000.0)
    assert (house.keeper.state, len(house.system.launched)) == (State.PARKED, 4)
    ends = house.events("run.ended")
    assert [e["failures"] for e in ends] == [1, 2, 3, 4]
    assert [e["next"] for e in ends] == ["restart", "restart", "restart", "park"]
    assert house.journal.of("inbox").held == "parked"
    # a new supervisor does not begin the loop again
    later = house.another(house.journal)
    later.keeper.begin(resumed=True)
    later.system.advance(1000.0)
    assert (later.keeper.state, len(house.system.launched)) == (State.PARKED, 4)


def test_a_parked_agent_whose_entry_changed_gets_another_chance(make: Any) -> None:
    house = make([(0.1, "exit 1")])
    house.keeper.begin(resumed=False)
    house.system.advance(1000.0)
    house.system.programs["repaired"] = ()
    house.keeper.agent = house.keeper.agent.model_copy(update={"command": ["repaired"]})
    later = house.another(house.journal)
    later.keeper.begin(resumed=False)
    assert later.keeper.state is State.STARTING


def test_a_refused_key_is_parked_at_once_with_its_name(make: Any) -> None:
    house = make(
        [
            (0.1, "print openai.AuthenticationError: Error code: 401 - Incorrect API key provided"),
            (0.2, "exit 1"),
        ]
    )
    house.keeper.begin(resumed=False)
    house.system.advance(100.0)
    (ended,) = house.events("run.ended")
    assert (ended["end"], ended["credential"]) == ("credentials", "OPENAI_API_KEY")
    assert ended["next"] == "park"
    assert len(house.system.launched) == 1


def test_a_program_that_does_not_exist_is_parked_with_what_to_do(make: Any) -> None:
    house = make(command=["no-such-program"])
    house.keeper.begin(resumed=False)
    assert house.keeper.state is State.PARKED
    assert house.events("run.ended")[0]["end"] == "cannot-start"
    assert any("not found on PATH" in line for line in house.said)


def test_a_missing_env_file_is_parked_with_what_to_do(make: Any) -> None:
    house = make(env_file=".env")
    house.keeper.begin(resumed=False)
    assert house.keeper.state is State.PARKED
    assert "cannot read '.env'" in house.keeper.reason


def test_a_stable_run_is_told_and_forgives_earlier_failures(make: Any) -> None:
    house = make()
    house.keeper.begin(resumed=False)
    house.system.end(house.process, code=1)
    house.system.advance(1.5)
    assert house.keeper.failures == 1
    house.system.advance(60.0)
    assert house.keeper.failures == 0
    assert house.events("agent.recovered") == [{"stable_s": 60.0}]


# -- liveness -----------------------------------------------------------------------------------

HEARTBEAT = {"liveness": "heartbeat", "heartbeat": {"every": 10.0, "missed": 2}}


def beat(house: Any, seconds: int) -> None:
    for _ in range(seconds):
        house.keeper.hear(Notice(beat=True))
        house.system.advance(1.0)


def test_a_hung_agent_is_asked_for_its_stack_killed_and_restarted(make: Any) -> None:
    house = make(**HEARTBEAT)
    house.keeper.begin(resumed=False)
    beat(house, 30)
    first = house.process
    first.ignores.add(signal.SIGABRT)
    house.system.advance(19.0)
    assert (house.keeper.state, first.signals[-1:]) == (State.UNHEALTHY, [signal.SIGABRT])
    (hung,) = house.events("run.hung")
    assert (hung["silent_s"], hung["missed"], hung["interval_s"]) == (20.0, 2, 10.0)
    house.system.advance(0.5)
    assert first.signals[-1] == signal.SIGTERM
    (ended,) = house.events("run.ended")
    assert (ended["end"], ended["next"], ended["expected"]) == ("hung", "restart", False)
    house.system.advance(1.0)
    assert len(house.system.launched) == 2


def test_a_hung_agent_that_ignores_everything_is_killed_with_its_tree(make: Any) -> None:
    house = make([(0.0, "ignore ABRT"), (0.0, "ignore TERM"), (0.0, "fork")], **HEARTBEAT)
    house.keeper.begin(resumed=False)
    first = house.process
    house.system.advance(22.0)
    assert first.signals[-1] == signal.SIGKILL
    assert house.events("run.ended")[0]["end"] == "hung"


def test_a_slow_but_living_agent_is_left_alone(make: Any) -> None:
    house = make(**HEARTBEAT)
    house.keeper.begin(resumed=False)
    house.keeper.hear(Notice(beat=True, call="open"))
    house.system.advance(600.0)  # one model call of ten minutes
    house.keeper.hear(Notice(call="done"))
    house.keeper.hear(Notice(beat=True))
    house.keeper.hear(Notice(extend_s=2400.0))  # one declared step of forty
    house.system.advance(2400.0)
    house.keeper.hear(Notice(beat=True))
    for _ in range(60):  # children that work
        house.process.children_cpu_s += 5.0
        house.system.advance(10.0)
    assert house.events("run.hung") == []
    assert len(house.system.launched) == 1
    house.system.advance(21.0)  # and then nothing at all
    assert len(house.events("run.hung")) == 1


def test_an_agent_that_never_beats_is_not_hung_by_default(make: Any) -> None:
    house = make(heartbeat={"every": 10.0, "missed": 2})
    house.keeper.begin(resumed=False)
    house.system.advance(10_000.0)
    assert house.events("run.hung") == []
    house.keeper.hear(Notice(beat=True))
    house.system.advance(20.0)
    assert len(house.events("run.hung")) == 1


def test_the_second_hang_in_a_row_waits_for_the_cooldown(make: Any) -> None:
    house = make(**HEARTBEAT)
    house.keeper.begin(resumed=False)
    house.system.advance(22.0)
    assert len(house.system.launched) == 2
    house.system.advance(60.0)
    assert (house.keeper.state, len(house.system.launched)) == (State.UNHEALTHY, 2)
    assert len(house.events("run.hung")) == 2
    house.system.advance(60.0)
    assert len(house.system.launched) == 3


def test_evidence_during_the_cooldown_heals(make: Any) -> None:
    house = make(**HEARTBEAT)
    house.keeper.begin(resumed=False)
    house.system.advance(45.0)
    assert house.keeper.state is State.UNHEALTHY
    house.keeper.hear(Notice(beat=True))
    assert house.keeper.state is State.RUNNING
    beat(house, 200)
    assert len(house.system.launched) == 2


def test_nobody_is_blamed_for_time_in_which_the_host_stood_still(make: Any) -> None:
    house = make(**HEARTBEAT)
    house.keeper.begin(resumed=False)
    house.keeper.hear(Notice(beat=True))
    house.keeper.forgive(100.0)
    house.system.advance(100.0)
    assert house.events("run.hung") == []


def test_draining_is_a_state_and_its_exit_is_no_failure(make: Any) -> None:
    house = make(**HEARTBEAT)
    house.keeper.begin(resumed=False)
    beat(house, 3)
    house.keeper.hear(Notice(draining=True))
    assert house.keeper.state is State.DRAINING
    house.system.advance(300.0)
    house.system.end(house.process, code=0)
    house.system.advance(0.1)
    assert house.events("run.hung") == []
    assert house.events("run.ended")[0]["end"] == "finished"


# -- limits -------------------------------------------------------------------------------------


def test_memory_at_its_limit_kills_and_says_how_fast_it_grew(make: Any) -> None:
    house = make(limits={"memory": 100_000_000})
    house.keeper.begin(resumed=False)
    process = house.process
    for second in range(100):
        process.rss_bytes += 1_000_000
        house.system.advance(1.0)
        if second % 10 == 0:  # the supervisor's regular sample
            house.keeper.sampled(house.system.sample([process]).get(process.pid))
    (ended,) = house.events("run.ended")
    assert (ended["end"], ended["rss_limit_bytes"]) == ("out-of-memory", 100_000_000)
    assert ended["rss_bytes"] >= 100_000_000
    assert ended["rss_slope_bytes_h"] == pytest.approx(3.6e9, rel=0.1)
    assert "an hour" in ended["reason"]


def test_the_wall_limit_drains_then_kills(make: Any) -> None:
    house = make([(0.0, "ignore TERM")], limits={"wall": 50.0, "stop_grace": 5.0})
    house.keeper.begin(resumed=False)
    house.system.advance(50.0)
    assert (house.keeper.state, house.process.signals[0]) == (State.DRAINING, signal.SIGTERM)
    house.system.advance(5.0)
    assert house.events("run.ended")[0]["end"] == "wall-clock"


# -- people -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wish", "state", "end"),
    [
        (Wish.STOP, State.STOPPED, "operator"),
        (Wish.SUSPEND, State.SUSPENDED, "suspended"),
        (Wish.KILL, State.STOPPED, "operator"),
    ],
)
def test_what_a_person_holds_survives_the_supervisor(
    make: Any, wish: Wish, state: State, end: str
) -> None:
    house = make()
    house.keeper.begin(resumed=False)
    house.keeper.finish(wish, "asked", kill=wish is Wish.KILL)
    house.system.advance(1.0)
    assert (house.keeper.state, house.events("run.ended")[0]["end"]) == (state, end)
    again = house.another(Journal(house.journal.path))
    again.keeper.begin(resumed=True)
    again.system.advance(100.0)
    assert (again.keeper.state, len(house.system.launched)) == (state, 1)
    again.keeper.release("by a person")
    assert again.keeper.state is State.STARTING


def test_a_stop_that_is_ignored_ends_in_a_kill_after_the_grace(make: Any) -> None:
    house = make([(0.0, "ignore TERM")], limits={"stop_grace": 20.0})
    house.keeper.begin(resumed=False)
    house.system.advance(1.0)
    house.keeper.finish(Wish.STOP, "asked")
    house.system.advance(19.0)
    assert house.keeper.state is State.DRAINING
    house.system.advance(1.1)
    assert house.keeper.state is State.STOPPED
    assert any("did not stop within 20 seconds" in line for line in house.said)


def test_a_restart_by_a_person_starts_at_once_and_counts_no_failure(make: Any) -> None:
    house = make()
    house.keeper.begin(resumed=False)
    house.keeper.finish(Wish.RESTART, "restarted by a person")
    house.system.advance(0.1)
    assert (house.keeper.state, len(house.system.launched), house.keeper.failures) == (
        State.STARTING,
        2,
        0,
    )


def test_shutting_down_starts_nothing_again(make: Any) -> None:
    house = make([(0.5, "exit 1")])
    house.keeper.begin(resumed=False)
    house.keeper.shut_down()
    house.system.advance(100.0)
    assert (house.keeper.state, len(house.system.launched)) == (State.STOPPED, 1)
    assert house.journal.of("inbox").held is None


def test_a_backing_off_agent_does_not_start_during_a_shutdown(make: Any) -> None:
    house = make([(0.5, "exit 1")])
    house.keeper.begin(resumed=False)
    house.system.advance(0.6)
    assert house.keeper.state is State.BACKING_OFF
    house.keeper.shut_down()
    house.system.advance(100.0)
    assert len(house.system.launched) == 1


def test_after_the_supervisors_death_failures_still_count(make: Any) -> None:
    house = make([(0.1, "exit 1")])
    house.keeper.begin(resumed=False)
    house.system.advance(1.2)
    assert house.keeper.failures == 2
    again = house.another(Journal(house.journal.path))
    again.keeper.begin(resumed=True)
    again.system.advance(1000.0)
    assert [e["failures"] for e in again.events("run.ended")] == [3, 4]


def test_a_run_that_died_with_its_supervisor_is_history_and_no_failure(make: Any) -> None:
    house = make()
    house.keeper.begin(resumed=False)
    run_id = house.keeper.run.run_id
    again = house.another(Journal(house.journal.path))
    again.keeper.begin(resumed=True)
    runs = [item for kind, item in again.recorder.items if kind is Kind.RUN]
    assert (runs[0]["run_id"], runs[0]["end"]) == (run_id, "lost")
    assert again.events("run.ended") == []
    assert again.events("run.started")[0]["why"] == "resumed after the supervisor had died"


def test_every_change_of_state_follows_the_table(make: Any) -> None:
    house = make([(0.5, "exit 1")], **HEARTBEAT)
    house.keeper.begin(resumed=False)
    house.system.advance(500.0)
    house.keeper.release("by a person")
    house.keeper.finish(Wish.SUSPEND, "asked")
    house.system.advance(5.0)
    house.keeper.release("resumed")
    house.keeper.shut_down()
    house.system.advance(5.0)
    assert house.keeper.odd_edges == 0


def test_a_start_that_fails_for_ever_does_not_pile_up_on_the_stack(make: Any) -> None:
    rules = {"when": "failure", "attempts": 3000, "backoff": (0.0, 0.0)}
    house = make(restart=rules)
    tries = 0

    def spawn(_launch: object) -> None:
        nonlocal tries
        tries += 1
        raise StartError(errno.EAGAIN, "cannot start 'agent': no processes left")

    house.system.spawn = spawn
    house.keeper.begin(resumed=False)
    assert tries == 1
    house.system.advance(1)
    assert tries == 3001
    assert house.keeper.state is State.PARKED
