"""Templates: text in a script that draws values from the request.

    ${user}                      the last user text
    ${user/order #(\\d+)/}        the first group of the first match (the match itself without a group)
    ${result/total: (\\S+)/|number|or:0}

Sources: user, system, model, result, history, turn, step. Filters: int, number, lower, upper, trim,
line (the first line), or:TEXT (when empty). `$$` is a dollar sign. A template that is one placeholder
with the filter int or number gives a number; everything else gives text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final, cast

from midwatch.drills.rehearsal.question import Question

SOURCES: Final = ("user", "system", "model", "result", "history", "turn", "step")
FILTERS: Final = ("int", "number", "lower", "upper", "trim", "line", "or:TEXT")

_NAME: Final = re.compile(r"[a-z]+")


@dataclass(frozen=True, slots=True)
class _Draw:
    source: str
    pattern: re.Pattern[str] | None
    filters: tuple[str, ...]

    def value(self, question: Question) -> str | int | float:
        text = str(getattr(question, self.source))
        if self.pattern is not None:
            found = self.pattern.search(text)
            text = "" if found is None else (found[1] or "") if found.re.groups else found[0]
        value: str | int | float = text
        for name in self.filters:
            value = _filter(name, value)
        return value


def _filter(name: str, value: str | int | float) -> str | int | float:
    text = str(value)
    match name:
        case "int":
            found = re.search(r"-?\d+", text)
            return int(found[0]) if found else text
        case "number":
            return parse_number(text)
        case "lower":
            return text.lower()
        case "upper":
            return text.upper()
        case "trim":
            return text.strip()
        case "line":
            return next((line.strip() for line in text.splitlines() if line.strip()), "")
        case _:
            return value if text else name.removeprefix("or:")


def parse_number(text: str) -> str | int | float:
    """Return the first number of a text, read as people write them; the text when there is none.

    `1.299,00` and `1,299.00` are both 1299; a lone separator with three digits behind it groups.
    """
    found = re.search(r"\d[\d.,' \u00a0\u202f]*", text)
    if found is None:
        return text
    digits = re.sub(r"[' \u00a0\u202f]", "", found[0]).rstrip(".,")
    last = max(digits.rfind("."), digits.rfind(","))
    if last >= 0:
        head, tail = digits[:last], digits[last + 1 :]
        grouped = len(tail) == 3 and not ({".", ","} & set(head) - {digits[last]})
        whole = re.sub(r"[.,]", "", head)
        digits = whole + tail if grouped else f"{whole}.{tail}"
    number = float(digits)
    return int(number) if number.is_integer() and "." not in digits else number


@dataclass(frozen=True, slots=True)
class Template:
    """A text with placeholders, read once."""

    parts: tuple[str | _Draw, ...]

    def fill(self, question: Question) -> str | int | float:
        """Return the text with values of this question; a number when it is one numeric placeholder."""
        if len(self.parts) == 1 and isinstance(self.parts[0], _Draw):
            return self.parts[0].value(question)
        return "".join(p if isinstance(p, str) else str(p.value(question)) for p in self.parts)


def parse(text: str) -> Template:
    """Read a template. Raises ValueError that says what is wrong and where."""
    parts: list[str | _Draw] = []
    at = 0
    while at < len(text):
        dollar = text.find("$", at)
        if dollar < 0:
            parts.append(text[at:])
            break
        if dollar > at:
            parts.append(text[at:dollar])
        follows = text[dollar + 1 : dollar + 2]
        if follows == "{":
            draw, at = _placeholder(text, dollar + 2)
            parts.append(draw)
        else:
            parts.append("$")
            at = dollar + (2 if follows == "$" else 1)
    return Template(tuple(parts))


def _placeholder(text: str, at: int) -> tuple[_Draw, int]:
    shown = text[at - 2 : at + 30]
    name = _NAME.match(text, at)
    if name is None or name[0] not in SOURCES:
        raise ValueError(f"{shown!r}: expected one of {', '.join(SOURCES)} after ${{")
    at = name.end()
    pattern = None
    if text[at : at + 1] == "/":
        end = at + 1
        while end < len(text) and text[end] != "/":
            end += 2 if text[end] == "\\" else 1
        if end >= len(text):
            raise ValueError(f"{shown!r}: the expression does not end; close it with /")
        source = text[at + 1 : end].replace("\\/", "/")
        try:
            pattern = re.compile(source, re.IGNORECASE | re.MULTILINE)
        except re.error as error:
            raise ValueError(f"{shown!r}: {source!r} is no regular expression: {error}") from None
        at = end + 1
    close = text.find("}", at)
    if close < 0:
        raise ValueError(f"{shown!r}: the placeholder does not end; close it with }}")
    filters = tuple(text[at:close].split("|")[1:])
    if text[at:close].split("|")[0]:
        raise ValueError(f"{shown!r}: expected / or | or }} after the name, got {text[at:close]!r}")
    for one in filters:
        if one not in FILTERS and not one.startswith("or:"):
            raise ValueError(f"{shown!r}: unknown filter {one!r}; known: {', '.join(FILTERS)}")
    return _Draw(name[0], pattern, filters), close + 1


def compile_tree(value: Any) -> Any:
    """Return JSON-like `value` with every text read as a template."""
    if isinstance(value, str):
        return parse(value)
    if isinstance(value, dict):
        return {k: compile_tree(v) for k, v in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [compile_tree(v) for v in cast("list[Any]", value)]
    return value


def fill_tree(value: Any, question: Question) -> Any:
    """Return what `compile_tree` gave with the values of a question."""
    if isinstance(value, Template):
        return value.fill(question)
    if isinstance(value, dict):
        return {k: fill_tree(v, question) for k, v in cast("dict[str, Any]", value).items()}
    if isinstance(value, list):
        return [fill_tree(v, question) for v in cast("list[Any]", value)]
    return value
