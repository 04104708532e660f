"""A keeper's rights: its lease, the trial of a changed entry, and the way back. Time by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from midwatch.core.exits import Wish
from midwatch.core.fleet import Agent
from midwatch.core.states import State
from midwatch.supervisor.change.lease import RETRY_S, Leases
from midwatch.supervisor.change.versions import Versions

GOOD = {"command": ["agent"], "rollback": True, "restart": {"stable_after": 60.0, "attempts": 3, "backoff": (1.0, 8.0)}}  # fmt: skip


def fit(house: Any, *, leases: Leases | None = None, versions: Versions | None = None) -> None:
    around = house.keeper._around
    around.leases, around.versions = leases, versions


def other(tmp_path: Path, data: str = "other") -> Leases:
    folder = tmp_path / "leases"
    folder.mkdir(exist_ok=True, mode=0o700)
    return Leases(tmp_path / "midwatch.yaml", tmp_path / data, folder)


def test_an_agent_that_runs_elsewhere_is_parked_says_who_has_it_and_is_taken_over(
    make: Any, tmp_path: Path
) -> None:
    house, theirs = make(), other(tmp_path)
    theirs.take("inbox", house.keeper.agent, house.system.wall() - 60)
    fit(house, leases=other(tmp_path, "mine"))
    house.keeper.begin(resumed=False)
    assert house.keeper.state is State.PARKED
    assert "runs already under pid" in house.keeper.reason
    house.system.advance(4 * RETRY_S)
    # once, not at each try; and nothing counts as a failure
    assert len(house.events("agent.duplicate")) == 1
    assert house.events("agent.duplicate")[0]["data"] == str(tmp_path / "other")
    assert house.system.launched == []
    theirs.close()
    house.system.advance(RETRY_S)
    assert house.keeper.state in (State.STARTING, State.RUNNING)
    assert len(house.system.launched) == 1
    assert house.keeper.failures == 0


def test_a_stopped_agent_gives_its_lease_back_a_suspended_one_keeps_it(
    make: Any, tmp_path: Path
) -> None:
    house, mine = make(), other(tmp_path, "mine")
    fit(house, leases=mine)
    house.keeper.begin(resumed=False)
    house.keeper.finish(Wish.SUSPEND, "suspended")
    house.system.advance(1)
    assert house.keeper.state is State.SUSPENDED
    theirs = other(tmp_path)
    assert theirs.take("inbox", house.keeper.agent, 0.0) is not None
    house.keeper.hold(State.STOPPED, "stopped by a person")
    assert theirs.take("inbox", house.keeper.agent, 0.0) is None


def test_a_person_who_stops_a_duplicate_ends_the_asking(make: Any, tmp_path: Path) -> None:
    house, theirs = make(), other(tmp_path)
    theirs.take("inbox", house.keeper.agent, 0.0)
    fit(house, leases=other(tmp_path, "mine"))
    house.keeper.begin(resumed=False)
    house.keeper.hold(State.STOPPED, "stopped by a person")
    theirs.close()
    house.system.advance(10 * RETRY_S)
    assert (house.keeper.state, house.system.launched) == (State.STOPPED, [])


def trial(make: Any, versions: Versions, script: Any = ((0.5, "exit 1"),), **entry: Any) -> Any:
    """A keeper whose good entry is known, and that is begun with a changed one."""
    house = make((), **{**GOOD, **entry, "command": ["changed"]})
    house.system.programs["changed"] = script
    versions.prove("inbox", Agent.model_validate(GOOD))
    fit(house, versions=versions)
    return house


def keep() -> Versions:
    return Versions(None, b"secret")


def test_a_changed_entry_that_fails_is_taken_back_and_the_good_one_runs(make: Any) -> None:
    versions = keep()
    house = trial(make, versions)
    house.keeper.begin(resumed=False)
    house.system.advance(2.0)
    (told,) = house.events("agent.rolled_back")
    assert (told["keys"], told["end"]) == (["command"], "failed")
    assert house.events("run.ended")[0]["next"] == "restart"
    assert house.process.launch.command == ["agent"]
    assert (house.keeper.state, house.keeper.failures) == (State.RUNNING, 0)
    assert "taken back" in house.keeper.tenure.note
    # a new supervisor does not try it again, before the file is changed again
    changed = Agent.model_validate({**GOOD, "command": ["changed"]})
    assert versions.instead("inbox", changed)[0] == Agent.model_validate(GOOD)
    again = Agent.model_validate({**GOOD, "command": ["changed", "-v"]})
    assert versions.instead("inbox", again) == (again, "")


def test_a_changed_entry_that_is_stable_becomes_the_good_one(make: Any) -> None:
    versions = keep()
    house = trial(make, versions, [(90.0, "exit 1")])
    house.keeper.begin(resumed=False)
    house.system.advance(91.0)
    assert house.events("agent.rolled_back") == []
    assert house.events("run.ended")[0]["failures"] == 1
    good = versions.good("inbox")
    assert good is not None
    assert good.agent == house.keeper.agent


def test_without_rollback_nothing_is_taken_back(make: Any) -> None:
    house = trial(make, keep(), rollback=False)
    house.keeper.begin(resumed=False)
    house.system.advance(0.9)
    assert house.events("agent.rolled_back") == []
    assert house.events("run.ended")[0]["failures"] == 1


def test_a_person_who_restarts_a_changed_agent_takes_nothing_back(make: Any) -> None:
    house = trial(make, keep(), ())
    house.keeper.begin(resumed=False)
    house.system.advance(1.0)
    house.keeper.finish(Wish.RESTART, "restarted by a person")
    house.system.advance(1.0)
    assert house.events("agent.rolled_back") == []
    assert house.process.launch.command == ["changed"]


def test_a_run_says_what_it_was_made_of_and_shows_no_value(make: Any) -> None:
    versions = keep()
    house = make(env={"TOKEN": "hunter2"})
    fit(house, versions=versions)
    versions.starting("inbox", {"TOKEN": "hunter2", "MIDWATCH_RUN_ID": "r1"}, b"A=1")
    house.keeper.begin(resumed=False)
    (started,) = house.events("run.started")
    assert len(started["configuration"]) == len(started["environment"]) == 16
    assert "hunter2" not in str(started)
    first = started["environment"]
    versions.starting("inbox", {"TOKEN": "hunter2", "MIDWATCH_RUN_ID": "r2"}, b"A=1")
    same = versions.started("inbox", house.keeper.agent, "/")
    versions.starting("inbox", {"TOKEN": "hunter3", "MIDWATCH_RUN_ID": "r3"}, b"A=1")
    assert same.environment == first
    assert versions.started("inbox", house.keeper.agent, "/").environment != first
    assert Versions(None, b"another").keyed(b"x") != versions.keyed(b"x")
    # a key of the gateway is each run's own, under whatever name
    hashes: set[str] = set()
    for key in ("k1", "k2"):
        versions.starting("inbox", {"OPENAI_API_KEY": key, "A": "1"}, None, own=(key,))
        hashes.add(versions.started("inbox", house.keeper.agent, "/").environment)
    assert len(hashes) == 1


def test_a_changed_identity_gives_the_old_lease_back_and_takes_the_new_one(tmp_path: Path) -> None:
    mine, theirs = other(tmp_path, "mine"), other(tmp_path)
    old = Agent.model_validate({"command": ["agent"], "lease": "old"})
    new = old.model_copy(update={"lease": "new"})
    assert mine.take("inbox", old, 0.0) is None
    assert mine.take("inbox", new, 0.0) is None
    assert theirs.take("x", old, 0.0) is None
    assert theirs.take("y", new, 0.0) is not None


def test_a_run_that_was_begun_meanwhile_keeps_its_lease(make: Any, tmp_path: Path) -> None:
    house = make()
    fit(house, leases=other(tmp_path, "mine"))
    house.keeper.begin(resumed=False)
    # as a reload asks that disables the agent, and one that enables it again before its run has ended
    house.keeper.ended.append(house.keeper.tenure.leave)
    house.keeper.rest("not enabled in the fleet file")
    house.keeper.finish(Wish.CHANGE, "its entry changed: enabled")
    house.system.advance(1)
    assert len(house.system.launched) == 2
    assert house.keeper.state in (State.STARTING, State.RUNNING)
    assert other(tmp_path).take("inbox", house.keeper.agent, 0.0) is not None


def test_a_job_that_ran_elsewhere_is_not_made_up_for_when_that_one_lets_go(
    make: Any, tmp_path: Path
) -> None:
    """The other instance follows the same schedule: nothing was missed, and nothing is due at its end."""
    house, theirs = make(schedule={"every": 3600.0, "missed": "once"}), other(tmp_path)
    theirs.take("inbox", house.keeper.agent, 0.0)
    fit(house, leases=other(tmp_path, "mine"))
    house.keeper.begin(resumed=False)
    house.system.advance(3600.0)
    assert house.keeper.state is State.PARKED
    house.system.advance(600.0)
    theirs.close()
    house.system.advance(2 * RETRY_S)
    assert (house.keeper.state, house.system.launched) == (State.SCHEDULED, [])
    assert house.events("schedule.missed") == []
    house.system.advance(3600.0)
    assert len(house.system.launched) == 1
