"""The normal form: rows, their places, and how they are turned and shown."""

from __future__ import annotations

import json
from typing import Any

import pytest

from midwatch.core.spans import columns, form
from midwatch.core.spans.form import (
    CONTENTS,
    LOGS,
    NO_SPAN,
    POINTS,
    SPANS,
    TABLES,
    Batch,
    ContentKind,
    CostFrom,
    Rank,
    Role,
    Signal,
    gather,
    resource_text,
)
from midwatch.core.spans.values import load_all

TRACE, SPAN = bytes(range(16)), bytes(range(1, 9))


def span(**more: Any) -> form.Row:
    row = NO_SPAN[:]
    values = {"agent": "inbox", "trace_id": TRACE, "span_id": SPAN, "start_ns": 5, "name": "chat"}
    for name, value in {**values, **more}.items():
        row[SPANS.at[name]] = value
    return row


def test_the_places_of_a_span_are_those_of_its_columns() -> None:
    places = {c.name: getattr(form, c.name.upper()) for c in SPANS.row}
    assert places == SPANS.at


@pytest.mark.parametrize(
    ("words", "enum"),
    [
        (columns.RANKS, Rank),
        (columns.ROLES, Role),
        (columns.COSTS_FROM, CostFrom),
        (columns.CONTENT_KINDS, ContentKind),
    ],
)
def test_the_words_of_an_enumeration_are_its_members(words: tuple[str, ...], enum: Any) -> None:
    assert words == tuple(one.name.lower() for one in enum)
    assert list(range(len(words))) == [one.value for one in enum]


@pytest.mark.parametrize("table", list(TABLES.values()), ids=lambda t: t.name)
def test_every_column_has_one_name_and_a_sentence(table: form.Table) -> None:
    assert len(table.at) == len(table.row)
    assert all(c.about for c in table.row)
    assert {c.name for c in table.row if c.words} == {
        c.name for c in table.row if c.type is columns.Type.ENUM
    }


def test_what_a_span_starts_from_lacks_only_what_the_decoder_sets() -> None:
    missing = {c.name for c, v in zip(SPANS.row, NO_SPAN, strict=True) if c.required and v is None}
    assert missing == {"agent", "trace_id", "span_id", "start_ns", "name"}
    assert SPANS.wrong(span()) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("agent", None),
        ("trace_id", bytes(16)),
        ("trace_id", bytes(15)),
        ("span_id", "00"),
        ("name", "a\0b"),
        ("name", "\ud800"),
        ("name", b"chat"),
        ("start_ns", True),
        ("start_ns", 2**63),
        ("duration_ns", 1.5),
        ("role", len(columns.ROLES)),
        ("role", -1),
        ("goal_met", 1),
        ("tags", "{"),
    ],
)
def test_a_value_that_does_not_fit_its_column_is_named(name: str, value: Any) -> None:
    why = SPANS.wrong(span(**{name: value}))
    assert why is not None
    assert why.startswith(f"spans.{name}: ")


def test_a_row_of_another_length_is_wrong() -> None:
    assert SPANS.wrong([None]) == f"1 values, expected {len(SPANS.row)}"


def test_rows_are_turned_into_columns_in_their_order() -> None:
    rows = [span(name="a"), span(name="b", model="gpt")]
    turned = SPANS.columns(rows)
    assert list(turned) == [c.name for c in SPANS.row]
    assert (turned["name"], turned["model"]) == (("a", "b"), (None, "gpt"))
    assert set(map(len, SPANS.columns([]).values())) == {0}


def test_an_item_says_what_the_row_says_and_nothing_else() -> None:
    row = span(
        parent_id=SPAN, duration_ns=1_500_000_000, role=Role.CALL.value, cost_nusd=2_500_000,
        attributes='{"a":1}', goal_met=False, start_ns=2_000_000_000,
    )  # fmt: skip
    assert SPANS.item(row) == {
        "agent": "inbox",
        "trace_id": TRACE.hex(),
        "span_id": SPAN.hex(),
        "parent_id": SPAN.hex(),
        "rank": "ended",
        "start_ns": 2_000_000_000,
        "at": 2.0,
        "duration_ns": 1_500_000_000,
        "duration_s": 1.5,
        "name": "chat",
        "kind": "unspecified",
        "status": "unset",
        "role": "call",
        "goal_met": False,
        "cost_nusd": 2_500_000,
        "cost_usd": 0.0025,
        "attributes": {"a": 1},
    }


def test_blank_rows_are_not_shared() -> None:
    one = SPANS.blank()
    one[form.NAME] = "x"
    assert SPANS.blank()[form.NAME] is None


def test_a_span_is_one_by_its_agent_and_both_its_ids() -> None:
    assert form.key(span()) == ("inbox", TRACE + SPAN)
    assert form.key(span(agent="other")) != form.key(span())


def test_a_content_is_one_by_its_span_and_what_held_it() -> None:
    values = {"agent": "inbox", "trace_id": TRACE, "span_id": SPAN, "place": 0}
    one = CONTENTS.of(**values, key="input.value")
    assert form.content_key(one) == ("inbox", TRACE + SPAN, "input.value")


def test_gathering_keeps_every_row_in_order() -> None:
    first = Batch(spans=[span(name="a")], resources={b"1" * 16: "{}"}, size_bytes=10)
    second = Batch(
        spans=[span(name="b")], contents=[CONTENTS.blank()], points=[POINTS.blank()],
        logs=[LOGS.blank()], resources={b"2" * 16: "{}"}, size_bytes=5,
    )  # fmt: skip
    whole = gather([first, second])
    assert [row[form.NAME] for row in whole.spans] == ["a", "b"]
    assert (len(whole), len(whole.resources), whole.size_bytes) == (4, 2, 15)
    assert [len(whole.rows(signal)) for signal in Signal] == [2, 1, 1, 1]
    assert len(first) == 1  # what was gathered is as it was


def test_a_resource_is_json_of_what_there_is() -> None:
    assert resource_text(None) == "{}"
    text = resource_text('{"service.name":"x"}', 'http://u/"', '{"s":true}', "http://v")
    assert json.loads(text) == {
        "attributes": {"service.name": "x"},
        "scope_attributes": {"s": True},
        "schema_url": 'http://u/"',
        "scope_schema_url": "http://v",
    }
    assert load_all('{"service.name":"x"}') == {"service.name": "x"}
