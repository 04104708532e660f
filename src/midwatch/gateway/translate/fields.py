"""Fields of requests, sorted into three columns: carried, harmless to leave out, refused.

    carried   the reader takes it, or refuses a value of it by name
    harmless  it may go unsaid, because the answer is as good without it: told in x-midwatch-left-out
    refused   an answer without it would not be what was asked for

What stands in no column is not known, and refused by its name. `null` is the same as nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from pydantic_core import from_json

from midwatch.gateway.translate.form import CannotTranslate, Json, Notes

UNKNOWN: Final = "no other provider is known to have a word for it"

MAX_TOKENS: Final = 10**9


@dataclass(frozen=True, slots=True)
class Table:
    """The columns of one object. Names are the dialect's own."""

    carried: frozenset[str]
    harmless: frozenset[str] = frozenset()
    refused: Mapping[str, str] = field(default_factory=dict[str, str])
    """Name → why."""


def table(carried: str, harmless: str = "", **refused: str) -> Table:
    return Table(frozenset(carried.split()), frozenset(harmless.split()), refused)


def sort(given: Json, columns: Table, path: str, notes: Notes) -> Json:
    """Return what is carried of an object. Raises CannotTranslate for what is refused, or unknown."""
    carried: Json = {}
    for name, value in given.items():
        if value is None:
            continue
        if name in columns.carried:
            carried[name] = value
        elif name in columns.harmless:
            notes.leave(path + name)
        else:
            raise CannotTranslate(path + name, columns.refused.get(name, UNKNOWN))
    return carried


def unless(value: object, idle: tuple[object, ...], name: str, why: str) -> None:
    """Refuse a field, unless its value is one of those that ask for nothing."""
    if not any(value is one or (type(value) is type(one) and value == one) for one in idle):
        raise CannotTranslate(name, why)


# -- types -------------------------------------------------------------------------------------


def load(body: bytes) -> Json:
    try:
        value = from_json(body, allow_inf_nan=False)
    except ValueError:
        raise CannotTranslate("the body", "it is no JSON that can be read") from None
    return object_of(value, "the body")


def dump(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def encode(value: object) -> bytes:
    return dump(value).encode("utf-8", "replace")


def text_of(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise CannotTranslate(name, "expected text")
    return value


def object_of(value: object, name: str) -> Json:
    if not isinstance(value, dict):
        raise CannotTranslate(name, "expected an object")
    return cast("Json", value)


def list_of(value: object, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise CannotTranslate(name, "expected a list")
    return cast("list[Any]", value)


def within(given: Json, name: str) -> Json:
    """Return the object that stands under a name of an answer; an empty one when none does."""
    value = given.get(name)
    return cast("Json", value) if isinstance(value, dict) else {}


def objects_of(value: object, name: str) -> list[Json]:
    """Return a list of objects; nothing is an empty one."""
    if value is None:
        return []
    return [object_of(item, name) for item in list_of(value, name)]


def texts_of(value: object, name: str) -> tuple[str, ...]:
    if value is None:
        return ()
    return tuple(text_of(item, name) for item in list_of(value, name))


def flag_of(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise CannotTranslate(name, "expected true or false")
    return value


def number_of(value: object, name: str, low: float, high: float) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise CannotTranslate(name, f"expected a number from {low:g} to {high:g}")
    return value


def whole_of(value: object, name: str, low: int = 0, high: int = MAX_TOKENS) -> int | None:
    """Return a whole number; protobuf's JSON writes them as text, too."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 12:
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise CannotTranslate(name, f"expected a whole number from {low} to {high}")
    return value


def arguments_of(value: object, name: str) -> Json:
    """Return the arguments of a call that are written as text; none are an empty object."""
    said = text_of(value, name)
    if not said.strip():
        return {}
    try:
        found = from_json(said, allow_inf_nan=False)
    except ValueError:
        raise CannotTranslate(name, "other providers take arguments as JSON alone") from None
    return object_of(found, name)


def written(value: object) -> str:
    """Return arguments as an answer holds them, as text: some servers send the object itself."""
    if isinstance(value, str):
        return value
    return dump(cast("object", value)) if isinstance(value, dict) else ""


# -- pictures and files ------------------------------------------------------------------------


def data_url(value: str, name: str) -> tuple[str, str] | None:
    """Return type and base64 of a data address; None for any other address."""
    if value[:5].lower() != "data:":
        return None
    head, comma, data = value[5:].partition(",")
    mime, _, coding = head.partition(";")
    if not comma or coding.rpartition(";")[2].lower() != "base64" or not mime:
        raise CannotTranslate(name, "expected data:TYPE;base64,…")
    return mime.lower(), data


def web_url(value: str, name: str) -> str:
    if not value.lower().startswith(("https://", "http://")):
        raise CannotTranslate(name, "other providers do not know this address")
    return value
