"""Hostile output becomes lines that may be shown."""

from __future__ import annotations

from midwatch.core.excerpt import LINE_SHOWN, show_lines


def test_binary_junk_colours_and_tricks_become_printable() -> None:
    junk = b"\x1b[31mred\x1b[0m \x00\x07\xff\xfe \xe2\x80\xae txt\r\nnext\rover\n"
    lines = show_lines(junk)
    assert lines == ["red \\x00\\x07�� \\u202e txt", "next", "over"]
    assert all(line.isprintable() for line in lines)


def test_long_lines_are_clipped_in_the_tail() -> None:
    (line,) = show_lines(b"w" * 5000)
    assert (len(line), line[-1]) == (LINE_SHOWN, "…")
