"""A job that is let go by a changed entry waits for its time, whatever it was before."""

from __future__ import annotations

import signal
from typing import Any

from midwatch.core.states import State

HOURLY = {"cron": "0 * * * *"}


def test_an_agent_that_is_enabled_again_waits_for_its_time(nights: Any) -> None:
    night = nights(HOURLY, enabled=False).begin()
    keeper = night.keeper
    assert keeper.state is State.STOPPED
    night.system.advance(3600)
    assert night.starts() == []
    keeper.take(keeper.agent.model_copy(update={"enabled": True}))
    keeper.wait("its entry changed: enabled")
    assert (keeper.state, keeper.run) == (State.SCHEDULED, None)
    assert keeper.reason.startswith("next run at 2026-06-10 14:00")
    night.system.advance(29 * 60)
    assert night.starts() == []
    night.system.advance(2 * 60)
    assert night.dues == ["10 14:00"]
    assert keeper.odd_edges == 0


def test_a_parked_one_is_forgiven_and_waits_for_its_time(nights: Any) -> None:
    night = nights(HOURLY, script=((1.0, "exit 1"),)).begin()
    keeper = night.keeper
    night.system.advance(1800 + 120)
    assert keeper.state is State.PARKED
    tried = len(night.starts())
    keeper.take(keeper.agent.model_copy(update={"group": "other"}))
    keeper.wait("its entry changed: group")
    night.system.advance(1)
    assert (keeper.state, keeper.failures, night.journal.of("report").held) == (
        State.SCHEDULED, 0, None,
    )  # fmt: skip
    assert len(night.starts()) == tried
    night.system.advance(3600)
    assert night.dues == ["10 13:00", "10 14:00"]
    assert keeper.odd_edges == 0


def test_a_restart_that_was_waited_for_is_not_made(nights: Any) -> None:
    night = nights(HOURLY, script=((1.0, "exit 1"),)).begin()
    keeper = night.keeper
    night.system.advance(1800 + 1.5)
    assert keeper.state is State.BACKING_OFF
    tried = len(night.starts())
    keeper.wait("its entry changed: schedule")
    night.system.advance(600)
    assert (keeper.state, len(night.starts())) == (State.SCHEDULED, tried)
    assert keeper.odd_edges == 0


def test_an_end_that_is_not_judged_yet_starts_nothing(nights: Any) -> None:
    night = nights(HOURLY, script=()).begin()
    keeper = night.keeper
    night.system.advance(1800 + 5)
    night.system.signal(keeper.run.process, signal.SIGTERM)  # not ours: it is in doubt for a moment
    night.system.advance(0.01)
    assert (keeper.run, keeper.state) == (None, State.RUNNING)
    keeper.wait("its entry changed: command")
    night.system.advance(60)
    assert (keeper.state, keeper.run, len(night.starts())) == (State.SCHEDULED, None, 1)
