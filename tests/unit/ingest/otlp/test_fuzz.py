"""Whatever is sent: every row is one that a store may be given, and good neighbours are kept."""

from __future__ import annotations

import contextlib
import json
import math
import random
import struct
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from tests.drawn import MADE, as_json
from tests.edges import NOW, NOW_NS, WRITER, Names, body, request, span

from midwatch.core.spans import form
from midwatch.core.spans.form import TABLES, Signal
from midwatch.core.spans.values import load_all
from midwatch.ingest.otlp.intake import Decoder
from midwatch.ingest.otlp.rows import Rows
from midwatch.wire.problem import Refusal

QUICK = settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
DECODER = Decoder()


def read(raw: bytes, signal: Signal = Signal.SPANS, *, as_json: bool = False) -> Rows:
    rows = DECODER.read(signal, raw, WRITER, Names(), NOW, as_json=as_json)
    for table in TABLES.values():
        for row in rows.batch.rows(table.name):
            assert table.wrong(row) is None
            if "resource_id" in table.at:
                assert row[table.at["resource_id"]] in rows.batch.resources
    for text in rows.batch.resources.values():
        json.loads(text)
    return rows


@pytest.mark.parametrize("signal", MADE)
@QUICK
@given(data=st.data())
def test_what_is_sent_as_json_becomes_what_is_sent_as_protobuf(
    signal: Signal, data: st.DataObject
) -> None:
    made = data.draw(MADE[signal])
    one = read(made.SerializeToString(), signal)
    other = read(as_json(made), signal, as_json=True)
    for table in TABLES.values():
        # NaN is not equal to itself
        first, second = (each.batch.rows(table.name) for each in (one, other))
        assert list(map(repr, first)) == list(map(repr, second))
    assert one.batch.resources == other.batch.resources
    assert one.refused.counts == other.refused.counts


@pytest.mark.long
@pytest.mark.parametrize("signal", MADE)
@settings(QUICK, max_examples=1_500)
@given(data=st.data())
def test_the_same_and_changed_bytes_of_many_more_requests(
    signal: Signal, data: st.DataObject
) -> None:
    made = data.draw(MADE[signal])
    one = read(made.SerializeToString(), signal)
    other = read(as_json(made), signal, as_json=True)
    assert repr(one.batch) == repr(other.batch).replace(
        f"size_bytes={other.batch.size_bytes}", f"size_bytes={one.batch.size_bytes}"
    )
    raw = bytearray(made.SerializeToString())
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(Refusal):
        read(bytes(raw), signal)


@pytest.mark.parametrize("signal", MADE)
@QUICK
@given(data=st.data())
def test_bytes_that_were_changed_on_the_way_never_make_a_row_that_no_store_takes(
    signal: Signal, data: st.DataObject
) -> None:
    raw = bytearray(data.draw(MADE[signal]).SerializeToString())
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(Refusal):
        read(bytes(raw), signal)


@pytest.mark.parametrize("signal", MADE)
@QUICK
@given(raw=st.binary(max_size=400))
def test_random_bytes_are_refused_or_harmless(signal: Signal, raw: bytes) -> None:
    for is_json in (False, True):
        with contextlib.suppress(Refusal):
            read(raw, signal, as_json=is_json)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "resource",
                    "scope",
                    "spans",
                    "attributes",
                    "key",
                    "value",
                    "stringValue",
                    "intValue",
                    "arrayValue",
                    "values",
                    "kvlistValue",
                    "traceId",
                    "spanId",
                    "startTimeUnixNano",
                    "endTimeUnixNano",
                    "events",
                    "links",
                    "status",
                    "code",
                    "metrics",
                    "gauge",
                    "dataPoints",
                    "asInt",
                    "asDouble",
                    "logRecords",
                    "body",
                    "timeUnixNano",
                    "bytesValue",
                    "kind",
                    "name",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=30,
)


@QUICK
@given(inner=st.lists(JSON, max_size=3), signal=st.sampled_from(list(MADE)))
def test_json_of_any_shape_is_refused_or_harmless(inner: list[Any], signal: Signal) -> None:
    groups, scopes, items = {
        Signal.SPANS: ("resourceSpans", "scopeSpans", "spans"),
        Signal.POINTS: ("resourceMetrics", "scopeMetrics", "metrics"),
        Signal.LOGS: ("resourceLogs", "scopeLogs", "logRecords"),
    }[signal]
    service = {"attributes": [{"key": "service.name", "value": {"stringValue": "inbox"}}]}
    raw = {groups: [{"resource": service, scopes: [{items: inner}, *inner]}, *inner]}
    read(json.dumps(raw).encode(), signal, as_json=True)


# -- the twelve that are named ---------------------------------------------------------------------


