"""A start that waits for the last good code: what happens meanwhile, and what is told. Time by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from midwatch.core.change import Entry
from midwatch.core.fleet import Agent
from midwatch.core.states import State
from midwatch.core.versions import Revision
from midwatch.supervisor.change.good import Back
from midwatch.supervisor.change.placing import Supply
from midwatch.supervisor.change.tenure import PLACE_S
from midwatch.supervisor.change.versions import Versions
from midwatch.supervisor.change.worktree import Placed

OLD, NEW = Revision("a" * 40, "main", dirty=False), Revision("b" * 40, "main", dirty=False)
ENTRY = {
    "command": ["agent", "/code/run.sh"],
    "rollback": True,
    "restart": {"stable_after": 60.0, "attempts": 3, "backoff": (1.0, 8.0)},
}
PLACED = Placed("/code", "/data/worktrees/x/tree", "/data/worktrees/x/tree", OLD)


class Trial:
    """An agent whose code was good as OLD, that is begun with NEW; the answer about OLD is given by hand."""

    def __init__(
        self, house: Any, good: Revision | None, ran: Revision | None, entry: dict[str, Any]
    ) -> None:
        self.house, self.keeper = house, house.keeper
        self.file: dict[str, Any] | None = None
        """What the fleet file says by now; None: it is not asked."""
        self.asked: list[tuple[str, Revision, Back, str]] = []
        self.answer: Callable[[Supply], None] = lambda _: None
        versions = self.versions = Versions(None, b"secret")
        around = house.keeper._around
        around.versions, around.check_out = versions, self._ask
        around.entry = lambda _: Entry(Agent.model_validate(self.file), "") if self.file else None
        versions._revisions["/"] = good
        versions.started("inbox", self.keeper.agent, "/")
        versions.prove("inbox", Agent.model_validate(entry))
        versions._revisions["/"] = ran
        self.keeper.begin(resumed=False)

    def _ask(self, *question: Any) -> None:
        *known, self.answer = question
        self.asked.append(tuple(known))

    @property
    def told(self) -> list[dict[str, Any]]:
        return self.house.events("agent.rolled_back")

    @property
    def directory(self) -> str:
        return self.house.process.launch.cwd


@pytest.fixture
def begin(make: Any) -> Callable[..., Trial]:
    def begun(
        *,
        good: Revision | None = OLD,
        ran: Revision | None = NEW,
        both: dict[str, Any] | None = None,
        **entry: Any,
    ) -> Trial:
        """`entry` is changed; `both` stood in the good one, too."""
        was = {**ENTRY, **(both or {})}
        trial = Trial(make([(0.5, "exit 1")], **{**was, **entry}), good, ran, was)
        trial.house.system.advance(0.6)
        return trial

    return begun


def test_changed_code_that_fails_is_looked_for_before_the_next_start(begin: Any) -> None:
    trial = begin()
    assert trial.told == []
    assert (trial.keeper.state, trial.keeper.run) == (State.STARTING, None)
    assert "aaaaaaaaaaaa, is being looked for" in trial.keeper.reason
    ((directory, wanted, _, why_not),) = trial.asked
    assert (directory, wanted, why_not) == ("/", OLD, "")
    trial.answer(Supply(NEW, PLACED))
    (told,) = trial.told
    assert told["code"] == {"from": NEW.commit, "to": OLD.commit}
    assert (told["keys"], told["env_file"], told["end"]) == ([], False, "failed")
    assert trial.directory == PLACED.directory
    assert trial.house.events("run.started")[-1]["revision"]["commit"] == OLD.commit
    assert (
        "the code (from bbbbbbbbbbbb back to aaaaaaaaaaaa) was taken back"
        in trial.keeper.tenure.note
    )
    assert any("rolled back: its code moved from" in line for line in trial.house.said)
    # it is asked again at the next start: somebody may have mended it
    trial.house.system.advance(5.0)
    assert len(trial.asked) == 2
    assert trial.asked[1][2].commit == NEW.commit
    trial.answer(Supply(Revision("c" * 40), tried=False))
    assert trial.directory == "/"
    assert trial.keeper.tenure.note == ""
    assert len(trial.told) == 1


def test_code_that_cannot_be_had_leaves_the_usual_rules(begin: Any) -> None:
    trial = begin()
    trial.answer(Supply(NEW, why="git does not have aaaaaaaaaaaa any more"))
    assert trial.told == []
    assert any(
        "not rolled back: its code stays as it is: git does not" in s for s in trial.house.said
    )
    trial.house.system.advance(120.0)
    assert len(trial.asked) == 1
    assert trial.keeper.state is State.PARKED


def test_an_entry_is_taken_back_also_when_its_code_cannot_be_and_both_are_said(begin: Any) -> None:
    trial = begin(command=["agent", "-v"], ran=OLD)  # what was pulled was not seen yet
    trial.answer(Supply(NEW, why="git is not installed"))
    (told,) = trial.told
    assert told["keys"] == ["command"]
    assert told["left"] == [{"what": "its code", "why": "git is not installed"}]
    assert trial.house.process.launch.command == ENTRY["command"]
    assert trial.keeper.tenure.note.endswith("change the fleet file again to try anew")


def test_good_code_that_is_gone_later_takes_nothing_back_any_more(begin: Any) -> None:
    """As when its worktree was removed: what runs then is what failed, and has to prove itself as ever."""
    trial = begin()
    trial.answer(Supply(NEW, PLACED))
    trial.house.system.advance(5.0)
    assert len(trial.asked) == 2
    trial.answer(Supply(NEW, why="git does not have it"))
    assert trial.versions.back("inbox") is None
    assert (trial.directory, trial.keeper.tenure.note) == ("/", "")
    trial.house.system.advance(300.0)
    assert (len(trial.asked), trial.keeper.state) == (2, State.PARKED)


def test_an_entry_stays_taken_back_when_its_code_is_gone_later(begin: Any) -> None:
    trial = begin(command=["agent", "-v"])
    trial.answer(Supply(NEW, PLACED))
    trial.house.system.end(trial.house.process, code=1)
    trial.house.system.advance(20.0)
    trial.answer(Supply(NEW, why="git does not have it"))
    assert trial.house.process.launch.command == ENTRY["command"]
    assert trial.versions.back("inbox") is not None
    assert trial.keeper.tenure.note.endswith("its code stays as it is: git does not have it")


def test_code_that_has_not_changed_stays_without_a_word(begin: Any) -> None:
    trial = begin(command=["agent", "-v"], ran=OLD)
    trial.answer(Supply(OLD))
    (told,) = trial.told
    assert "left" not in told
    assert "code" not in told
    assert trial.directory == "/"


@pytest.mark.parametrize(
    ("both", "good", "why"),
    [
        ({}, Revision("a" * 40, dirty=True), "changes on top of aaaaaaaaaaaa that nobody kept"),
        ({}, Revision("a" * 40), "is not known"),
        ({"sandbox": {}}, OLD, "its walls are built around its own directory"),
    ],
    ids=["edited", "unknown", "walled"],
)
def test_good_code_that_nobody_has_is_said_and_not_looked_for(
    begin: Any, both: dict[str, Any], good: Revision, why: str
) -> None:
    trial = begin(good=good, both=both)
    assert trial.asked == []
    assert any("not rolled back" in line and why in line for line in trial.house.said)


def test_a_person_who_stops_it_meanwhile_is_obeyed_whatever_the_answer(begin: Any) -> None:
    trial = begin()
    trial.keeper.hold(State.STOPPED, "stopped by a person")
    trial.answer(Supply(NEW, PLACED))
    trial.house.system.advance(2 * PLACE_S)
    assert (trial.keeper.state, len(trial.house.system.launched)) == (State.STOPPED, 1)
    # started again, it is asked again
    trial.keeper.release("started by a person")
    assert len(trial.asked) == 2
    trial.answer(Supply(NEW, PLACED))
    assert trial.directory == PLACED.directory


def test_who_is_started_again_meanwhile_waits_for_the_same_answer(begin: Any) -> None:
    trial = begin()
    trial.keeper.release("started by a person")
    assert len(trial.asked) == 1
    trial.answer(Supply(NEW, PLACED))
    assert trial.house.events("run.started")[-1]["why"] == "started by a person"


def test_an_answer_that_takes_too_long_is_not_waited_for(begin: Any) -> None:
    trial = begin()
    trial.house.system.advance(PLACE_S + 0.1)
    assert len(trial.house.system.launched) == 2
    assert any("git took too long" in line for line in trial.house.said)
    launched = len(trial.house.system.launched)
    trial.answer(Supply(NEW, PLACED))
    assert len(trial.house.system.launched) == launched
    assert trial.directory == "/"


def test_an_entry_that_was_changed_while_it_waited_is_tried(begin: Any) -> None:
    trial = begin()
    trial.file = {**ENTRY, "command": ["agent", "mended"]}
    trial.keeper.release("its entry changed")
    assert trial.house.process.launch.command == ["agent", "mended"]
    trial.answer(Supply(NEW, PLACED))
    assert trial.directory == "/"


def test_the_end_of_midwatch_is_not_kept_waiting(begin: Any) -> None:
    trial = begin()
    trial.keeper.shut_down()
    trial.answer(Supply(NEW, PLACED))
    trial.house.system.advance(2 * PLACE_S)
    assert len(trial.house.system.launched) == 1


def test_what_was_found_of_a_good_run_after_it_was_good_is_kept() -> None:
    versions, agent = Versions(None, b"secret"), Agent.model_validate(ENTRY)
    versions.started("inbox", agent, "/")
    versions.prove("inbox", agent)
    versions.correct("inbox", OLD)
    good = versions.good("inbox")
    assert good is not None
    assert good.revision == OLD
    # of the next run, which proved nothing yet, it is not
    versions.started("inbox", agent, "/")
    versions.correct("inbox", NEW)
    assert versions.good("inbox") == good
    assert versions.code_of("inbox", "/nowhere") == NEW
