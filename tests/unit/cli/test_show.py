"""Hostile text reaches no terminal as it is."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.cli import show


@pytest.mark.parametrize(
    ("hostile", "shown"),
    [
        ("plain é 字 🙂", "plain é 字 🙂"),
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07text", "text"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9b31mred", "31mred"),
        ("a\rb\x08c", "abc"),
        ("one\ntwo\tthree", "one two three"),
        ("\u202egnp.exe", "gnp.exe"),
        ("\x1bPq#0\x1b\\x", "x"),
        ("\ud800x", "x"),
        (None, "None"),
    ],
)
def test_a_line_has_no_escape_sequences_and_no_control_characters(
    hostile: object, shown: str
) -> None:
    assert show.line(hostile) == shown


def test_line_ends_and_tabs_stay_in_longer_text() -> None:
    assert show.clean("a\r\n\tb\x1b[2J\n") == "a\n\tb\n"


@given(st.text())
def test_no_text_keeps_a_control_character(text: str) -> None:
    for c in show.clean(text):
        assert c in "\n\t" or not (ord(c) < 32 or 127 <= ord(c) < 160)
    assert "\n" not in show.line(text)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environment", "painted"),
    [
        (Terminal(), {"TERM": "xterm"}, True),
        (Terminal(), {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {"TERM": "xterm"}, False),
    ],
)
def test_colours_only_on_a_terminal_that_wants_them(
    stream: io.StringIO, environment: dict[str, str], painted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert ("\x1b[" in show.paint("text", "red", stream)) is painted


def _printed(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, width: int) -> str:
    monkeypatch.setattr("sys.stdout", stream)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("NO_COLOR", "1")
    show.columns(
        [
            ("inbox", "running", "last worked 8 minutes ago, 31 mails today"),
            ("a", "parked", "gave up"),
        ]
    )
    return stream.getvalue()


def test_columns_are_aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _printed(monkeypatch, io.StringIO(), 20) == (
        "inbox  running  last worked 8 minutes ago, 31 mails today\na      parked   gave up\n"
    )


def test_the_last_column_wraps_under_itself_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _printed(monkeypatch, Terminal(), 50) == (
        "inbox  running  last worked 8 minutes ago, 31\n"
        "                mails today\n"
        "a      parked   gave up\n"
    )


def test_on_a_narrow_terminal_the_sentence_goes_under_its_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert _printed(monkeypatch, Terminal(), 32) == (
        "inbox  running\n  last worked 8 minutes ago, 31\n  mails today\na      parked\n  gave up\n"
    )


@pytest.mark.parametrize(
    "value", [None, "", "soon", float("nan"), float("inf"), 1e300, True, [], "9" * 50]
)
def test_what_is_no_time_is_shown_as_no_time(value: object) -> None:
    assert show.moment(value) == "-"


def test_times_are_shown_with_their_day_unless_it_is_today() -> None:
    assert show.moment("2020-03-01T12:00:00+00:00").startswith("2020-03-01 ")
    assert len(show.moment(1583064000.0)) == len("2020-03-01 12:00")
