"""Drills as a person runs them: given up half-way, and behind a proxy."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from midwatch.drills.instance import Instance

DEADLINE_S = 20.0


def carriers(mark: str) -> list[int]:
    """Return the living processes with this entry in their environment."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            env = (entry / "environ").read_bytes().split(b"\0")
            state = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if mark.encode() in env and state != "Z":
            found.append(int(entry.name))
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_drills_that_are_given_up_leave_no_process_behind(tmp_path: Path, number: int) -> None:
    mark = f"DRILL_TEST={tmp_path}"
    command = [sys.executable, "-m", "midwatch.cli", "drill", "run", "slow-but-alive"]
    process = subprocess.Popen(
        command,
        env={**os.environ, "DRILL_TEST": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # what a shell starts in the background ignores it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + DEADLINE_S
    while len(carriers(mark)) < 5:  # the runner, its instance, hub, gateway and the program
        assert time.monotonic() < deadline, "the drill did not start"
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(DEADLINE_S) == 130
    assert carriers(mark) == []


def test_a_proxy_of_the_surroundings_is_not_asked_for_our_own_loopback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with Instance(tmp_path, {"outside": {"external": True}}) as instance:
        assert instance.agent("outside")
