"""Waiting for input, decided from what is seen: two looks, excuses, and what a screen asks."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.excerpt import first_lines, last_lines, lines_of
from midwatch.core.liveness import Evidence
from midwatch.core.waiting import (
    QUIET_S,
    Look,
    asks,
    is_same,
    judge,
    patience,
    question_of,
    quiet_since,
)

QUIET = Evidence(started=0.0, output=100.0)
NOW = 100.0 + QUIET_S + 1.0
SURE = Look(reads=True, asks=False, since=NOW - 1.0)


def test_one_look_finds_it_reading_and_the_second_is_sure() -> None:
    first = judge(Look(True, False), QUIET, NOW, QUIET_S)
    assert (first.waits, first.reads) == (False, True)
    assert first.look_in_s <= 1.0
    assert judge(SURE, QUIET, NOW, QUIET_S).waits


def test_the_catalogues_half_minute_is_kept() -> None:
    assert QUIET_S + QUIET_S + 1.0 < 30.0  # at worst it begins to read right after a look


@pytest.mark.parametrize("sign", ["output", "beat", "call", "child_work", "waited"])
def test_each_sign_of_life_begins_the_quiet_anew(sign: str) -> None:
    lively = replace(QUIET, **{sign: NOW - 2.0})
    assert quiet_since(lively) == NOW - 2.0
    decision = judge(SURE, lively, NOW, QUIET_S)
    assert (decision.waits, decision.look_in_s) == (False, QUIET_S - 2.0)


@pytest.mark.parametrize("excuse", ["call_open", "draining"])
def test_an_excuse_is_believed_unless_the_screen_asks(excuse: str) -> None:
    busy = replace(QUIET, **{excuse: 50.0})
    assert not judge(SURE, busy, NOW, QUIET_S).waits
    assert judge(replace(SURE, asks=True), busy, NOW, QUIET_S).waits


def test_a_declared_step_excuses_until_it_is_over() -> None:
    assert not judge(SURE, replace(QUIET, step_until=NOW + 1.0), NOW, QUIET_S).waits
    assert judge(SURE, replace(QUIET, step_until=NOW - 1.0), NOW, QUIET_S).waits


@given(silence=st.floats(0.03, 1e5))
def test_whoever_waits_is_known_to_wait_before_it_could_count_as_hung(silence: float) -> None:
    quiet_s = patience(silence)
    at = 100.0 + quiet_s + 1e-6
    first = judge(Look(True, False), QUIET, at, quiet_s)
    sure = at + first.look_in_s + 1e-6
    assert judge(Look(True, False, at), QUIET, sure, quiet_s).waits or silence < 0.3
    assert sure < 100.0 + silence or silence < 0.3


@pytest.mark.parametrize(
    ("screen", "question"),
    [
        (["Do you trust the files in this folder? (y/N)"], "Do you trust the files in this folder? (y/N)"),
        (
            [
                "╭──────────────────────────────────────────╮",
                "│ Do you trust the files in this folder?   │",
                "│                                          │",
                "│   /home/ada/project                      │",
                "│ ❯ 1. Yes, proceed                        │",
                "│   2. No, exit                            │",
                "╰──────────────────────────────────────────╯",
                "  Enter to confirm · Esc to exit",
            ],
            "Do you trust the files in this folder?",
        ),
        (
            [
                "The authenticity of host 'example.org' can't be established.",
                "Are you sure you want to continue connecting (yes/no/[fingerprint])?",
            ],
            "Are you sure you want to continue connecting (yes/no/[fingerprint])?",
        ),
        (["git@example.org's password:"], "git@example.org's password:"),
        (["Is it you?", "yes", "[sudo] password for ada:"], "[sudo] password for ada:"),
        (["Username for 'https://example.org':"], "Username for 'https://example.org':"),
        (["Press any key to continue"], "Press any key to continue"),
        (["Python 3.11.2", ">>>"], ">>>"),
        ([], ""),
        (["", "   "], ""),
    ],
)  # fmt: skip
def test_the_question_is_found_on_the_screen(screen: list[str], question: str) -> None:
    assert question_of(screen) == question
    assert asks(screen) == bool(question)


@pytest.mark.parametrize(
    "screen", [["thinking…"], ["compiling 3 of 80", "linking"], ["✻ Pondering… (esc to interrupt)"], []]
)  # fmt: skip
def test_a_screen_that_asks_nothing_asks_nothing(screen: list[str]) -> None:
    assert not asks(screen)


def test_a_question_stays_the_same_when_its_clock_goes_on() -> None:
    assert is_same("Continue? 12:00:01", "Continue? 9:59:59")
    assert not is_same("Continue?", "Password:")


@given(lines=st.lists(st.text(max_size=2000), max_size=80), limit=st.integers(0, 3000))
def test_excerpts_keep_their_bounds_and_their_end(lines: list[str], limit: int) -> None:
    kept = last_lines(lines_of(lines), limit)
    assert sum(len(line.encode("utf-8", "replace")) for line in kept) <= limit
    assert kept == last_lines(lines_of(lines), 10**9)[len(lines) - len(kept) :]
    assert all(line.isprintable() for line in kept)


def test_what_does_not_fit_is_counted() -> None:
    assert first_lines(["a" * 40] * 10, 100) == ["a" * 40, "a" * 40, "… 8 more"]
    assert first_lines(["a"], 100) == ["a"]


@pytest.mark.parametrize("value", [None, 7, "text", {"a": 1}, [1, None, {}]])
def test_what_is_no_list_of_lines_is_none(value: object) -> None:
    assert lines_of(value) == []
