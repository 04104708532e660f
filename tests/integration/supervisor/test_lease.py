"""Leases between processes: exclusive, readable, given back by the kernel, never on a stranger's ground."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from midwatch.core.fleet import Agent
from midwatch.supervisor.change.lease import Leases, complaints, places

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


def test_a_directory_that_others_may_write_is_not_used(tmp_path: Path) -> None:
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    for place, why in (
        (open_to_all, "may be written or replaced by others"),
        (open_to_all / "mine", "may be written or replaced by others"),  # nothing holds it there
        (link, "is not a directory of yours"),
        (tmp_path / "no" / "such", "cannot be used"),
    ):
        (complaint,) = complaints(places({"MIDWATCH_LEASES": str(place)}))
        assert complaint.startswith("nothing keeps another instance from starting the same agents")
        assert why in complaint
        assert "set MIDWATCH_LEASES to a directory of yours" in complaint
        leases = Leases(tmp_path / "midwatch.yaml", tmp_path, place)
        assert leases.take("inbox", AGENT, 0.0) is None
        assert leases.unwritten == 1
    assert complaints(places({"MIDWATCH_LEASES": str(tmp_path / "own")})) == []
    assert (tmp_path / "own").stat().st_mode & 0o777 == 0o700
    assert list(tmp_path.glob("**/*.lease")) == []


def test_a_service_of_before_the_login_and_a_session_see_each_other(tmp_path: Path) -> None:
    """The service knows the directory for temporary files alone: /run/user/UID comes with the login."""
    file = tmp_path / "midwatch.yaml"
    temporary, run = tmp_path / "tmp" / "midwatch-7", tmp_path / "run" / "midwatch"
    temporary.parent.mkdir()
    service = Leases(file, tmp_path / "service", temporary, run)
    assert service.take("inbox", AGENT, 1000.0) is None
    run.parent.mkdir()
    session = Leases(file, tmp_path / "session", run, temporary)
    holder = session.take("inbox", AGENT, 2000.0)
    assert holder is not None
    assert holder.data == str(tmp_path / "service")
    assert list(run.iterdir()) == []  # who does not get all of them takes none
    # and the other way round: the session is seen by who has only one of its places
    service.release("inbox")
    assert session.take("inbox", AGENT, 2000.0) is None
    assert len(list(tmp_path.glob("*/*/*.lease"))) == 2
    for place in (temporary, run):
        other = Leases(file, tmp_path / "other", place)
        holder = other.take("inbox", AGENT, 3000.0)
        assert holder is not None
        assert holder.data == str(tmp_path / "session")
    session.close()
    assert list(tmp_path.glob("*/*/*.lease")) == []


def test_a_place_that_is_gone_at_the_logout_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "midwatch.yaml"
    temporary, run = tmp_path / "tmp" / "midwatch-7", tmp_path / "run" / "midwatch"
    temporary.parent.mkdir()
    run.mkdir(parents=True, mode=0o700)
    mine = Leases(file, tmp_path / "mine", temporary, run)
    assert mine.take("inbox", AGENT, 0.0) is None
    shutil.rmtree(run.parent)
    run.mkdir(parents=True, mode=0o700)  # the next login
    theirs = Leases(file, tmp_path / "theirs", temporary, run)
    assert theirs.take("inbox", AGENT, 0.0) is not None
    mine.release("inbox")
    assert theirs.take("inbox", AGENT, 0.0) is None
    assert mine.take("inbox", AGENT, 0.0) is not None
    theirs.close()


def test_one_place_with_two_names_is_one(tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    (tmp_path / "tmp").symlink_to("private")
    two = (tmp_path / "tmp" / "leases", tmp_path / "private" / "leases")
    leases = Leases(tmp_path / "midwatch.yaml", tmp_path, *two)
    assert leases.take("inbox", AGENT, 0.0) is None
    assert leases.take("other", AGENT, 0.0) is None
    leases.close()


def test_a_squatter_in_one_place_is_told_and_the_other_place_is_used(tmp_path: Path) -> None:
    file = tmp_path / "midwatch.yaml"
    squatted, run = tmp_path / "tmp" / "midwatch-7", tmp_path / "run" / "midwatch"
    squatted.parent.mkdir()
    run.parent.mkdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    squatted.symlink_to(tmp_path / "elsewhere")
    absent = tmp_path / "never" / "midwatch"
    (complaint,) = complaints([squatted, run, absent])
    assert complaint.startswith("another instance that knows no other place")
    assert repr(str(squatted)) in complaint
    one = Leases(file, tmp_path / "1", squatted, run, absent)
    two = Leases(file, tmp_path / "2", squatted, run, absent)
    assert one.take("inbox", AGENT, 0.0) is None
    assert two.take("inbox", AGENT, 0.0) is not None
    assert list((tmp_path / "elsewhere").iterdir()) == []
    one.close()


def test_all_instances_of_a_user_ask_the_same_place_first() -> None:
    uid = os.getuid()
    session = places({"XDG_RUNTIME_DIR": "/run/user/x"})
    assert session[0] == places({})[0] == Path(f"/tmp/midwatch-{uid}")
    assert Path("/run/midwatch" if uid == 0 else f"/run/user/{uid}/midwatch") in places({})
    assert places({"MIDWATCH_LEASES": "/a", "XDG_RUNTIME_DIR": "/b"}) == (Path("/a"),)


def test_an_agent_runs_where_its_lease_cannot_be_kept(tmp_path: Path) -> None:
    gone = Leases(tmp_path / "midwatch.yaml", tmp_path, tmp_path / "no" / "such")
    assert gone.take("inbox", AGENT, 0.0) is None
    assert gone.unwritten == 1
