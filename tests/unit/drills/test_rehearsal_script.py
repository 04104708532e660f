"""Scripts: which rule answers, what templates draw, and what is said about a script that is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.drills.rehearsal import script, template
from midwatch.drills.rehearsal.question import Call, Question, Tool, Turn


def ask(user: str = "", **more: object) -> Question:
    turns = more.pop("turns", (Turn("user", user),))
    return Question("chat", "gpt-4o-mini", turns=turns, **more)  # type: ignore[arg-type]


LOOKUP = Tool("lookup", "", {})
AFTER_LOOKUP = (
    Turn("user", "refund order #77 please"),
    Turn("assistant", calls=(Call("lookup", {"order": "77"}),)),
    Turn("result", "total: 1.299,50 EUR", tool="lookup"),
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("plain", "plain"),
        ("costs $5 and $$6", "costs $5 and $6"),
        ("${user/#(\\d+)/}", "77"),
        ("${user/#\\d+/}", "#77"),
        ("order ${user/#(\\d+)/|int}!", "order 77!"),
        ("${user/#(\\d+)/|int}", 77),
        ("${result/total: (\\S+)/|number}", 1299.5),
        ("${user/nothing here/|or:none}", "none"),
        ("${model|upper}", "GPT-4O-MINI"),
        ("${history|line}", 'lookup({"order": "77"})'),
        ("${turn} ${step}", "2 2"),
        ("${result/a\\/b/|or:no slash}", "no slash"),
    ],
)
def test_a_template_draws_its_values_from_the_question(text: str, value: object) -> None:
    filled = template.parse(text).fill(ask(turns=AFTER_LOOKUP))
    assert (filled, type(filled)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1.299,00 EUR", 1299.0),
        ("1,299.00", 1299.0),
        ("1.299", 1299),
        ("12,5", 12.5),
        ("59.90", 59.9),
        ("1'000", 1000),
        ("1,234,567", 1234567),
        ("none", "none"),
    ],
)
def test_numbers_are_read_as_people_write_them(text: str, number: object) -> None:
    assert template.parse_number(text) == number


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("${usr}", "expected one of user, system"),
        ("${user/(/}", "no regular expression"),
        ("${user/abc", "close it with /"),
        ("${user|lower", "close it with }"),
        ("${user|shout}", "unknown filter 'shout'"),
        ("${user-name}", "expected / or | or }"),
    ],
)
def test_a_wrong_template_is_refused_with_a_reason(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)):
        template.parse(text)


@given(st.text())
def test_any_text_is_a_template_or_is_refused_in_words(text: str) -> None:
    try:
        parsed = template.parse(text)
    except ValueError as error:
        said = str(error)
    else:
        said = f"${{ {parsed.fill(ask('hello'))}"
    assert "${" in said


@given(st.text(alphabet=st.characters(blacklist_characters="$")))
def test_text_without_a_dollar_is_itself(text: str) -> None:
    assert template.parse(text).fill(ask()) == text


RULES = """
rules:
  - name: greet
    when: {user: ^hello, model: gpt-4o*}
    answer: {text: 'Good day, ${user/i am (\\w+)/|or:stranger}.'}
  - name: look
    when: {user: refund, tools: [lookup], turn: 1}
    answer: {calls: [{tool: lookup, args: {order: '${user/#(\\d+)/|int}', why: [refund, '${turn}']}}]}
  - name: tell
    when: {after: lookup, result: 'total:', step: [2, 3]}
    answer: {text: done, usage: {input: 1000, cached: 900}}
