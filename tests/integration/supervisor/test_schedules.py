"""Schedules over real processes and a real clock, under a supervisor that is killed at any moment."""

from __future__ import annotations

import calendar
import json
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from midwatch.supervisor.journal import Journal

DEADLINE_S = 30.0

RUN = """
import json, sys
from pathlib import Path
from midwatch.core.fleet import Fleet
from midwatch.supervisor.main import run
fleet = Fleet.model_validate(json.loads(sys.argv[1])).resolved()
sys.exit(run(fleet, Path(sys.argv[2]), hub=False))
"""

JOB = ["sh", "-c", "echo run >> runs"]


class Instance:
    """One supervisor after another over one data directory."""

    def __init__(self, folder: Path, nursery: Callable[..., Any]) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.console = folder / "console"
        self.process: Any = None
        self._nursery = nursery

    def up(self, schedule: dict[str, Any], command: list[str] | None = None) -> None:
        agent = {"command": command or JOB, "schedule": schedule}
        fleet = {"root": str(self.folder), "agents": {"job": agent}}
        self.process = self._nursery(RUN, json.dumps(fleet), self.data, console=self.console)

    def end(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(DEADLINE_S)

    def runs(self) -> int:
        file = self.folder / "runs"
        return len(file.read_text().split()) if file.exists() else 0

    def until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, (
                f"not so in time: {what}\n{self.console.read_text()}"
            )
            time.sleep(0.01)

    def journal(self) -> Journal:
        """Return what the dead supervisor left behind."""
        return Journal(self.data / "supervisor" / "journal")


@pytest.fixture
def instance(tmp_path: Path, nursery: Callable[..., Any]) -> Iterator[Instance]:
    one = Instance(tmp_path, nursery)
    yield one
    if one.process is not None and one.process.poll() is None:
        one.process.send_signal(signal.SIGTERM)
        try:
            one.process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            one.process.kill()
            one.process.wait(DEADLINE_S)


def test_no_due_time_is_lost_to_a_supervisor_that_is_killed_again_and_again(
    instance: Instance,
) -> None:
    chance = random.Random(7)
    every_second = {"every": "1s", "missed": "all", "window": "1m", "overlap": "queue"}
    instance.up(every_second)
    kills = 3
    for count in range(1, kills + 1):
        instance.until(lambda count=count: instance.runs() > count, "runs")
        time.sleep(chance.random())  # at any moment between two starts
        instance.end(signal.SIGKILL)
        instance.up(every_second)
    instance.until(lambda: "resuming" in instance.console.read_text(), "a new life")
    before = instance.runs()
    instance.until(lambda: instance.runs() > before, "runs")
    instance.end(signal.SIGTERM)
    record = instance.journal().of("job")
    assert record.fired is not None
    started = _first_settled(instance)
    dues = round(record.fired - started)
    waiting = len(record.owed)
    # a run that was cut off is resumed: at least once, and once more for each sudden death at most
    assert dues - waiting <= instance.runs() <= dues - waiting + kills


def _first_settled(instance: Instance) -> float:
    """Return the due time before the first that was ever made: the console tells them all."""
    first = next(
        line for line in instance.console.read_text().splitlines() if "scheduled for" in line
    )
    clock = first.rpartition("scheduled for ")[2].rstrip(")")
    now = time.gmtime()
    hour, minute, second = (int(part) for part in (clock + ":0").split(":")[:3])
    moment = time.struct_time((now.tm_year, now.tm_mon, now.tm_mday, hour, minute, second, 0, 0, 0))
    at = calendar.timegm(moment)
    return (at if at <= time.time() else at - 86_400) - 1.0


def test_a_start_that_was_noted_before_the_kill_is_made_once_after_it(instance: Instance) -> None:
    # what a supervisor leaves that is killed between noting a due start and making it
    (instance.data / "supervisor").mkdir(parents=True)
    journal = instance.journal()
    due = float(int(time.time() / 3600) * 3600)
    journal.schedule("job", plan="0 * * * * UTC", fired=due, owed=[(due, "due")])
    journal.alive(time.time())
    journal.close()
    instance.up({"cron": "0 * * * *", "window": "2h"})
    instance.until(lambda: instance.runs() == 1, "the run")
    instance.until(lambda: "finished its work" in instance.console.read_text(), "its end")
    instance.end(signal.SIGTERM)
    instance.up({"cron": "0 * * * *", "window": "2h"})
    instance.until(lambda: instance.console.read_text().count("next run at") >= 1, "the next life")
    instance.end(signal.SIGTERM)
    assert instance.runs() == 1 + int(time.time() - due >= 3600)


def test_a_single_start_is_not_made_again_by_a_new_supervisor(instance: Instance) -> None:
    # a whole second, that a supervisor is there for
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(time.time() + 2.5))
    instance.up({"at": moment})
    instance.until(lambda: "finished its work" in instance.console.read_text(), "the run")
    for count, number in enumerate((signal.SIGKILL, signal.SIGTERM), 1):
        instance.end(number)
        instance.up({"at": moment})
        instance.until(
            lambda count=count: instance.console.read_text().count("names no other time") == count,
            "rest",
        )
    assert instance.runs() == 1


def test_a_run_that_is_replaced_ends_before_the_next_begins(instance: Instance) -> None:
    job = [
        "sh",
        "-c",
        "echo begin >> turns; trap 'sleep 0.1; echo end >> turns; exit 0' TERM; sleep 60 & wait",
    ]
    instance.up({"every": "1s", "overlap": "replace"}, job)
    turns = instance.folder / "turns"
    instance.until(lambda: turns.exists() and turns.read_text().count("begin") >= 3, "three runs")
    assert turns.read_text().split()[:5] == ["begin", "end", "begin", "end", "begin"]


def test_the_supervisor_that_stood_still_makes_up_for_what_it_missed(instance: Instance) -> None:
    instance.up({"every": "1s", "window": "500ms"})
    # between two runs: one that works at a due time is no missed start
    instance.until(lambda: "finished its work" in instance.console.read_text(), "a run")
    instance.process.send_signal(signal.SIGSTOP)
    time.sleep(2.2)
    instance.process.send_signal(signal.SIGCONT)
    instance.until(lambda: "Midwatch stood still" in instance.console.read_text(), "the report")
