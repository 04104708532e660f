"""Secrets leave beats, events, runs and samples, in their names and in their values."""

from __future__ import annotations

from typing import Any

from midwatch.core.redact import is_secret
from midwatch.ingest.redacting import redact_item

KEY = "sk-proj-" + "a1B2" * 12


def test_a_secret_that_is_a_name_goes_and_what_it_names_stays() -> None:
    item: dict[str, Any] = {"id": KEY, "data": {"used": [{KEY: 1}], f"{KEY}": "first", "plain": 2}}
    assert redact_item(item) == (2, 0)
    assert item["data"] == {
        "used": [{"sk-proj[redacted]": 1}],
        "sk-proj[redacted]": "first",
        "plain": 2,
    }
    assert item["id"] == KEY, "by its id an item is known when it comes again"


def test_of_long_names_no_more_is_remembered_than_of_any_attribute() -> None:
    is_secret.cache_clear()
    long = "x" * 60_000 + ".api_key"
    item: dict[str, Any] = {"data": {long: "hush", "n" * 60_000: 1}}
    assert redact_item(item) == (0, 1)
    assert item["data"][long] == "[redacted]"
    before = is_secret.cache_info().misses
    is_secret(long[-256:])
    is_secret("n" * 256)
    assert is_secret.cache_info().misses == before, "they were asked for by their ends"


def test_a_name_within_a_text_gives_a_secret_away_as_one_of_a_field_does() -> None:
    item: dict[str, Any] = {"data": {"said": '{"password": "hush"}', "url": "redis://:hush@h"}}
    assert redact_item(item) == (0, 2)
    assert item["data"] == {"said": '{"password": "[redacted]"}', "url": "redis://:[redacted]@h"}
