"""What is wrong with a fleet, in plain words: where, what was expected, what stands there instead.

No value that came out of `${…}` is ever repeated: it may be a secret.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from pydantic import ValidationError

from midwatch.core.fleetfile import schema
from midwatch.core.fleetfile.document import Document, Path, Place, show_path
from midwatch.core.nearest import did_you_mean
from midwatch.core.units import HIDDEN, Unexpected, shorten

_QUOTES: Final = "put it in quotes when you mean the text"


def describe(error: ValidationError, document: Document) -> None:
    """Add each thing that the models refused to the document's problems."""
    blamed = {problem.key for problem in document.problems}
    for detail in error.errors(include_url=False):
        path: Path = tuple(part for part in detail["loc"] if part != "[key]")
        if show_path(path) in blamed and detail["type"] != "extra_forbidden":
            continue  # a second complaint about one value helps nobody
        kind = detail["type"]
        context: dict[str, Any] = detail.get("ctx", {})
        if kind == "missing":
            entry = schema.at(path) or {}
            about = str(entry.get("description", "")).rstrip(".")
            parent = document.place(path[:-1])
            document.places.setdefault(path, parent)
            document.complain(path, f"is missing: {about}" if about else "is missing")
        elif kind == "extra_forbidden":
            document.complain(path, unknown_key(path, detail["input"]), at_key=True)
        elif kind == "value_error" and not isinstance(context.get("error"), Unexpected):
            continue  # a rule across keys: the reader has checked it before, and all at once
        else:
            message = _unexpected(kind, context, detail["input"], document.place(path))
            document.complain(path, message)


def _unexpected(kind: str, context: dict[str, Any], value: object, place: Place) -> str:
    error = context.get("error")
    hint = None
    if isinstance(error, Unexpected):
        expected = error.expected
        hint = None if _came_from_elsewhere(place, value) else error.hint
    else:
        expected = _EXPECTED.get(kind, lambda _: "something else")(context)
        if kind == "literal_error" and isinstance(value, str) and place.written == value:
            hint = did_you_mean(value, _choices(context)).removeprefix("; ") or None
    if hint is None and isinstance(value, bool | int | float) and kind in _TEXTS:
        hint = _QUOTES
    hidden = isinstance(error, Unexpected) and error.hidden
    got = HIDDEN if hidden else _got(value, place)
    return f"expected {expected}, got {got}" + (f"; {hint}" if hint else "")


def _choices(context: dict[str, Any]) -> list[str]:
    return [part.strip("' ") for part in str(context["expected"]).replace(" or ", ", ").split(",")]


def _one_of(context: dict[str, Any]) -> str:
    choices = _choices(context)
    return choices[0] if len(choices) == 1 else f"one of {', '.join(choices)}"


def _always(text: str) -> Callable[[dict[str, Any]], str]:
    return lambda _context: text


_WHOLE: Final = _always("a whole number")
_NUMBER: Final = _always("a number")
_FLAG: Final = _always("true or false")
_LIST: Final = _always("a list, such as [a, b]")
_KEYS: Final = _always("'key: value' lines")

_EXPECTED: Final[dict[str, Callable[[dict[str, Any]], str]]] = {
    "literal_error": _one_of,
    "string_type": _always("text"),
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_parsing_size": _WHOLE,
    "int_from_float": _WHOLE,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "finite_number": _NUMBER,
    "bool_type": _FLAG,
    "bool_parsing": _FLAG,
    "list_type": _LIST,
    "tuple_type": _LIST,
    "dict_type": _KEYS,
    "model_type": _KEYS,
    "model_attributes_type": _KEYS,
    "greater_than_equal": lambda context: f"at least {context['ge']}",
    "less_than_equal": lambda context: f"at most {context['le']}",
}
"""What was expected, by pydantic's name for the refusal."""

_TEXTS: Final = frozenset({"string_type", "literal_error"})


def _came_from_elsewhere(place: Place, value: object) -> bool:
    return place.written is not None and "${" in place.written and place.written != value


def _got(value: object, place: Place) -> str:
    if _came_from_elsewhere(place, value):
        return f"the value of {shorten(place.written)}"
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "'key: value' lines"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, str):
        return shorten(value)
    written = place.written if place.bare and place.written else str(value).lower()
    if isinstance(value, bool) and written.lower() not in ("true", "false"):
        return f"{written}, which YAML reads as {str(value).lower()}"
    return written[:60]


def unknown_key(path: Path, value: object) -> str:
    """Return what to write instead of a key that does not exist."""
    *above, key = path
    parent = tuple(above)
    valid = schema.keys(parent)
    if near := did_you_mean(str(key), valid):
        return f"unknown key{near}"
    inside = [f"{name}.{key}" for name in valid if key in schema.keys((*parent, name))]
    if parent and inside:
        return f"unknown key; did you mean {' or '.join(map(repr, inside))}?"
    if not parent and isinstance(value, dict) and ("command" in value or "schedule" in value):
        return "unknown key; an agent stands under 'agents:', indented"
    deeper = [did_you_mean(str(key), schema.keys((*parent, name))) for name in valid]
    for name, near in zip(valid, deeper, strict=True):
        if near and parent:
            return "unknown key" + near.replace("mean '", f"mean '{name}.")
    return f"unknown key; known here: {', '.join(valid)}"
