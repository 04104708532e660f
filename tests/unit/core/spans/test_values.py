"""What comes in over OTLP goes out unchanged."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.spans.values import Value, dump, dump_all, load, load_all

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
KEYS = st.one_of(TEXT, st.sampled_from(["$bytes", "$double", "$", "$$", "$$bytes", "a"]))
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        TEXT,
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(),
        st.binary(max_size=12),
        st.none(),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(KEYS, inner, max_size=3)),
    max_leaves=8,
)


def same(one: Any, other: Any) -> bool:
    """Tell whether two values are the same, type, sign of zero and NaN included."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return (math.isnan(one) and math.isnan(other)) or (
            one == other and math.copysign(1, one) == math.copysign(1, other)
        )
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[k], other[k]) for k in one)
    return one == other


@given(VALUES)
def test_a_value_survives_the_round_trip(value: Value) -> None:
    assert same(load(dump(value)), value)


@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_attributes_survive_the_round_trip(attributes: dict[str, Value]) -> None:
    text = dump_all(attributes)
    assert (text is None) == (not attributes)
    assert same(load_all(text), attributes)


@given(VALUES)
def test_what_is_written_is_json_that_any_store_takes(value: Value) -> None:
    text = dump(value)
    text.encode()
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


@pytest.mark.parametrize("value", ["\ud800", {"\udfff": "a\ud834"}, ["\ud800"]])
def test_a_lone_surrogate_becomes_a_question_mark(value: Any) -> None:
    assert "?" in dump(value)
    dump(value).encode()
    assert "?" in (dump_all({"\ud800": value}) or "").split(":")[0]


def test_texts_stand_as_they_are() -> None:
    assert dump("naïve ☃") == '"naïve ☃"'
    assert dump({"a": [1, 1.0, True, None]}) == '{"a":[1,1.0,true,null]}'


@pytest.mark.parametrize("text", ["{", '{"$bytes":"?"}', ""])
def test_what_was_not_written_here_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        load(text)


def test_attributes_are_an_object() -> None:
    with pytest.raises(ValueError, match="expected attributes as a JSON object"):
        load_all("[]")
