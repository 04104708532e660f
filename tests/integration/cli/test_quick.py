"""Plain orders are given without the command line of all the others; everything else is left to that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from midwatch.cli import app, quick
from midwatch.cli.exits import UNREACHABLE

from .conftest import FakeHub  # noqa: TID252  there is no tests package


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


HEAVY = {
    *("asyncio", "concurrent", "dataclasses", "datetime", "difflib", "email", "http", "inspect", "logging"),
    *("pathlib", "shutil", "ssl", "subprocess", "tempfile", "textwrap", "threading", "typing", "urllib"),
}  # fmt: skip
"""Of the standard library; together they take three times as long to load as all that an order needs."""
OURS = {"", "cli", "core"} | {f"cli.{name}" for name in ["__main__", "app", "client", "exits", "instance", "loopback", "orders", "quick"]} | {"core.errors"}  # fmt: skip
"""Our own modules that are there when the order is sent."""
PRINTED = OURS | {"cli.show"}

WATCHED = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from midwatch.cli import loopback
real = loopback.ask
def ask(*given, **named):
    print(*sys.modules, file=sys.stderr)
    return real(*given, **named)
loopback.ask = ask
from midwatch.cli.__main__ import main
try:
    main()
finally:
    print(*sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize("verb", sorted(quick.VERBS))
def test_a_plain_order_is_given_and_told_without_what_is_heavy(
    verb: str, data: Path, hub: FakeHub
) -> None:
    hub.routes[f"POST /api/agents/inbox/{verb}"] = [{"agent": "inbox", "result": "done"}]
    source = str(Path(quick.__file__).parents[2])
    words = [sys.executable, "-I", "-S", "-c", WATCHED, source, verb, "inbox", "--data", str(data)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("inbox: done")
    when_sent, at_the_end = (set(line.split()) for line in done.stderr.splitlines())
    assert _heavy(when_sent) == set()
    assert _heavy(at_the_end) <= {"datetime"}  # a kill's receipt says when
    assert _own(when_sent) == OURS
    assert _own(at_the_end) == PRINTED


def _heavy(modules: set[str]) -> set[str]:
    return HEAVY & {name.partition(".")[0] for name in modules}


def _own(modules: set[str]) -> set[str]:
    return {
        n.removeprefix("midwatch").removeprefix(".") for n in modules if n.startswith("midwatch")
    }
