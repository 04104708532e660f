from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.wire import limits
from midwatch.wire.items import FIELDS, BadItem, Kind, read

NOW = 1_800_000_000.0

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=12,
)


def test_a_beat_is_completed_with_id_time_and_exact_money() -> None:
    item = read(Kind.BEAT, {"agent": "inbox", "tokens": 1200, "cost_usd": 0.0042}, NOW)
    assert item.pop("id")
    assert item == {
        "agent": "inbox",
        "tokens": 1200,
        "cost_usd": 0.0042,
        "cost_nusd": 4_200_000,
        "at": NOW,
    }


def test_input_and_output_tokens_make_up_the_sum_when_none_is_given() -> None:
    assert (
        read(Kind.BEAT, {"agent": "a", "input_tokens": 3, "output_tokens": 4}, NOW)["tokens"] == 7
    )


def test_unknown_fields_survive_under_their_own_names() -> None:
    assert read(Kind.BEAT, {"agent": "a", "mood": {"calm": [1]}}, NOW)["mood"] == {"calm": [1]}


def test_the_agent_of_a_run_token_stands_in() -> None:
    assert read(Kind.BEAT, {}, NOW, agent="inbox")["agent"] == "inbox"


@pytest.mark.parametrize(
    ("at", "seconds"),
    [
        (NOW - 5, NOW - 5),
        ("2027-01-15T08:00:00Z", NOW),
        ("2027-01-15T09:00:00+01:00", NOW),
    ],
)
def test_times_are_unix_seconds_or_rfc_3339(at: Any, seconds: float) -> None:
    assert read(Kind.BEAT, {"agent": "a", "at": at}, NOW)["at"] == seconds


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("agent", "", "name"),
        ("agent", "x" * 129, "name"),
        ("agent", "in\x1bbox", "name"),
        ("agent", 5, "name"),
        ("tokens", "many", "type"),
        ("tokens", -1, "range"),
        ("tokens", 1.5, "range"),
        ("tokens", True, "type"),
        ("tokens", 10**16, "range"),
        ("cost_usd", math.nan, "type"),
        ("cost_usd", math.inf, "type"),
        ("cost_usd", -0.1, "range"),
        ("at", NOW + limits.MAX_FUTURE_S + 1, "future"),
        ("at", "2028-01-15T08:00:00Z", "future"),
        ("at", NOW - limits.MAX_PAST_S - 1, "past"),
        ("at", "2027-01-15T08:00:00", "time"),
        ("at", "yesterday", "time"),
        ("draining", "yes", "type"),
        ("mood", "x" * 70_000, "size"),
        ("mood", math.nan, "type"),
    ],
)
def test_what_cannot_stand_is_refused_with_its_path_and_reason(
    field: str, value: Any, reason: str
) -> None:
    with pytest.raises(BadItem) as caught:
        read(Kind.BEAT, {"agent": "a", field: value}, NOW, path="$[3].")
    assert caught.value.reason == reason
    assert caught.value.path in (f"$[3].{field}", "$[3].data")
    assert str(caught.value)


def test_a_missing_required_field_is_named() -> None:
    with pytest.raises(BadItem, match="kind is missing"):
        read(Kind.EVENT, {"agent": "a"}, NOW)


def test_long_text_is_clipped_not_refused() -> None:
    item = read(Kind.BEAT, {"agent": "a", "error": "x" * 10_000}, NOW)
    assert len(item["error"]) == limits.MAX_TEXT


@given(kind=st.sampled_from(list(Kind)), raw=json_values)
def test_any_json_is_either_read_or_refused(kind: Kind, raw: Any) -> None:
    try:
        item = read(kind, raw, NOW)
    except BadItem as refusal:
        item = {"agent": refusal.path, "at": float(bool(refusal.reason))}
    assert item["agent"]
    assert isinstance(item["at"], float)
    assert item["at"]


def test_a_sender_cannot_write_the_money_that_is_kept() -> None:
    assert "cost_nusd" not in read(Kind.BEAT, {"agent": "a", "cost_nusd": 10**30}, NOW)


@given(
    tokens=st.integers(0, limits.MAX_NUMBER),
    cost=st.floats(0, 1e6),
    extra=st.dictionaries(
        st.text(min_size=1, max_size=8).map("x_".__add__), st.integers(), max_size=4
    ),
)
def test_reading_what_was_read_changes_nothing(
    tokens: int, cost: float, extra: dict[str, int]
) -> None:
    once = read(Kind.BEAT, {"agent": "a", "tokens": tokens, "cost_usd": cost, **extra}, NOW)
    assert read(Kind.BEAT, once, NOW) == once


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("field", ["at", "tokens", "cost_usd", "duration_s", "rss_bytes"])
def test_a_number_too_large_for_any_machine_is_refused_like_any_other_nonsense(
    kind: Kind, field: str
) -> None:
    if field not in FIELDS[kind]:
        return
    raw = {"agent": "a", "kind": "k", "run_id": "r", field: 10**400}
    with pytest.raises(BadItem):
        read(kind, raw, 1_750_000_000.0)


@pytest.mark.parametrize("value", [None, "x" * 64, [1], {"a": 1}, True])
def test_a_cost_where_no_cost_is_known_is_a_field_like_any_other(value: object) -> None:
    item = read(Kind.EVENT, {"agent": "a", "kind": "k", "cost_usd": value}, 1_750_000_000.0)
    assert item["cost_usd"] == value
    assert "cost_nusd" not in item


def test_what_is_refused_is_named_in_a_few_words_however_deep_and_long_it_is() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    for value in (deep, {"x": deep}, ["x"] * 1_000_000, "x" * 1_000_000):
        with pytest.raises(BadItem) as refused:
            read(Kind.EVENT, {"agent": "a", "kind": value}, NOW)
        assert len(str(refused.value)) < 200
    while deep:
        deep = deep[0]  # taken apart by hand, so that its end is no recursion either


def test_an_item_with_very_many_fields_is_refused_before_they_are_looked_at() -> None:
    crowd = {f"x{n}": n for n in range(limits.MAX_FIELDS)}
    with pytest.raises(BadItem, match="513 fields") as caught:
        read(Kind.BEAT, {"agent": "a", **crowd}, NOW)
    assert caught.value.reason == "size"
