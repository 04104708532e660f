from __future__ import annotations

import asyncio
import gzip
import json
import time
import zlib
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from midwatch.core.access import mint_node, mint_run

PROBLEM = "application/problem+json"
JSON = {"content-type": "application/json"}


async def test_one_beat_is_answered_and_seen(hub: Any) -> None:
    answer = await hub.client.post("/api/beats", {"agent": "inbox", "tokens": 7, "cost_usd": 0.25})
    assert (answer.status, answer.json()) == (200, {"accepted": 1, "rejected": []})
    agent = (await hub.client.get("/api/agents/inbox")).json()
    assert (agent["today"]["cycles"], agent["today"]["cost_usd"]) == (1, 0.25)


async def test_a_list_is_accepted_in_part_and_says_what_was_not(hub: Any) -> None:
    body = [{"agent": "inbox"}, {"agent": "inbox", "tokens": "x"}, {"agent": "inbix"}, 5]
    answer = await hub.client.post("/api/beats", body)
    assert answer.status == 200
    assert answer.json()["accepted"] == 1
    rejected = answer.json()["rejected"]
    assert [(r["index"], r["path"], r["reason"]) for r in rejected] == [
        (1, "$[1].tokens", "type"),
        (2, "$[2].agent", "unknown_agent"),
        (3, "$[3]", "type"),
    ]
    assert "did you mean 'inbox'" in rejected[1]["message"]
    assert hub.hub.counts.value("rejected", "unknown_agent") == 1


async def test_bad_input_is_one_problem_document_that_says_what_to_do(hub: Any) -> None:
    for raw, status, says in (
        (b"", 400, "not JSON"),
        (b"{", 400, "not JSON"),
        (b'{"agent": "inbox", "tokens": NaN}', 400, "not JSON"),
        (b"[" * 100_000, 400, "recursion limit"),
        (b'"text"', 422, "expected an object"),
        (b'{"agent": "inbox", "tokens": -1}', 422, "$.tokens"),
        (b'{"agent": "inbox", "tokens": 1e400}', 422, "$.tokens"),
        (b'{"agent": "inbox", "tokens": ' + b"9" * 400 + b"}", 422, "$"),
        (b'{"agent": "inbox", "cost_usd": 1e14}', 422, "$.cost_usd"),
        (b'{"agent": "inbox", "at": "2999-01-01T00:00:00Z"}', 422, "ahead"),
        (b'{"agent": "inbox", "at": "yesterday"}', 422, "RFC 3339"),
        (b'{"agent": "nobody-knows"}', 404, "?create=1"),
        (b'{"agent": "a\\u0000b"}', 422, "unprintable"),
        (b'{"agent": "inbox", "error": "' + b"x" * 10_000_000 + b'"}', 422, "10000000 characters"),
        (b'{"agent": "inbox", "other": "' + b"x" * 10_000_000 + b'"}', 422, "at most 65536"),
        (b'{"agent": "' + b"x" * 10_000_000 + b'"}', 422, "a name of 1 to 128"),
        (b" " * (16 * 1024 * 1024 + 1), 413, "at most 16777216"),
        (b"[" + b"{}," * 10_001 + b"{}]", 413, "at most 10000"),
    ):
        answer = await hub.client.post("/api/beats", raw=raw)
        assert (answer.status, answer.headers["content-type"]) == (status, PROBLEM), says
        assert answer.json()["status"] == status
        assert says in answer.json()["detail"]
        assert len(answer.body) < 50_000
        # nothing was harmed
        assert (await hub.client.post("/api/beats", {"agent": "inbox"})).status == 200, says


async def test_gzip_and_deflate_are_unpacked_and_a_bomb_is_not(hub: Any) -> None:
    body = json.dumps({"agent": "inbox"}).encode()
    for name, packed in (("gzip", gzip.compress(body)), ("deflate", zlib.compress(body))):
        answer = await hub.client.post("/api/beats", raw=packed, headers={"content-encoding": name})
        assert answer.json() == {"accepted": 1, "rejected": []}
    bomb = gzip.compress(b" " * 200_000_000, 9)
    answer = await hub.client.post("/api/beats", raw=bomb, headers={"content-encoding": "gzip"})
    assert answer.status == 413
    cut = gzip.compress(body)[:-6]
    answer = await hub.client.post("/api/beats", raw=cut, headers={"content-encoding": "gzip"})
    assert (answer.status, answer.json()["detail"]) == (400, "the compressed body is cut off")
    answer = await hub.client.post("/api/beats", raw=body, headers={"content-encoding": "br"})
    assert answer.status == 415


