"""What a changed agent is taken back to: entry, env file and code, with real git and real processes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from repositories import Repository

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

TRIAL = {
    "rollback": True,
    "restart": {"stable_after": "2s", "backoff": "20ms..50ms", "attempts": 4},
}
LIVES = 'echo "$0 as $(cat state) in $PWD" >> "$OUT/lives"\n'
GOOD = f"{LIVES}exec sleep 600\n"
BAD = f"{LIVES}echo boom; exit 3\n"


class Home(Repository):
    """An agent's directory, a git repository, and an instance over it."""

    def __init__(self, one: Any, folder: Path, name: str = "inbox") -> None:
        super().__init__(folder / name)
        self.one, self.name, self.out = one, name, folder / f"{name}.out"
        self.out.mkdir()
        (self.path / ".gitignore").write_text("state\n")
        (self.path / "state").write_text("its own\n")
        self.git("add", ".gitignore")

    def code(self, text: str) -> str:
        """Commit the agent's code."""
        return self.commit(**{"agent.sh": text})

    def entry(self, **more: Any) -> dict[str, Any]:
        env = {"OUT": str(self.out), **more.pop("env", {})}
        return {"command": ["sh", "agent.sh"], "cwd": self.name, "env": env, **TRIAL, **more}

    def lives(self) -> list[str]:
        try:
            return (self.out / "lives").read_text().splitlines()
        except OSError:
            return []

    def kept(self) -> dict[str, Any]:
        try:
            return json.loads((self.one.data / "supervisor/versions").read_bytes())[self.name]
        except (OSError, KeyError, ValueError):
            return {"refused": ""}

    def good(self, commit: str) -> None:
        self.one.until(
            lambda: self.kept().get("revision", {}).get("commit") == commit,
            "the good commit is kept",
        )

    def restart(self) -> None:
        """End its process from outside, as a crash does: the next run takes the code that is there now."""
        os.kill(self.one.pid(self.name), signal.SIGKILL)


@pytest.fixture
def home(instances: Any, tmp_path: Path) -> Home:
    return Home(instances(), tmp_path)


def test_code_that_fails_is_taken_back_to_the_last_good_revision_beside_the_checkout(
    home: Home,
) -> None:
    one, old = home.one, home.code(GOOD)
    one.write({"inbox": home.entry()})
    one.up()
    home.good(old)
    new = home.code(BAD)
    home.restart()
    one.says(f"rolled back: its code moved from {old[:12]} to {new[:12]}, and then: exit code 3")
    one.until(lambda: "/worktrees/" in home.lives()[-1], "a life in the worktree")
    last = home.lives()[-1]
    assert last.startswith("agent.sh as its own in "), "its state is where it was"
    # the user's own checkout is as they left it, and git's list of worktrees too
    assert home.git("rev-parse", "HEAD") == new
    assert home.git("status", "--porcelain") == ""
    assert len(home.git("worktree", "list").splitlines()) == 1
    assert (home.path / "agent.sh").read_text() == BAD
    # a new supervisor goes on with it, and does not try the bad one again
    one.until(lambda: home.kept().get("place", "") != "", "the place on disk")
    bad = [line for line in home.lives() if "/worktrees/" not in line]
    one.end(signal.SIGKILL)
    one.up()
    one.until(lambda: home.lives()[-1] == last and len(home.lives()) > len(bad) + 1, "again")
    assert [line for line in home.lives() if "/worktrees/" not in line] == bad
    # mended: it is tried at the next start, and the worktree goes when nobody needs it
    home.code(GOOD + "# mended\n")
    home.restart()
    one.says("its code was changed since it was taken back; it is tried anew")
    one.until(lambda: "/worktrees/" not in home.lives()[-1], "the mended code runs")
    one.until(lambda: home.kept()["refused"] == "", "nothing is taken back any more")
    assert one.end() == 0


def test_an_env_file_whose_content_fails_is_taken_back_and_shown_to_nobody(
    home: Home, tmp_path: Path
) -> None:
    one = home.one
    old = home.code(LIVES + '[ "$TOKEN" = hunter2 ] || exit 4\nexec sleep 600\n')
    (tmp_path / ".env").write_text("TOKEN=hunter2\n")
    one.write({"inbox": home.entry(env_file=".env")})
    one.up()
    home.good(old)
    (tmp_path / ".env").write_text("TOKEN=hunter3\n")
    one.reload()
    one.says("rolled back: env_file (its content) changed, and then: exit code 4")
    started = one.console.count("inbox: started")
    one.until(lambda: one.console.count("inbox: started") >= 3, "the good one")
    assert (tmp_path / ".env").read_text() == "TOKEN=hunter3\n", "the file is the user's"
    assert "/worktrees/" not in home.lives()[-1], "its code was not at fault"
    one.until(lambda: home.kept()["refused"] != "", "it is kept")
    kept = one.data / "supervisor/versions"
    assert kept.stat().st_mode & 0o777 == 0o600
    for file in one.data.rglob("*"):
        if file.is_file() and not file.name.startswith(kept.name):  # it is written beside itself
            with contextlib.suppress(FileNotFoundError):
                assert b"hunter" not in file.read_bytes(), file
    assert "hunter" not in one.console
    # read again as it is: nothing to do; changed: a new trial
    assert "nothing has changed" in one.reload()
    (tmp_path / ".env").write_text("TOKEN=hunter2\nMORE=1\n")
    assert "inbox: restarted" in one.reload()
    one.until(lambda: home.kept()["refused"] == "", "nothing is taken back any more")
    assert started >= 2
    assert one.end() == 0


def test_entry_and_code_are_taken_back_together_and_what_cannot_be_is_said(
    instances: Any, tmp_path: Path
) -> None:
    """As after a pull and a reload: they fail before anybody had time to look at what was pulled."""
    one = instances()
    both, edited = Home(one, tmp_path), Home(one, tmp_path, "edited")
    old, first = both.code(GOOD), edited.code(GOOD)
    (edited.path / "agent.sh").write_text(GOOD + "# edited, and nobody kept it\n")
    one.write({home.name: home.entry() for home in (both, edited)})
    one.up()
    both.good(old)
    edited.good(first)
    one.until(lambda: edited.kept().get("revision", {}).get("dirty") is True, "seen as edited")
    new = both.code(BAD)
    edited.code(BAD)
    one.write({home.name: home.entry(env={"NEW": "1"}) for home in (both, edited)})
    one.reload()
    for home in (both, edited):
        one.says(f"{home.name}: rolled back: ")
    one.until(lambda: "/worktrees/" in both.lives()[-1], "a life in the worktree")
    said = [line for line in one.console.splitlines() if ": rolled back: " in line]
    assert all("env changed" in line for line in said)
    (line,) = (line for line in said if "inbox: " in line)
    assert f"its code moved from {old[:12]} to {new[:12]}" in line
    (line,) = (line for line in said if "edited: " in line)
    assert line.endswith(
        "its code stays as it is: the last good run had changes on top of"
        f" {first[:12]} that nobody kept"
    )
    assert one.end() == 0
