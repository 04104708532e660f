"""The addresses of OpenTelemetry alone, in a hub's process: tokenless on this machine, for strangers only."""

from __future__ import annotations

import json
import re
import socket
import time
import urllib.request
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"


def request(service: str, number: int) -> bytes:
    made = ExportTraceServiceRequest()
    group = made.resource_spans.add()
    group.resource.attributes.add(key="service.name").value.string_value = service
    span = group.scope_spans.add().spans.add()
    span.trace_id, span.span_id, span.name = number.to_bytes(16), number.to_bytes(8), "work"
    span.start_time_unix_nano = time.time_ns() - 10**9
    span.end_time_unix_nano = time.time_ns()
    return made.SerializeToString()


def export_http(address: str, body: bytes) -> ExportTraceServiceResponse:
    asked = urllib.request.Request(
        f"http://{address}/v1/traces", body, {"content-type": "application/x-protobuf"}
    )
    with urllib.request.urlopen(asked, timeout=60) as answer:
        return ExportTraceServiceResponse.FromString(answer.read())


def export_grpc(address: str, body: bytes) -> ExportTraceServiceResponse:
    with grpc.insecure_channel(address) as channel:
        return ExportTraceServiceResponse.FromString(channel.unary_unary(EXPORT)(body, timeout=60))


@pytest.fixture
def addresses(hub_process: Any) -> dict[str, str]:
    """Start a hub that serves all three; return where OTLP over HTTP and gRPC are."""
    file = hub_process.data / "fleet.json"
    listen = {"otlp_http": "127.0.0.1:0", "otlp_grpc": "127.0.0.1:0"}
    file.write_text(json.dumps({**json.loads(file.read_text()), "hub": listen}))
    process, found = hub_process.run(), dict[str, str]()
    for line in process.stdout:
        if told := re.search(r"OTLP over (HTTP|gRPC) on (\S+)", line):
            found[told[1]] = told[2]
        if "listening on" in line:
            hub_process.url = line.split()[-1]
            return found
    raise AssertionError("the hub did not start")


def test_strangers_need_no_token_and_agents_of_the_fleet_do(
    hub_process: Any, addresses: dict[str, str]
) -> None:
    exports = {"HTTP": export_http, "gRPC": export_grpc}
    for number, (kind, export) in enumerate(exports.items(), 1):
        taken = export(addresses[kind], request(f"stranger-{number}", number))
        assert not taken.HasField("partial_success"), kind
        refused = export(addresses[kind], request("inbox", number + 10)).partial_success
        assert refused.rejected_spans == 1, kind
        assert "only a token may write for it" in refused.error_message
    found = hub_process.ask("GET", "/api/traces")["items"]
    assert sorted(trace["agent"] for trace in found) == ["stranger-1", "stranger-2"]
    names = {agent["agent"] for agent in hub_process.ask("GET", "/api/agents")["items"]}
    assert {"stranger-1", "stranger-2"} <= names
    code, said, _ = hub_process.stop()
    assert code == 0, said


def test_an_agent_that_sends_spans_alone_is_there_again_after_a_restart(
    hub_process: Any, addresses: dict[str, str]
) -> None:
    export_http(addresses["HTTP"], request("stranger", 1))
    before = hub_process.ask("GET", "/api/agents/stranger")
    hub_process.kill()
    hub_process.start()
    after = hub_process.ask("GET", "/api/agents/stranger")
    assert (after["state"], after["since"]) == (before["state"], before["since"])
    assert before["state"] == "running"


def test_an_address_that_is_taken_is_told_by_its_setting(hub_process: Any) -> None:
    file = hub_process.data / "fleet.json"
    with socket.create_server(("127.0.0.1", 0)) as holder:
        listen = {"otlp_http": f"127.0.0.1:{holder.getsockname()[1]}"}
        file.write_text(json.dumps({**json.loads(file.read_text()), "hub": listen}))
        process = hub_process.run()
        said, _ = process.communicate(timeout=120)
    assert process.returncode == 2, said
    assert "hub.otlp_http" in said
