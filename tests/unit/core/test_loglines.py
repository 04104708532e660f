"""What a line says: level, message and time, for what people's tools really print."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.loglines import LEVELS, chosen, parse_level, reaches, read, split


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ('{"level":"error","msg":"x"}', "error"),
        ('{"level":50,"time":1700000000000,"pid":1,"msg":"pino"}', "error"),
        ('{"severity":"WARNING","message":"google"}', "warning"),
        ('{"levelname": "CRITICAL", "message": "python-json-logger"}', "critical"),
        ('{"level":{"name":"debug"},"event":"structlog"}', "debug"),
        ('{"msg":"ERROR: inside"}', "error"),
        ('time="2026-01-01T00:00:00Z" level=warning msg="logrus here"', "warning"),
        ("level=info ts=1 msg=zap", "info"),
        ("ERROR: disk", "error"),
        ("error: lower case, as git and cargo have it", "error"),
        ("WARNING:root:python's default", "warning"),
        ("2026-01-01 10:00:00,123 - agent - ERROR - logging", "error"),
        ("2026-01-01 10:00:00.123 | WARNING  | app:main:3 - loguru", "warning"),
        ("[warn] nginx or apache", "warning"),
        ("[2026-01-01 10:00:00] [INFO] bracketed", "info"),
        ("I0101 10:00:00.000000 1 x.go:1] klog", "info"),
        ("F0101 10:00:00.000000 1 x.go:1] klog", "critical"),
        ("npm ERR! code ENOENT", "error"),
        ("\x1b[31mERROR\x1b[0m: coloured", "error"),
        ("Traceback (most recent call last):", "error"),
        ("openai.AuthenticationError: Error code: 401", "error"),
        ("ValueError", "error"),
        ("panic: runtime error: index out of range", "critical"),
        ("Uncaught TypeError: x is not a function", "error"),
        # what says nothing, and must not be taken for something
        ("no error was found", None),
        ("errors: 0", None),
        ("the information: it is here", None),
        ("a=b c=d", None),
        ("x = 1 if error else 2", None),
        ("{not json: error}", None),
        ("", None),
    ],
)
def test_the_level_is_found_where_one_is_named(text: str, level: str | None) -> None:
    assert read(text).level == level


def test_structured_lines_keep_message_time_and_fields() -> None:
    said = read('{"ts":"2026-01-01T00:00:00Z","lvl":"info","msg":"hello","n":3}')
    assert (said.message, said.time, said.fields and said.fields["n"]) == (
        "hello",
        "2026-01-01T00:00:00Z",
        3,
    )
    said = read(r'level=info msg="say \"hi\"" user=42')
    assert (said.message, said.fields and said.fields["user"]) == ('say "hi"', "42")


def test_a_stored_line_is_its_time_and_its_text() -> None:
    assert split("2026-01-01T00:00:00.000Z x y") == ("2026-01-01T00:00:00.000Z", "x y")
    assert split("no time") == (None, "no time")


@pytest.mark.parametrize(
    ("name", "level"), [("WARN", "warning"), ("err", "error"), ("Fatal", "critical")]
)
def test_levels_have_many_names(name: str, level: str) -> None:
    assert parse_level(name) == level


def test_an_unknown_level_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="expected one of trace, debug, info"):
        parse_level("loud")


def test_a_line_without_a_level_counts_as_info() -> None:
    assert [reaches(None, least) for least in LEVELS] == [True, True, True, False, False, False]


def test_names_instances_and_globs_choose_and_servers_only_by_name() -> None:
    names = ["a", "hub", "w.1", "w.2", "w.x"]
    assert chosen(names, [], ["hub"]) == ["a", "w.1", "w.2", "w.x"]
    assert chosen(names, ["w"], ["hub"]) == ["w.1", "w.2"]
    assert chosen(names, ["*"], ["hub"]) == ["a", "w.1", "w.2", "w.x"]
    assert chosen(names, ["hub", "a", "a"], ["hub"]) == ["hub", "a"]
    assert chosen(names, ["b*"], ["hub"]) == []


@given(st.text(max_size=300))
def test_any_text_is_read(text: str) -> None:
    said = read(text)
    assert said.level is None or said.level in LEVELS


@pytest.mark.parametrize(
    "hostile",
    [
        "a=" * 4000,
        'a="' + "\\" * 8000,
        "[" * 60_000,
        "{" * 30_000 + "}" * 30_000,
        " \t" * 30_000,
        "\x1b[" * 30_000,
        "\x1b]" * 30_000,
        "A" * 60_000 + "Error",
        "a." * 30_000,
        "[ " * 30_000,
    ],
    ids=range(10),
)
def test_hostile_lines_cost_no_time(hostile: str) -> None:
    began = time.process_time()
    read(hostile)
    assert time.process_time() - began < 2.0
