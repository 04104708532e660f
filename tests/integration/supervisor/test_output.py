"""Captured output: bounded, rotated, redacted, and never in the agent's way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from midwatch.supervisor.output import capture as capturing
from midwatch.supervisor.output import logfile
from midwatch.supervisor.output.capture import Capture, Writer


@pytest.fixture
def writer() -> Iterator[Writer]:
    shared = Writer()
    yield shared
    shared.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "still not so"
        time.sleep(0.005)


def text_of(folder: Path) -> str:
    """Return the current file without the stamps."""
    path = folder / "output.log"
    lines = path.read_text("utf-8", "replace").split("\n") if path.exists() else []
    return "\n".join(line[25:] for line in lines)


def test_lines_arrive_stamped_and_in_order(writer: Writer, tmp_path: Path) -> None:
    capture = Capture(writer, tmp_path)
    capture.feed(b"one\ntw")
    capture.feed(b"o\nthree\n")
    until(lambda: text_of(tmp_path) == "one\ntwo\nthree\n")
    first = (tmp_path / "output.log").read_text().split("\n")[0]
    assert first[4::3][:2] == "--" or first[10] == "T"
    assert capture.tail() == ["one", "two", "three"]


def test_a_prompt_without_newline_is_written_after_a_moment(writer: Writer, tmp_path: Path) -> None:
    Capture(writer, tmp_path).feed(b"password? ")
    until(lambda: text_of(tmp_path) == "password? ")


def test_a_key_is_redacted_in_file_and_tail_also_when_it_comes_in_pieces(
    writer: Writer, tmp_path: Path
) -> None:
    key = b"sk-proj-" + b"a1" * 30
    capture = Capture(writer, tmp_path)
    capture.feed(b"using " + key[:20])
    time.sleep(0.1)
    capture.feed(key[20:] + b" now\n")
    until(lambda: "now" in text_of(tmp_path))
    assert text_of(tmp_path) == "using sk-proj[redacted] now\n"
    assert capture.tail() == ["using sk-proj[redacted] now"]
    assert capture.file.redacted == 1


def test_a_private_key_is_redacted_although_its_lines_come_one_by_one(
    writer: Writer, tmp_path: Path
) -> None:
    capture = Capture(writer, tmp_path)
    lines = [
        b"-----BEGIN PRIVATE KEY-----",
        *[b"MIIEvQIBADANBg" * 4] * 3,
        b"-----END PRIVATE KEY-----",
    ]
    for line in [b"loaded", *lines, b"connected"]:
        capture.feed(line + b"\n")
        until(lambda: not capture._waiting)
        time.sleep(2 * capturing.GATHER_S)  # the writer writes what it has
    until(lambda: "connected" in text_of(tmp_path))
    assert text_of(tmp_path) == "loaded\n-----BE[redacted]\nconnected\n"


def test_a_begin_that_never_ends_is_held_back_for_a_moment_only(
    writer: Writer, tmp_path: Path
) -> None:
    Capture(writer, tmp_path).feed(b"-----BEGIN of my story\nonce\n")
    until(lambda: text_of(tmp_path) == "-----BEGIN of my story\nonce\n")


def test_a_key_that_the_tail_would_cut_in_half_is_not_shown(writer: Writer, tmp_path: Path) -> None:
    for endless in (b"", b"\n"):
        for shift in range(0, 80, 8):
            capture = Capture(writer, tmp_path)
            before = b"." * (2 * capturing.TAIL_BYTES + 1 - capturing.TAIL_BYTES - shift)
            capture.feed(before + b" sk-proj-" + b"Zq9" * 24 + b" " + endless)
            capture.feed(b"." * (capturing.TAIL_BYTES - 80 + shift - len(endless)) + b"\n")
            assert "Zq9Zq9" not in "".join(capture.tail())
            assert capture.tail()


def test_files_are_rotated_and_the_oldest_goes(
    writer: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logfile, "FILE_BYTES", 1000)
    monkeypatch.setattr(logfile, "TOTAL_BYTES", 6000)
    capture = Capture(writer, tmp_path)
    for number in range(100):
        capture.feed(b"%03d %s\n" % (number, b"x" * 100))
        written = number
        until(lambda written=written: f"{written:03d} x" in text_of(tmp_path))
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["output.log", *(f"output.log.{n}" for n in range(1, 5))]
    assert all(path.stat().st_size < 1400 for path in tmp_path.iterdir())


def test_a_line_without_end_needs_bounded_memory_and_loses_nothing(
    writer: Writer, tmp_path: Path
) -> None:
    capture = Capture(writer, tmp_path)
    for _ in range(40):
        capture.feed(b"y" * 65_536)
        until(lambda: capture._waiting_bytes == 0)
    assert len(capture._tail) <= 2 * capturing.TAIL_BYTES + 65_536
    assert len(capture.file._held) <= logfile.PIECE_BYTES + 65_536
    until(lambda: not capture.file.holds)
    total = sum(path.read_bytes().count(b"y") for path in tmp_path.iterdir())
    assert (total, capture.dropped_bytes) == (40 * 65_536, 0)


def test_what_the_disk_cannot_take_is_dropped_counted_and_said(tmp_path: Path) -> None:
    writer = Writer()
    writer.close()  # a disk that never answers
    capture = Capture(writer, tmp_path)
    began = time.monotonic()
    for _ in range(100):
        capture.feed(b"z" * 65_536)
    assert time.monotonic() - began < 10, "it waited for the disk"
    assert capture.dropped_bytes == 100 * 65_536 - capturing.BUFFER_BYTES
    taken = b"".join(capture.take())
    assert taken.endswith(
        f"[midwatch: {capture.dropped_bytes:,} bytes left out here: the disk was slower than the agent]\n".encode()
    )


def test_what_is_over_the_allowance_is_left_out_in_stretches_and_said_once_each(
    writer: Writer, tmp_path: Path
) -> None:
    now = [0.0]
    capture = Capture(writer, tmp_path, lambda: now[0])
    capture.allow(1000)
    line = b"a line of forty characters and some more\n"
    for number in range(3000):
        capture.feed(line)
        now[0] = number / 1000  # 41 kB/s for three seconds
    now[0] += 20
    capture.feed(b"calm again\n")
    until(lambda: "calm again" in text_of(tmp_path))
    shown = text_of(tmp_path)
    assert shown.count("left out here: more than 1000 B/s") <= 4
    assert all(one in (line.decode().strip(), "calm again", "") or "left out" in one
               for one in shown.split("\n"))  # fmt: skip
    kept = shown.count(line.decode())
    assert 16_000 <= kept * len(line) <= 16_000 + 4 * 1000
    assert capture.flooded_bytes == (3000 - kept) * len(line)
    assert capture.dropped_bytes == 0


def test_the_last_lines_of_a_flood_are_kept_when_it_is_over(writer: Writer, tmp_path: Path) -> None:
    capture = Capture(writer, tmp_path, lambda: 0.0)
    capture.allow(1000)
    for _ in range(100):
        capture.feed(b"noise " * 1000 + b"\n")
    capture.feed(b"ValueError: the reason\n")
    capture.settle()
    until(lambda: "ValueError: the reason" in text_of(tmp_path))
    assert text_of(tmp_path).count("left out here") == 1
    assert capture.bytes_read - capture.flooded_bytes < 16_000 + 2 * capturing.TAIL_BYTES


@pytest.mark.parametrize("shift", range(0, 60, 7))
def test_a_key_at_the_edge_of_a_stretch_is_not_shown_in_half(
    writer: Writer, tmp_path: Path, shift: int
) -> None:
    now = [0.0]
    capture = Capture(writer, tmp_path, lambda: now[0])
    capture.allow(100)
    key = b"AKIA" + b"QZ" * 8 + b" sk-ant-" + b"QZ9" * 20 + b" "
    capture.feed(b"." * (1600 - shift) + key + b"." * 200)
    capture.feed(key[:30])
    now[0] = 10.0
    capture.feed(key[30:] + b"\nend\n")
    until(lambda: "end" in text_of(tmp_path))
    assert "QZQZ" not in text_of(tmp_path)
    assert "QZ9QZ9" not in text_of(tmp_path)


def test_buffers_of_all_agents_together_are_bounded(tmp_path: Path) -> None:
    writer = Writer()
    writer.close()
    for number in range(32):
        capture = Capture(writer, tmp_path / str(number))
        for _ in range(64):
            capture.feed(b"z" * 65_536)
    assert writer.waiting_bytes == capturing.BUFFERS_BYTES


def test_a_folder_that_cannot_be_written_is_counted_not_raised(
    writer: Writer, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    capture = Capture(writer, tmp_path / "file" / "below")
    capture.feed(b"lost\n")
    until(lambda: capture.file.lost_bytes > 0)
    capture.feed(b"again\n")
    assert capture.tail() == ["lost", "again"]


DAY = 86_400.0


def _write(file: logfile.LogFile, text: bytes, at: float) -> None:
    file.write(text, at)
    file.flush(at)


def test_a_new_day_begins_a_new_file_and_a_clock_that_goes_back_does_not(tmp_path: Path) -> None:
    file = logfile.LogFile(tmp_path / "output.log")
    noon = 1_790_000_000.0 // DAY * DAY + DAY / 2
    for text, at in (
        (b"a\n", noon),
        (b"b\n", noon + DAY),
        (b"c\n", noon - 5 * DAY),
        (b"d\n", noon + DAY),
    ):
        _write(file, text, at)
    file.close()
    assert (tmp_path / "output.log.1").read_text().endswith("Z a\n")
    assert [one[25:] for one in (tmp_path / "output.log").read_text().split("\n")] == [
        "b",
        "c",
        "d",
        "",
    ]
    assert file.rotations == 1


def test_an_endless_line_is_broken_and_every_file_begins_with_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logfile, "LINE_BYTES", 5_000)
    monkeypatch.setattr(logfile, "FILE_BYTES", 20_000)
    file = logfile.LogFile(tmp_path / "output.log")
    for _ in range(100):
        _write(file, b"e" * 1000, 1_790_000_000.0)
    file.close()
    for path in tmp_path.iterdir():
        lines = path.read_bytes().split(b"\n")
        assert all(one[:2] == b"20" and one[23:25] == b"Z " for one in lines if one)
        assert max(map(len, lines)) < 7_000
    assert sum(p.read_bytes().count(b"e") for p in tmp_path.iterdir()) == 100_000


def test_a_line_that_an_earlier_writer_left_open_is_closed_first(tmp_path: Path) -> None:
    (tmp_path / "output.log").write_text("2026-01-01T00:00:00.000Z torn")
    file = logfile.LogFile(tmp_path / "output.log")
    now = time.time()
    _write(file, b"next\n", now)
    file.close()
    assert "torn\n20" in (tmp_path / "output.log").read_text()
