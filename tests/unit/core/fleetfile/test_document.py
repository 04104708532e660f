"""YAML with places, bounds and plain words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.fleetfile import document as yaml_document


def only_problem(text: str) -> str:
    (problem,) = yaml_document.parse(text).problems
    return problem.render("f")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:\n\tb: 1", "f:2:1: a tab stands where YAML expects spaces; indent with spaces"),
        ("a: @x", 'f:1:4: text that begins with @ needs quotes, such as "@…"'),
        ("a: %x", 'f:1:4: text that begins with % needs quotes, such as "%…"'),
        ("a: `x`", 'f:1:4: text that begins with ` needs quotes, such as "`…"'),
        ("cron: */5 * * * *", 'f:1:8: text that begins with * needs quotes, such as "*/5 * * * *"'),
        ("a: *nope", "f:1:4: *nope refers to an anchor &nope that does not exist; text that begins with * needs quotes"),
        ("a: &x [*x]", "f:1:8: *x contains itself"),
        ("a: {b: ${X}}", 'f:1:9: put "${…}" in quotes when it stands between { } or [ ]'),
        ("a: [1, 2", "f:1:9: expected , or ] in the brackets (begun on line 1)"),
        ("a: {b: 1", "f:1:9: expected , or } in the braces (begun on line 1)"),
        ("a: 'x", "f:1:6: the quotes (begun on line 1) are not closed"),
        ('a: "\\q"', "f:1:6: in \"…\" a \\ begins an escape, and this one is unknown; write \\\\, or use '…'"),
        ("a:\n  b: 1\n c: 2", "f:3:2: this line is not indented like its neighbours (begun on line 1), or a ':' is missing"),
        ("a: 1\na: 2", "f:2:1: a: stands here a second time, first on line 1; rename or remove one"),
        ("a: 1\n---\nb: 2", "f:2:1: a second document begins here; a fleet file is one document, remove the ---"),
        ("a: \x07", "f:1:4: the character '\\x07' may not stand in YAML; remove it"),
        ('a: "\\0"', "f:1:4: a: '\\x00' holds a NUL character, which no program can be given"),
        ('a: "\\ud800"', "f:1:4: a: '\\ud800' is not valid Unicode text"),
        ("a: !!python/x y", "f:1:4: a: the YAML tag '!!python/x' has no meaning here; put the text in quotes"),
        ("? [a]\n: b", "f:1:3: a key must be plain text; if a value begins with { or [, put it in quotes"),
        ("[" * 30, "f:1:25: nested deeper than 24 levels"),
        ("b: &x 1\n<<: *x", "f:1:4: <<: expected an alias of key: value lines, such as <<: *base"),
        ("x" * (yaml_document.MAX_CHARACTERS + 1), "f:1:1: too long: 1000001 characters, at most 1000000"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_plain_words_with_its_place(text: str, message: str) -> None:
    assert only_problem(text) == message


def test_two_agents_of_one_name_name_both_lines() -> None:
    text = "agents:\n  inbox: {command: [a]}\n  prices: {command: [b]}\n  inbox: {command: [c]}\n"
    assert only_problem(text) == (
        "f:4:3: agents.inbox: stands here a second time, first on line 2; rename or remove one"
    )


def test_every_value_remembers_where_it_stood_and_how_it_was_written() -> None:
    document = yaml_document.parse("a:\n  b: 0600\n  c: ['x', yes]\n")
    assert document.value == {"a": {"b": 384, "c": ["x", True]}}
    assert document.places["a", "b"] == yaml_document.Place(2, 6, 2, 3, "0600", True)
    assert document.places["a", "c", 0] == yaml_document.Place(3, 7, 3, 7, "x", False)
    assert document.places["a", "c", 1].written == "yes"


def test_what_json_cannot_hold_stays_text() -> None:
    text = "day: 2024-01-01\ninf: .inf\nnan: .nan\nlong: " + "9" * 5000 + "\nodd: 0b_\n"
    value = yaml_document.parse(text).value
    assert value == {
        "day": "2024-01-01",
        "inf": ".inf",
        "nan": ".nan",
        "long": "9" * 5000,
        "odd": "0b_",
    }


def test_keys_are_text_as_written() -> None:
    assert yaml_document.parse("on: 1\n007: 2\n~: 3\n").value == {"on": 1, "007": 2, "~": 3}


def test_anchors_and_merge_keys_work_and_own_keys_win() -> None:
    text = """\
a: &a {x: 1, y: 1}
b: &b {y: 2, z: 2}
c: {<<: [*a, *b], z: 3}
d: {<<: {<<: *b, w: 4}, y: 5}
"""
    document = yaml_document.parse(text)
    assert document.problems == []
    assert document.value["c"] == {"x": 1, "y": 1, "z": 3}
    assert document.value["d"] == {"w": 4, "y": 5, "z": 2}


def test_a_bomb_of_aliases_is_refused_quickly() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    assert "values once its aliases are followed" in only_problem("\n".join(lines))


def test_a_bomb_of_merge_keys_is_refused() -> None:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, 12)]
    assert "values once its aliases are followed" in only_problem("\n".join(lines))


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n", "﻿"])
def test_a_text_without_content_is_none_and_no_problem(text: str) -> None:
    document = yaml_document.parse(text)
    assert (document.value, document.problems) == (None, [])


def test_nesting_through_aliases_is_bounded() -> None:
    lines = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 100)]
    assert "nested deeper than 24 levels" in only_problem("\n".join(lines))


@given(st.text(max_size=200))
def test_arbitrary_text_never_raises(text: str) -> None:
    document = yaml_document.parse(text)
    for problem in document.problems:
        assert problem.line >= 1
        assert problem.column >= 1
        assert problem.message


_YAML = st.text("abc:- \n[]{}*&!|>'\"%@`#,?<~\t01.${}", max_size=120)


@given(_YAML)
def test_text_made_of_yaml_signs_never_raises(text: str) -> None:
    yaml_document.parse(text)
