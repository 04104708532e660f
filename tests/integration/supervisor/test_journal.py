"""The journal on a disk that fails."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from midwatch.supervisor import journal
from midwatch.supervisor.journal import Journal


def test_a_line_torn_by_a_full_disk_takes_no_later_line_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = Journal(tmp_path / "journal")

    def half(fd: int, data: bytes) -> None:
        os.write(fd, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(journal, "_write_all", half)
        book.started("inbox", "run-1", 7, 1.0, 1.0)
    assert book.failed_writes == 1
    book.hold("inbox", "stopped", "stopped by a person", 2.0)
    found = Journal(tmp_path / "journal")
    assert (found.of("inbox").held, found.of("inbox").run_id) == ("stopped", "run-1")
    assert found.damaged == 0


YEAR = 366 * 86_400.0


def written(path: Path) -> set[str]:
    """Return whose records stand in the file."""
    return set(Journal(path).book.records)


def test_agents_that_left_are_forgotten_when_the_file_is_rewritten(tmp_path: Path) -> None:
    book = Journal(tmp_path / "journal")
    for number in range(5000):  # an orchestrator's fleet, over the years
        book.started(f"job-{number}", f"run-{number}", 7, 1.0, 1.0)
        book.ended(f"job-{number}", 1)
    book.started("inbox", "run-x", 8, 1.0, 1.0)
    book.started("/hub", "run-h", 9, 1.0, 1.0)
    book.ended("/hub", 0)
    book.compact()
    assert len(book.book.records) == 5002, "nobody is forgotten before it is known who is there"
    book.begin({"inbox", "new"}, 100.0)
    book.alive(100.0)
    book.compact()
    assert set(book.book.records) == {"inbox", "/hub"}
    assert written(tmp_path / "journal") == {"inbox", "/hub"}
    assert (tmp_path / "journal").stat().st_size < 60_000
    # what their runs may have left behind is still swept
    assert "run-4999" in Journal(tmp_path / "journal").book.recent_runs


def test_what_a_person_decided_and_a_start_that_was_made_wait_a_year_for_the_agent(
    tmp_path: Path,
) -> None:
    book = Journal(tmp_path / "journal")
    book.hold("stopped", "stopped", "stopped by a person", 1.0)
    book.schedule("once", plan="at 2026-01-01T00:00:00", fired=5.0)
    book.schedule("daily", plan="0 6 * * *", fired=5.0)
    book.begin({"inbox"}, 1000.0)
    for later in (2000.0, 1000.0 + YEAR):
        book.alive(later)
        book.begin({"inbox"}, later)  # a restart in between is no new departure
        book.compact()
        assert set(book.book.records) == {"stopped", "once"}
    again = Journal(tmp_path / "journal")
    assert (again.of("stopped").held, again.of("once").fired) == ("stopped", 5.0)
    again.fleet({"inbox", "once"}, 1000.0 + YEAR)  # one of them came back
    again.alive(1001.0 + YEAR)
    again.compact()
    assert again.of("once").left is None
    assert written(tmp_path / "journal") == {"once"}


def test_a_run_that_lives_keeps_its_record_until_it_has_ended(tmp_path: Path) -> None:
    book = Journal(tmp_path / "journal")
    book.started("leaving", "run-1", 7, 1.0, 1.0)
    book.alive(10.0)
    book.fleet({"inbox"}, 10.0)
    book.compact()
    assert book.of("leaving").run_id == "run-1"
    book.ended("leaving", 0)
    book.compact()
    assert "leaving" not in book.book.records
    # but at the beginning nothing lives any more: an earlier supervisor's runs have been ended
    book.started("lost", "run-2", 7, 1.0, 1.0)
    book.begin({"inbox"}, 20.0)
    book.compact()
    assert "lost" not in book.book.records
    assert book.book.recent_runs[-1] == "run-2"


def test_no_more_than_so_many_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "MEMORY_MAX", 3)
    book = Journal(tmp_path / "journal")
    for number in range(6):
        book.hold(f"job-{number}", "parked", "broken", 1.0)
        book.fleet({"inbox"}, 10.0 + number)
    book.alive(20.0)
    book.compact()
    assert set(book.book.records) == {"job-3", "job-4", "job-5"}


def test_a_journal_that_is_full_of_what_is_needed_is_not_rewritten_with_each_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "COMPACT_BYTES", 20_000)
    book = Journal(tmp_path / "journal")
    for number in range(100):
        book.hold(f"agent-{number}", "parked", "x" * 300, 1.0)
    book.compact()
    before = (tmp_path / "journal").stat().st_ino
    for second in range(100):
        book.alive(float(second))
    assert (tmp_path / "journal").stat().st_ino == before
