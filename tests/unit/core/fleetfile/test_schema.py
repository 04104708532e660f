"""The published schema says what the reader does."""

from __future__ import annotations

import json
import re
from typing import Any

from midwatch.core.fleet import Agent, Fleet
from midwatch.core.fleetfile import schema as shape_of
from midwatch.core.quantities import Model


def _properties() -> list[tuple[str, dict[str, Any]]]:
    schema = shape_of.schema()
    parts = {"": schema, **schema["$defs"]}
    return [
        (f"{name}.{key}", entry)
        for name, part in parts.items()
        for key, entry in part.get("properties", {}).items()
    ]


def test_every_key_is_described() -> None:
    undescribed = [
        name for name, entry in _properties() if not shape_of.follow(entry).get("description")
    ]
    assert undescribed == []


def test_the_schema_is_json_and_names_no_key_that_the_file_may_not_have() -> None:
    schema = json.loads(json.dumps(shape_of.schema()))
    assert "root" not in schema["properties"]
    assert set(schema["properties"]) == set(Fleet.model_fields) - {"root"}
    assert schema["additionalProperties"] is False


def test_quantities_are_text_with_a_pattern_that_takes_its_own_examples() -> None:
    found = 0
    for name, entry in _properties():
        shape = shape_of.follow(entry)
        for example in shape.get("examples", []):
            found += 1
            assert shape["type"] == "string", name
            assert re.fullmatch(shape.get("pattern", ".*"), example), (name, example)
    assert found > 20


def test_a_path_leads_to_its_shape() -> None:
    assert shape_of.keys(("agents", "inbox")) == list(Agent.model_fields)
    assert shape_of.keys(("agents", "inbox", "restart"))[0] == "when"
    assert shape_of.keys(("routes", 0)) == ["match", "to", "repeat"]
    assert shape_of.is_word(shape_of.at(("agents", "inbox", "command", 3)))
    assert shape_of.is_section(shape_of.at(("agents", "inbox", "verify")))
    assert shape_of.keys(("models", "providers", "openai"))[:2] == ["kind", "base_url"]
    assert shape_of.at(("agents", "inbox", "nope")) in (None, {})


def test_every_model_refuses_unknown_keys() -> None:
    assert {model.model_config.get("extra") for model in Model.__subclasses__()} == {"forbid"}
