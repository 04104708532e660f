"""How the model answers when no script says otherwise: plausibly, and the same each time.

With tools offered it calls one to three of them after a person spoke, with arguments drawn from the
conversation to fit each tool's schema, and then says what it did. Everything depends on the
question's fingerprint and the seed, on nothing else.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any, Final, TypeVar, cast

from midwatch.drills.rehearsal.question import BadQuestion, Call, Json, Question, Tool
from midwatch.drills.rehearsal.script import Answer

MAX_STEPS: Final = 3
"""Tool calls in a row before it answers in words."""
MAX_VALUES: Final = 1_000
"""Values in one answer: a small schema may ask for lists in lists in lists."""
MAX_LENGTH: Final = 10_000
"""Characters of one text, whatever `minLength` says."""
MAX_READ: Final = 20_000
"""Characters of what a person said that are looked through for words, numbers and names."""
MAX_DEPTH: Final = 6
"""Schemas nested deeper are filled with null: a schema may refer to itself."""

_STOP: Final = frozenset(
    [
        "about",
        "after",
        "also",
        "and",
        "are",
        "because",
        "been",
        "before",
        "but",
        "can",
        "could",
        "did",
        "does",
        "for",
        "from",
        "had",
        "has",
        "have",
        "her",
        "him",
        "his",
        "how",
        "into",
        "its",
        "just",
        "let",
        "like",
        "may",
        "more",
        "most",
        "not",
        "now",
        "off",
        "one",
        "our",
        "out",
        "over",
        "please",
        "should",
        "some",
        "than",
        "that",
        "the",
        "their",
        "them",
        "then",
        "there",
        "these",
        "they",
        "this",
        "through",
        "was",
        "were",
        "what",
        "when",
        "where",
        "which",
        "while",
        "who",
        "will",
        "with",
        "would",
        "you",
        "your",
    ]
)
_T = TypeVar("_T")


class Dice:
    """Draws that depend on the seed, the question and the name of what is drawn."""

    def __init__(self, seed: int, fingerprint: str) -> None:
        self._key = f"{seed}:{fingerprint}"
        self._left = MAX_VALUES

    def spend(self) -> bool:
        """Count one more value; return whether there may be one."""
        self._left -= 1
        return self._left >= 0

    def number(self, name: str, below: int) -> int:
        """Return a number from 0 up to, without, `below`."""
        digest = hashlib.blake2b(
            f"{self._key}:{name}".encode("utf-8", "replace"), digest_size=8
        ).digest()
        return int.from_bytes(digest, "big") % max(below, 1)

    def pick(self, name: str, choices: Sequence[_T]) -> _T:
        """Return one of `choices`."""
        return choices[self.number(name, len(choices))]


def answer(question: Question, seed: int) -> Answer:
    """Return the built-in answer to a question."""
    dice = Dice(seed, question.fingerprint)
    tool = _tool(question, dice)
    if tool is not None:
        return Answer(calls=(Call(tool.name, arguments(tool, question, dice)),), rule="builtin")
    if question.schema is not None:
        value = _fitting(question.schema, question, dice, "answer")
        if not question.schema:
            value = {"answer": _sentence(question, dice)}
        return Answer(text=json.dumps(value, ensure_ascii=False), rule="builtin")
    return Answer(text=_sentence(question, dice), rule="builtin")


def loop(question: Question, seed: int, *, same: bool) -> Answer:
    """Return one more call of the first tool, forever; the same call each time when `same`."""
    if not question.tools:
        return Answer(text="Let me think about that again. " * 20, rule="loop")
    tool = question.tools[0]
    dice = Dice(seed, tool.name if same else f"{tool.name}{question.turn}")
    return Answer(calls=(Call(tool.name, arguments(tool, question, dice)),), rule="loop")


def _tool(question: Question, dice: Dice) -> Tool | None:
    if not question.tools or question.tool_choice == "none":
        return None
    if question.tool_choice not in {"auto", "any"}:
        return next((t for t in question.tools if t.name == question.tool_choice), None)
    called = set(re.findall(r"^([^(\n]+)\(", question.history, re.MULTILINE))
    fresh = [t for t in question.tools if t.name not in called]
    wanted = 1 + Dice(0, question.user).number("steps", min(MAX_STEPS, len(question.tools)))
    if question.tool_choice == "auto" and (question.step > wanted or not fresh):
        return None
    return dice.pick("tool", fresh or question.tools)


def arguments(tool: Tool, question: Question, dice: Dice) -> Json:
    """Return arguments that fit the tool's schema."""
    value = _fitting(tool.schema, question, dice, tool.name)
    return cast("Json", value) if isinstance(value, dict) else {}


def _fitting(schema: Json, question: Question, dice: Dice, name: str) -> Any:
    try:
        return fill(schema or {"type": "object"}, question, dice, name)
    except (TypeError, ValueError, AttributeError, KeyError, OverflowError) as error:
        raise BadQuestion(f"the JSON schema of {name!r} cannot be read: {error}") from None


