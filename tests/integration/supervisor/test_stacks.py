"""Stacks of real processes: what faulthandler prints, and py-spy's stand-ins that answer, refuse or hang."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from midwatch.core.stacks import find_stack
from midwatch.supervisor.machine import stacks


def test_this_very_python_prints_what_is_found() -> None:
    code = "import faulthandler, os\nfaulthandler.enable()\ndef work(): os.abort()\nwork()"
    done = subprocess.run(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, check=False
    )
    stack = find_stack(["before", *done.stderr.splitlines()])
    assert any("in work" in line for line in stack)


@pytest.mark.parametrize(
    ("script", "lines"),
    [
        ("echo 'Thread 7 (idle): MainThread'", ["Thread 7 (idle): MainThread"]),
        ("echo Permission denied >&2; exit 1", []),
        ("yes Thread", None),
        ("exec sleep 60", []),
    ],
    ids=["answers", "refused", "endless", "hangs"],
)
def test_whatever_py_spy_does_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, lines: list[str] | None
) -> None:
    program = tmp_path / "py-spy"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    # who answers has all the time of a busy machine
    monkeypatch.setattr(stacks, "DUMP_S", 0.3 if "sleep" in script else 20.0)
    dump = stacks.Dump([str(program)], 1)
    assert dump.done.wait(30.0)
    assert len(dump.lines) <= stacks.LINES
    if lines is not None:
        assert dump.lines == lines
