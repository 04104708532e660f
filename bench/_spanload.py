"""Clients that send OTLP/HTTP posts of 256 spans, cheaply enough that the server's figure is the server's.

A post is serialised once and its ids are written over before each send, so that no two spans are the same one and
no two tell of one answer; times are those of the first making. Run as a program it is the clients' process:

    python bench/_spanload.py PORT PATH --seconds S [--rate SPANS] [--connections N] [--large] [--header "K: V"]

Its last line is a JSON object, see `Sent`. With `--journal FILE` the trace ids of each acknowledged post are
appended there before the next post of that connection is sent.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

POST = 256
PER_TRACE = 16
AGENTS = 20
SHAPES = 40
"""Different posts in turn: texts must not be the same in each."""

_dice = random.Random(1)
WORDS = ["".join(_dice.choices("abcdefghijklmnopqrstuvwxyz", k=3 + i % 7)) for i in range(4000)]


@dataclass
class Sent:
    """What clients saw; `spans` are acknowledged ones, `p50_ms` and `p99_ms` of acknowledged posts."""

    spans: int = 0
    seconds: float = 0.0
    spans_s: float = 0.0
    bytes_a_span: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    statuses: dict[str, int] = field(default_factory=dict)
    client_cores: float = 0.0
    broken: int = 0


class Post:
    """One serialised post and the places of its ids."""

    def __init__(self, seed: int, large: bool) -> None:
        dice = random.Random(seed)
        request = ExportTraceServiceRequest()
        spans = request.resource_spans.add()
        name = spans.resource.attributes.add()
        name.key, name.value.string_value = "service.name", f"agent-{seed % AGENTS}"
        scope = spans.scope_spans.add()
        scope.scope.name = "bench"
        now = time.time_ns()
        traces = [dice.randbytes(16) for _ in range(POST // PER_TRACE)]
        ids = [dice.randbytes(8) for _ in range(POST)]
        answers = [f"{dice.getrandbits(64):016x}" for _ in range(POST)]
        for at in range(POST):
            span = scope.spans.add()
            span.trace_id, span.span_id = traces[at // PER_TRACE], ids[at]
            if at % PER_TRACE:
                span.parent_span_id = ids[at - at % PER_TRACE]
            _fill(span, dice, now, answers[at], large)
        body = request.SerializeToString()
        self.body = bytearray(body)
        self._traces = [_places(body, trace) for trace in traces]
        self._ids = [_places(body, span_id) for span_id in ids]
        self._answers = [_places(body, answer.encode()) for answer in answers]

    def fresh(self) -> bytes:
        """Write new ids into the body; return the 16-byte trace ids, one after another."""
        body = self.body
        traces = os.urandom(16 * len(self._traces))
        for number, places in enumerate(self._traces):
            new = traces[16 * number : 16 * number + 16]
            for at in places:
                body[at : at + 16] = new
        ids = os.urandom(8 * len(self._ids))
        for number, places in enumerate(self._ids):
            new = ids[8 * number : 8 * number + 8]
            for at in places:
                body[at : at + 8] = new
        answers = os.urandom(8 * len(self._answers)).hex().encode()
        for number, places in enumerate(self._answers):
            new = answers[16 * number : 16 * number + 16]
            for at in places:
                body[at : at + 16] = new
        return traces


def _places(body: bytes, what: bytes) -> list[int]:
    found, at = [], body.find(what)
    while at >= 0:
        found.append(at)
        at = body.find(what, at + 1)
    return found


def _fill(span, dice: random.Random, now: int, answer: str, large: bool) -> None:
    span.name, span.kind = "chat gpt-4o-mini", 3
    span.start_time_unix_nano = now - dice.randrange(10**9, 5 * 10**9)
    span.end_time_unix_nano = span.start_time_unix_nano + dice.randrange(10**6, 10**9)
    for key, value in (
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.provider.name", "openai"),
        ("gen_ai.request.model", "gpt-4o-mini"),
        ("gen_ai.response.id", f"chatcmpl-{answer}"),
        ("gen_ai.conversation.id", f"session-{dice.randrange(1000)}"),
    ):
        attribute = span.attributes.add()
        attribute.key, attribute.value.string_value = key, value
    for key, value in (
        ("gen_ai.usage.input_tokens", dice.randrange(4000)),
        ("gen_ai.usage.output_tokens", dice.randrange(800)),
        ("gen_ai.usage.cache_read.input_tokens", 0),
    ):
        attribute = span.attributes.add()
        attribute.key, attribute.value.int_value = key, value
    if large:
        for key, role, words in (
            ("gen_ai.input.messages", "user", 420),
            ("gen_ai.output.messages", "assistant", 120),
        ):
            text = " ".join(dice.choices(WORDS, k=words))
            said = [{"role": role, "parts": [{"type": "text", "content": text}]}]
            attribute = span.attributes.add()
            attribute.key, attribute.value.string_value = key, json.dumps(said)


class Clients:
    """Connections to one server; each has one post under way."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self._asked = asked
        self._posts = [Post(seed, asked.large) for seed in range(SHAPES)]
        self._next = 0
        self._took: list[float] = []
        self._journal = open(asked.journal, "ab", buffering=0) if asked.journal else None  # noqa: SIM115
        self._head = (
            f"POST {asked.path} HTTP/1.1\r\nhost: 127.0.0.1:{asked.port}\r\n"
            "content-type: application/x-protobuf\r\n"
            + "".join(f"{header}\r\n" for header in asked.header)
        )
        self.sent = Sent(bytes_a_span=len(self._posts[0].body) // POST)

    async def run(self) -> Sent:
        asked, sent = self._asked, self.sent
        began, cpu = time.perf_counter(), time.process_time()
        until = began + asked.seconds
        every = POST / asked.rate if asked.rate else 0.0
        await asyncio.gather(*(self._one(began, until, every) for _ in range(asked.connections)))
        sent.seconds = time.perf_counter() - began
        sent.client_cores = (time.process_time() - cpu) / sent.seconds
        sent.spans_s = sent.spans / sent.seconds
        self._took.sort()
        if self._took:
            sent.p50_ms = self._took[len(self._took) // 2] * 1e3
            sent.p99_ms = self._took[int(len(self._took) * 0.99)] * 1e3
        return sent

    async def _one(self, began: float, until: float, every: float) -> None:
        """Send on one connection; times of a paced load count from when the post was due."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._asked.port)
        try:
            while time.perf_counter() < until:
                number, self._next = self._next, self._next + 1
                due = began + number * every
                if every and (pause := due - time.perf_counter()) > 0:
                    await asyncio.sleep(pause)
                post = self._posts[number % SHAPES]
                traces = post.fresh()
                sent_at = due if every else time.perf_counter()
                status = await self._post(reader, writer, bytes(post.body))
                self.sent.statuses[str(status)] = self.sent.statuses.get(str(status), 0) + 1
                if status != 200:
                    await asyncio.sleep(0.05)
                    continue
                self._took.append(time.perf_counter() - sent_at)
                self.sent.spans += POST
                if self._journal is not None:
                    self._journal.write(traces)
        except (OSError, asyncio.IncompleteReadError):
            self.sent.broken += 1
        finally:
            writer.close()

    async def _post(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes) -> int:  # fmt: skip
        writer.write(f"{self._head}content-length: {len(body)}\r\n\r\n".encode() + body)
        head = await reader.readuntil(b"\r\n\r\n")
        lower = head.lower()
        at = lower.find(b"content-length:")
        if at >= 0:
            await reader.readexactly(int(lower[at + 15 : lower.find(b"\r\n", at)]))
        elif b"chunked" in lower:
            while int((await reader.readline()).strip() or b"0", 16):
                await reader.readuntil(b"\r\n")
            await reader.readline()
        return int(head[9:12])


def asked() -> argparse.Namespace:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("port", type=int)
    arguments.add_argument("path")
    arguments.add_argument("--seconds", type=float, required=True)
    arguments.add_argument("--rate", type=float, default=0.0)
    arguments.add_argument("--connections", type=int, default=8)
    arguments.add_argument("--large", action="store_true")
    arguments.add_argument("--header", action="append", default=[])
    arguments.add_argument("--journal", type=Path)
    return arguments.parse_args()


if __name__ == "__main__":
    print(json.dumps(asdict(asyncio.run(Clients(asked()).run()))))
    sys.exit(0)
