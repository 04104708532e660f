"""The upstream of the benchmarks answers in three dialects, and its count is exact."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .rehearsed import Answer, wait_for  # noqa: TID252  there is no tests package

PROGRAM = Path(__file__).parents[3] / "bench/_upstream.py"
BODIES: dict[str, Any] = {
    "/v1/chat/completions": {"model": "m", "messages": []},
    "/v1/messages": {"model": "m", "messages": []},
    "/v1beta/models/m:generateContent": {"contents": []},
}


@pytest.fixture
def port() -> Iterator[int]:
    command = [sys.executable, str(PROGRAM), "--events", "5", "--gap-ms", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        yield int(line.rpartition(":")[2])
        process.terminate()


def ask(port: int, method: str, path: str, body: Any = None, call: str = "") -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    headers = {"x-midwatch-call": call} if call else {}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    reply = connection.getresponse()
    answer = Answer(reply.status, dict(reply.getheaders()), reply.read(), "")
    connection.close()
    return answer


def output(answer: Any) -> int:
    usage = answer.get("usage") or answer["usageMetadata"]
    names = ("completion_tokens", "output_tokens", "candidatesTokenCount")
    return next(usage[name] for name in names if name in usage)


def test_whole_answers_and_streams_say_what_is_counted(port: int) -> None:
    said = 0
    for path, body in BODIES.items():
        said += output(ask(port, "POST", path, body).json)
        path = path.replace(":generateContent", ":streamGenerateContent?alt=sse")
        stream = {**body, "stream": True, "stream_options": {"include_usage": True}}
        events = [e for e in ask(port, "POST", path, stream).events if e != "[DONE]"]
        assert len([e for e in events if "sent_ns" in e]) == 5
        said += output([e for e in events if "usage" in e or "usageMetadata" in e][-1])
    sums = ask(port, "GET", "/billed").json
    assert (sums["total"]["calls"], sums["total"]["output"], sums["left"]) == (6, said, 0)


def test_a_stream_that_is_left_counts_what_was_sent(port: int) -> None:
    ask(port, "POST", "/set", {"events": 100_000, "gap_ms": 5})
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    body = json.dumps({**BODIES["/v1/messages"], "stream": True})
    connection.request("POST", "/v1/messages", body, {"x-midwatch-call": "left"})
    reply = connection.getresponse()
    assert b"message_start" in reply.read1(65_536)
    connection.close()
    reply.close()
    assert wait_for(lambda: ask(port, "GET", "/billed").json["left"] == 1)
    used, made, ended = ask(port, "GET", "/billed/calls").json["left"]
    assert (used, ended) == (len(body) // 4, 0)
    assert 1 <= made < 100_000
    ask(port, "DELETE", "/billed")
    assert ask(port, "GET", "/billed").json["total"] == {"calls": 0, "input": 0, "output": 0}