async def test_a_resend_of_the_same_id_is_stored_once(hub: Any) -> None:
    beat = {"agent": "inbox", "id": "the-same", "tokens": 3}
    for _ in range(3):
        assert (await hub.client.post("/api/beats", [beat, beat])).json()["accepted"] == 2
    assert len((await hub.client.get("/api/beats")).json()["items"]) == 1
    assert hub.hub.counts.value("duplicates", "beat") == 5


async def test_a_run_token_writes_for_its_own_agent_alone(hub: Any) -> None:
    token = mint_run(hub.secret, "inbox", "run-1")
    assert (await hub.client.post("/api/beats", {"tokens": 1}, token=token)).status == 200
    stored = (await hub.client.get("/api/beats")).json()["items"][0]
    assert (stored["agent"], stored["run_id"]) == ("inbox", "run-1")
    answer = await hub.client.post("/api/beats", {"agent": "prices"}, token=token)
    assert (answer.status, answer.json()["errors"][0]["reason"]) == (403, "foreign")
    event = {"kind": "run.ended", "data": {"end": "done"}}
    assert (await hub.client.post("/api/events", event, token=token)).status == 403
    assert (await hub.client.get("/api/agents", token=token)).status == 403
    assert (await hub.client.get("/ping/prices", token=token)).status == 403


@pytest.mark.parametrize(
    ("path", "item"),
    [
        ("/api/samples", {"state": "running"}),
        ("/api/samples", {"kind": "agent.recovered", "data": {"stable_s": 1e9}}),
        ("/api/beats", {"kind": "run.hung", "data": {"silent_s": 5}}),
    ],
)
async def test_an_agent_cannot_speak_as_its_supervisor_in_another_kind_of_item(
    hub: Any, path: str, item: dict[str, Any]
) -> None:
    token = mint_run(hub.secret, "inbox", "run-1")
    answer = await hub.client.post(path, item, token=token)
    assert (answer.status, answer.json()["errors"][0]["reason"]) == (403, "reserved")


async def test_reports_of_one_run_are_merged_but_not_across_agents(hub: Any) -> None:
    await hub.client.post(
        "/api/runs", {"agent": "inbox", "run_id": "r", "state": "started", "pid": 7}
    )
    await hub.client.post(
        "/api/runs", {"agent": "inbox", "run_id": "r", "state": "ended", "note": "x"}
    )
    answer = await hub.client.post("/api/runs", {"agent": "prices", "run_id": "r", "pid": 9})
    assert answer.status == 403
    (run,) = (await hub.client.get("/api/runs")).json()["items"]
    assert (run["agent"], run["state"], run["pid"], run["note"]) == ("inbox", "ended", 7, "x")


async def test_an_unknown_agent_registers_with_create_and_stays_known(hub: Any) -> None:
    assert (await hub.client.get("/ping/night-job")).status == 404
    assert (await hub.client.get("/ping/night-job?create=1")).body == b"OK"
    assert (await hub.client.post("/api/beats", {"agent": "night-job"})).status == 200
    assert (await hub.client.get("/ping/bad%20name?create=1")).status == 422


async def test_pings_make_beats_with_duration_and_exit_status(hub: Any) -> None:
    for path, method in (
        ("/start?rid=1", "GET"),
        ("?rid=1", "POST"),
        ("/3", "HEAD"),
        ("/fail", "POST"),
    ):
        answer = await hub.client.ask(method, f"/ping/inbox{path}", raw=b"", token=None)
        assert answer.status == 200
        assert answer.body == (b"" if method == "HEAD" else b"OK")
        assert answer.headers["ping-body-limit"] == "10000"
    beats = (await hub.client.get("/api/beats?agent=inbox")).json()["items"]
    assert sorted(beat["result"] for beat in beats) == ["failed", "failed", "ok"]
    (ok,) = [beat for beat in beats if beat["result"] == "ok"]
    assert ok["duration_s"] >= 0
    assert (await hub.client.get("/ping/inbox/999")).status == 404
    assert (await hub.client.ask("DELETE", "/ping/inbox")).status == 405


async def test_a_node_may_report_for_an_agent_that_the_hub_does_not_know_yet(hub: Any) -> None:
    token = mint_node(hub.secret, "here")
    event = {"agent": "new-one", "kind": "agent.state", "data": {"state": "running"}}
    assert (await hub.client.post("/api/events", event, token=token)).status == 200