"""


def play(question: Question, text: str = RULES) -> script.Answer | None:
    return script.Player(script.parse(text)).answer(question)


def test_the_first_rule_that_matches_answers() -> None:
    answer = play(ask("Hello, I am Ada"))
    assert answer is not None
    assert (answer.rule, answer.text) == ("greet", "Good day, Ada.")


def test_a_rule_calls_tools_with_values_of_the_request() -> None:
    answer = play(ask("refund #77", tools=(LOOKUP,)))
    assert answer is not None
    assert answer.calls == (Call("lookup", {"order": 77, "why": ["refund", "1"]}),)


def test_a_rule_may_look_at_the_tool_result_that_came_last() -> None:
    answer = play(ask(turns=AFTER_LOOKUP))
    assert answer is not None
    assert (answer.rule, answer.counts) == ("tell", script.Counts(input=1000, cached=900))


@pytest.mark.parametrize(
    "question",
    [
        ask("refund #77"),  # the tool is not offered
        ask("say hello"),  # not at the beginning
        Question("chat", "gpt-3.5", turns=(Turn("user", "hello"),)),
        ask(turns=AFTER_LOOKUP[:2]),  # no result yet
    ],
)
def test_a_rule_is_passed_over_when_one_condition_fails(question: Question) -> None:
    assert play(question) is None


def test_a_rule_with_times_gives_way_to_the_next() -> None:
    player = script.Player(
        script.parse("rules: [{answer: {text: once}, times: 1}, {answer: {text: after}}]")
    )
    texts = [answer.text for _ in range(3) if (answer := player.answer(ask("x"))) is not None]
    assert texts == ["once", "after", "after"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "s.yaml:1:1: expected rules: and a list of rules, got None"),
        ("[1]", "s.yaml:1:1: expected rules: and a list of rules, got [1]"),
        ("rules: [", "s.yaml:1:9: no YAML: "),
        ("rulez: []", "s.yaml:1:1: rulez: unknown key; did you mean 'rules'?"),
        (
            "rules:\n  - when: {modle: x}\n    answer: {text: a}",
            "s.yaml:2:12: rules[0].when.modle: unknown key; did you mean 'model'?",
        ),
        ("rules:\n  - when: {user: a}", "s.yaml:2:5: rules[0].answer: is missing"),
        (
            "rules:\n  - when: {user: '('}\n    answer: {text: a}",
            "s.yaml:2:12: rules[0].when.user: '(' is no regular expression: ",
        ),
        (
            "rules:\n  - answer: {text: '${who}'}",
            "s.yaml:2:14: rules[0].answer.text: '${who}': expected one of",
        ),
        (
            "rules:\n  - answer:\n      calls: [{tool: x, args: {q: '${user|yell}'}}]",
            "s.yaml:3:25: rules[0].answer.calls[0].args: '${user|yell}': unknown filter",
        ),
        (
            "rules: []\nbehave:\n  - {mode: slow, first_token: 3 parsecs}",
            "s.yaml:3:18: behave[0].first_token: expected a duration",
        ),
        ("behave: [{mode: slwo}]", "s.yaml:1:11: behave[0].mode: "),
        ("otherwise: guess", "s.yaml:1:1: otherwise: "),
    ],
)
def test_a_wrong_script_names_line_key_and_what_was_expected(text: str, message: str) -> None:
    with pytest.raises(script.ScriptError) as caught:
        script.parse(text, "s.yaml")
    assert str(caught.value).startswith(message), str(caught.value)


def test_every_problem_of_a_script_is_told_at_once() -> None:
    text = "rulez: []\nrules:\n  - answer: {txt: a}\n"
    with pytest.raises(script.ScriptError) as caught:
        script.parse(text)
    assert len(caught.value.problems) == 2


def test_json_is_a_script_too() -> None:
    parsed = script.parse('{"rules": [{"when": {"user": "a"}, "answer": {"text": "b"}}]}')
    assert len(parsed.rules) == 1


def test_a_script_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(script.ScriptError, match=r"absent\.yaml:1:1: cannot be read"):
        script.load(tmp_path / "absent.yaml")


def test_the_script_of_the_sample_fleet_is_in_order() -> None:
    names = [rule.name for rule in script.load(script.SAMPLE).rules]
    assert len(names) == len(set(names)) > 20
