from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.ingest.otlp import items as otlp
from midwatch.wire.items import BadItem
from midwatch.wire.problem import Refusal

NOW = 1_800_000_000.0


def span(**more: Any) -> otlp.Span:
    values: dict[str, Any] = {
        "resource": {}, "scope": "", "trace_id": "ab" * 16, "span_id": "cd" * 8, "parent_id": "",
        "name": "chat", "kind": "client", "start_ns": int(NOW * 1e9), "end_ns": int(NOW * 1e9) + 5 * 10**8,
        "status": "ok", "message": "", "attributes": {}, "events": [], "links": [],
    }  # fmt: skip
    return otlp.Span(**{**values, **more})


def test_genai_usage_is_read_into_columns_whatever_its_generation() -> None:
    new = {
        "gen_ai.usage.input_tokens": 5,
        "gen_ai.response.model": "m",
        "gen_ai.provider.name": "openai",
    }
    old = {
        "gen_ai.usage.prompt_tokens": 5.0,
        "gen_ai.request.model": "m",
        "gen_ai.system": "openai",
    }
    for attributes in (new, old):
        item, _ = otlp.to_item(span(attributes=attributes), "a", None, NOW)
        assert (item["input_tokens"], item["model"], item["provider"]) == (5, "m", "openai")
        assert item["attributes"] == attributes
        assert item["duration_s"] == 0.5


@pytest.mark.parametrize(
    "more",
    [
        {"trace_id": "0" * 32},
        {"trace_id": "xyz"},
        {"span_id": ""},
        {"start_ns": 0},
        {"start_ns": int((NOW + 366 * 86_400) * 1e9)},
        {"attributes": {str(i): "x" * 30_000 for i in range(20)}},
    ],
    ids=lambda m: str(m)[:40],
)
def test_what_cannot_be_a_span_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(BadItem):
        otlp.to_item(span(**more), "a", None, NOW)


def test_long_texts_are_clipped_and_counted() -> None:
    item, clipped = otlp.to_item(span(attributes={"prompt": "x" * 40_000}), "a", None, NOW)
    assert (len(item["attributes"]["prompt"]), clipped) == (otlp.MAX_ATTRIBUTE, 1)


def test_json_takes_enums_by_name_or_number_and_whole_numbers_as_text() -> None:
    values = [
        {"key": "i", "value": {"intValue": "-9"}},
        {"key": "n", "value": {"doubleValue": 0.5}},
        {"key": "l", "value": {"arrayValue": {"values": [{"boolValue": True}]}}},
        {
            "key": "m",
            "value": {"kvlistValue": {"values": [{"key": "k", "value": {"stringValue": "v"}}]}},
        },
    ]
    raw = {
        "traceId": "AB" * 16,
        "kind": "SPAN_KIND_SERVER",
        "startTimeUnixNano": 5,
        "attributes": values,
        "status": {"code": 2},
    }
    (read,) = otlp.from_json({"resourceSpans": [{"scopeSpans": [{"spans": [raw]}]}]})
    assert (read.trace_id, read.kind, read.start_ns, read.status) == (
        "ab" * 16,
        "server",
        5,
        "error",
    )
    assert read.attributes == {"i": -9, "n": 0.5, "l": [True], "m": {"k": "v"}}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["resourceSpans", "scopeSpans", "spans", "attributes", "key", "value", "intValue", "arrayValue", "values", "traceId", "status", "code"]),
        inner,
        max_size=4,
    ),
    max_leaves=20,
)  # fmt: skip


@given(JSON)
def test_any_json_is_read_or_refused(value: Any) -> None:
    try:
        for one in otlp.from_json(value):
            otlp.to_item(one, "a", None, NOW)
    except (Refusal, BadItem):
        pass


@given(st.binary(max_size=200))
def test_any_bytes_are_protobuf_or_refused(body: bytes) -> None:
    try:
        for one in otlp.from_protobuf(body):
            otlp.to_item(one, "a", None, NOW)
    except (Refusal, BadItem):
        pass


def test_an_error_is_a_status_message_whose_length_is_right() -> None:
    assert otlp.status_message("no") == b"\x12\x02no"
    assert otlp.status_message("x" * 300) == b"\x12\xac\x02" + b"x" * 300
