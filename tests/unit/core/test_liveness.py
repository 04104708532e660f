"""Alive or hung: what counts as evidence, and that each kind of it ends."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.liveness import (
    MAX_CALL_S,
    MAX_CHILD_WORK_S,
    MAX_DRAIN_S,
    MAX_STEP_S,
    Evidence,
    child_worked,
    judge,
    mode_of,
)
from midwatch.core.terms import Heartbeat

BEAT = Heartbeat(every=60.0, missed=2)
START = Evidence(started=0.0)
BEATEN = Evidence(started=0.0, beat=100.0)


def test_two_missed_intervals_are_a_hang() -> None:
    assert not judge("heartbeat", BEAT, BEATEN, 219.9).hung
    judgement = judge("heartbeat", BEAT, BEATEN, 220.0)
    assert (judgement.hung, judgement.missed, judgement.silent_s) == (True, 2, 120.0)
    assert judgement.reason == (
        "no beat for 2 minutes: one is due every 1 minute, 2 missed; no open call, declared step or working child"
    )


def test_the_first_beat_is_due_too_when_beats_were_asked_for() -> None:
    judgement = judge("heartbeat", BEAT, START, 120.0)
    assert judgement.hung
    assert "since its start" in judgement.reason


def test_by_default_beats_are_due_only_after_the_first() -> None:
    assert mode_of(None, START) == "process"
    assert not judge(None, BEAT, START, 1e9).hung
    assert mode_of(None, BEATEN) == "heartbeat"
    assert judge(None, BEAT, BEATEN, 220.0).hung


@pytest.mark.parametrize("mode", ["process", "none"])
def test_process_and_none_never_call_a_living_process_hung(mode: str) -> None:
    judgement = judge(mode, BEAT, BEATEN, 1e9)  # type: ignore[arg-type]
    assert (judgement.hung, judgement.look_at) == (False, None)


def test_output_is_no_beat() -> None:
    printing = replace(BEATEN, output=219.0)
    assert judge("heartbeat", BEAT, printing, 220.0).hung
    assert not judge("output", BEAT, printing, 220.0).hung
    assert judge("output", BEAT, printing, 339.0).hung
    assert not judge("activity", BEAT, printing, 220.0).hung


def test_an_open_call_keeps_it_alive_for_an_hour_and_no_longer() -> None:
    calling = replace(BEATEN, call=110.0, call_open=110.0)
    assert not judge("heartbeat", BEAT, calling, 110.0 + MAX_CALL_S - 1).hung
    assert judge("heartbeat", BEAT, calling, 110.0 + MAX_CALL_S).hung


def test_a_call_that_never_ends_is_named_as_what_was_waited_for() -> None:
    calling = replace(BEATEN, call=110.0, call_open=110.0)
    judgement = judge("heartbeat", BEAT, calling, 110.0 + MAX_CALL_S)
    assert judgement.hung
    assert judgement.reason.endswith(
        "a call has been open for 1 hour, of which 1 hour excuse silence"
    )


def test_a_call_that_ended_gives_its_loop_a_fresh_interval() -> None:
    ended = replace(BEATEN, call=700.0)
    assert not judge("heartbeat", BEAT, ended, 819.0).hung
    assert judge("heartbeat", BEAT, ended, 820.0).hung


def test_a_declared_step_of_40_minutes_keeps_it_alive_and_ends() -> None:
    stepping = replace(BEATEN, step_until=100.0 + 2400)
    assert not judge("heartbeat", BEAT, stepping, 2559.0).hung
    assert judge("heartbeat", BEAT, stepping, 2560.0).hung
    forever = replace(BEATEN, step_until=1e12)
    assert judge("heartbeat", BEAT, forever, 100.0 + MAX_STEP_S + 60).hung


def test_working_children_keep_it_alive_until_the_bound() -> None:
    working = replace(BEATEN, child_work=210.0)
    assert not judge("heartbeat", BEAT, working, 329.0).hung
    assert judge("heartbeat", BEAT, working, 330.0).hung
    for_ever = replace(BEATEN, child_work=100.0 + MAX_CHILD_WORK_S)
    assert judge("heartbeat", BEAT, for_ever, 100.0 + MAX_CHILD_WORK_S).hung


def test_draining_is_not_judged_for_ten_minutes() -> None:
    draining = replace(BEATEN, draining=150.0)
    assert not judge("heartbeat", BEAT, draining, 150.0 + MAX_DRAIN_S - 1).hung
    assert judge("heartbeat", BEAT, draining, 150.0 + MAX_DRAIN_S).hung


def test_time_in_which_nobody_could_be_heard_does_not_count() -> None:
    assert not judge("heartbeat", BEAT, BEATEN.shifted(50.0), 220.0).hung


def test_a_look_is_due_before_the_end_so_that_children_can_be_compared() -> None:
    assert judge("heartbeat", BEAT, BEATEN, 101.0).look_at == 160.0
    assert judge("heartbeat", BEAT, BEATEN, 160.0).look_at == 220.0
    once = Heartbeat(every=60.0, missed=1)
    assert judge("heartbeat", once, BEATEN, 101.0).look_at == 130.0


def test_children_that_only_idle_do_not_work() -> None:
    assert child_worked(10.7, 10.0, 60.0)
    assert not child_worked(10.5, 10.0, 60.0)
    assert not child_worked(10.01, 10.0, 0.1)


moments = st.none() | st.floats(0, 1e5)


@given(
    evidence=st.builds(
        Evidence,
        started=st.just(0.0),
        beat=moments,
        output=moments,
        call=moments,
        call_open=moments,
        step_until=moments,
        child_work=moments,
        draining=moments,
    ),
    mode=st.sampled_from(["heartbeat", "activity", "output"]),
    now=st.floats(1e5, 1e6),
)
def test_whoever_is_not_hung_is_looked_at_again_later(
    evidence: Evidence, mode: str, now: float
) -> None:
    judgement = judge(mode, BEAT, evidence, now)  # type: ignore[arg-type]
    assert judgement.hung or (judgement.look_at is not None and judgement.look_at > now)
    # nothing keeps it alive for ever
    assert judge(mode, BEAT, evidence, 1e5 + MAX_STEP_S + MAX_CHILD_WORK_S + 1e4).hung  # type: ignore[arg-type]
