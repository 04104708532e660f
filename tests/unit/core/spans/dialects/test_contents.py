"""Indexed attributes and the tree that they spell."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.spans import contents
from midwatch.core.spans.dialect import attribute


def folded(flat: dict[str, Any]) -> Any:
    """Return the tree of attributes below `p`, or None when they spell none."""
    keys = list(flat)
    shape = contents.shape(keys, range(len(keys)), "p")
    text = None if shape is None else shape.filled([attribute(f"p.{k}", flat[k]) for k in keys])
    return None if text is None else json.loads(text)


@pytest.mark.parametrize(
    ("flat", "tree"),
    [
        ({"0.role": "user", "0.content": "a", "1.role": "tool"}, [{"role": "user", "content": "a"}, {"role": "tool"}]),
        ({"1.role": "b", "0.role": "a"}, [{"role": "a"}, {"role": "b"}]),
        # a number is missing: no list, or the numbers would change
        ({"0.role": "a", "2.role": "c"}, {"0": {"role": "a"}, "2": {"role": "c"}}),
        ({"0.calls.0.name": "f", "0.calls.1.name": "g"}, [{"calls": [{"name": "f"}, {"name": "g"}]}]),
        ({"0": "x", "1": None, "2": 1.5}, ["x", None, 1.5]),
        ({"name": True}, {"name": True}),
    ],
)  # fmt: skip
def test_keys_spell_a_tree(flat: dict[str, Any], tree: Any) -> None:
    assert folded(flat) == tree
    assert dict(contents.unfold(tree, "p")) == {f"p.{key}": value for key, value in flat.items()}


@pytest.mark.parametrize(
    "flat",
    [
        {"0": "x", "0.role": "y"},
        {"0.role": "y", "0": "x"},
        {"0..role": "x"},
        {"": "x"},
        {"$bytes": "x"},
        {"0": ["a", "b"]},
        {"0": {"role": "x"}},
        {".".join(["0"] * 40): "x"},
    ],
)
def test_keys_that_spell_no_tree_are_not_made_into_one(flat: dict[str, Any]) -> None:
    assert folded(flat) is None


STEP = st.sampled_from(["0", "1", "2", "role", "content", "tool_calls", "ü"])


@given(
    st.dictionaries(
        st.lists(STEP, min_size=1, max_size=4).map(".".join),
        st.text() | st.integers() | st.booleans() | st.none(),
        max_size=8,
    ).filter(len)
)
def test_every_tree_comes_apart_into_the_keys_it_was_made_of(flat: dict[str, Any]) -> None:
    tree = folded(flat)
    if tree is not None:
        assert dict(contents.unfold(tree, "p")) == {f"p.{k}": v for k, v in flat.items()}
