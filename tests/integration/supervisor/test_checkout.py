"""What git has checked out, read without git; compared with git's own word where there is one."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import time
from pathlib import Path

import pytest

from midwatch.supervisor.change.checkout import find, is_dirty, revision

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def by_hand(path: Path, head: str = "ref: refs/heads/main\n") -> Path:
    git = path / ".git"
    (git / "refs/heads").mkdir(parents=True)
    (git / "HEAD").write_text(head)
    return git


def test_a_branch_a_packed_branch_and_a_bare_commit(tmp_path: Path) -> None:
    git = by_hand(tmp_path)
    assert revision(tmp_path) is None, "no commit yet"
    (git / "packed-refs").write_text(
        f"# pack-refs\n{'f' * 40} refs/heads/mainly\n{COMMIT} refs/heads/main\n"
    )
    (tmp_path / "deep/er").mkdir(parents=True)
    found = revision(tmp_path / "deep/er")
    assert found is not None
    assert (found.commit, found.branch, found.dirty) == (COMMIT, "main", None)
    (git / "refs/heads/main").write_text("a" * 40 + "\n")
    assert str(revision(tmp_path)) == "a" * 12
    (git / "HEAD").write_text("b" * 40 + "\n")
    assert revision(tmp_path) is not None
    assert str(revision(tmp_path)) == "b" * 12


@pytest.mark.parametrize(
    "head",
    [
        "",
        "ref: ../../etc/passwd",
        "ref: refs/../../x",
        "x" * 9000,
        "ref: refs/heads/\x1b[2J",
        "g" * 40,
    ],
)
def test_a_hostile_repository_says_nothing(tmp_path: Path, head: str) -> None:
    by_hand(tmp_path, head)
    assert revision(tmp_path, dirty=True) is None


def test_a_pipe_in_place_of_a_file_keeps_nobody_waiting(tmp_path: Path) -> None:
    git = by_hand(tmp_path)
    (git / "HEAD").unlink()
    os.mkfifo(git / "HEAD")
    began = time.monotonic()
    assert revision(tmp_path) is None
    assert time.monotonic() - began < 20


def test_a_damaged_index_tells_nothing_about_files(tmp_path: Path) -> None:
    git = by_hand(tmp_path)
    (git / "refs/heads/main").write_text(COMMIT)
    for content in (
        b"",
        b"DIRC",
        b"DIRC\0\0\0\2\0\0\0\7short",
        b"DIRC\0\0\0\4\0\0\0\1" + b"\xff" * 64,
    ):
        (git / "index").write_bytes(content)
        found = revision(tmp_path, dirty=True)
        assert found is not None
        assert found.dirty is None


@pytest.mark.parametrize(
    "name", ["/etc/hostname", "a/../../x", "a" * 5000], ids=["absolute", "above", "long"]
)
def test_an_index_that_names_what_lies_outside_tells_nothing(tmp_path: Path, name: str) -> None:
    git = by_hand(tmp_path)
    (git / "refs/heads/main").write_text(COMMIT)
    entry = struct.pack(">10I", *([0] * 10)) + b"\0" * 20 + b"\0\0" + name.encode() + b"\0" * 8
    (git / "index").write_bytes(b"DIRC\0\0\0\2\0\0\0\1" + entry)
    found = revision(tmp_path, dirty=True)
    assert found is not None
    assert found.dirty is None


def test_names_that_grow_from_entry_to_entry_are_no_work_for_minutes(tmp_path: Path) -> None:
    git = by_hand(tmp_path)
    (git / "refs/heads/main").write_text(COMMIT)
    # left out of every comparison, each name longer than the last
    entry = struct.pack(">10I", *([0] * 10)) + b"\0" * 20 + b"\x80\0" + b"\0" + b"a" * 30 + b"\0"
    (git / "index").write_bytes(struct.pack(">4sII", b"DIRC", 4, 200_000) + entry * 200_000)
    began = time.monotonic()
    found = revision(tmp_path, dirty=True)
    assert time.monotonic() - began < 20
    assert found is not None
    assert found.dirty is None


@pytest.mark.parametrize("place", [".git", ".git/commondir"])
def test_a_path_with_a_nul_in_it_is_no_repository(tmp_path: Path, place: str) -> None:
    if place == ".git":
        (tmp_path / ".git").write_bytes(b"gitdir: a\0b\n")
    else:
        (by_hand(tmp_path) / "commondir").write_bytes(b"a\0b\n")
    assert revision(tmp_path, dirty=True) is None


def test_no_repository_is_no_revision(tmp_path: Path) -> None:
    assert revision(tmp_path / "nowhere") is None


GIT = shutil.which("git")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    if GIT is None:
        pytest.skip("git is not installed")
    git(tmp_path, "init", "-q", "-b", "main")
    (tmp_path / "agent.py").write_text("print('one')\n")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "größe.txt").write_text("x")
    (tmp_path / "link").symlink_to("agent.py")
    commit(tmp_path)
    return tmp_path


def git(path: Path, *words: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "core.autocrlf=false"]
    done = subprocess.run(
        [GIT or "git", "-C", str(path), *who, *words], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def commit(path: Path) -> None:
    git(path, "add", "-A")
    git(path, "commit", "-q", "-m", "x", "--no-gpg-sign")


@pytest.mark.parametrize("version", [2, 3, 4])
def test_it_says_what_git_says(repository: Path, version: int) -> None:
    git(repository, "update-index", "--index-version", str(version))
    clean = revision(repository / "sub", dirty=True)
    assert clean is not None
    assert (clean.commit, clean.branch, clean.dirty) == (
        git(repository, "rev-parse", "HEAD"),
        "main",
        False,
    )
    (repository / "untracked").write_text("no matter")
    (repository / "agent.py").touch()
    assert revision(repository, dirty=True) == clean, "the same content under a new time"
    (repository / "sub" / "größe.txt").write_text("y")
    changed = revision(repository, dirty=True)
    assert changed is not None
    assert changed.dirty is True
    assert str(changed).endswith("-dirty")


def test_a_removed_file_and_a_turned_link_are_changes(repository: Path) -> None:
    (repository / "agent.py").unlink()
    found = revision(repository, dirty=True)
    assert found is not None
    assert found.dirty
    git(repository, "checkout", "-q", ".")
    (repository / "link").unlink()
    (repository / "link").symlink_to("elsewhere")
    found = revision(repository, dirty=True)
    assert found is not None
    assert found.dirty


def test_a_worktree_has_a_revision_of_its_own(
    repository: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("worktree") / "w"
    git(repository, "worktree", "add", "-q", "-b", "side", str(other))
    (other / "agent.py").write_text("print('two')\n")
    commit(other)
    found = revision(other, dirty=True)
    assert found is not None
    assert (found.commit, found.branch, found.dirty) == (
        git(other, "rev-parse", "HEAD"),
        "side",
        False,
    )


def test_no_program_that_a_repository_names_is_run(repository: Path) -> None:
    """An agent may write its repository: git would run fsmonitor and filters with our rights."""
    trap = repository / "trap.sh"
    trap.write_text(f"#!/bin/sh\ntouch {repository}/sprung\n")
    trap.chmod(0o755)
    git(repository, "config", "core.fsmonitor", str(trap))
    git(repository, "config", "filter.x.clean", str(trap))
    (repository / ".gitattributes").write_text("* filter=x\n")
    (repository / "agent.py").write_text("print('three')\n")
    assert revision(repository, dirty=True) is not None
    assert not (repository / "sprung").exists()


def test_it_gives_up_in_time(repository: Path) -> None:
    checkout = find(repository)
    assert checkout is not None
    assert is_dirty(checkout, 40, limit_s=-1.0) is None
