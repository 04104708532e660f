"""The shape of the fleet file as JSON schema: for editors, for messages that name valid keys, for docs."""

from __future__ import annotations

from functools import cache
from typing import Any, cast

from midwatch.core.fleet import Fleet
from midwatch.core.fleetfile.document import Path

Schema = dict[str, Any]

_TITLE = "Midwatch fleet file"


def schema() -> Schema:
    """Return the JSON schema (draft 2020-12) that `midwatch check --schema` prints."""
    whole = Fleet.model_json_schema()
    del whole["properties"]["root"]  # set by the reader
    for part in (whole, *whole["$defs"].values()):
        for name, entry in part.get("properties", {}).items():
            if entry.get("title", "").casefold().replace(" ", "_") == name.casefold():
                del entry["title"]  # the key once more, capitalised
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **whole, "title": _TITLE}


@cache
def _whole() -> Schema:
    return schema()


def follow(entry: Schema) -> Schema:
    """Return what an entry says after `$ref` and `… | null`, its own description kept."""
    for choice in entry.get("anyOf", ()):
        if choice.get("type") != "null":
            return {**follow(choice), **{k: v for k, v in entry.items() if k != "anyOf"}}
    if "$ref" in entry:
        target = _whole()["$defs"][entry["$ref"].rsplit("/", 1)[-1]]
        return {**target, **{k: v for k, v in entry.items() if k != "$ref"}}
    return entry


def at(path: Path) -> Schema | None:
    """Return the shape at a path such as ("agents", "inbox", "limits"); None where anything goes."""
    entry = _whole()
    for part in path:
        inner: object
        if isinstance(part, int):
            inner = entry.get("items")
        else:
            inner = entry.get("properties", {}).get(part, entry.get("additionalProperties"))
        if not isinstance(inner, dict):
            return None
        entry = follow(cast("Schema", inner))
    return entry


def keys(path: Path) -> list[str]:
    """Return the keys that are valid at a path; none where any name is valid."""
    return list((at(path) or {}).get("properties", {}))


def is_section(entry: Schema | None) -> bool:
    """Tell whether a list or keys belong here, so that an empty value means an empty section."""
    return entry is not None and entry.get("type") in ("object", "array")


def is_word(entry: Schema | None) -> bool:
    """Tell whether text for a process belongs here: bare numbers stay as they are written."""
    return entry is not None and isinstance(entry.get("type"), list)
