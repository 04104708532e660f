"""The data directory and the journal: made, locked, private, and whole after any death."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midwatch.core.errors import SetupError
from midwatch.supervisor.address import Address, holder_of, parse, reserve
from midwatch.supervisor.datadir import DataDir
from midwatch.supervisor.journal import COMPACT_BYTES, Journal


def test_a_new_directory_is_private_and_has_its_secrets(tmp_path: Path) -> None:
    data = DataDir(tmp_path / "new" / "data")
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in data.path.iterdir()}
    assert stat.S_IMODE(data.path.stat().st_mode) == 0o700
    assert {modes[name] for name in ("lock", "secret", "token")} == {0o600}
    assert (len(data.secret), (data.path / "lock").read_text()) == (32, f"{os.getpid()}\n")
    assert (data.path / "token").read_text().startswith("mwt_")
    data.close()


def test_secrets_are_made_once(tmp_path: Path) -> None:
    first = DataDir(tmp_path)
    kept = (first.secret, (tmp_path / "token").read_text())
    first.close()
    second = DataDir(tmp_path)
    assert (second.secret, (tmp_path / "token").read_text()) == kept
    second.close()


def test_a_directory_in_use_names_who_holds_it(tmp_path: Path) -> None:
    first = DataDir(tmp_path)
    with pytest.raises(
        SetupError, match=rf"in use by another instance \(pid {os.getpid()}\); stop that one first"
    ):
        DataDir(tmp_path)
    first.close()
    DataDir(tmp_path).close()


def test_a_path_that_is_a_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match="is not a directory"):
        DataDir(tmp_path / "file")


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    data = DataDir(tmp_path)
    data.write_json("fleet.json", {"fleet": "old"})
    data.write_json("fleet.json", {"fleet": "neu ü"})
    assert json.loads((tmp_path / "fleet.json").read_text("utf-8")) == {"fleet": "neu ü"}
    assert stat.S_IMODE((tmp_path / "fleet.json").stat().st_mode) == 0o600
    assert not list(tmp_path.glob("*.new"))
    data.close()


def test_a_file_that_cannot_be_replaced_gives_nothing_up(tmp_path: Path) -> None:
    """A reload on a full disk must not let a second instance into the directory."""
    data = DataDir(tmp_path)
    (tmp_path / "fleet.json.new").mkdir()
    with pytest.raises(SetupError, match="data directory"):
        data.write_json("fleet.json", {})
    with pytest.raises(SetupError, match="in use by another instance"):
        DataDir(tmp_path)
    data.close()


def test_the_journal_remembers_over_a_sudden_death(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    journal.alive(100.0)
    journal.started("inbox", "run-1", 42, 7.0, 99.0)
    journal.started("prices", "run-2", 43, 8.0, 99.0)
    journal.ended("prices", 2)
    journal.hold("prices", "parked", "failed", 101.0, "abc")
    journal.schedule("report", fired=90.0)
    again = Journal(tmp_path / "journal")  # no close: the first one died
    assert (again.book.clean, again.book.alive_at, again.book.recent_runs) == (
        False,
        100.0,
        ["run-2"],
    )
    assert (again.of("inbox").run_id, again.of("inbox").pid) == ("run-1", 42)
    prices = again.of("prices")
    assert (prices.run_id, prices.failures, prices.held, prices.entry) == (None, 2, "parked", "abc")
    assert again.of("report").fired == 90.0


def test_a_clean_stop_is_known(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    assert journal.book.clean  # nothing before: nothing died
    journal.alive(1.0)
    journal.stopped(2.0)
    assert Journal(tmp_path / "journal").book.clean


def test_a_torn_line_is_skipped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal(path)
    journal.hold("inbox", "stopped", "by a person", 1.0)
    journal.hold("prices", "stopped", "by a person", 2.0)
    path.write_bytes(path.read_bytes()[:-9])
    again = Journal(path)
    assert (again.damaged, again.of("inbox").held, again.of("prices").held) == (1, "stopped", None)
    again.hold("prices", "suspended", "again", 3.0)
    assert Journal(path).of("prices").held == "suspended"


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 400), st.binary(max_size=40))
def test_whatever_is_on_the_disk_the_journal_opens(
    tmp_path_factory: pytest.TempPathFactory, cut: int, junk: bytes
) -> None:
    path = tmp_path_factory.mktemp("j") / "journal"
    journal = Journal(path)
    for number in range(5):
        journal.started("inbox", f"run-{number}", number, 0.0, 0.0)
    journal.close()
    path.write_bytes(path.read_bytes()[:cut] + junk)
    again = Journal(path)
    again.hold("inbox", "stopped", "x", 1.0)
    again.close()
    last = Journal(path)
    assert (last.of("inbox").held, last.damaged) == ("stopped", 0)
    last.close()


def test_the_journal_does_not_grow_without_bound(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    for number in range(20_000):
        journal.started("inbox", f"run-{number:06d}", number, 0.0, 0.0)
    assert journal.path.stat().st_size <= COMPACT_BYTES
    assert len(journal.book.recent_runs) == 1000


def test_a_full_disk_is_counted_and_the_work_goes_on(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, journal._fd)
    os.close(full)
    journal.started("inbox", "run-1", 1, 0.0, 0.0)
    assert (journal.failed_writes, journal.of("inbox").run_id) == (1, "run-1")


def test_addresses_are_read_as_people_write_them() -> None:
    assert parse("127.0.0.1:8700", "hub.listen") == Address("127.0.0.1", 8700)
    assert str(parse("[::1]:8700", "hub.listen")) == "[::1]:8700"
    assert parse(":8700", "hub.listen").url == "http://127.0.0.1:8700"
    with pytest.raises(
        SetupError, match=r"hub\.listen: expected HOST:PORT such as 127\.0\.0\.1:8700, got '8700'"
    ):
        parse("8700", "hub.listen")


def test_a_port_in_use_is_told_with_its_holder() -> None:
    code = "import socket,sys;s=socket.create_server(('127.0.0.1',0));print(s.getsockname()[1],flush=True);sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        port = int(other.stdout.readline())
        with pytest.raises(
            SetupError,
            match=rf"hub\.listen: port {port} on 127\.0\.0\.1 is in use by pid {other.pid} \(.*set hub\.listen in the fleet file",
        ):
            reserve(Address("127.0.0.1", port), "hub.listen")
        other.kill()
    assert holder_of(port) is None
    assert reserve(Address("127.0.0.1", port), "hub.listen").port == port


def test_port_0_takes_a_free_one() -> None:
    assert reserve(Address("127.0.0.1", 0), "hub.listen").port > 0
