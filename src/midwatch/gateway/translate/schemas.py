"""JSON schemas, as far as each kind of provider takes them.

Two uses. The arguments of tools are hints: no provider promises to keep to a bound within them, and the
client's tool checks them; a word that says nothing to the other side is left out and told. The form of an
answer is a promise: what the other side would not keep is refused by its name.

Sources: ai.google.dev/gemini-api/docs/structured-output (JSON schema support), docs.anthropic.com structured
outputs (JSON schema limitations), platform.openai.com structured outputs (supported schemas).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, cast

from midwatch.core.calls.ask import Kind
from midwatch.gateway.translate.form import CannotTranslate, Json, Notes

_SHAPE: Final = frozenset(
    [
        "type",
        "properties",
        "required",
        "items",
        "enum",
        "anyOf",
        "description",
        "title",
        "format",
        "$ref",
        "$defs",
        "$id",
        "$anchor",
        "additionalProperties",
    ]
)
"""Words that all three know."""

_ASIDE: Final = frozenset(
    [
        "$schema",
        "$comment",
        "default",
        "example",
        "examples",
        "deprecated",
        "readOnly",
        "writeOnly",
        "propertyOrdering",
        "id",
        "contentMediaType",
        "contentEncoding",
        "markdownDescription",
    ]
)
"""Words that forbid nothing."""

_BOUNDS: Final = frozenset(
    [
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "multipleOf",
        "minLength",
        "maxLength",
        "pattern",
        "minItems",
        "maxItems",
        "uniqueItems",
        "minProperties",
        "maxProperties",
    ]
)
"""Words that narrow what their type allows."""

_KNOWN: Final = {
    Kind.GEMINI: _SHAPE | {"minimum", "maximum", "minItems", "maxItems", "prefixItems", "oneOf"},
    Kind.ANTHROPIC: _SHAPE | {"const", "allOf", "default"},
    Kind.OPENAI: _SHAPE | _BOUNDS - {"uniqueItems", "minProperties", "maxProperties"} | {"const"},
}
"""What a promised form may say."""

_NESTED: Final = frozenset(("properties", "$defs", "definitions", "patternProperties"))
"""Words whose value is an object of schemas by the client's own names."""


def of_tool(schema: Json, kind: Kind, name: str, notes: Notes) -> Json:
    """Return the schema of a tool's arguments as a kind takes it. Raises CannotTranslate.

    OpenAI's and Anthropic's tools take any JSON schema; Gemini's a part of it.
    """
    if kind is not Kind.GEMINI:
        return schema

    def word(key: str, value: Any) -> tuple[str, Any] | None:
        if key in _KNOWN[Kind.GEMINI]:
            return key, value
        if key == "const":
            return "enum", [value]
        if key in _ASIDE | _BOUNDS:
            notes.leave(f"{name}.{key}")
            return None
        raise CannotTranslate(f"{name}.{key}", "Gemini's schemas do not have it")

    return _walk(schema, word)


def of_form(schema: Json, kind: Kind, name: str, notes: Notes) -> Json:
    """Return the schema that an answer keeps to, as a kind takes it. Raises CannotTranslate."""

    def word(key: str, value: Any) -> tuple[str, Any] | None:
        if key in _KNOWN[kind]:
            return key, value
        if key == "const":
            return "enum", [value]
        if key in _ASIDE:
            notes.leave(f"{name}.{key}")
            return None
        raise CannotTranslate(f"{name}.{key}", f"{kind.value}'s structured answers do not keep it")

    found = _walk(schema, word)
    return found if kind is Kind.GEMINI else _closed(found, name)


def is_strict(schema: Json) -> bool:
    """Tell whether OpenAI can be asked to keep to a schema: each object names all its properties as required."""
    strict = True

    def look(found: Json) -> Json:
        nonlocal strict
        properties = found.get("properties")
        names = set(cast("Json", properties)) if isinstance(properties, dict) else set[str]()
        required = found.get("required")
        listed = cast("list[Any]", required) if isinstance(required, list) else []
        if names.difference(map(str, listed)):
            strict = False
        return found

    _each(schema, look)
    return strict


def _closed(schema: Json, name: str) -> Json:
    """Say of each object that it has no further properties: every answer to this fits the client's schema, too."""

    def close(found: Json) -> Json:
        if found.get("type") != "object" and "properties" not in found:
            return found
        more = found.get("additionalProperties", False)
        if more is not False:
            raise CannotTranslate(
                f"{name}.additionalProperties", "structured answers elsewhere have none"
            )
        return {**found, "additionalProperties": False}

    return _each(schema, close)


def of_openapi(schema: Json) -> Json:
    """Return Gemini's own kind of schema (OpenAPI 3.0: types in capitals, `nullable`) as JSON schema."""

    def plain(found: Json) -> Json:
        read = {_CAMEL.get(key, key): value for key, value in found.items() if value is not None}
        kind = read.get("type")
        if isinstance(kind, str):
            kind = kind.lower()
            read["type"] = kind
            if kind == "type_unspecified":
                del read["type"]
        if read.get("format") == "enum":
            del read["format"]
        if read.pop("nullable", False) is True and isinstance(kind, str):
            read["type"] = [kind, "null"]
            if isinstance(read.get("enum"), list):
                read["enum"] = [*read["enum"], None]
        for bound in _COUNTS & read.keys():
            value = read[bound]
            if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 12:
                read[bound] = int(value)
        return read

    return _each(schema, plain)


_CAMEL: Final = {
    "any_of": "anyOf",
    "max_items": "maxItems",
    "min_items": "minItems",
    "max_length": "maxLength",
    "min_length": "minLength",
    "max_properties": "maxProperties",
    "min_properties": "minProperties",
    "property_ordering": "propertyOrdering",
    "additional_properties": "additionalProperties",
}

_COUNTS: Final = frozenset(
    ("maxItems", "minItems", "maxLength", "minLength", "maxProperties", "minProperties")
)


def _walk(schema: Json, word: Callable[[str, Any], tuple[str, Any] | None]) -> Json:
    """Return a schema with each of its words as `word` says; names of properties are no words."""

    def each(found: Json) -> Json:
        pairs = (word(key, value) for key, value in found.items())
        return dict(pair for pair in pairs if pair is not None)

    return _each(schema, each)


def _each(schema: Json, change: Callable[[Json], Json]) -> Json:
    """Return a schema with each schema in it changed, from the outside in."""

    def inner(value: Any) -> Any:
        if isinstance(value, dict):
            return _each(cast("Json", value), change)
        if isinstance(value, list):
            return [inner(one) for one in cast("list[Any]", value)]
        return value

    found: Json = {}
    for key, value in change(schema).items():
        if key in _NESTED and isinstance(value, dict):
            found[key] = {name: inner(one) for name, one in cast("Json", value).items()}
        elif key in _SCHEMAS:
            found[key] = inner(value)
        else:
            found[key] = value
    return found


_SCHEMAS: Final = frozenset(
    [
        "items",
        "prefixItems",
        "anyOf",
        "oneOf",
        "allOf",
        "not",
        "additionalProperties",
        "contains",
        "if",
        "then",
        "else",
    ]
)
"""Words whose value is a schema, or a list of them. What stands under another word is data."""