def neighbours(bad: bytes) -> Rows:
    """Read a good span, a bad one by its bytes, and a good one."""
    group = request(span(1), span(2), span(3)).resource_spans[0]
    good = [one.SerializeToString() for one in group.scope_spans[0].spans]
    scoped = b"".join(field(2, one) for one in (good[0], bad, good[2]))
    rows = read(field(1, field(1, group.resource.SerializeToString()) + field(2, scoped)))
    names = [row[form.NAME] for row in rows.batch.spans]
    assert names[0] == "span 1"
    assert names[-1] == "span 3"
    return rows


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def field(number: int, raw: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def plain(**more: Any) -> bytes:
    return span(2, **more).SerializeToString()


def with_attribute(key: bytes, value: bytes) -> bytes:
    return plain() + field(9, field(1, key) + field(2, value))


def test_bytes_that_are_no_span_cost_no_neighbour() -> None:
    for bad in (b"\xff\xff\xff", b"\x0a\x7f", random.Random(1).randbytes(300)):
        rows = neighbours(bad)
        assert rows.refused.counts.total() == 1


def test_text_that_is_no_utf8_is_mended_and_counted() -> None:
    rows = neighbours(plain() + field(5, b"caf\xe9"))
    assert rows.batch.spans[1][form.NAME] == "caf\N{REPLACEMENT CHARACTER}"
    assert rows.lost["utf8"] == 1
    rows = neighbours(with_attribute(b"k\xff", field(1, b"v\xff")))
    assert load_all(rows.batch.spans[1][form.ATTRIBUTES]) == {"k\ufffd": "v\ufffd"}
    assert rows.lost["utf8"] == 2
    # not remembered: it is counted each time
    assert neighbours(with_attribute(b"k\xff", field(1, b"v\xff"))).lost["utf8"] == 2


def test_deep_nesting_becomes_null_and_is_counted() -> None:
    value = field(1, b"deep")
    for _ in range(5_000):
        value = field(5, field(1, value))
    rows = neighbours(with_attribute(b"k", value))
    assert rows.lost["depth"] == 1
    found: Any = load_all(rows.batch.spans[1][form.ATTRIBUTES])["k"]
    depth = 0
    while found is not None:
        (found,) = found
        depth += 1
    assert depth == 32


def test_deep_nesting_in_json_costs_no_neighbour() -> None:
    good = json.loads(as_json(request(span(1), span(2), span(3))))
    spans = good["resourceSpans"][0]["scopeSpans"][0]["spans"]
    spans[1]["attributes"] = [{"key": "k", "value": {"stringValue": "DEEP"}}]
    for depth in (100, 400, 100_000):
        nested = '{"arrayValue":{"values":[' * depth + "{}" + "]}}" * depth
        raw = json.dumps(good).replace('{"stringValue": "DEEP"}', nested)
        rows = read(raw.encode(), as_json=True)
        assert len(rows.batch.spans) == 3
        assert rows.lost["depth"] >= 1


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (rb"\ud800", "?"),
        (b"\xff", "\N{REPLACEMENT CHARACTER}"),
        (rb"a\u0000b", "a\N{REPLACEMENT CHARACTER}b"),
    ],
)
def test_text_that_is_none_in_json_costs_no_neighbour(raw: bytes, found: str) -> None:
    sent = as_json(request(span(1), span(2, name="NAME"), span(3))).replace(b"NAME", raw)
    rows = read(sent, as_json=True)
    assert [row[form.NAME] for row in rows.batch.spans] == ["span 1", found, "span 3"]


def test_ten_megabytes_in_one_attribute_are_refused_alone() -> None:
    rows = neighbours(with_attribute(b"k", field(1, b"x" * 10_000_000)))
    assert rows.refused.counts == {"size": 1}
    rows = neighbours(with_attribute(b"k", field(1, b"x" * 1_000_000)))
    assert rows.lost["clipped_attribute"] == 1
    assert len(rows.batch.spans[1][form.ATTRIBUTES]) < 33_000


def test_huge_maps_and_thousands_of_attributes_are_bounded() -> None:
    pairs = b"".join(field(1, field(1, str(n).encode())) for n in range(100_001))
    rows = neighbours(with_attribute(b"k", field(6, pairs)))
    assert rows.lost["elements"] == 1
    many = plain() + b"".join(field(9, field(1, b"k%d" % n)) for n in range(5_000))
    rows = neighbours(many)
    assert rows.lost["attribute"] == 5_000 - 512
    assert len(load_all(rows.batch.spans[1][form.ATTRIBUTES])) == 512


@pytest.mark.parametrize(
    ("raw", "signal"),
    [
        (field(1, b"") * 100_000, Signal.SPANS),
        (field(1, field(2, b"") * 100_000), Signal.LOGS),
        (field(1, field(2, field(2, b"") * 100_000)), Signal.POINTS),
    ],
    ids=["resources", "scopes", "metrics"],
)
def test_hundreds_of_thousands_of_empty_holders_are_not_looked_into(
    raw: bytes, signal: Signal
) -> None:
    rows = read(raw, signal)
    assert rows.refused.counts["count"] >= 70_000
    assert len(rows.batch) == 0


