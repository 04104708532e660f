"""Leases between processes: exclusive, readable, given back by the kernel, never on a stranger's ground."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from midwatch.core.errors import SetupError
from midwatch.core.fleet import Agent
from midwatch.supervisor.change.lease import Leases, folder

AGENT = Agent(command=["run"])

HOLD = """
import subprocess, sys
from pathlib import Path
from midwatch.core.fleet import Agent
from midwatch.supervisor.change.lease import Leases
leases = Leases(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
assert leases.take("inbox", Agent(command=["run"]), 1000.0) is None
child = subprocess.Popen(["sleep", "60"], close_fds=False)
print(child.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    path = tmp_path / "leases"
    path.mkdir(mode=0o700)
    return path


def test_the_holder_is_named_and_its_sudden_death_gives_the_lease_back(
    tmp_path: Path, place: Path
) -> None:
    file = tmp_path / "midwatch.yaml"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(file), str(tmp_path / "theirs"), str(place)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        child = int(other.stdout.readline())
        mine = Leases(file, tmp_path / "mine", place)
        holder = mine.take("inbox", AGENT, 2000.0)
        assert holder is not None
        assert (holder.pid, holder.data, holder.since) == (
            other.pid,
            str(tmp_path / "theirs"),
            1000.0,
        )
        assert holder.sentence(4600.0) == (
            f"runs already under pid {other.pid} (data directory {str(tmp_path / 'theirs')!r}), for 1 hour"
        )
        other.kill()
        other.wait()
        # at once, although a child of the dead one lives on: it never inherited the lock
        assert mine.take("inbox", AGENT, 2000.0) is None
        os.kill(child, signal.SIGKILL)
    mine.close()


def test_unrelated_instances_do_not_meet(tmp_path: Path, place: Path) -> None:
    one = Leases(tmp_path / "a" / "midwatch.yaml", tmp_path / "1", place)
    two = Leases(tmp_path / "b" / "midwatch.yaml", tmp_path / "2", place)
    assert one.take("inbox", AGENT, 0.0) is None
    assert two.take("inbox", AGENT, 0.0) is None
    assert two.take("other", AGENT, 0.0) is None
    # a name that the file declares is the same in every file
    named = Agent(command=["run"], lease="mailbox")
    assert one.take("mail", named, 0.0) is None
    assert two.take("post", named, 0.0) is not None
    # and what was started without a file has no lease
    assert Leases(None, tmp_path / "3", place).take("inbox", AGENT, 0.0) is None
    one.close()
    two.close()
    assert list(place.iterdir()) == []


def test_the_same_file_by_another_path_is_the_same_file(tmp_path: Path, place: Path) -> None:
    (tmp_path / "midwatch.yaml").touch()
    (tmp_path / "link.yaml").symlink_to("midwatch.yaml")
    one = Leases(tmp_path / "midwatch.yaml", tmp_path / "1", place)
    two = Leases(tmp_path / "link.yaml", tmp_path / "2", place)
    assert one.take("inbox", AGENT, 0.0) is None
    assert two.take("inbox", AGENT, 0.0) is not None
    one.close()


def test_a_lease_changes_hands_without_two_ever_holding_it(tmp_path: Path, place: Path) -> None:
    """The file is removed at release: whoever had it open already must not hold a file of the past."""
    file = tmp_path / "midwatch.yaml"
    one, two, three = (Leases(file, tmp_path / str(n), place) for n in range(3))
    for _ in range(200):
        assert one.take("inbox", AGENT, 0.0) is None
        assert two.take("inbox", AGENT, 0.0) is not None
        one.release("inbox")
        assert two.take("inbox", AGENT, 0.0) is None
        assert three.take("inbox", AGENT, 0.0) is not None
        two.release("inbox")
    assert list(place.iterdir()) == []


def test_what_a_torn_or_hostile_file_says_is_bounded(tmp_path: Path, place: Path) -> None:
    file = tmp_path / "midwatch.yaml"
    one, two = Leases(file, tmp_path / "1", place), Leases(file, tmp_path / "2", place)
    assert one.take("inbox", AGENT, 0.0) is None
    (lease,) = place.iterdir()
    for content in (b"", b"{", b"[1]", b'{"pid": "x", "data": "\\u001b[2J' + b"y" * 9000):
        lease.write_bytes(content)
        holder = two.take("inbox", AGENT, 0.0)
        assert holder is not None
        assert holder.sentence(0.0) == "runs already under another instance"
    one.close()


def test_a_directory_that_others_may_write_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    with pytest.raises(SetupError, match="may be written by others"):
        folder({"MIDWATCH_LEASES": str(open_to_all)})
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    with pytest.raises(SetupError, match="not a directory of yours"):
        folder({"MIDWATCH_LEASES": str(link)})
    with pytest.raises(SetupError, match="cannot be used"):
        folder({"MIDWATCH_LEASES": str(tmp_path / "no" / "such")})
    assert folder({"MIDWATCH_LEASES": str(tmp_path / "own")}) == tmp_path / "own"
    assert (tmp_path / "own").stat().st_mode & 0o777 == 0o700


def test_an_agent_runs_where_its_lease_cannot_be_kept(tmp_path: Path) -> None:
    gone = Leases(tmp_path / "midwatch.yaml", tmp_path, tmp_path / "gone")
    assert gone.take("inbox", AGENT, 0.0) is None
    assert gone.unwritten == 1
