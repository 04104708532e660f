"""Built-in answers: the same each time, tool arguments that fit their schema, an end in sight."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from midwatch.drills.rehearsal import builtin
from midwatch.drills.rehearsal.question import BadQuestion, Call, Question, Tool, Turn

SEARCH = Tool(
    "search",
    "Search mails",
    {
        "type": "object",
        "properties": {
            "query": {"type": "string", "maxLength": 20},
            "limit": {"type": "integer", "minimum": 1, "maximum": 50},
            "folder": {"enum": ["in", "out"]},
            "tags": {"type": "array", "items": {"type": "string"}, "minItems": 2},
            "since": {"anyOf": [{"type": "null"}, {"type": "string"}]},
            "who": {"$ref": "#/$defs/person"},
            "deep": {"type": ["boolean", "null"]},
        },
        "required": ["query", "limit", "folder", "tags", "since", "who", "deep"],
        "$defs": {
            "person": {
                "type": "object",
                "properties": {"email": {"type": "string"}, "of": {"$ref": "#/$defs/person"}},
                "required": ["email", "of"],
            }
        },
    },
)


def ask(text: str, *tools: Tool, **more: Any) -> Question:
    return Question("chat", "m", turns=(Turn("user", text),), tools=tools, **more)


def test_arguments_fit_the_schema_and_are_drawn_from_what_was_said() -> None:
    question = ask(
        "find the 12 mails of ada@example.org since 2026-02-03", SEARCH, tool_choice="any"
    )
    (call,) = builtin.answer(question, 0).calls
    args = call.args
    assert isinstance(args, dict)
    assert set(args) == set(SEARCH.schema["required"])
    assert args["limit"] == 12
    assert args["folder"] in {"in", "out"}
    assert len(args["tags"]) == 2
    assert len(args["query"]) <= 20
    assert args["since"] == "2026-02-03"
    assert args["who"]["email"] == "ada@example.org"
    assert isinstance(args["deep"], bool)


def test_the_same_question_has_the_same_answer_and_another_seed_may_differ() -> None:
    questions = [ask(f"weather in town {n}?", SEARCH) for n in range(20)]
    assert [builtin.answer(q, 1) for q in questions] == [builtin.answer(q, 1) for q in questions]
    assert [builtin.answer(q, 1) for q in questions] != [builtin.answer(q, 2) for q in questions]


def test_ids_of_tool_calls_do_not_change_the_answer() -> None:
    """Ids never enter a question: the fingerprint is that of its words."""
    assert ask("x", SEARCH).fingerprint == ask("x", SEARCH, raw={"id": 1}).fingerprint
    assert ask("x", SEARCH).fingerprint != ask("y", SEARCH).fingerprint


def test_a_conversation_with_tools_comes_to_an_end() -> None:
    tools = tuple(Tool(name, "", {"type": "object"}) for name in ("a", "b", "c", "d"))
    for n in range(30):
        question = ask(f"do task {n}", *tools)
        for _ in range(builtin.MAX_STEPS + 1):
            answer = builtin.answer(question, 0)
            if not answer.calls:
                break
            turns = (
                *question.turns,
                Turn("assistant", calls=answer.calls),
                Turn("result", "fine", tool=answer.calls[0].tool),
            )
            question = Question("chat", "m", turns=turns, tools=tools)
        assert not answer.calls
        assert "fine" in answer.text


def test_a_loop_never_ends_and_calls_the_same_tool_alike() -> None:
    first = builtin.loop(ask("a", SEARCH), 0, same=True)
    turns = (
        Turn("user", "a"),
        Turn("assistant", calls=first.calls),
        Turn("result", "no", tool="search"),
    )
    later = Question("chat", "m", turns=turns, tools=(SEARCH,))
    assert builtin.loop(later, 0, same=True).calls == first.calls
    assert builtin.loop(later, 0, same=False).calls[0].tool == "search"


@pytest.mark.parametrize(("choice", "tool"), [("none", None), ("b", "b"), ("missing", None)])
def test_the_tool_choice_is_obeyed(choice: str, tool: str | None) -> None:
    tools = (Tool("a", "", {}), Tool("b", "", {}))
    calls = builtin.answer(ask("x", *tools, tool_choice=choice), 0).calls
    assert [c.tool for c in calls] == ([] if tool is None else [tool])
    assert all(c == Call(c.tool, {}) for c in calls)


def test_a_wanted_schema_is_answered_as_json() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    assert isinstance(json.loads(builtin.answer(ask("x", schema=schema), 0).text)["n"], int)
    assert set(json.loads(builtin.answer(ask("x", schema={}), 0).text)) == {"answer"}


_LISTS: dict[str, Any] = {"type": "string"}
for _ in range(6):
    _LISTS = {"type": "array", "minItems": 20, "items": _LISTS}


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "minLength": 10**12},
        _LISTS,
        {
            "type": "object",
            "required": [f"url{n}" for n in range(2_000)],
            "properties": {f"url{n}": {"$ref": "#"} for n in range(2_000)},
        },
    ],
    ids=["a long text", "lists in lists", "itself, many times"],
)
def test_a_small_schema_that_asks_for_very_much_gets_a_bounded_answer(schema: Any) -> None:
    begun = time.thread_time()  # a busy machine takes longer, not more
    given = builtin.answer(ask("look at https://example.org " * 50_000, schema=schema), 0)
    assert len(given.text) < 1_000_000
    assert time.thread_time() - begun < 5


@pytest.mark.parametrize(
    "schema",
    [{"type": "string", "minLength": "x"}, {"properties": [1]}, {"enum": 5}, {"anyOf": [1]}],
)
def test_a_schema_that_is_none_is_refused(schema: Any) -> None:
    with pytest.raises(BadQuestion, match="the JSON schema of 'answer' cannot be read"):
        builtin.answer(ask("x", schema=schema), 0)
