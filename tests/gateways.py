"""A gateway without sockets: providers by script, clients that keep what they were sent, a ledger in memory."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from midwatch.core.calls.account import Payer
from midwatch.core.calls.charge import Call, CallQuery
from midwatch.core.calls.period import Calendar
from midwatch.core.fleet import Fleet
from midwatch.gateway.cached import Cache
from midwatch.gateway.counted import Counted
from midwatch.gateway.gateway import Gateway
from midwatch.gateway.holds import Holds
from midwatch.gateway.house import House
from midwatch.gateway.http.played import PlayedIncoming, PlayedOutgoing
from midwatch.gateway.identify import Known
from midwatch.gateway.ledger.durable import DurableLedger
from midwatch.gateway.ledger.memory import MemoryEngine, MemoryLedger
from midwatch.gateway.settings import build, health
from midwatch.gateway.upstream.port import Upstream
from midwatch.gateway.upstream.scripted import Answer, Break, Refuse, ScriptedUpstream, Silence

AnyLedger = DurableLedger | MemoryLedger
SSE = (("content-type", "text/event-stream"),)
CHAT, MESSAGES, GENERATE, ARRAY = "chat", "messages", "generate", "array"
RESPONSES = "responses"
DIALECTS = (CHAT, MESSAGES, GENERATE, ARRAY)
PROVIDERS: dict[str, Any] = {
    "openai": {"kind": "openai"},
    "second": {"kind": "openai", "price_of": "openai"},
    "anthropic": {"kind": "anthropic"},
    "other": {"kind": "anthropic", "price_of": "anthropic"},
    "gemini": {"kind": "gemini"},
    "further": {"kind": "gemini", "price_of": "google"},
}
FAST = {"attempts": 0, "backoff": [0.001, 0.001]}
HOME = {
    CHAT: "openai/gpt-4o-mini",
    MESSAGES: "anthropic/claude-haiku-4-5",
    GENERATE: "gemini/gemini-2.5-flash",
    ARRAY: "gemini/gemini-2.5-flash",
    RESPONSES: "openai/gpt-4o-mini",
}
NEXT = {
    CHAT: "second/gpt-4o",
    MESSAGES: "other/claude-sonnet-4-5",
    GENERATE: "further/gemini-2.5-pro",
    ARRAY: "further/gemini-2.5-pro",
    RESPONSES: "second/gpt-4o",
}


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.passed = 0.0

    def now(self) -> float:
        return 1_000.0 + self.passed

    def wall(self) -> float:
        return 1_790_000_000.0 + self.passed


class Gate:
    """A gateway, its agent `inbox`, and what was asked of whom."""

    def __init__(
        self,
        folder: Path,
        script: Iterable[Answer | Refuse] | Upstream = (),
        *,
        models: dict[str, Any] | None = None,
        agent: dict[str, Any] | None = None,
        real_time: bool = False,
        rehearsal_url: str | None = None,
        disk: bool = False,
        ledger: AnyLedger | None = None,
        **fleet: Any,
    ) -> None:
        given = {"providers": PROVIDERS, "retries": FAST, **(models or {})}
        agents = {"inbox": {"command": ["x"], **(agent or {})}}
        self.settings = build(
            Fleet.model_validate({"agents": agents, "models": given, **fleet}), {}, rehearsal_url
        )
        self.clock = Clock()
        self.upstream = ScriptedUpstream(script) if isinstance(script, Iterable) else script
        engine = MemoryEngine()
        engine.open()
        self.engine = engine
        self.ledger = ledger or MemoryLedger(Calendar(ZoneInfo("UTC")), engine)
        self._started = False
        self.counts: Counter[str] = Counter()
        clock = time.monotonic if real_time else self.clock.now
        self.house = House(
            self.settings,
            health(self.settings),
            self.ledger,
            self.upstream,
            Counted(self.counts),
            now=clock,
            wall=self.clock.wall,
            chance=lambda: 0.5,
            counts=self.counts,
            rehearsed=rehearsal_url is not None,
            answers=Cache(folder / "answers.db" if disk else None, self.counts),
        )
        self.holds = Holds(folder / "holds.json", self.clock.wall)
        self.holds.open()
        self.payer = Payer("inbox", run="r1")
        self.gateway = Gateway(self.house, lambda *_: Known(self.payer), self.holds)  # type: ignore[arg-type]

    async def start(self) -> None:
        if not self._started:
            self._started = True
            await self.ledger.start()

    async def ask(
        self,
        dialect: str = CHAT,
        *,
        stream: bool = True,
        headers: Sequence[tuple[str, str]] = (),
        out: PlayedOutgoing | None = None,
        **more: Any,
    ) -> PlayedOutgoing:
        """Ask for an answer and return what the client got."""
        await self.start()
        out = out or PlayedOutgoing()
        path, query, body = question(dialect, stream=stream, **more)
        given = [("content-type", "application/json"), *headers]
        incoming = PlayedIncoming("POST", path, query, given, json.dumps(body).encode())
        await self.gateway.handle(incoming, out)
        return out

    async def rows(self) -> list[Call]:
        """Return the ledger's calls, oldest first."""
        return list(reversed(await self.ledger.calls(CallQuery())))

    def asked(self, number: int) -> Any:
        """Return the body of a request to a provider."""
        assert isinstance(self.upstream, ScriptedUpstream)
        return json.loads(self.upstream.asked[number].body)


