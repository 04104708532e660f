"""Secrets leave OTLP before it is stored, wherever they stand; everything else stays as it came."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from tests.edges import NOW_NS, WRITER, Edge, body, request, span

from midwatch.core.spans import form
from midwatch.core.spans.form import CONTENTS, LOGS, POINTS, SPANS, TABLES, Batch, Signal
from midwatch.core.spans.values import load_all

KEY = "sk-proj-" + "a1B2" * 10
SHOWN = "sk-proj[redacted]"
PASSWORD = "correct horse battery staple"

HEX = {"traceId", "spanId", "parentSpanId"}


def attribute(key: str, value: Any) -> KeyValue:
    return KeyValue(key=key, value=any_value(value))


def any_value(value: Any) -> AnyValue:
    made = AnyValue()
    if isinstance(value, str):
        made.string_value = value
    elif isinstance(value, bool):
        made.bool_value = value
    elif isinstance(value, int):
        made.int_value = value
    elif isinstance(value, list):
        made.array_value.values.extend(any_value(inner) for inner in value)
    elif isinstance(value, dict):
        made.kvlist_value.values.extend(attribute(k, v) for k, v in value.items())
    return made


def in_json(message: Any) -> bytes:
    """Return a request as OTLP's JSON: ids are hex there, not base64."""
    from google.protobuf.json_format import MessageToDict

    def hexed(one: Any) -> Any:
        if isinstance(one, dict):
            return {
                key: base64.b64decode(value).hex() if key in HEX else hexed(value)
                for key, value in one.items()
            }
        return [hexed(each) for each in one] if isinstance(one, list) else one

    return json.dumps(hexed(MessageToDict(message))).encode()


async def taken(signal: Signal, message: Any, *, as_json: bool) -> Edge:
    edge = Edge()
    raw = in_json(message) if as_json else message.SerializeToString()
    answer = await edge.intake.take(signal, raw, WRITER, as_json=as_json)
    assert answer.rejected == 0, answer.message
    return edge


def everything(edge: Edge) -> str:
    """Return all that was stored, in words."""
    shelf = edge.shelf
    return repr([shelf.rows, shelf.resources])


def traces() -> ExportTraceServiceRequest:
    messages = json.dumps(
        [{"role": "user", "content": f"use this:\n{KEY}\nand {KEY[:12]} is short"}]
    )
    one = span(
        name=f"GET /?key={KEY}",
        attributes=[
            attribute("gen_ai.input.messages", messages),
            attribute("gen_ai.conversation.id", "s-1"),
            attribute("http.request.header.authorization", ["Basic dXNlcjpwYXNz"]),
            attribute("http.request.header.x-api-key", PASSWORD),
            attribute("config", {"url": "https://x", "password": PASSWORD, "retries": 3}),
            attribute("has.password", True),
            attribute("note", f"Authorization: Bearer {'0a1b2c3d' * 4}"),
            attribute("gen_ai.usage.input_tokens", 12),
        ],
        events=[{"name": "log", "time_unix_nano": NOW_NS, "attributes": [attribute("line", KEY)]}],
    )
    one.status.code, one.status.message = 2, f"refused: {KEY}"
    made = request(one)
    made.resource_spans[0].resource.attributes.append(attribute("cmd", f"run --key {KEY}"))
    return made


@pytest.mark.parametrize("as_json", [False, True])
async def test_a_secret_is_stored_nowhere_and_what_stands_around_it_is(as_json: bool) -> None:
    edge = await taken(Signal.SPANS, traces(), as_json=as_json)
    stored = everything(edge)
    for secret in (KEY, KEY[:12] + "a", PASSWORD, "dXNlcjpwYXNz", "0a1b2c3d0a"):
        assert secret not in stored, secret
    (row,) = edge.shelf.spans
    assert SPANS.wrong(row) is None
    assert row[form.NAME] == f"GET /?key={SHOWN}"
    assert row[form.STATUS_MESSAGE] == f"refused: {SHOWN}"
    assert row[form.SESSION] == "s-1"
    kept = load_all(row[form.ATTRIBUTES])
    assert kept["http.request.header.authorization"] == ["[redacted]"]
    assert kept["http.request.header.x-api-key"] == "[redacted]"
    assert kept["config"] == {"url": "https://x", "password": "[redacted]", "retries": 3}
    assert kept["note"] == "Authorization: Bearer 0a1b2c3[redacted]"
    assert kept["has.password"] is True
    (content,) = edge.shelf.rows[Signal.CONTENTS].values()
    assert CONTENTS.wrong(content) is None
    said = json.loads(content[CONTENTS.at["text"]])
    assert said == [{"role": "user", "content": f"use this:\n{SHOWN}\nand {KEY[:12]} is short"}]
    assert json.loads(row[form.EVENTS])[0]["attributes"] == {"line": SHOWN}
    assert json.loads(edge.shelf.resources[row[form.RESOURCE_ID]])["attributes"]["cmd"] == f"run --key {SHOWN}"  # fmt: skip
    assert edge.counts.value("redacted", "name") == 3
    assert edge.counts.value("redacted", "shape") == 6


