"""Sends what no exporter should: random bytes, wrong types, a time in 2200, ten megabytes in one attribute; each with
a good neighbour where there can be one."""

import base64
import gzip
import json
import os
import random
import time
from typing import Any

from midwatch.drills.programs import spans, stage

said: list[dict[str, Any]] = []


def send(what: str, body: bytes, *, media: str = spans.JSON, good: str = "") -> None:
    answer = spans.post(body, media)
    text = answer.body.decode("utf-8", "replace")[:600]
    said.append({"what": what, "status": answer.status, "said": text, "good": good, "at": time.time()})  # fmt: skip


def neighbours(what: str, **changed: Any) -> None:
    """Send a bad span between two good ones."""
    trace = os.urandom(16).hex()
    three = [spans.span(trace, os.urandom(8).hex(), name) for name in ("before", what, "after")]
    three[1].update(changed)
    send(what, spans.wrapped(three), good=trace)


stage.wait_until_watched()
stage.evidence()
dice = random.Random(7)
for _ in range(5):
    send("random bytes", dice.randbytes(3_000), media=spans.PROTOBUF)
send("no JSON", b'{"resourceSpans": [')
send("wrong types", json.dumps({"resourceSpans": "many"}).encode())
send("an unknown type", b"<xml/>", media="text/xml")
neighbours("year 2200", startTimeUnixNano=str(7_258_118_400 * 10**9))
neighbours("a bad id", traceId="xyz")
neighbours("ends before it starts", endTimeUnixNano="1")
neighbours("ten megabytes", attributes=[{"key": "x", "value": {"stringValue": "y" * 10_000_000}}])
deep: dict[str, Any] = {"stringValue": "bottom"}
for _ in range(60):
    deep = {"arrayValue": {"values": [deep]}}
neighbours("deep", attributes=[{"key": "x", "value": deep}])
neighbours("bytes that are none", attributes=[{"key": "x", "value": {"bytesValue": "%%%"}}])
send("a bomb", gzip.compress(base64.b64encode(bytes(10_000_000))), media=spans.PROTOBUF)
trace = os.urandom(16).hex()
send("good", spans.wrapped([spans.span(trace, os.urandom(8).hex(), "good")]), good=trace)
stage.note("said", json.dumps(said))
stage.stay()