async def test_a_detector_that_fails_does_not_refuse_the_fact(
    hub: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(hub.hub._watch, "observe", broken)
    assert (await hub.client.post("/api/beats", {"agent": "inbox"})).status == 200
    assert hub.hub.counts.value("watch_failures", "beat") == 1
    assert len((await hub.client.get("/api/beats")).json()["items"]) == 1


def span(span_id: str, name: str = "chat") -> dict[str, Any]:
    now = time.time_ns()
    return {
        "traceId": "0af7651916cd43dd8448eb211c80319c",
        "spanId": span_id,
        "name": name,
        "kind": 3,
        "startTimeUnixNano": str(now - 10**9),
        "endTimeUnixNano": str(now),
        "attributes": [
            {"key": "gen_ai.usage.input_tokens", "value": {"intValue": "120"}},
            {"key": "gen_ai.request.model", "value": {"stringValue": "gpt-4o-mini"}},
        ],
        "status": {"code": "STATUS_CODE_ERROR", "message": "no"},
    }


def otlp(*spans: dict[str, Any], service: str = "inbox") -> dict[str, Any]:
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": list(spans)}]}]}


async def test_otlp_json_is_stored_and_shown_as_a_trace(hub: Any) -> None:
    body = otlp(span("b7ad6b7169203331"), {**span("00"), "name": "bad"})
    answer = await hub.client.post("/v1/traces", body, headers={"content-type": "application/json"})
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["partialSuccess"]["rejectedSpans"] == "1"
    (trace,) = (await hub.client.get("/api/traces")).json()["items"]
    assert (trace["spans"], trace["errors"], trace["input_tokens"]) == (1, 1, 120)
    whole = (await hub.client.get(f"/api/traces/{trace['trace_id']}")).json()
    (one,) = whole["spans"]
    assert (one["model"], one["kind"], one["status"]) == ("gpt-4o-mini", "client", "error")
    assert one["duration_s"] == pytest.approx(1.0)


async def test_otlp_protobuf_is_answered_in_protobuf(hub: Any) -> None:
    request = ExportTraceServiceRequest()
    group = request.resource_spans.add()
    group.resource.attributes.add(key="midwatch.agent").value.string_value = "inbox"
    one = group.scope_spans.add().spans.add()
    one.trace_id, one.span_id, one.name = bytes(range(1, 17)), bytes(range(1, 9)), "work"
    one.start_time_unix_nano = one.end_time_unix_nano = time.time_ns()
    kind = {"content-type": "application/x-protobuf", "content-encoding": "gzip"}
    for _ in range(2):  # a resend is stored once
        raw = gzip.compress(request.SerializeToString())
        answer = await hub.client.post("/v1/traces", raw=raw, headers=kind)
        assert (answer.status, answer.headers["content-type"]) == (200, "application/x-protobuf")
        assert not ExportTraceServiceResponse.FromString(answer.body).HasField("partial_success")
    (trace,) = (await hub.client.get("/api/traces")).json()["items"]
    assert (trace["trace_id"], trace["spans"]) == (bytes(range(1, 17)).hex(), 1)
    answer = await hub.client.post(
        "/v1/traces", raw=b"\xff\xff", headers={"content-type": "application/x-protobuf"}
    )
    assert answer.status == 400
    assert answer.headers["content-type"] == "application/x-protobuf"
    assert b"the body is no OTLP request for spans" in answer.body


async def test_an_unknown_service_is_registered_by_a_write_token_and_seen(hub: Any) -> None:
    answer = await hub.client.post(
        "/v1/traces", otlp(span("b7ad6b7169203331"), service="My Svc"), headers=JSON
    )
    assert answer.json() == {}
    (trace,) = (await hub.client.get("/api/traces")).json()["items"]
    assert trace["agent"] == "My-Svc"
    agent = (await hub.client.get("/api/agents/My-Svc")).json()
    assert (agent["state"], agent["sentence"].startswith("last span")) == ("running", True)
    # what a run says is its own agent's, whatever the service is called
    token = mint_run(hub.secret, "inbox", "run-1")
    other = {**span("b7ad6b7169203332"), "traceId": "5b8efff798038103d269b633813fc60d"}
    answer = await hub.client.post(
        "/v1/traces", otlp(other, service="whatever"), headers=JSON, token=token
    )
    assert answer.json() == {}
    found = (await hub.client.get("/api/traces?agent=inbox")).json()["items"]
    assert [trace["spans"] for trace in found] == [1]


async def test_a_span_that_is_announced_is_shown_open_and_lost_when_its_run_ends(hub: Any) -> None:
    token = mint_run(hub.secret, "inbox", "run-1")
    announced = {**span("b7ad6b7169203331"), "endTimeUnixNano": "0", "status": {}}
    await hub.client.post("/v1/traces", otlp(announced), headers=JSON, token=token)
    path = f"/api/traces/{announced['traceId']}"
    (one,) = (await hub.client.get(path)).json()["spans"]
    assert (one["rank"], one["run_id"]) == ("open", "run-1")
    ended = {"agent": "inbox", "kind": "run.ended", "run_id": "run-1", "data": {"run_id": "run-1"}}
    await hub.client.post("/api/events", ended, token=mint_node(hub.secret, "here"))

    async def rank() -> str:
        return (await hub.client.get(path)).json()["spans"][0]["rank"]

    async with asyncio.timeout(20):
        while await rank() != "lost":
            await asyncio.sleep(0.02)
    # its end comes out of a spool, after all
    await hub.client.post("/v1/traces", otlp(span("b7ad6b7169203331")), headers=JSON, token=token)
    assert await rank() == "ended"


async def test_metrics_and_logs_are_kept(hub: Any) -> None:
    now = str(time.time_ns())
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "inbox"}}]}
    point = {"timeUnixNano": now, "asDouble": 1.5}
    metrics = {"metrics": [{"name": "queue", "gauge": {"dataPoints": [point]}}]}
    logs = {"logRecords": [{"timeUnixNano": now, "body": {"stringValue": "hello"}}]}
    for path, body in (
        ("/v1/metrics", {"resourceMetrics": [{"resource": resource, "scopeMetrics": [metrics]}]}),
        ("/v1/logs", {"resourceLogs": [{"resource": resource, "scopeLogs": [logs]}]}),
    ):
        answer = await hub.client.post(path, body, headers=JSON)
        assert (answer.status, answer.json()) == (200, {})
    assert hub.hub.counts.value("accepted", "point") == 1
    assert hub.hub.counts.value("accepted", "log") == 1
    held = (await hub.hub._spans.store.footprint()).signals
    assert {signal.value: each.rows for signal, each in held.items()} == {
        "spans": 0,
        "contents": 0,
        "points": 1,
        "logs": 1,
    }