@pytest.mark.parametrize("as_json", [False, True])
async def test_log_records_and_points_are_redacted_too(as_json: bool) -> None:
    logs = ExportLogsServiceRequest()
    group = logs.resource_logs.add()
    group.resource.attributes.append(attribute("service.name", "inbox"))
    record = group.scope_logs.add().log_records.add()
    record.time_unix_nano = NOW_NS
    record.body.string_value = f"key is {KEY}"
    record.attributes.append(attribute("cookie", "session=" + PASSWORD))
    edge = await taken(Signal.LOGS, logs, as_json=as_json)
    (row,) = edge.shelf.rows[Signal.LOGS].values()
    assert LOGS.wrong(row) is None
    assert row[LOGS.at["body"]] == f"key is {SHOWN}"
    assert load_all(row[LOGS.at["attributes"]]) == {"cookie": "[redacted]"}

    metrics = ExportMetricsServiceRequest()
    group = metrics.resource_metrics.add()
    group.resource.attributes.append(attribute("service.name", "inbox"))
    metric = group.scope_metrics.add().metrics.add()
    metric.name = "calls"
    point = metric.gauge.data_points.add()
    point.time_unix_nano, point.as_int = NOW_NS, 1
    point.attributes.append(attribute("caller", KEY))
    edge = await taken(Signal.POINTS, metrics, as_json=as_json)
    (row,) = edge.shelf.rows[Signal.POINTS].values()
    assert POINTS.wrong(row) is None
    assert load_all(row[POINTS.at["attributes"]]) == {"caller": SHOWN}


@pytest.mark.parametrize("as_json", [False, True])
async def test_a_secret_that_its_name_in_a_text_gives_away_is_stored_nowhere(as_json: bool) -> None:
    arguments = json.dumps(
        {"login": json.dumps({"password": PASSWORD}), "url": f"https://u:{PASSWORD[:7]}@h/"}
    )
    one = span(
        name="GET https://x.io/?token=abc&n=1",
        attributes=[
            attribute("gen_ai.operation.name", "execute_tool"),
            attribute("gen_ai.tool.call.arguments", arguments),
            attribute("line", "{'password': 'hunter2'}"),
            attribute("schema", '{"properties": {"password": {"type": "string"}}}'),
        ],
    )  # fmt: skip
    edge = await taken(Signal.SPANS, request(one), as_json=as_json)
    (row,) = edge.shelf.spans
    (content,) = edge.shelf.rows[Signal.CONTENTS].values()
    assert row[form.NAME] == "GET https://x.io/?token=[redacted]&n=1"
    kept = load_all(row[form.ATTRIBUTES])
    assert kept["line"] == "{'password': '[redacted]'}"
    assert kept["schema"] == '{"properties": {"password": {"type": "string"}}}'
    said = json.loads(content[CONTENTS.at["text"]])
    assert said == {"login": '{"password": "[redacted]"}', "url": "https://u:[redacted]@h/"}
    assert edge.counts.value("redacted", "name") == 4
    assert edge.counts.value("redacted", "shape") == 0


async def test_what_is_sent_again_is_known_and_counted_again() -> None:
    edge = Edge()
    raw = traces().SerializeToString()
    for _ in range(2):
        await edge.intake.take(Signal.SPANS, raw, WRITER, as_json=False)
    assert len(edge.shelf.spans) == 1
    assert edge.counts.value("duplicates", "span") == 1
    assert edge.counts.value("redacted", "name") == 6, (
        "each time, although attributes are remembered"
    )
    assert KEY not in everything(edge)
    assert PASSWORD not in everything(edge)


async def test_a_letter_that_json_spells_out_hides_no_secret() -> None:
    made = request(span(attributes=[attribute("note", KEY)]))
    raw = in_json(made).replace(b'"sk-', rb'"\u0073k-')
    edge = Edge()
    await edge.intake.take(Signal.SPANS, raw, WRITER, as_json=True)
    assert load_all(edge.shelf.spans[0][form.ATTRIBUTES]) == {"note": SHOWN}


async def test_without_a_secret_nothing_is_looked_at_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Batch] = []
    monkeypatch.setattr(
        "midwatch.ingest.otlp.intake.redact_batch", lambda b: looked.append(b) or (0, 0)
    )
    edge = Edge()
    plain = [attribute("gen_ai.response.id", "chatcmpl-0123456789abcdef"), attribute("task", "task-7")]  # fmt: skip
    await edge.intake.take(Signal.SPANS, body(span(1, attributes=plain)), WRITER, as_json=False)
    assert not looked
    assert edge.counts.total("redacted") == 0
    await edge.intake.take(Signal.SPANS, body(span(2, name=KEY)), WRITER, as_json=False)
    assert len(looked) == 1


def test_what_rows_are_found_by_is_not_redacted() -> None:
    from midwatch.ingest.redacting import redact_batch

    batch = Batch()
    for table in TABLES.values():
        row = table.blank()
        for name in ("agent", "run_id", "key"):
            if name in table.at:
                row[table.at[name]] = KEY
        batch.rows(table.name).append(row)
    assert redact_batch(batch) == (0, 0)