def question(dialect: str, *, stream: bool = True, **more: Any) -> tuple[str, str, dict[str, Any]]:
    """Return path, query and body of a request."""
    model = more.pop("model", HOME[dialect])
    user = {"role": "user", "content": more.pop("prompt", "Tell me a story.")}
    if dialect == CHAT:
        body = {"model": model, "messages": [user], **more}
        return "/v1/chat/completions", "", {**body, **({"stream": True} if stream else {})}
    if dialect == MESSAGES:
        body = {"model": model, "messages": [user], "max_tokens": 500, **more}
        return "/v1/messages", "", {**body, **({"stream": True} if stream else {})}
    if dialect == RESPONSES:
        body = {"model": model, "input": user["content"], **more}
        return "/v1/responses", "", {**body, **({"stream": True} if stream else {})}
    verb = "streamGenerateContent" if stream else "generateContent"
    contents = [{"role": "user", "parts": [{"text": user["content"]}]}]
    name = model.rpartition("/")[2]
    query = "alt=sse" if stream and dialect == GENERATE else ""
    return f"/v1beta/models/{name}:{verb}", query, {"contents": contents, **more}


def event(value: Any, name: str = "") -> bytes:
    """Return one server-sent event."""
    return (f"event: {name}\n" if name else "").encode() + f"data: {json.dumps(value)}\n\n".encode()


def stream_of(
    dialect: str, words: Sequence[str], *, ident: str = "one", usage: tuple[int, int] = (10, 5)
) -> list[bytes]:
    """Return the pieces of a whole stream: the first is the head, then one for each word, then its end."""
    if dialect == CHAT:
        return _chat(words, ident, usage)
    if dialect == MESSAGES:
        return _messages(words, ident, usage)
    if dialect == RESPONSES:
        return _responses(words, ident, usage)
    return _generate(words, ident, usage, array=dialect == ARRAY)


def _chat(words: Sequence[str], ident: str, usage: tuple[int, int]) -> list[bytes]:
    def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return event({"id": ident, "object": "chat.completion.chunk", "created": len(ident), "model": "m", "choices": [choice], "usage": None})  # fmt: skip

    told = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    last = event({"id": ident, "created": len(ident), "model": "m", "choices": [], "usage": told})
    said = [chunk({"content": word}) for word in words]
    return [chunk({"role": "assistant", "content": ""}), *said, chunk({}, "stop") + last + b"data: [DONE]\n\n"]  # fmt: skip


def _messages(words: Sequence[str], ident: str, usage: tuple[int, int]) -> list[bytes]:
    def part(kind: str, **more: Any) -> bytes:
        return event({"type": kind, **more}, kind)

    message = {"id": ident, "type": "message", "role": "assistant", "model": "m", "content": [], "usage": {"input_tokens": usage[0], "output_tokens": 1}}  # fmt: skip
    head = part("message_start", message=message)
    head += part("content_block_start", index=0, content_block={"type": "text", "text": ""})
    said = [part("content_block_delta", index=0, delta={"type": "text_delta", "text": w}) for w in words]  # fmt: skip
    end = part("content_block_stop", index=0)
    end += part(
        "message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": usage[1]}
    )
    return [head, *said, end + part("message_stop")]


