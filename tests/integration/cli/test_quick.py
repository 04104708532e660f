"""Plain orders are given without the command line of all the others; everything else is left to that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from midwatch.cli import app, quick
from midwatch.cli.exits import UNREACHABLE


@pytest.mark.parametrize(
    "words",
    [
        "",
        "status inbox",
        "suspend",
        "suspend --json",
        "suspend inbox --help",
        "suspend inbox -g support",
        "suspend --group support",
        "suspend inbox --data",
        "suspend inbox --data --json",
        "suspend inbox --data=",
        "suspend inbox --jsn",
        "suspend -- inbox",
        "--version suspend inbox",
        "stop inbox",
    ],
)
def test_what_is_not_plain_is_left_to_the_whole_command_line(words: str) -> None:
    assert quick.order(words.split()) is None


def test_a_shell_that_completes_gets_the_whole_command_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("_MIDWATCH_COMPLETE", "complete_bash")
    assert quick.order(["suspend", "inbox"]) is None


@pytest.mark.parametrize("verb", sorted(quick.VERBS))
@pytest.mark.parametrize("how", ["--data {0}", "--data={0} --json", "MIDWATCH_DATA"])
def test_it_says_and_ends_as_the_whole_command_line_does(
    verb: str,
    how: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [verb, "inbox", *how.format(tmp_path).split()]
    if how == "MIDWATCH_DATA":
        words.pop()
        monkeypatch.setenv("MIDWATCH_DATA", str(tmp_path))
    plain = (app.run(words), capsys.readouterr())
    monkeypatch.setattr(quick, "VERBS", frozenset[str]())
    assert (app.run(words), capsys.readouterr()) == plain
    assert plain[0] == UNREACHABLE
    assert "midwatch is not running" in plain[1].err


def test_a_plain_order_loads_none_of_what_other_commands_need(tmp_path: Path) -> None:
    program = (
        "import sys; from midwatch.cli import app; app.run(sys.argv[1:]);"
        "print(sorted({'typer', 'pydantic', 'rich', 'concurrent.futures'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "kill", "inbox", "--data", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, "is not running" in done.stderr) == ("[]\n", True)
