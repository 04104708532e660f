"""The sample fleet as `make up` runs it: three agents work, nothing alarms, Ctrl-C leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from midwatch.drills.instance import free_port

SAMPLE = Path(__file__).parents[2] / "examples" / "fleet"
SHORT_S = 20.0
LONG_S = 600.0


class SampleFleet:
    """`midwatch up --rehearsal` on a copy of the sample's fleet file with ports of its own."""

    def __init__(self, directory: Path) -> None:
        self.data = directory / "data"
        self.out = directory / "out"
        document = yaml.safe_load((SAMPLE / "midwatch.yaml").read_text())
        self.port = free_port()
        document["hub"] = {"listen": f"127.0.0.1:{self.port}"}
        document["gateway"] = {"listen": f"127.0.0.1:{free_port()}"}
        # beside the original, because its paths are relative to it
        self.file = SAMPLE / f".test-{self.port}.yaml"
        self.file.write_text(yaml.safe_dump(document, sort_keys=False))
        self.mark = f"OUT_DIR={self.out}"
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("MIDWATCH_", "OPENAI_", "ANTHROPIC_"))
        }
        # `make up` does the same: the agents run with the Python that has their clients
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "midwatch.cli",
                "up",
                "-f",
                str(self.file),
                "--data",
                str(self.data),
                "--rehearsal",
            ],
            env={**environment, "OUT_DIR": str(self.out)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self) -> None:
        assert self.process.stdout is not None
        self.lines.extend(self.process.stdout)
        self.process.stdout.close()

    def get(self, path: str) -> Any:
        token = (self.data / "token").read_text().strip()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}", headers={"authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.loads(answer.read())

    def wait(self, condition: Any, timeout_s: float) -> Any:
        deadline = time.monotonic() + timeout_s
        value = None
        while time.monotonic() < deadline:
            assert self.process.poll() is None, "".join(self.lines)
            with contextlib.suppress(OSError):
                value = condition()
                if value:
                    return value
            time.sleep(0.1)
        return value

    def processes(self) -> list[str]:
        found: list[str] = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if self.mark.encode() in (entry / "environ").read_bytes().split(b"\0"):
                        found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        return found


@pytest.fixture
def sample(tmp_path: Path) -> Iterator[SampleFleet]:
    fleet = SampleFleet(tmp_path)
    try:
        yield fleet
    finally:
        if fleet.process.poll() is None:
            fleet.process.kill()
        fleet.process.wait()
        fleet.reader.join(5)
        fleet.file.unlink()


def watch(sample: SampleFleet, seconds: float) -> None:
    """All three work soon, and nothing alarms for as long as we look."""
    names = {"inbox", "prices", "night-report"}
    agents = sample.wait(lambda: sample.get("/api/agents")["items"], 60)
    assert {agent["agent"] for agent in agents} == names

    def long_lived_work() -> bool:
        states = {a["agent"]: a["today"]["cycles"] for a in sample.get("/api/agents")["items"]}
        return bool(states["inbox"] and states["prices"])

    assert sample.wait(long_lived_work, 60), sample.get("/api/agents")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert sample.get("/api/incidents")["items"] == []
        time.sleep(1)

    def tells() -> bool:
        inbox = sample.get("/api/agents/inbox")
        works = inbox["state"] == "running" and "mail" in inbox["sentence"]
        return bool(works and inbox["today"]["cost_usd"] > 0)

    assert sample.wait(tells, 60), sample.get("/api/agents/inbox")
    assert sample.get("/api/incidents")["items"] == []


def stop(sample: SampleFleet) -> None:
    """Ctrl-C ends it in good order, and nothing stays."""
    sample.process.send_signal(signal.SIGINT)
    assert sample.process.wait(40) == 0, "".join(sample.lines)
    deadline = time.monotonic() + 30
    while sample.processes() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert sample.processes() == []


@pytest.mark.timeout(300)
def test_the_sample_fleet_works_without_a_false_alarm_and_leaves_nothing_behind(
    sample: SampleFleet,
) -> None:
    watch(sample, SHORT_S)
    stop(sample)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_ten_minutes_of_the_sample_fleet_raise_no_alarm(sample: SampleFleet) -> None:
    watch(sample, LONG_S)
    stop(sample)
