"""Scripts: rules, as data, that say how the model answers.

    rules:
      - name: refund
        when: {system: you are a support agent, user: refund, tools: [lookup], turn: 1}
        answer: {calls: [{tool: lookup, args: {order: '${user/#(\\d+)/}'}}]}
      - when: {after: lookup}
        answer: {text: 'Order ${history/order": "(\\d+)/} will be refunded.'}
    behave:
      - {mode: slow, model: gpt-4o, first_token: 3s}
    otherwise: builtin          # builtin | error

The first rule that matches answers; `times` lets one rule give way to the next. Patterns are regular
expressions, case ignored, found anywhere; names of models may use * and ?.
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, cast

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from midwatch.core.errors import MidwatchError, Problem
from midwatch.core.nearest import did_you_mean
from midwatch.drills.rehearsal import template
from midwatch.drills.rehearsal.behave import Behaviour
from midwatch.drills.rehearsal.question import Api, Call, Question

Path_ = tuple[int | str, ...]

SAMPLE: Final = Path(__file__).parent / "scripts" / "sample-fleet.yaml"
"""How the model answers the agents of examples/fleet."""


class ScriptError(MidwatchError):
    """A script cannot be used: each problem names line and key."""

    def __init__(self, problems: list[Problem], file: str) -> None:
        self.problems = problems
        super().__init__("\n".join(p.render(file) for p in problems))


def _pattern(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError(f"expected a regular expression as text, got {value!r}")
    try:
        return re.compile(value, re.IGNORECASE | re.MULTILINE)
    except re.error as error:
        raise ValueError(f"{value!r} is no regular expression: {error}") from None


def _numbers(value: object) -> object:
    return [value] if isinstance(value, int) and not isinstance(value, bool) else value


def _template(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError(f"expected text, got {value!r}")
    return template.parse(value)


Pattern = Annotated[re.Pattern[str], BeforeValidator(_pattern)]
Numbers = Annotated[list[Annotated[int, Field(ge=1)]], BeforeValidator(_numbers)]
Text = Annotated[template.Template, BeforeValidator(_template)]
Tree = Annotated[Any, BeforeValidator(template.compile_tree)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class When(_Entry):
    """What a rule looks at; all that is given must hold."""

    api: Api | None = None
    model: str | None = None
    system: Pattern | None = None
    user: Pattern | None = None
    result: Pattern | None = None
    history: Pattern | None = None
    task: Pattern | None = None
    tools: list[str] = []
    after: str | None = None
    turn: Numbers | None = None
    step: Numbers | None = None

    def holds(self, question: Question, task: str) -> bool:
        """Tell whether the rule is about this question."""
        texts = (
            (self.system, question.system),
            (self.user, question.user),
            (self.result, question.result),
            (self.history, question.history),
            (self.task, task),
        )
        return (
            (self.api is None or self.api == question.api)
            and (self.model is None or fnmatch.fnmatchcase(question.model, self.model))
            and (self.after is None or self.after == question.after)
            and (self.turn is None or question.turn in self.turn)
            and (self.step is None or question.step in self.step)
            and all(question.offers(tool) for tool in self.tools)
            and all(want is None or want.search(text) is not None for want, text in texts)
        )


class ToolCall(_Entry):
    tool: str
    args: Tree = {}


class Counts(_Entry):
    """Tokens that are reported instead of those counted."""

    input: Annotated[int, Field(ge=0)] | None = None
    output: Annotated[int, Field(ge=0)] | None = None
    cached: Annotated[int, Field(ge=0)] | None = None
    written: Annotated[int, Field(ge=0)] | None = None
    written_1h: Annotated[int, Field(ge=0)] | None = None
    reasoning: Annotated[int, Field(ge=0)] | None = None
    image: Annotated[int, Field(ge=0)] | None = None
    audio: Annotated[int, Field(ge=0)] | None = None


class Reply(_Entry):
    text: Text | None = None
    calls: list[ToolCall] = []
    usage: Counts | None = None


class Rule(_Entry):
    name: str = ""
    when: When = When()
    answer: Reply
    times: Annotated[int, Field(ge=1)] | None = None
    behave: Behaviour | None = None


class Script(_Entry):
    """A whole script."""

    rules: list[Rule] = []
    behave: list[Behaviour] = []
    otherwise: Literal["builtin", "error"] = "builtin"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model says: text, tool calls, and counts that a rule insists on."""

    text: str = ""
    calls: tuple[Call, ...] = ()
    counts: Counts | None = None
    rule: str = ""
    behave: Behaviour | None = None