@pytest.mark.parametrize("body", [[], "x"], ids=str)
async def test_what_is_not_otlp_is_a_400(hub: Any, body: Any) -> None:
    answer = await hub.client.post("/v1/traces", body, headers=JSON)
    assert (answer.status, answer.headers["content-type"]) == (400, "application/json")
    assert answer.json()["code"] == 3


@pytest.mark.parametrize(
    "body", [{"resourceSpans": 5}, {"resourceSpans": [{"scopeSpans": [{"spans": [1]}]}]}], ids=str
)
async def test_a_part_that_is_not_otlp_is_refused_alone(hub: Any, body: Any) -> None:
    answer = await hub.client.post("/v1/traces", body, headers=JSON)
    assert (answer.status, answer.json()["partialSuccess"]["rejectedSpans"]) == (200, "1")


async def test_secrets_leave_items_before_they_are_kept_or_shown(hub: Any) -> None:
    key = "sk-proj-" + "a1B2" * 10
    beat = {"agent": "inbox", "result": "failed", "error": f"401 for {key}"}
    assert (await hub.client.post("/api/beats", beat)).status == 200
    event = {
        "agent": "inbox",
        "kind": "request",
        "data": {"headers": {"Authorization": "Basic dXNlcjpwYXNz"}, "tries": [f"with {key}"]},
    }
    assert (await hub.client.post("/api/events", event)).status == 200
    ping = f"curl -H 'x-api-key: {key}' failed".encode()
    assert (await hub.client.ask("POST", "/ping/inbox/log", raw=ping)).status == 200
    # letters that are spelled out hide nothing
    spelled = json.dumps(beat).replace("sk-", "\\u0073k-").encode()
    assert (await hub.client.post("/api/beats", raw=spelled)).status == 200
    query = {
        "query": "SELECT error AS said FROM beats UNION ALL SELECT CAST(data AS VARCHAR) FROM events"
    }
    answer = await hub.client.post("/api/sql", query)
    assert answer.status == 200, answer.body
    stored = answer.body.decode()
    assert stored.count("sk-proj[redacted]") == 4
    assert "a1B2" not in stored
    assert "dXNlcjpwYXNz" not in stored
    assert hub.hub.counts.value("redacted", "shape") == 4
    assert hub.hub.counts.value("redacted", "name") == 1
