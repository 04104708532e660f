"""Logs are read across rotations without a gap, and patterns cost no more than their lines."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from midwatch.store.grep import Grep
from midwatch.store.logfiles import Mark, Reader


def line(number: int) -> str:
    return f"2026-01-01T00:00:{number:02d}.000Z {number}\n"


class Log:
    """A log that is written and rotated by hand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "output.log"
        self.count = 0

    def write(self, lines: int) -> None:
        with self.path.open("a") as stream:
            for _ in range(lines):
                self.count += 1
                stream.write(line(self.count))

    def rotate(self, keep: int = 9) -> None:
        for number in range(keep, 0, -1):
            older = self.folder / f"output.log.{number}"
            if older.exists():
                older.rename(self.folder / f"output.log.{number + 1}")
        self.path.rename(self.folder / "output.log.1")
        (self.folder / f"output.log.{keep + 1}").unlink(missing_ok=True)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    made = Reader(tmp_path)
    yield made
    made.close()


def numbers(lines: Iterator[bytes]) -> list[int]:
    return [int(one[25:]) for one in lines]


def test_a_reader_that_was_paused_over_many_rotations_skips_no_file(
    log: Log, reader: Reader
) -> None:
    log.write(3)
    assert numbers(reader.read()) == [1, 2, 3]
    for _ in range(5):  # the terminal is paused meanwhile
        log.write(2)
        log.rotate()
    log.write(1)
    assert numbers(reader.read()) == list(range(4, 15))
    assert reader.gaps == 0


def test_output_that_is_gone_before_it_was_read_is_told(log: Log, reader: Reader) -> None:
    log.write(1)
    assert numbers(reader.read()) == [1]
    for _ in range(5):
        log.write(1)
        log.rotate(keep=2)
    log.write(1)
    assert numbers(reader.read()) == [2, 5, 6, 7]  # what was held open is still read
    assert reader.gaps == 1


def test_a_rotation_while_the_kept_files_are_read_loses_and_doubles_nothing(
    log: Log, reader: Reader
) -> None:
    for _ in range(3):
        log.write(1)
        log.rotate()
    log.write(1)
    found = reader.read()
    read = [next(found)]
    log.rotate()
    log.write(1)
    read += found
    assert numbers(iter(read)) == [1, 2, 3, 4, 5]


def test_between_two_names_nothing_is_lost(log: Log, reader: Reader) -> None:
    log.write(1)
    assert numbers(reader.read()) == [1]
    log.write(1)
    log.rotate()
    assert numbers(reader.read()) == [2]
    log.write(1)
    assert numbers(reader.read()) == [3]


@pytest.mark.parametrize("count", [0, 1, 2, 5, 6, 7, 100])
def test_the_last_lines_are_found_over_files(log: Log, reader: Reader, count: int) -> None:
    for _ in range(3):
        log.write(2)
        log.rotate()
    log.write(1)
    reader.begin_with_last(count)
    assert numbers(reader.read()) == list(range(max(1, 8 - count), 8))


def test_the_last_lines_of_a_file_of_many_blocks_are_found(log: Log, reader: Reader) -> None:
    log.path.write_text(
        "".join(f"2026-01-01T00:00:00.000Z {'x' * (n % 300)}{n}\n" for n in range(5000))
    )
    reader.begin_with_last(3000)
    assert sum(1 for _ in reader.read()) == 3000


def test_a_time_begins_at_the_file_that_holds_it(log: Log, reader: Reader) -> None:
    for _ in range(3):
        log.write(2)
        log.rotate()
    reader.begin_at(b"2026-01-01T00:00:04.000Z")
    assert numbers(reader.read())[0] == 3


def test_a_mark_leads_another_reader_on_under_whatever_name(log: Log, reader: Reader) -> None:
    log.write(3)
    numbers(reader.read())
    mark = Mark.parse(str(reader.mark))
    log.write(1)
    log.rotate()
    log.write(1)
    second = Reader(log.folder)
    second.begin_after(mark)
    assert numbers(second.read()) == [4, 5]
    second.close()


def test_a_mark_of_a_file_that_is_gone_tells_of_a_gap(log: Log, reader: Reader) -> None:
    log.write(1)
    reader.begin_after(Mark(1, 2, 3))
    assert (numbers(reader.read()), reader.gaps) == ([1], 1)


@pytest.mark.parametrize("text", ["", "1.2", "x.y.z", "1.2.3.4", "1" * 100])
def test_a_mark_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no place|invalid literal"):
        Mark.parse(text)


def test_an_unfinished_line_waits_until_it_is_asked_for(log: Log, reader: Reader) -> None:
    log.path.write_text(line(1) + "2026-01-01T00:00:02.000Z pass")
    assert list(reader.read(partial=False)) == [line(1).encode()]
    assert list(reader.read(partial=True)) == [b"2026-01-01T00:00:02.000Z pass"]
    with log.path.open("a") as stream:
        stream.write("word\n")
    assert list(reader.read()) == [b"word\n"]


def test_a_file_that_somebody_emptied_is_followed_from_its_new_begin(
    log: Log, reader: Reader
) -> None:
    log.path.write_text("many words\n")
    assert list(reader.read()) == [b"many words\n"]
    log.path.write_text("few\n")
    assert list(reader.read()) == [b"few\n"]


def test_links_and_pipes_are_no_logs(tmp_path: Path, reader: Reader) -> None:
    (tmp_path / "output.log").symlink_to("/etc/passwd")
    assert list(reader.read()) == []


def test_a_pattern_that_would_take_others_for_ever_takes_no_time() -> None:
    began = time.process_time()
    assert Grep("(a+)+$").keep(["a" * 16_000 + "b"] * 50) == [False] * 50
    assert Grep("(x*)*(x*)*y").keep(["x" * 16_000]) == [False]
    assert time.process_time() - began < 5


def test_a_plain_word_and_a_pattern_find_the_same() -> None:
    lines = ["alpha beta", "gamma", "", "be", "\udcff beta"]
    assert (
        Grep("beta").keep(lines) == Grep("bet[a]").keep(lines) == [True, False, False, False, True]
    )
    assert Grep("").keep(lines) == [True] * 5


@pytest.mark.parametrize("pattern", ["(", r"(a)\1", "(?=a)", "x" * 2000])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        Grep(pattern)