def fill(
    schema: Json,
    question: Question,
    dice: Dice,
    name: str,
    depth: int = 0,
    root: Json | None = None,
) -> Any:
    """Return a value that a JSON schema accepts, for the keywords that tools use."""
    root = schema if root is None else root
    if depth > MAX_DEPTH or not dice.spend():
        return None
    if "$ref" in schema:
        return fill(_refer(root, str(schema["$ref"])), question, dice, name, depth + 1, root)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return dice.pick(name, cast("list[Any]", schema["enum"]))
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            options = [o for o in cast("list[Json]", schema[key]) if o.get("type") != "null"]
            return fill(options[0], question, dice, name, depth + 1, root) if options else None
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = next((k for k in cast("list[str]", kind) if k != "null"), "null")
    match kind:
        case "object":
            return _object(schema, question, dice, name, depth, root)
        case "array":
            count = max(int(schema.get("minItems", 1)), 1)
            items = cast("Json", schema.get("items") or {})
            return [
                fill(items, question, dice, f"{name}.{i}", depth + 1, root)
                for i in range(min(count, 20))
            ]
        case "integer" | "number":
            return _number(schema, question, dice, name, whole=kind == "integer")
        case "boolean":
            return dice.number(name, 2) == 1
        case "null":
            return None
        case _:
            return _text(schema, question, dice, name)


def _object(
    schema: Json, question: Question, dice: Dice, name: str, depth: int, root: Json
) -> Json:
    properties = cast("dict[str, Json]", schema.get("properties") or {})
    required = set(cast("list[str]", schema.get("required") or []))
    filled: Json = {}
    for key, below in properties.items():
        if key in required or dice.number(f"{name}.{key}?", 2):
            filled[key] = fill(below, question, dice, f"{name}.{key}", depth + 1, root)
    return filled


def _refer(root: Json, ref: str) -> Json:
    node: Any = root
    for part in ref.removeprefix("#").strip("/").split("/"):
        node = cast("Json", node).get(part) if isinstance(node, dict) else None
    return cast("Json", node) if isinstance(node, dict) else {}


def _number(schema: Json, question: Question, dice: Dice, name: str, *, whole: bool) -> int | float:
    low = float(schema.get("minimum", schema.get("exclusiveMinimum", 0)))
    high = float(schema.get("maximum", schema.get("exclusiveMaximum", low + 100)))
    said = question.user[:MAX_READ]
    found = [float(n) for n in re.findall(r"(?<![\w.-])\d{1,9}(?:\.\d{1,4})?(?![\w-]|\.\d)", said)]
    fitting = [n for n in found if low <= n <= high and (not whole or n.is_integer())]
    if fitting:
        value = dice.pick(name, fitting)
    else:
        value = low + (high - low) * (1 + dice.number(name, 99)) / 100
    return round(min(max(value, low), high)) if whole else round(value, 4)


_DRAWN: Final = (
    (re.compile(r"url|link|uri"), re.compile(r"https?://[^\s<>\"')]+"), "https://example.com/"),
    (
        re.compile(r"mail|recipient|^to$"),
        re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+\w"),
        "someone@example.com",
    ),
    (
        re.compile(r"path|file|dir"),
        re.compile(r"(?:\.{0,2}/)?[\w.-]+/[\w./-]+|\b[\w-]+\.\w{2,4}\b"),
        "notes.txt",
    ),
    (re.compile(r"date|day|since|until"), re.compile(r"\d{4}-\d\d-\d\d"), "2026-01-15"),
    (
        re.compile(r"(^|_)id$|number|order"),
        re.compile(r"\b(?=[\w-]*\d)[A-Za-z0-9-]{3,}\b"),
        "A-1001",
    ),
)


def _text(schema: Json, question: Question, dice: Dice, name: str) -> str:
    key = name.rpartition(".")[2].lower()
    text = " ".join(_words(question.user)[:6]) or "nothing in particular"
    for of_key, pattern, fallback in _DRAWN:
        if of_key.search(key):
            found = pattern.findall(question.user[:MAX_READ])
            text = str(dice.pick(name, found)) if found else fallback
            break
    shortest = min(int(schema.get("minLength", 0)), MAX_LENGTH)
    if len(text) < shortest:
        text = text.ljust(shortest, ".")
    return text[: max(int(schema.get("maxLength", MAX_LENGTH)), 0)]


def _words(text: str) -> list[str]:
    words = re.findall(r"[^\W\d_][\w'-]{2,}", text[:MAX_READ])
    return [w for w in words if w.lower() not in _STOP]


def _sentence(question: Question, dice: Dice) -> str:
    words = _words(question.user)
    topic = " ".join(words[:5]) or "your message"
    done = len(re.findall(r"^\w+ -> ", question.history, re.MULTILINE))
    if done:
        said = next(
            (line.strip() for line in question.result.splitlines() if line.strip()), "nothing"
        )
        return f"Done: {topic}. I used {done} tool call{'s' if done > 1 else ''}; the last one said: {said[:160]}"
    start = dice.pick("start", ("In short", "As far as I can tell", "Briefly", "To begin with"))
    middle = " ".join(words[5:17])
    more = f" What matters most here: {middle}." if middle else ""
    return f"{start}: this is about {topic}.{more} Tell me if you need more than that."
