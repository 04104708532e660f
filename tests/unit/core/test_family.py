"""What an agent says of its sub-agents is believed only where it can be true."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.family import (
    FOREVER_S,
    TOLD_AT_ONCE,
    TOLD_PER_S,
    Born,
    Ended,
    Ration,
    parent_of,
    read_child,
)


def said(**fields: Any) -> str:
    return json.dumps({"run": "r2", **fields})


def test_a_birth_and_an_end_are_read() -> None:
    born = said(agent="inbox:search", ttl_s=60, memory_bytes=1 << 28, outlive=True)
    assert read_child(born, "inbox") == Born("r2", "inbox:search", 60.0, 1 << 28, outlive=True)
    assert read_child(said(code=-9), "inbox") == Ended("r2", -9)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "[" * 10_000,
        said(),
        said(agent="other:search"),
        said(agent="inbox"),
        said(agent="inbox:"),
        said(agent="inbox:../x"),
        said(agent="inbox:a b"),
        said(agent=7),
        said(code="0"),
        said(code=True),
        said(code=1000),
        json.dumps({"run": "a/b", "agent": "inbox:x"}),
        json.dumps({"run": "", "agent": "inbox:x"}),
        json.dumps({"agent": "inbox:x"}),
    ],
)
def test_what_cannot_be_true_is_not_believed(text: str) -> None:
    assert read_child(text, "inbox") is None


def test_limits_that_make_no_sense_are_no_limits() -> None:
    for odd in (-1, 0, "60", None, True, [1]):
        born = read_child(said(agent="inbox:x", ttl_s=odd, memory_bytes=odd), "inbox")
        assert born == Born("r2", "inbox:x", None, None, outlive=False)
    endless = read_child(said(agent="inbox:x", ttl_s=1e12), "inbox")
    assert isinstance(endless, Born)
    assert endless.ttl_s == FOREVER_S


@given(st.text(max_size=300))
def test_no_text_breaks_the_reader(text: str) -> None:
    read_child(text, "inbox")
    read_child(json.dumps({"run": text, "agent": "inbox:" + text, "ttl_s": text}), "inbox")


def test_a_sub_agent_knows_whose_it_is() -> None:
    assert parent_of("inbox") is None
    assert parent_of("inbox:search") == "inbox"
    assert parent_of("inbox:search:fetch") == "inbox:search"


def test_an_orchestrator_that_starts_five_a_second_for_a_minute_is_told_whole() -> None:
    ration = Ration(1000.0)
    assert all(ration.take(1000.0 + n / 5) for n in range(5 * 60))
    # and again an hour later, whatever the clock did meanwhile
    assert all(ration.take(max(4600.0, 4600.0 + n / 5 - 7)) for n in range(5 * 60))


def test_a_tight_loop_is_told_of_at_its_ration() -> None:
    ration = Ration(0.0)
    told = sum(ration.take(n / 500) for n in range(500 * 600))
    assert TOLD_AT_ONCE + 600 * TOLD_PER_S - 2 <= told <= TOLD_AT_ONCE + 600 * TOLD_PER_S
