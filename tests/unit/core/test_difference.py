"""What changed in a state, and the turn in which a value entered."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.difference import (
    MAX_CHANGES,
    MAX_EXCERPT,
    MAX_SIGHTS,
    Change,
    Report,
    Saying,
    difference,
    follow,
    leaves,
    mark,
    overlay,
)

S = 10**9

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text("ab.[]\"é", max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab.[", max_size=2), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip
STATES = st.dictionaries(st.sampled_from(["memory", "scratchpad", "context"]), JSON, max_size=3)


def told(before: Any, after: Any) -> list[tuple[str, str, str | None, str | None]]:
    return [
        (c.path, c.how, c.before and c.before.text, c.after and c.after.text)
        for c in difference(before, after).changes
    ]


CASES: dict[str, tuple[Any, Any, list[tuple[str, str, str | None, str | None]]]] = {
    "nothing": ({"memory": {"a": [1, {"b": 2}]}}, {"memory": {"a": [1, {"b": 2}]}}, []),
    "the order of keys": ({"m": {"a": 1, "b": 2}}, {"m": {"b": 2, "a": 1}}, []),
    "a value": ({"m": {"name": "Ann"}}, {"m": {"name": "Bo"}}, [("m.name", "changed", "Ann", "Bo")]),
    "of another type": ({"m": 1}, {"m": "1"}, [("m", "changed", "1", "1")]),
    "true is not one": ({"m": [True]}, {"m": [1]}, [("m[0]", "changed", "true", "1")]),
    "a new name": ({}, {"m": {"a": {"b": 1}}}, [("m.a.b", "added", None, "1")]),
    "a name less": ({"m": {"a": 1, "b": 2}}, {"m": {"a": 1}}, [("m.b", "removed", "2", None)]),
    "a note behind": ({"n": ["x"]}, {"n": ["x", "y"]}, [("n[1]", "added", None, "y")]),
    "a note in front": ({"n": ["x", "y"]}, {"n": ["new", "x", "y"]}, [("n[0]", "added", None, "new")]),
    "a note less": ({"n": ["x", "y", "z"]}, {"n": ["x", "z"]}, [("n[1]", "removed", "y", None)]),
    "in a note": ({"n": [{"t": "x"}, 1]}, {"n": [{"t": "y"}, 1]}, [("n[0].t", "changed", "x", "y")]),
    "emptied": ({"n": ["x"]}, {"n": []}, [("n[0]", "removed", "x", None), ("n", "added", None, "[]")]),
    "filled": ({"n": {}}, {"n": {"a": 1}}, [("n", "removed", "{}", None), ("n.a", "added", None, "1")]),
    "odd names": ({}, {"m": {"a.b": 1, "": 2}}, [('m["a.b"]', "added", None, "1"), ('m[""]', "added", None, "2")]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_difference_says_what_changed_where(case: str) -> None:
    before, after, expected = CASES[case]
    assert told(before, after) == expected


@given(STATES, STATES)
def test_taking_the_changes_back_gives_the_state_before(before: Any, after: Any) -> None:
    kept = copy.deepcopy((before, after))
    changes = difference(before, after).changes
    assert (before, after) == kept
    was = [(path, mark(value).hash) for path, value in leaves(before) if path]
    now = [(path, mark(value).hash) for path, value in leaves(after) if path]
    assert (not changes) == (sorted(was) == sorted(now))
    gone = [change.before.hash for change in changes if change.before is not None]
    come = [change.after.hash for change in changes if change.after is not None]
    # by value and not by place: members of a list move
    assert sorted([h for _, h in was] + come) == sorted([h for _, h in now] + gone)


@given(STATES)
def test_a_state_does_not_differ_from_itself(state: Any) -> None:
    assert difference(state, copy.deepcopy(state)) == ([], 0)
    assert overlay(state, {}) == state


def test_a_report_replaces_the_parts_that_it_names() -> None:
    before = {"memory": {"a": 1}, "scratchpad": ["x"], "context": "c"}
    assert overlay(before, {"memory": {"b": 2}, "context": None}) == {
        "memory": {"b": 2},
        "scratchpad": ["x"],
    }


def test_what_is_shown_of_a_value_is_bounded_printable_and_without_secrets() -> None:
    key = "sk-proj-" + "a1B2" * 12
    shown = mark(f"key\x1b[31m\n{key} " + "x" * 10_000)
    assert len(shown.text) <= MAX_EXCERPT
    assert shown.text.isprintable()
    assert key not in shown.text
    assert shown.characters == 10_000 + len(key) + 10
    assert mark({"a": 1, "b": 2}).hash == mark({"b": 2, "a": 1}).hash
    assert Change("m", "added", None, mark("x")).to_json() == {
        "path": "m",
        "how": "added",
        "after": {"text": "x", "characters": 1, "hash": mark("x").hash.hex()},
    }


def test_changes_beyond_the_bound_are_counted() -> None:
    found = difference({}, {"m": list(range(MAX_CHANGES + 7))})
    assert (len(found.changes), found.more) == (MAX_CHANGES, 7)
    deep: Any = "end"
    for _ in range(200):
        deep = {"a": deep}
    (change,) = difference({}, {"m": deep}).changes
    assert change.path.count(".a") == 31


# -- the "Export CSV" story -------------------------------------------------------------------


def story() -> tuple[list[Report], list[Saying]]:
    """A page's button is taken for a customer's name, and five turns later a letter goes to `Export CSV`."""
    reports = [
        Report("turn-1", 10 * S, "s1", {"memory": {"customer": None}, "scratchpad": ["open the table"]}),
        Report("turn-2", 20 * S, "s2", {"scratchpad": ["open the table", "rows: export csv; Ann Lee"]}),
        Report("turn-3", 30 * S, "s3", {"memory": {"customer": {"name": "Export CSV", "since": 2019}}}),
        Report("turn-4", 40 * S, "s4", {"scratchpad": []}),
    ]  # fmt: skip
    sayings = [
        Saying("turn-1", 5 * S, "c0", "input", "gpt", "Write to the newest customer. Export nothing."),
        Saying("turn-2", 15 * S, "t1", "result", "read_table", "Customers\nExport  CSV\nAnn Lee\tann@example.org"),
        Saying("turn-5", 50 * S, "c1", "output", "gpt", "Dear Export CSV, thank you for being with us since 2019."),
    ]  # fmt: skip
    return reports, sayings


def test_a_wrong_name_leads_to_the_turn_and_the_tool_where_it_entered() -> None:
    trail = follow("Export CSV", *story())
    assert [(s.turn, s.where, s.name, s.how) for s in trail.sights] == [
        ("turn-2", "result", "read_table", "entered"),
        ("turn-2", "state", "scratchpad[1]", "entered"),
        ("turn-3", "state", "memory.customer.name", "entered"),
        ("turn-4", "state", "scratchpad[1]", "left"),
        ("turn-5", "output", "gpt", "entered"),
    ]
    assert trail.entered is not None
    assert (trail.entered.turn, trail.entered.span, trail.entered.name) == ("turn-2", "t1", "read_table")  # fmt: skip
    assert trail.entered.excerpt == "Customers Export CSV Ann Lee ann@example.org"
    assert trail.stored is not None
    assert trail.stored.name == "scratchpad[1]"
    assert trail.entered.to_json()["at"] == 15.0


def test_what_the_agent_made_up_entered_where_it_was_said_first() -> None:
    reports, sayings = story()
    only = follow("2019", reports, sayings).entered
    assert only is not None
    assert (only.turn, only.where, only.name) == ("turn-3", "state", "memory.customer.since")
    assert follow("Dear", reports, sayings).entered == follow("Dear", reports, sayings).sights[0]
    assert follow("nowhere", reports, sayings).entered is None


@pytest.mark.parametrize(
    ("value", "text", "found"),
    [
        ("42", "it costs 420", False), ("42", "it costs 42.", True), ("Ann", "Annual", False),
        ("ann lee", "ANN\n LEE", True), ("$5", "US$5 each", True), ("a.c", "abc", False), ("é", "café é", True),
    ],
)  # fmt: skip
def test_a_value_is_found_as_a_whole(value: str, text: str, found: bool) -> None:
    assert bool(follow(value, [], [Saying("1", 1, "s", "result", "t", text)]).sights) == found


def test_an_empty_value_cannot_be_followed_and_a_trail_is_bounded() -> None:
    with pytest.raises(ValueError, match="nothing to follow"):
        follow(" \n", [])
    many = [Saying("1", n, f"s{n}", "result", "t", "x") for n in range(MAX_SIGHTS + 3)]
    trail = follow("x", [], many)
    assert (len(trail.sights), trail.more) == (MAX_SIGHTS, 3)
