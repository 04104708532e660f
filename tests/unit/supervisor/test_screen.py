"""A screen is drawn as a terminal would, whatever hostile bytes do to it."""

from __future__ import annotations

import itertools
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midwatch.supervisor.output.record import RECORD_BYTES, Record
from midwatch.supervisor.output.screen import _PIECES, COLUMNS, PIECE, ROWS, draw

KEY = b"sk-proj-" + b"a1B2" * 12


@pytest.mark.parametrize(
    ("output", "lines", "cursor"),
    [
        (b"", [], (0, 0)),
        (b"one\r\ntwo", ["one", "two"], (1, 3)),
        (b"10%\r20%\r\x1b[K30%", ["30%"], (0, 3)),
        (b"old\x1b[2J\x1b[H\x1b[1;31mnew\x1b[0m", ["new"], (0, 3)),
        (b"\x1b[3;5Hhere", ["", "", "    here"], (2, 8)),
        (b"\x1b]0;a title\x07text", ["text"], (0, 4)),
        ("漢字 é".encode(), ["漢字 é"], (0, 6)),
        (b"gone\x1b[?1049h", ["gone"], (0, 4)),
    ],
)
def test_it_shows_what_a_terminal_shows(
    output: bytes, lines: list[str], cursor: tuple[int, int]
) -> None:
    screen = draw(output)
    assert (screen.lines, screen.cursor) == (lines, cursor)


class SlowToLoad:
    """Finds nothing, but takes its time: what the first import of the library costs on a busy machine."""

    def find_spec(self, name: str, *_: object) -> None:
        until = time.thread_time() + 0.05
        while name == "pyte" and time.thread_time() < until:
            pass


def test_loading_the_library_does_not_use_up_the_time_for_drawing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "pyte", raising=False)
    monkeypatch.setattr(sys, "meta_path", [SlowToLoad(), *sys.meta_path])
    assert draw(b"here", budget_s=0.03).cursor == (0, 4)


def test_time_in_which_others_work_is_not_the_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(ticks)))  # a second at each look
    assert draw("漢字 é".encode()).cursor == (0, 6)


def test_it_scrolls() -> None:
    screen = draw(b"".join(b"line %d\r\n" % n for n in range(200)))
    assert screen.lines[0] == "line 151"
    assert screen.lines[-1] == "line 199"
    assert len(screen.lines) == ROWS - 1


def test_secrets_are_gone_also_where_a_line_was_broken() -> None:
    screen = draw(b"x" * (COLUMNS - 20) + b" " + KEY + b"\r\n\x1b[5;1Hkey " + KEY)
    text = "".join(screen.lines)
    assert KEY.decode() not in text
    assert KEY.decode()[20:] not in text
    assert "[redacted]" in text


EVIL = {
    "fill": b"\x1b#8" * 30_000,
    "erase": b"\x1b#8" + b"\x1b[2J" * 20_000,
    "insert": b"\x1b#8\x1b[H" + b"\x1b[9@" * 20_000,
    "eight-bit": "\x9b2J".encode() * 20_000 + b"\x1b#8" * 9,
    "marks": b"a" + b"\xcc\x81" * 40_000,
    "lines": b"\n" * 80_000,
    "columns": b"\x1b[?3h\x1b[?3l" * 8_000,
    "digits": b"\x1b[" + b"9" * 80_000 + b"m",
    "title": b"\x1b]0;" + b"x" * 80_000,
    "nothing known": b"\x1b[5J\x1b[1;2;3;4;5H\x1b[>c\x1b[\xc2\xb2m" * 2_000,
}


class Clock:
    """Processor time by hand: each look costs as much as a bad piece."""

    def __init__(self) -> None:
        self.looks = 0

    def thread_time(self) -> float:
        self.looks += 1
        return self.looks * 0.01


@pytest.mark.parametrize("name", EVIL)
def test_hostile_output_is_drawn_in_pieces_within_a_budget_and_ends_in_plain_text(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr("midwatch.supervisor.output.screen.time", clock)
    screen = draw(EVIL[name][-RECORD_BYTES:], budget_s=0.05)
    assert clock.looks <= 7
    assert (
        screen.cursor is None or clock.looks < 7
    )  # what was not drawn to its end is not shown as if
    assert len(screen.lines) <= ROWS
    assert all(line.isprintable() or "\u0301" in line for line in screen.lines)


def test_no_piece_is_longer_than_what_may_pass_between_two_looks() -> None:
    for name, data in EVIL.items():
        text = data[-RECORD_BYTES:].decode("utf-8", "replace")
        assert max(len(piece[0]) for piece in _PIECES.finditer(text)) <= PIECE + 1, name


PIECES = st.one_of(
    st.binary(max_size=40),
    st.builds(
        lambda numbers, end, mark: b"\x1b[" + mark + ";".join(map(str, numbers)).encode() + end,
        st.lists(st.integers(0, 99_999), max_size=6),
        st.sampled_from([bytes([n]) for n in range(0x40, 0x7F)]),
        st.sampled_from([b"", b"?", b">", b" ", b"$"]),
    ),
    st.sampled_from([b"\x1b#8", b"\x1b(0", b"\x1b%@", b"\x1b]0;x", b"\x9b", b"\x0e", b"\x1bc", b"\x1bM"]),
)  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(pieces=st.lists(PIECES, max_size=60))
def test_no_sequence_breaks_it(pieces: list[bytes]) -> None:
    screen = draw(b"".join(pieces) + b"\x1bc\x1b[H\x1b[2Jdone")
    assert len(screen.lines) <= ROWS
    assert all(len(line) <= 600 for line in screen.lines)


def test_a_record_keeps_the_end_within_its_bound() -> None:
    record = Record()
    for number in range(3000):
        record.feed(b"%06d %s\n" % (number, b"x" * 92))
    kept = record.bytes()
    assert len(kept) <= RECORD_BYTES
    assert kept.endswith(b"x\n")
    assert record.fed == 3000 * 100


def test_a_record_does_not_begin_inside_of_a_secret() -> None:
    record = Record()
    record.feed(KEY + b" " + b"x" * (RECORD_BYTES - 30))
    assert KEY[20:] not in record.bytes()


def test_one_huge_piece_is_cut() -> None:
    record = Record()
    record.feed(b"y" * 10_000_000)
    record.feed(b" end")
    assert len(record.bytes()) in range(RECORD_BYTES - 512, RECORD_BYTES + 1)
    assert record.bytes().endswith(b"y end")
