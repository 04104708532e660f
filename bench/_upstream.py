"""The upstream of the gateway's benchmarks: canned answers, and an exact count of what they cost.

    python bench/_upstream.py [--listen HOST:PORT] [--events N] [--gap-ms MS]

It speaks OpenAI chat completions, Anthropic messages and Gemini generateContent, whole and streamed, as
little of HTTP as clients and proxies need, straight on an asyncio transport. A server library would take
the processor away from what is measured: on two cores an empty answer is served 86,000 times a second
this way, 18,000 times by granian's RSGI with its threads beside ours.

A whole answer costs `WHOLE_TOKENS` of output, a stream one token an event; input is a quarter of the
body's bytes. A stream whose client leaves is billed for what was sent. Every event carries `sent_ns`,
the monotonic clock when it was written, so that a client on the same machine can tell how long it took.

    GET    /billed         sums: in all, by model; streams open, the latest an event ever was
    GET    /billed/calls   by the id in `x-midwatch-call`: [input, output, whether it ended well]
    DELETE /billed         begin anew
    POST   /set            {"events": N, "gap_ms": MS}
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import re
import signal
import sys
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Final

WHOLE_TOKENS: Final = 12
"""Output of an answer that is not streamed."""
MAX_HEAD_BYTES: Final = 64 * 1024
MAX_BODY_BYTES: Final = 64 * 1024 * 1024
MAX_KEPT: Final = 500_000
"""Calls whose own count is kept."""
SLOT_S: Final = 0.005
"""Events are sent in beats of this length, all that are due at once."""
SLOTS: Final = 4_096

_STREAM: Final = re.compile(rb'"stream"\s*:\s*true')
_WANTS_USAGE: Final = re.compile(rb'"include_usage"\s*:\s*true')
_MODEL: Final = re.compile(rb'"model"\s*:\s*"([^"]{1,200})"')
_LENGTH: Final = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_CLOSE: Final = re.compile(rb"\r\nconnection:\s*close", re.IGNORECASE)
_CALL: Final = re.compile(rb"\r\nx-midwatch-call:\s*([^\r]{1,200})", re.IGNORECASE)
_SAID: Final = "The tide is low now and will be high at noon. "


def dumps(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


@dataclass(slots=True)
class Count:
    """What was billed, and how well the upstream itself kept up."""

    models: dict[str, list[int]] = field(default_factory=dict)
    """Model → calls, input, output."""
    calls: OrderedDict[str, list[int]] = field(default_factory=OrderedDict)
    left: int = 0
    late_s: float = 0.0

    def add(self, call: bytes | None, model: str, used: int, made: int, ended: bool) -> None:
        sums = self.models.setdefault(model, [0, 0, 0])
        sums[0] += 1
        sums[1] += used
        sums[2] += made
        self.left += not ended
        if call is not None:
            self.calls[call.decode("latin-1").strip()] = [used, made, int(ended)]
            if len(self.calls) > MAX_KEPT:
                self.calls.popitem(last=False)

    def sums(self, open_streams: int) -> dict[str, Any]:
        named = ("calls", "input", "output")
        total = [sum(s[n] for s in self.models.values()) for n in range(3)]
        return {
            "total": dict(zip(named, total, strict=True)),
            "models": {m: dict(zip(named, s, strict=True)) for m, s in self.models.items()},
            "left": self.left,
            "open": open_streams,
            "late_ms": round(self.late_s * 1000, 3),
        }


@dataclass(frozen=True, slots=True)
class Dialect:
    """The pieces of a provider's answers, as templates: `fill` puts the numbers in.

    `event` is sent again and again, with a place for the time behind it.
    """

    whole: bytes
    head: bytes
    event: bytes
    tail: bytes
    tail_with_usage: bytes

    def of(self, model: str) -> Dialect:
        """Return the same for one model."""
        name = json.dumps(model)[1:-1].encode()
        pieces = (self.whole, self.head, self.event, self.tail, self.tail_with_usage)
        return Dialect(*(piece.replace(b"@MODEL", name) for piece in pieces))


def fill(piece: bytes, n: int, used: int, made: int) -> bytes:
    """Return a piece with its numbers."""
    return (
        piece.replace(b"@N", b"%d" % n)
        .replace(b'"@USED"', b"%d" % used)
        .replace(b'"@MADE"', b"%d" % made)
        .replace(b'"@TOTAL"', b"%d" % (used + made))
    )


def event(body: dict[str, Any], end: bytes = b"\n\n", *, timed: bool = False) -> bytes:
    name = b"event: " + body["type"].encode() + b"\n" if "type" in body else b""
    data = dumps(body)
    return name + b"data: " + (data[:-1] + b',"sent_ns":@TIME}' if timed else data) + end


def chat() -> Dialect:
    """OpenAI chat completions."""
    usage = {
        "prompt_tokens": "@USED",
        "completion_tokens": "@MADE",
        "total_tokens": "@TOTAL",
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }
    frame = {"id": "chatcmpl-@N", "created": 1_735_689_600, "model": "@MODEL"}
    message = {"role": "assistant", "content": _SAID, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    chunk = {**frame, "object": "chat.completion.chunk"}
    said = {"index": 0, "delta": {"content": "tide "}, "finish_reason": None}
    end = event({**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    done = b"data: [DONE]\n\n"
    return Dialect(
        dumps({**frame, "object": "chat.completion", "choices": [choice], "usage": usage}),
        b"",
        event({**chunk, "choices": [said]}, timed=True),
        end + done,
        end + event({**chunk, "choices": [], "usage": usage}) + done,
    )


def messages() -> Dialect:
    """Anthropic messages."""

    def frame(made: Any, content: list[Any], why: str | None) -> dict[str, Any]:
        cache = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
        return {
            "id": "msg_@N",
            "type": "message",
            "role": "assistant",
            "model": "@MODEL",
            "content": content,
            "stop_reason": why,
            "stop_sequence": None,
            "usage": {"input_tokens": "@USED", **cache, "output_tokens": made},
        }

    delta = {"type": "text_delta", "text": "tide "}
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    tail = (
        event({"type": "content_block_stop", "index": 0})
        + event({"type": "message_delta", "delta": end, "usage": {"output_tokens": "@MADE"}})
        + event({"type": "message_stop"})
    )
    block = {"type": "text", "text": ""}
    return Dialect(
        dumps(frame("@MADE", [{"type": "text", "text": _SAID}], "end_turn")),
        event({"type": "message_start", "message": frame(1, [], None)})
        + event({"type": "content_block_start", "index": 0, "content_block": block}),
        event({"type": "content_block_delta", "index": 0, "delta": delta}, timed=True),
        tail,
        tail,
    )


def generate() -> Dialect:
    """Gemini generateContent."""
    usage = {
        "promptTokenCount": "@USED",
        "candidatesTokenCount": "@MADE",
        "totalTokenCount": "@TOTAL",
    }
    rest = {"modelVersion": "@MODEL", "responseId": "@N"}

    def said(text: str, **more: Any) -> dict[str, Any]:
        content = {"parts": [{"text": text}], "role": "model"}
        return {"candidates": [{"content": content, **more}], **rest}

    tail = event({**said("", finishReason="STOP"), "usageMetadata": usage}, b"\r\n\r\n")
    return Dialect(
        dumps({**said(_SAID, finishReason="STOP"), "usageMetadata": usage}),
        b"",
        event(said("tide "), b"\r\n\r\n", timed=True),
        tail,
        tail,
    )


CHAT, MESSAGES, GENERATE = chat(), messages(), generate()


@functools.lru_cache(maxsize=1000)
def of_model(dialect: Dialect, model: str) -> Dialect:
    return dialect.of(model)


@dataclass(eq=False, slots=True)
class Stream:
    """One stream under way."""

    connection: Connection
    dialect: Dialect
    model: str
    number: int
    used: int
    call: bytes | None
    wants_usage: bool
    event: bytes
    events: int
    gap_s: float
    started: float
    sent: int = 0


class Upstream:
    """All connections, and the wheel that sends what is due."""

    def __init__(self, events: int, gap_ms: float) -> None:
        self.events, self.gap_s = events, gap_ms / 1000
        self.count = Count()
        self.numbers = 0
        self.streams: set[Stream] = set()
        self._wheel: list[list[Stream]] = [[] for _ in range(SLOTS)]
        self._at = 0
        self._began = 0.0

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._began = loop.time()
        loop.call_at(self._began + SLOT_S, self._beat)

    def _beat(self) -> None:
        """Send what is due in every slot up to now; one that comes late catches up at once."""
        now = self._loop.time()
        upto = int((now - self._began) / SLOT_S)
        while self._at < upto:
            self._at += 1
            due, self._wheel[self._at % SLOTS] = self._wheel[self._at % SLOTS], []
            if due:
                late = now - self._began - self._at * SLOT_S
                self.count.late_s = max(self.count.late_s, late)
            for stream in due:
                self._send(stream)
        self._loop.call_at(self._began + (self._at + 1) * SLOT_S, self._beat)

    def open(self, stream: Stream) -> None:
        self.streams.add(stream)
        self._send(stream)

    def _send(self, stream: Stream) -> None:
        if stream not in self.streams:
            return
        while True:
            stream.sent += 1
            data = stream.event.replace(b"@TIME", b"%d" % time.monotonic_ns())
            if stream.sent == 1:
                data = fill(stream.dialect.head, stream.number, stream.used, 0) + data
            if stream.sent >= stream.events:
                break
            stream.connection.chunk(data)
            if stream.gap_s:
                due = stream.started + stream.sent * stream.gap_s - self._began
                slot = max(int(due / SLOT_S), self._at + 1)
                self._wheel[min(slot, self._at + SLOTS - 1) % SLOTS].append(stream)
                return
        tail = stream.dialect.tail_with_usage if stream.wants_usage else stream.dialect.tail
        data += fill(tail, stream.number, stream.used, stream.sent)
        self.close(stream, ended=True)
        stream.connection.chunk(data, last=True)

    def close(self, stream: Stream, *, ended: bool) -> None:
        if stream in self.streams:
            self.streams.remove(stream)
            self.count.add(stream.call, stream.model, stream.used, stream.sent, ended)

    def bill(self, call: str) -> bytes | None:
        """Return what one call came to, as its answer would have told; None while it is under way."""
        found = self.count.calls.get(call)
        if found is not None:
            used, made, _ = found
            told = {"prompt_tokens": used, "completion_tokens": made, "total_tokens": used + made}
            return dumps({"usage": told})
        if any(stream.call == call.encode("latin-1") for stream in self.streams):
            return None
        return dumps({"usage": None, "cost_usd": 0})  # it never came here

    def control(self, method: bytes, path: bytes, body: bytes) -> bytes | None:
        """Answer what is about the upstream itself, or return None."""
        match method, path:
            case b"GET", b"/billed":
                return dumps(self.count.sums(len(self.streams)))
            case b"GET", b"/billed/calls":
                return dumps(self.count.calls)
            case b"GET", _ if path.startswith(b"/v1/billed/calls/"):
                return self.bill(path.rpartition(b"/")[2].decode("latin-1"))
            case b"DELETE", b"/billed":
                self.count = Count()
                return b"{}"
            case b"POST", b"/set":
                told = json.loads(body)
                self.events = max(int(told.get("events", self.events)), 1)
                self.gap_s = max(float(told.get("gap_ms", self.gap_s * 1000)), 0.0) / 1000
                return b"{}"
            case _:
                return None


class Connection(asyncio.Protocol):
    """One client; its requests are answered in order."""

    def __init__(self, upstream: Upstream) -> None:
        self._up = upstream
        self._buffer = b""
        self._stream: Stream | None = None
        self._close = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._stream is not None:
            self._up.close(self._stream, ended=False)

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        while self._stream is None and self._next():
            pass

    def _next(self) -> bool:
        """Answer the next request if it is whole."""
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(buffer) > MAX_HEAD_BYTES:
                self._transport.abort()
            return False
        head = buffer[:end]
        found = _LENGTH.search(head)
        length = 0 if found is None else int(found[1])
        if length > MAX_BODY_BYTES or b"chunked" in head:
            self._transport.write(b"HTTP/1.1 411 Length Required\r\ncontent-length: 0\r\n\r\n")
            self._transport.close()
            return False
        if len(buffer) < end + 4 + length:
            return False
        self._buffer = buffer[end + 4 + length :]
        self._close = _CLOSE.search(head) is not None
        self._answer(head, buffer[end + 4 : end + 4 + length])
        return True

    def _answer(self, head: bytes, body: bytes) -> None:
        method, path, _ = head.split(b" ", 2)
        dialect, model, stream = _asked(path, body)
        if dialect is None:
            found = self._up.control(method, path.partition(b"?")[0], body)
            self._whole(b"{}" if found is None else found, 404 if found is None else 200)
            return
        dialect = of_model(dialect, model)
        up = self._up
        up.numbers += 1
        used = max(len(body) // 4, 1)
        named = _CALL.search(head)
        call = None if named is None else named[1]
        if not stream:
            up.count.add(call, model, used, WHOLE_TOKENS, True)
            self._whole(fill(dialect.whole, up.numbers, used, WHOLE_TOKENS))
            return
        self._transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
            b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
        )
        self._stream = Stream(
            self,
            dialect,
            model,
            up.numbers,
            used,
            call,
            _WANTS_USAGE.search(body) is not None,
            fill(dialect.event, up.numbers, used, 0),
            up.events,
            up.gap_s,
            asyncio.get_running_loop().time(),
        )
        up.open(self._stream)

    def _whole(self, body: bytes, status: int = 200) -> None:
        self._transport.write(
            b"HTTP/1.1 %d OK\r\ncontent-type: application/json\r\nx-request-id: req_%d\r\n"
            b"content-length: %d\r\n\r\n%b" % (status, self._up.numbers, len(body), body)
        )
        if self._close:
            self._transport.close()

    def chunk(self, data: bytes, *, last: bool = False) -> None:
        end = b"\r\n0\r\n\r\n" if last else b"\r\n"
        self._transport.write(b"%x\r\n%b%b" % (len(data), data, end))
        if last:
            self._stream = None
            if self._close:
                self._transport.close()
            while self._stream is None and self._buffer and self._next():
                pass


def _asked(path: bytes, body: bytes) -> tuple[Dialect | None, str, bool]:
    """Return the dialect, the model, and whether a stream is asked for."""
    if b"/models/" in path and b":" in path:
        name, _, method = path.partition(b"?")[0].rpartition(b"/models/")[2].rpartition(b":")
        return GENERATE, name.decode("latin-1"), method == b"streamGenerateContent"
    dialect = (
        CHAT
        if path.endswith(b"/chat/completions")
        else MESSAGES
        if path.endswith(b"/messages")
        else None
    )
    if dialect is None:
        return None, "", False
    found = _MODEL.search(body)
    model = "unknown" if found is None else found[1].decode("utf-8", "replace")
    return dialect, model, _STREAM.search(body) is not None


async def serve(host: str, port: int, upstream: Upstream) -> None:
    """Serve until SIGTERM or SIGINT; print one line when it listens."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await loop.create_server(lambda: Connection(upstream), host, port, backlog=2048)
    upstream.begin(loop)
    sys.stdout.write(f"upstream listening on http://{host}:{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await stop.wait()
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--listen", default="127.0.0.1:0", metavar="HOST:PORT")
    parser.add_argument("--events", type=int, default=100, metavar="N")
    parser.add_argument("--gap-ms", type=float, default=50.0, metavar="MS")
    options = parser.parse_args()
    host, _, port = options.listen.rpartition(":")
    asyncio.run(serve(host, int(port), Upstream(options.events, options.gap_ms)))


if __name__ == "__main__":
    main()
