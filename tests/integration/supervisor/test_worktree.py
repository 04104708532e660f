"""Worktrees of earlier revisions, made by real git over real and hostile repositories."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

from midwatch.core.versions import Revision
from midwatch.supervisor.change import checkout, worktree
from midwatch.supervisor.change.worktree import Unavailable, Worktrees, moved

sys.path.insert(0, str(Path(__file__).parents[2]))
from repositories import Repository

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@pytest.fixture
def home(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "home")


@pytest.fixture
def trees(tmp_path: Path) -> Worktrees:
    return Worktrees(tmp_path / "data")


def test_an_earlier_revision_lies_beside_the_checkout_which_is_not_touched(
    home: Repository, trees: Worktrees
) -> None:
    old = home.commit(agent="old", lib__part="old", gone="was here")
    home.git("rm", "-q", "gone")
    new = home.commit(agent="new", lib__part="new", lib__fresh="new")
    (home.path / "state.db").write_text("state")
    (home.path / ".venv").mkdir()
    (home.path / "lib/cache").mkdir()
    (home.path / "lib/__pycache__").mkdir()
    before = home.everything()
    placed = trees.place(str(home.path / "lib"), Revision(old, "main"), new)
    tree = Path(placed.worktree)
    assert placed.directory == str(tree / "lib")
    assert (tree / "agent").read_text() == (tree / "lib/part").read_text() == "old"
    assert (tree / "gone").exists()
    assert not (tree / "lib/fresh").exists(), "newer code does not belong there"
    # what is not in git is the agent's own, and is where it was
    assert (tree / "state.db").resolve() == home.path / "state.db"
    assert (tree / ".venv").is_symlink()
    assert (tree / "lib/cache").is_symlink()
    assert not (tree / "lib/__pycache__").exists()
    assert home.everything() == before
    assert checkout.revision(tree / "lib", dirty=True) == Revision(old, None, dirty=False)
    # asked again, it is there
    assert trees.place(str(home.path / "lib"), Revision(old), new) == trees.place(
        str(home.path / "lib"), Revision(old), new
    )


def test_our_own_data_beside_the_code_is_not_linked(home: Repository) -> None:
    old = home.commit(agent="old")
    (home.path / "state").mkdir()
    placed = Worktrees(home.path / "var/midwatch").place(str(home.path), Revision(old), None)
    assert {p.name for p in Path(placed.worktree).iterdir()} == {".git", "agent", "state"}


def test_nothing_that_the_repository_names_is_run(
    home: Repository, trees: Worktrees, tmp_path: Path
) -> None:
    ran = tmp_path / "ran"
    old = home.commit(agent="old", _gitignore="x")
    new = home.commit(agent="new")
    trap = f"touch {ran}; cat"
    for hook in ("post-checkout", "reference-transaction", "post-index-change"):
        file = home.path / ".git/hooks" / hook
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"#!/bin/sh\ntouch {ran}\n")
        file.chmod(0o755)
    for name, value in (
        ("filter.x.smudge", trap), ("filter.x.clean", trap), ("core.fsmonitor", f"touch {ran}"),
        ("core.sshCommand", f"touch {ran}"), ("alias.worktree", f"!touch {ran}"), ("core.pager", f"touch {ran}"),
    ):  # fmt: skip
        home.git("config", name, value)
    (home.path / ".git/info").mkdir(exist_ok=True)
    (home.path / ".git/info/attributes").write_text("* filter=x\n")
    ran.unlink(missing_ok=True)  # the user's own git ran them
    placed = trees.place(str(home.path), Revision(old), new)
    assert (Path(placed.worktree) / "agent").read_text() == "old"
    assert not ran.exists()


def test_what_git_alone_would_not_check_out_as_it_was_is_refused(
    home: Repository, trees: Worktrees
) -> None:
    (home.path / ".gitattributes").write_text("*.bin filter=lfs\n")
    home.git("add", ".gitattributes")
    filtered = home.commit(agent="old")
    with pytest.raises(Unavailable, match="filter of git's"):
        trees.place(str(home.path), Revision(filtered), None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worktree, "MAX_ATTRIBUTES", 0)
        with pytest.raises(Unavailable, match=r"more than 0 files named \.gitattributes"):
            trees.place(str(home.path), Revision(filtered), None)
    home.git("rm", "-q", ".gitattributes")
    home.git("update-index", "--add", "--cacheinfo", f"160000,{filtered},inner")
    inner = home.commit(agent="new")
    with pytest.raises(Unavailable, match="submodules"):
        trees.place(str(home.path), Revision(inner), None)


def test_a_revision_that_git_has_no_more_is_said(home: Repository, trees: Worktrees) -> None:
    home.commit(agent="old")
    with pytest.raises(Unavailable, match="git does not have ffffffffffff any more"):
        trees.place(str(home.path), Revision("f" * 40), None)
    with pytest.raises(Unavailable, match="is no commit"):
        trees.place(str(home.path), Revision("--help"), None)
    with pytest.raises(Unavailable, match="no git repository"):
        trees.place("/", Revision("f" * 40), None)
    assert list((home.path.parent / "data" / worktree.FOLDER).iterdir()) == []


def test_a_directory_that_git_has_nothing_of_is_not_taken_back(
    home: Repository, trees: Worktrees, tmp_path: Path
) -> None:
    """It would be the directory of today behind a link, or whatever a committed link names."""
    old = home.commit(agent="old")
    (home.path / "mine").mkdir()
    with pytest.raises(Unavailable, match="'mine' is not under version control there"):
        trees.place(str(home.path / "mine"), Revision(old), None)
    (home.path / "part").symlink_to(tmp_path)
    home.git("add", "part")
    linked = home.commit(agent="linked")
    home.git("rm", "-q", "part")
    now = home.commit(part__code="code")
    with pytest.raises(Unavailable, match="'part' is not under version control there"):
        trees.place(str(home.path / "part"), Revision(linked), now)


def test_git_that_takes_too_long_is_ended(
    home: Repository, trees: Worktrees, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    old = home.commit(agent="old")
    slow = tmp_path / "bin/git"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nsleep 600\ntrue\n")  # as `git worktree` has a git of its own
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(worktree, "GIT_S", 0.2)
    with pytest.raises(Unavailable, match="took too long"):
        trees.place(str(home.path), Revision(old), None)


def test_too_much_is_not_checked_out(
    home: Repository, trees: Worktrees, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = home.commit(agent="old", other="x" * 2000)
    monkeypatch.setattr(worktree, "MAX_BYTES", 1000)
    with pytest.raises(Unavailable, match="too large"):
        trees.place(str(home.path), Revision(old), None)
    monkeypatch.undo()
    monkeypatch.setattr(worktree, "MAX_LINKS", 2)
    for number in range(3):
        (home.path / f"file-{number}").touch()
    with pytest.raises(Unavailable, match="beside its code"):
        trees.place(str(home.path), Revision(old), None)


def test_what_nobody_needs_is_removed_unless_an_agent_wrote_there(
    home: Repository, trees: Worktrees
) -> None:
    first, second = home.commit(agent="one"), home.commit(agent="two")
    home.commit(agent="three")
    (home.path / "state").mkdir()
    one = trees.place(str(home.path), Revision(first), None)
    two = trees.place(str(home.path), Revision(second), None)
    assert trees.tidy(()) == [], "they have just been asked for"
    assert trees.tidy({one.name, two.name}, 0) == []
    assert Path(one.worktree).exists()
    (Path(two.worktree) / "report.md").write_text("work")
    (Path(one.worktree) / "state/kept").write_text("through a link, into the checkout")
    (said,) = trees.tidy((), 0)
    assert two.worktree in said
    assert not Path(one.worktree).exists()
    assert (home.path / "state/kept").exists()
    assert trees.tidy((), 0) == [], "told once"
    (Path(two.worktree) / "report.md").unlink()
    assert trees.tidy((), 0) == []
    assert not Path(two.worktree).exists()


def test_a_file_of_git_that_an_agent_changed_there_is_kept(
    home: Repository, trees: Worktrees
) -> None:
    first = home.commit(agent="one")
    placed = trees.place(str(home.path), Revision(first), None)
    (Path(placed.worktree) / "agent").write_text("changed by the agent")
    assert len(trees.tidy((), 0)) == 1


def test_a_worktree_that_was_not_finished_is_made_anew(home: Repository, trees: Worktrees) -> None:
    first = home.commit(agent="one")
    placed = trees.place(str(home.path), Revision(first), None)
    (Path(placed.worktree).parent / "about.json").unlink()
    (Path(placed.worktree) / "agent").write_text("half")
    assert trees.place(str(home.path), Revision(first), None) == placed
    assert (Path(placed.worktree) / "agent").read_text() == "one"


def test_files_of_an_agent_outlive_a_torn_record(home: Repository, trees: Worktrees) -> None:
    first = home.commit(agent="one")
    placed = trees.place(str(home.path), Revision(first), None)
    (Path(placed.worktree).parent / "about.json").write_text("{")
    (Path(placed.worktree) / "report.md").write_text("work")
    assert trees.place(str(home.path), Revision(first), None) == placed
    assert not (Path(placed.worktree) / "report.md").exists()
    (kept,) = Path(placed.worktree).parents[1].glob("*/tree/report.md")
    (said,) = trees.tidy({placed.name}, 0)
    assert str(kept.parent) in said


def test_a_command_that_names_files_of_the_checkout_runs_those_of_the_worktree(
    home: Repository, trees: Worktrees
) -> None:
    old = home.commit(agent="old")
    (home.path / "bin").mkdir()
    placed = trees.place(str(home.path), Revision(old), None)
    inside = [f"{home.path}/bin", f"{home.path}/agent", f"{home.path}/missing", "/bin/sh", "agent"]
    assert moved(inside, placed) == [
        f"{placed.worktree}/bin", f"{placed.worktree}/agent", f"{home.path}/missing", "/bin/sh", "agent",
    ]  # fmt: skip


def test_a_linked_worktree_of_the_users_own_is_understood(
    home: Repository, trees: Worktrees, tmp_path: Path
) -> None:
    old = home.commit(agent="old")
    new = home.commit(agent="new")
    home.git("worktree", "add", "-q", "--detach", str(tmp_path / "second"), new)
    placed = trees.place(str(tmp_path / "second"), Revision(old), new)
    assert (Path(placed.worktree) / "agent").read_text() == "old"
