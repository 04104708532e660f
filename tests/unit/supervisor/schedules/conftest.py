"""A scheduled agent under one supervisor after another, on a fake clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from midwatch.core.fleet import Agent
from midwatch.supervisor.journal import Journal
from midwatch.supervisor.keeper import Keeper
from midwatch.supervisor.machine.fake import FakeSystem
from midwatch.supervisor.output.capture import Capture, Writer
from midwatch.supervisor.reporter import Recorder, Reports
from midwatch.supervisor.surroundings import Surroundings


def at(text: str, zone: str = "UTC") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def _nothing(_name: str, _agent: Agent, _run_id: str) -> dict[str, str]:
    return {}


@dataclass
class Nights:
    """One scheduled agent under one supervisor after another."""

    folder: Path
    writer: Writer
    schedule: dict[str, Any]
    system: FakeSystem
    entry: dict[str, Any] = field(default_factory=dict[str, Any])
    recorder: Recorder = field(default_factory=Recorder)
    said: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self.journal = Journal(self.folder / "journal")
        self.keeper = self._make(None)

    def _make(self, away_since: float | None) -> Keeper:
        around = Surroundings(
            system=self.system,
            journal=self.journal,
            reports=Reports(self.recorder, "here"),
            say=self.said.append,
            environment=_nothing,
            directory=lambda _: "/",
            fingerprint=lambda entry: str(entry.command),
            hear_now=lambda _: None,
            random=lambda: 0.0,
            away_since=away_since,
        )
        restart = {"attempts": 3, "backoff": (1.0, 8.0), "stable_after": 60.0}
        document = {"command": ["agent"], "restart": restart, **self.entry}
        agent = Agent.model_validate({**document, "schedule": self.schedule})
        return Keeper("report", agent, around, Capture(self.writer, self.folder))

    def begin(self) -> Nights:
        self.keeper.begin(resumed=False)
        return self

    def again(self, after_s: float, *, killed: bool = False, **changes: Any) -> Nights:
        """Another supervisor, `after_s` after this one stopped, or was killed, with what its journal holds."""
        since = self.system.wall()
        if killed:
            dead: Any = self  # nothing of it does anything any more
            dead.keeper.timers.cancel()
            if dead.keeper._timetable is not None:
                dead.keeper._timetable.cancel()
            for process in self.system.launched:
                dead.system._living.pop(process.pid, None)
                process.ended = True
        else:
            self.keeper.shut_down()
            self.system.advance(0.001)
        self.journal.close()
        self.system.advance(after_s)
        self.schedule = {**self.schedule, **changes}
        self.journal = Journal(self.folder / "journal")
        self.keeper = self._make(since)
        self.keeper.begin(resumed=killed)
        self.system.advance(0.001)
        return self

    def events(self, kind: str) -> list[dict[str, Any]]:
        return self.recorder.events(kind)

    @property
    def dues(self) -> list[str]:
        """The times in the rule for which runs were started, in UTC."""
        return [clock(e["due_at"]) for e in self.events("run.started") if "due_at" in e]

    def starts(self, zone: str = "UTC") -> list[str]:
        """When runs were started."""
        items = [i for _, i in self.recorder.items if i.get("kind") == "run.started"]
        return [clock(item["at"], zone) for item in items]


def clock(moment: float, zone: str = "UTC") -> str:
    return f"{datetime.fromtimestamp(round(moment), ZoneInfo(zone)):%d %H:%M:%S}".removesuffix(
        ":00"
    )


@pytest.fixture(scope="module")
def writer() -> Any:
    shared = Writer()
    yield shared
    shared.close()


@pytest.fixture
def nights(tmp_path_factory: pytest.TempPathFactory, writer: Writer) -> Any:
    def make(
        schedule: dict[str, Any],
        now: str = "2026-06-10T12:30",
        script: Any = ((1.0, "exit 0"),),
        **entry: Any,
    ) -> Nights:
        system = FakeSystem(wall=at(now))
        system.programs["agent"] = script
        return Nights(tmp_path_factory.mktemp("nights"), writer, schedule, system, entry)

    return make