def test_a_span_that_is_its_own_parent_has_none_and_longer_cycles_are_kept_as_sent() -> None:
    two, three = (2).to_bytes(8, "big"), (3).to_bytes(8, "big")
    rows = neighbours(plain(parent_span_id=two))
    assert rows.batch.spans[1][form.PARENT_ID] is None
    assert rows.lost["parent"] == 1
    rows = read(body(span(2, parent_span_id=three), span(3, parent_span_id=two)))
    assert [row[form.PARENT_ID] for row in rows.batch.spans] == [three, two]


def test_an_end_before_the_start_and_one_in_the_year_2200_are_clipped() -> None:
    rows = neighbours(plain(end_time_unix_nano=NOW_NS - 5 * 10**9))
    assert (rows.batch.spans[1][form.DURATION_NS], rows.lost["end"]) == (0, 1)
    rows = neighbours(plain(end_time_unix_nano=7_258_118_400 * 10**9))
    assert rows.batch.spans[1][form.DURATION_NS] == 90 * 86_400 * 10**9


def test_a_start_in_the_year_2200_is_refused_alone_and_a_week_old_one_is_welcome() -> None:
    rows = neighbours(plain(start_time_unix_nano=7_258_118_400 * 10**9))
    assert rows.refused.counts == {"time": 1}
    week = NOW_NS - 7 * 86_400 * 10**9
    rows = neighbours(plain(start_time_unix_nano=week, end_time_unix_nano=week + 1))
    assert len(rows.batch.spans) == 3


def test_enumerations_that_nobody_knows_are_unspecified_and_counted() -> None:
    rows = neighbours(plain() + b"\x30\x63" + field(15, b"\x18\x63"))
    assert (rows.lost["kind"], rows.lost["status"]) == (1, 1)
    assert (rows.batch.spans[1][form.KIND], rows.batch.spans[1][form.STATUS]) == (0, 0)


def test_points_that_are_no_number_are_refused_alone() -> None:
    made = ExportMetricsServiceRequest()
    group = made.resource_metrics.add()
    group.resource.attributes.add(key="service.name").value.string_value = "inbox"
    gauge = group.scope_metrics.add().metrics.add(name="temperature").gauge
    for value in (1.5, math.nan, math.inf):
        gauge.data_points.add(time_unix_nano=NOW_NS, as_double=value)
    gauge.data_points.add(time_unix_nano=NOW_NS, flags=1)
    rows = read(made.SerializeToString(), Signal.POINTS)
    at = form.POINTS.at
    assert [row[at["value"]] for row in rows.batch.points] == [1.5, math.inf, None]
    assert rows.refused.counts == {"nan": 1}


def test_an_attribute_may_have_no_value_and_no_key() -> None:
    rows = neighbours(plain() + field(9, field(1, b"a long key")) + field(9, b""))
    assert load_all(rows.batch.spans[1][form.ATTRIBUTES]) == {"a long key": None, "": None}


def test_numbers_of_any_width_are_read_as_they_were_sent() -> None:
    for number in (0, 1, -1, 127, 128, 2**63 - 1, -(2**63)):
        raw = with_attribute(b"n", b"\x18" + varint(number & (2**64 - 1)))
        assert load_all(neighbours(raw).batch.spans[1][form.ATTRIBUTES]) == {"n": number}
    raw = with_attribute(b"n", b"\x21" + struct.pack("<d", 0.1))
    assert load_all(neighbours(raw).batch.spans[1][form.ATTRIBUTES]) == {"n": 0.1}
    rows = neighbours(with_attribute(b"n", b"\x18" + b"\xff" * 12))
    assert rows.lost["broken_attribute"] == 1


def test_an_events_time_of_the_far_future_and_flags_beyond_a_column_are_clipped() -> None:
    one = span(2)
    one.attributes.add(key="gen_ai.operation.name").value.string_value = "chat"
    one.events.add(name="gen_ai.first_token", time_unix_nano=2**64 - 1)
    rows = neighbours(one.SerializeToString())
    assert json.loads(rows.batch.spans[1][form.EVENTS])[0]["time_ns"] == NOW_NS + 600 * 10**9
    assert rows.lost["event_time"] == 1
    raw = json.loads(as_json(request(one)))
    raw["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["flags"] = 2**63
    rows = read(json.dumps(raw).encode(), as_json=True)
    assert rows.batch.spans[0][form.FLAGS] is None
    assert json.loads(rows.batch.spans[0][form.EVENTS])[0]["time_ns"] == NOW_NS + 600 * 10**9


def test_the_same_point_and_record_is_one_whenever_it_comes() -> None:
    made = ExportLogsServiceRequest()
    group = made.resource_logs.add()
    group.resource.attributes.add(key="service.name").value.string_value = "inbox"
    record = group.scope_logs.add().log_records.add()
    record.body.string_value = "no time at all"
    raw = made.SerializeToString()
    one = DECODER.read(Signal.LOGS, raw, WRITER, Names(), NOW, as_json=False)
    later = DECODER.read(Signal.LOGS, raw, WRITER, Names(), NOW + 60, as_json=False)
    assert one.batch.logs[0][0] == later.batch.logs[0][0]
    record.body.string_value = "something else"
    other = read(made.SerializeToString(), Signal.LOGS)
    assert other.batch.logs[0][0] != one.batch.logs[0][0]