class Player:
    """Plays a script: keeps count of the rules that hold only so many times."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self._used = [0] * len(script.rules)

    def answer(self, question: Question, task: str = "") -> Answer | None:
        """Return the answer of the first rule that matches, or None when none does."""
        for number, rule in enumerate(self.script.rules):
            spent = rule.times is not None and self._used[number] >= rule.times
            if spent or not rule.when.holds(question, task):
                continue
            self._used[number] += 1
            reply = rule.answer
            return Answer(
                text="" if reply.text is None else str(reply.text.fill(question)),
                calls=tuple(
                    Call(call.tool, template.fill_tree(call.args, question)) for call in reply.calls
                ),
                counts=reply.usage,
                rule=rule.name or f"rules[{number}]",
                behave=rule.behave,
            )
        return None


def load(path: Path) -> Script:
    """Read a script from YAML or JSON. Raises ScriptError with line, key and what was expected."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problem = Problem(1, 1, "", f"cannot be read: {error}; give the path of a YAML file")
        raise ScriptError([problem], str(path)) from None
    return parse(text, str(path))


def parse(text: str, file: str = "script") -> Script:
    """Read a script's text; see `load`."""
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        what = getattr(error, "problem", None) or str(error)
        raise ScriptError([Problem(line, column, "", f"no YAML: {what}")], file) from None
    if not isinstance(value, dict):
        problem = Problem(1, 1, "", f"expected rules: and a list of rules, got {value!r:.60}")
        raise ScriptError([problem], file)
    try:
        return Script.model_validate(value)
    except ValidationError as error:
        problems = [_problem(tree, cast("dict[str, Any]", dict(e))) for e in error.errors()]
        raise ScriptError(problems, file) from None


def _problem(tree: yaml.Node | None, error: dict[str, Any]) -> Problem:
    path = cast("Path_", tuple(error["loc"]))
    line, column = _place(tree, path)
    key = re.sub(r"\.(\d+)", r"[\1]", ".".join(str(p) for p in path))
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        known = _known(path)
        message = (
            f"unknown key{did_you_mean(str(path[-1]), known) or '; known: ' + ', '.join(known)}"
        )
    elif error["type"] == "missing":
        message = "is missing"
    return Problem(line, column, key, message)


def _known(path: Path_) -> list[str]:
    """Return the keys that may stand where `path` ends."""
    places: dict[str, type[BaseModel]] = {
        "when": When,
        "calls": ToolCall,
        "usage": Counts,
        "answer": Reply,
        "behave": Behaviour,
        "rules": Rule,
    }
    names = [p for p in path[:-1] if isinstance(p, str)]
    return list((places[names[-1]] if names and names[-1] in places else Script).model_fields)


def _place(node: yaml.Node | None, path: Path_) -> tuple[int, int]:
    """Return line and column of the key that `path` leads to, as far as it can be followed."""
    line, column = 1, 1
    for part in path:
        if isinstance(node, yaml.MappingNode):
            pairs = cast("list[tuple[yaml.Node, yaml.Node]]", node.value)
            pair = next(((k, v) for k, v in pairs if k.value == str(part)), None)
            if pair is None:
                break
            mark, node = pair[0].start_mark, pair[1]
        elif (
            isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value)
        ):
            node = cast("list[yaml.Node]", node.value)[part]
            mark = node.start_mark
        else:
            break
        if mark is not None:
            line, column = mark.line + 1, mark.column + 1
    return line, column
