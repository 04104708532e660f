"""Whatever an agent hands over becomes bounded, plain JSON."""

from __future__ import annotations

import json
import math
from collections import OrderedDict, UserDict, deque
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.sdk.plain import MAX_NODES, number, plain, text, whole
from midwatch.wire import limits

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=20,
)

ANYTHING = st.recursive(
    st.none()
    | st.integers()
    | st.floats()
    | st.text(max_size=300)
    | st.binary(max_size=50)
    | st.complex_numbers()
    | st.decimals()
    | st.datetimes(),
    lambda inner: (
        st.lists(inner, max_size=30)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=300) | st.integers() | st.binary(), inner, max_size=30)
        | st.sets(st.integers() | st.text(), max_size=30)
    ),
    max_leaves=200,
)


@given(JSON)
def test_plain_json_stays_as_it_is(value: Any) -> None:
    copied, clipped = plain(value)
    assert copied == value
    assert not clipped


@given(ANYTHING)
def test_anything_becomes_json_that_the_hub_accepts(value: Any) -> None:
    copied, _ = plain(value)
    assert len(json.dumps(copied, allow_nan=False)) <= limits.MAX_DATA_BYTES


@pytest.mark.parametrize("sign", ["x", "é", "😀", '"', "\n", "\0", "\ud800"])
def test_long_text_is_clipped_by_what_it_takes_in_json(sign: str) -> None:
    copied, clipped = plain({"text": sign * 100_000, "more": sign * 100_000})
    assert clipped
    assert 20_000 < len(json.dumps(copied)) <= limits.MAX_DATA_BYTES


def test_a_huge_list_is_cut_and_a_loop_ends() -> None:
    copied, clipped = plain(list(range(1_000_000)))
    assert clipped
    assert len(copied) <= MAX_NODES
    loop: list[Any] = [1]
    loop.append(loop)
    copied, clipped = plain(loop)
    assert clipped
    json.dumps(copied)


def test_the_copy_shares_nothing_with_its_source() -> None:
    source = {"list": [1, {"deep": 2}]}
    copied, _ = plain(source)
    source["list"].append(3)
    source["list"][1]["deep"] = 4  # pyright: ignore[reportIndexIssue]
    assert copied == {"list": [1, {"deep": 2}]}


def test_what_json_has_no_word_for_is_told_as_text() -> None:
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    copied, _ = plain(
        {
            1: math.nan,
            "inf": math.inf,
            "when": moment,
            "tuple": (1, 2),
            "deque": deque([1]),
            "ordered": OrderedDict(a=1),
            "user": UserDict(a=1),
            "huge": 10**400,
            None: b"x",
        }
    )
    assert copied == {
        "1": "nan",
        "inf": "inf",
        "when": repr(moment),
        "tuple": [1, 2],
        "deque": [1],
        "ordered": {"a": 1},
        "user": "{'a': 1}",
        "huge": "an integer of 1329 bits",
        "None": "b'x'",
    }


@pytest.mark.parametrize(
    ("value", "expected"),
    [(3, 3), (0, 0), (2.5, 2.5), (-1, None), (True, None), ("3", None), (math.nan, None)],
)
def test_numbers_are_finite_and_not_negative(value: Any, expected: Any) -> None:
    assert number(value) == expected
    assert whole(value) == (None if expected is None else int(expected))


def test_text_is_clipped_and_can_always_be_encoded() -> None:
    assert text("abc", 2) == "ab"
    assert text(12, 10) == "12"
    assert text("\ud800x", 10) == "?x"