def _responses(words: Sequence[str], ident: str, usage: tuple[int, int]) -> list[bytes]:
    """A thought that is told in the other streams' head, then one message."""
    number = iter(range(10_000))

    def part(kind: str, **more: Any) -> bytes:
        value = {"type": f"response.{kind}", "sequence_number": next(number), **more}
        return event(value, value["type"])

    first = 1 if ident == "one" else 0  # only the first answer thinks aloud
    at = {"item_id": f"msg_{ident}", "output_index": first, "content_index": 0}
    shown = {"type": "output_text", "text": "".join(words), "annotations": []}
    message = {"id": f"msg_{ident}", "type": "message", "role": "assistant", "content": [shown]}
    told = {"input_tokens": usage[0], "output_tokens": usage[1], "total_tokens": sum(usage)}
    whole = {"id": ident, "model": "m", "status": "completed", "output": [message], "usage": told}
    head = part("created", response={"id": ident, "model": "m", "status": "in_progress", "output": []})  # fmt: skip
    head += part("in_progress", response={"id": ident, "status": "in_progress"})
    if first:
        head += part("output_item.added", output_index=0, item={"id": "rs", "type": "reasoning"})
        head += part("output_item.done", output_index=0, item={"id": "rs", "type": "reasoning"})
    head += part("output_item.added", output_index=first, item={**message, "content": []})
    head += part("content_part.added", **at, part={**shown, "text": ""})
    said = [part("output_text.delta", **at, delta=word, logprobs=[]) for word in words]
    end = part("output_text.done", **at, text=shown["text"], logprobs=[])
    end += part("content_part.done", **at, part=shown)
    end += part("output_item.done", output_index=first, item=message)
    return [head, *said, end + part("completed", response=whole)]


def _generate(
    words: Sequence[str], ident: str, usage: tuple[int, int], *, array: bool
) -> list[bytes]:
    def chunk(text: str, finish: str | None, out: int) -> dict[str, Any]:
        candidate: dict[str, Any] = {
            "index": 0,
            "content": {"role": "model", "parts": [{"text": text}]},
        }
        if finish:
            candidate["finishReason"] = finish
        told = {
            "promptTokenCount": usage[0],
            "candidatesTokenCount": out,
            "totalTokenCount": usage[0] + out,
        }
        return {
            "responseId": ident,
            "modelVersion": "m",
            "candidates": [candidate],
            "usageMetadata": told,
        }

    chunks = [chunk(word, None, 1) for word in words] + [chunk("", "STOP", usage[1])]
    if not array:
        return [b"", *(event(c) for c in chunks)]
    pieces = [(b"[" if n == 0 else b",\n") + json.dumps(c).encode() for n, c in enumerate(chunks)]
    return [b"", *pieces[:-1], pieces[-1] + b"]"]


def answer(dialect: str, pieces: Sequence[bytes | Break | Silence]) -> Answer:
    """Return a provider's answer that is such a stream."""
    kind = "application/json" if dialect == ARRAY else "text/event-stream"
    return Answer(200, [p for p in pieces if p != b""], (("content-type", kind),))


class Heard:
    """What a client of a stream understands."""

    def __init__(self, dialect: str, data: bytes) -> None:
        self.text = ""
        self.idents: set[str] = set()
        self.errors: list[str] = []
        self.finishes: list[str] = []
        self.ends = 0
        self.starts = 0
        self.usage: dict[str, Any] = {}
        self.blocks: list[tuple[str, int]] = []
        values = json.loads(data) if dialect == ARRAY else _events(data)
        for value in values:
            self._take(value)

    def _take(self, value: Any) -> None:
        if value is None:
            self.ends += 1
            return
        if "error" in value:
            self.errors.append(value["error"].get("type", ""))
            return
        self.usage |= value.get("usage") or value.get("usageMetadata") or {}
        for key in ("id", "responseId"):
            if key in value:
                self.idents.add(value[key])
        kind = str(value.get("type", ""))
        if kind.startswith("response."):
            self._response(kind, value)
            return
        for one in value.get("choices", ()):
            self.starts += "role" in one["delta"]
            self.text += one["delta"].get("content") or ""
            self.finishes += [one["finish_reason"]] if one["finish_reason"] else []
        for one in value.get("candidates", ()):
            self.text += "".join(part.get("text", "") for part in one["content"].get("parts", ()))
            self.finishes += [one["finishReason"]] if "finishReason" in one else []
        self._message(value)

    def _response(self, kind: str, value: Any) -> None:
        if kind == "response.output_text.delta":
            self.text += value["delta"]
        elif kind in ("response.completed", "response.incomplete"):
            self.finishes.append(value["response"]["status"])
        if "response" in value:
            self.idents.add(value["response"]["id"])

    def _message(self, value: Any) -> None:
        kind = value.get("type", "")
        if kind == "message_start":
            self.starts += 1
            self.idents.add(value["message"]["id"])
        elif kind == "message_stop":
            self.ends += 1
        elif kind == "message_delta":
            self.finishes.append(value["delta"]["stop_reason"])
        elif kind.startswith("content_block"):
            self.blocks.append((kind.removeprefix("content_block_"), value["index"]))
            self.text += value.get("delta", value.get("content_block", {})).get("text", "")


def _events(data: bytes) -> list[Any]:
    found: list[Any] = []
    for block in data.decode().replace("\r\n", "\n").split("\n\n"):
        lines = [line[5:].strip() for line in block.split("\n") if line.startswith("data:")]
        if lines:
            found.append(None if lines[0] == "[DONE]" else json.loads("\n".join(lines)))
    return found
