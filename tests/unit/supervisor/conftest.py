"""A keeper and everything around it, without processes and with time by hand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from midwatch.core.errors import SetupError
from midwatch.core.fleet import Agent
from midwatch.supervisor.journal import Journal
from midwatch.supervisor.keeper import Keeper
from midwatch.supervisor.machine.fake import FakeProcess, FakeSystem
from midwatch.supervisor.output.capture import Capture, Writer
from midwatch.supervisor.reporter import Recorder, Reports
from midwatch.supervisor.surroundings import Surroundings

FAST = {
    "when": "failure",
    "attempts": 3,
    "backoff": (1.0, 8.0),
    "stable_after": 60.0,
    "cooldown": 100.0,
}


@dataclass
class House:
    """A keeper and everything around it."""

    system: FakeSystem
    journal: Journal
    recorder: Recorder
    said: list[str]
    keeper: Keeper
    around: Surroundings

    def events(self, kind: str) -> list[dict[str, Any]]:
        return self.recorder.events(kind)

    @property
    def process(self) -> FakeProcess:
        return self.system.launched[-1]

    def another(self, journal: Journal) -> House:
        """The same agent under a new supervisor."""
        return build(self.keeper.agent, journal, self.system, self.keeper.capture)


def build(agent: Agent, journal: Journal, system: FakeSystem, capture: Capture) -> House:
    recorder = Recorder()
    said: list[str] = []

    def environment(_name: str, entry: Agent, run_id: str) -> dict[str, str]:
        if entry.env_file is not None:
            raise SetupError("agents.inbox.env_file: cannot read '.env'")
        return {"MIDWATCH_RUN_ID": run_id}

    around = Surroundings(
        system=system,
        journal=journal,
        reports=Reports(recorder, "here"),
        say=said.append,
        environment=environment,
        directory=lambda _: "/",
        fingerprint=lambda entry: str(entry.command),
        hear_now=lambda _: None,
        random=lambda: 0.0,
    )
    keeper = Keeper("inbox", agent, around, capture)
    return House(system, journal, recorder, said, keeper, around)


@pytest.fixture(scope="module", autouse=True)
def _no_disk_is_waited_for() -> Iterator[None]:
    """What survives the machine's death is not tested here, and a busy disk takes seconds to say."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda _: None)
        patched.setattr(os, "fdatasync", lambda _: None, raising=False)
        yield


@pytest.fixture(scope="module")
def writer() -> Iterator[Writer]:
    shared = Writer()
    yield shared
    shared.close()


@pytest.fixture
def make(tmp_path: Path, writer: Writer) -> Any:
    def house(script: Any = (), **entry: Any) -> House:
        system = FakeSystem()
        system.programs["agent"] = script
        entry.setdefault("command", ["agent"])
        entry.setdefault("restart", FAST)
        agent = Agent.model_validate(entry)
        return build(agent, Journal(tmp_path / "journal"), system, Capture(writer, tmp_path))

    return house
