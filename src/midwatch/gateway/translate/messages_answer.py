"""Anthropic's messages: answers and streams, read and written.

Source: docs.anthropic.com/en/api/messages and /messages-streaming.
"""

from __future__ import annotations

from typing import Any, Final

from midwatch.core.pricing.usage import Usage
from midwatch.gateway.dialects.stream import objects
from midwatch.gateway.translate.fields import arguments_of, dump, encode, object_of, within
from midwatch.gateway.translate.form import (
    Argued,
    Call,
    Called,
    CannotTranslate,
    Delta,
    Finish,
    Finished,
    Frame,
    Json,
    Mused,
    Reply,
    Said,
    Text,
    Thought,
    ended,
    fitting,
    joined,
    made,
)

_READ: Final = {
    "end_turn": Finish.STOP,
    "stop_sequence": Finish.SEQUENCE,
    "max_tokens": Finish.LENGTH,
    "model_context_window_exceeded": Finish.LENGTH,
    "tool_use": Finish.TOOLS,
    "refusal": Finish.FILTER,
}
"""`pause_turn` is missing: such an answer is not whole, and nobody else can be asked for its rest."""

_WRITTEN: Final = {
    Finish.STOP: "end_turn",
    Finish.SEQUENCE: "stop_sequence",
    Finish.LENGTH: "max_tokens",
    Finish.TOOLS: "tool_use",
    Finish.FILTER: "refusal",
}

_SILENT: Final = ("signature_delta", "citations_delta")
"""Deltas that say nothing to others."""


def _finish(reason: object) -> Finish:
    found = _READ.get(reason) if isinstance(reason, str) else None
    if found is None:
        raise CannotTranslate("stop_reason", f"{str(reason)[:40]!r} is none that others know")
    return found


def read(body: Json) -> Reply:
    """Return what an answer says. Raises CannotTranslate."""
    parts: list[Text | Thought | Call] = []
    for block in objects(body.get("content")):
        kind = block.get("type")
        if kind == "text":
            parts.append(Text(str(block.get("text") or "")))
        elif kind == "thinking":
            parts.append(Thought(str(block.get("thinking") or "")))
        elif kind == "tool_use":
            given = object_of(block.get("input") or {}, "tool_use.input")
            name = str(block.get("name") or "")
            identity = block.get("id") or made(body.get("id"), len(parts), name)
            parts.append(Call(str(identity), name, given))
        elif kind != "redacted_thinking":
            raise CannotTranslate(f"content.{kind}", "only text and tool calls are translated")
    called = any(isinstance(part, Call) for part in parts)
    finish = ended(_finish(body.get("stop_reason")), called=called)
    stop = str(body.get("stop_sequence") or "") if finish is Finish.SEQUENCE else ""
    return Reply(
        joined(parts), finish, str(body.get("id") or ""), str(body.get("model") or ""), stop
    )


class Reader:
    """Reads a stream: events in, deltas out."""

    def __init__(self) -> None:
        self._reason: object = None
        self._stop = ""
        self._calls: dict[object, int] = {}
        """Index of a block → number of the call."""
        self._arguments: list[str] = []

    def read(self, event: Json) -> list[Delta]:
        """Return what an event says. Raises CannotTranslate."""
        kind, index = event.get("type"), event.get("index")
        if kind == "content_block_start":
            return self._start(index if isinstance(index, int) else -1, event.get("content_block"))
        delta = within(event, "delta")
        if kind == "content_block_delta" and delta:
            return self._delta(index if isinstance(index, int) else -1, delta)
        if kind == "message_delta":
            self._reason = delta.get("stop_reason") or self._reason
            self._stop = str(delta.get("stop_sequence") or "")
        return []

    def _start(self, index: int, given: object) -> list[Delta]:
        block = object_of(given, "content_block")
        kind = block.get("type")
        if kind == "text":
            return [Said(str(block["text"]))] if block.get("text") else []
        if kind == "thinking":
            return [Mused(str(block["thinking"]))] if block.get("thinking") else []
        if kind == "tool_use":
            number = self._calls[index] = len(self._arguments)
            name = str(block.get("name") or "")
            begun = Called(number, str(block.get("id") or made(index, name)), name)
            told = block.get("input")
            self._arguments.append(dump(told) if told else "")
            return [begun, Argued(number, self._arguments[number])] if told else [begun]
        if kind == "redacted_thinking":
            return []
        raise CannotTranslate(f"content.{kind}", "only text and tool calls are translated")

    def _delta(self, index: int, delta: Json) -> list[Delta]:
        kind = delta.get("type")
        if kind == "text_delta":
            return [Said(str(delta["text"]))] if delta.get("text") else []
        if kind == "thinking_delta":
            return [Mused(str(delta["thinking"]))] if delta.get("thinking") else []
        if kind == "input_json_delta":
            piece, number = str(delta.get("partial_json") or ""), self._calls.get(index)
            if number is None:
                raise CannotTranslate("input_json_delta", "arguments of a call that did not begin")
            self._arguments[number] += piece
            return [Argued(number, piece)] if piece else []
        if kind in _SILENT:
            return []
        raise CannotTranslate(f"content.{kind}", "only text and tool calls are translated")

    def end(self) -> Finished:
        """Return why the stream ended, which it did well. Raises CannotTranslate."""
        finish = ended(_finish(self._reason), called=bool(self._arguments))
        if finish is not Finish.LENGTH:
            for given in self._arguments:
                arguments_of(given, "tool_use.input")
        return Finished(finish, self._stop if finish is Finish.SEQUENCE else "")


# -- writing -----------------------------------------------------------------------------------


def usage(used: Usage | None) -> Json:
    """Return usage as this dialect tells it: what was cached beside the input. It must be there."""
    if used is None:
        return {"input_tokens": 0, "output_tokens": 0}
    told: Json = {
        "input_tokens": used.input_tokens - used.cached_tokens - used.cache_write_tokens,
        "cache_creation_input_tokens": used.cache_write_tokens,
        "cache_read_input_tokens": used.cached_tokens,
        "output_tokens": used.output_tokens,
    }
    if used.reasoning:
        told["output_tokens_details"] = {"thinking_tokens": used.reasoning}
    return told


def _frame(
    identity: str, model: str, content: list[Json], used: Usage | None, frame: Frame
) -> Json:
    return {
        "id": identity or frame.id,
        "type": "message",
        "role": "assistant",
        "model": model or frame.model,
        "content": content,
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage(used),
    }


def write(reply: Reply, used: Usage | None, frame: Frame) -> Json:
    """Return the body of a whole answer.

    Thoughts are left out: without Anthropic's signature they would be refused when the client sends them back.
    """
    content: list[Json] = []
    for part in reply.parts:
        if isinstance(part, Text):
            content.append({"type": "text", "text": part.text})
        elif isinstance(part, Call):
            told = {"id": fitting(part.id), "name": part.name, "input": part.arguments}
            content.append({"type": "tool_use", **told})
    return {
        **_frame(reply.id, reply.model, content, used, frame),
        "stop_reason": _WRITTEN[reply.finish],
        "stop_sequence": reply.stop or None,
    }


class Writer:
    """Writes a stream: one block after the other."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._block = -1
        """The index of the newest block."""
        self._open: int | str | None = None
        """What the open block is: "text", or the number of a call."""

    def begin(self, identity: str, model: str) -> bytes:
        # what is known of the usage by now depends on chance; clients take it from message_delta
        message = _frame(identity, model, [], None, self._frame)
        return _event({"type": "message_start", "message": message})

    def write(self, delta: Delta) -> bytes:
        """Return the events for a delta. Raises CannotTranslate."""
        if isinstance(delta, Said):
            return self._start("text", {"type": "text", "text": ""}) + self._say(
                {"type": "text_delta", "text": delta.text}
            )
        if isinstance(delta, Called):
            told = {"id": fitting(delta.id), "name": delta.name, "input": dict[str, Any]()}
            return self._start(delta.index, {"type": "tool_use", **told})
        if isinstance(delta, Argued):
            if self._open != delta.index:
                raise CannotTranslate("tool_calls", "calls whose arguments come in turns")
            return self._say({"type": "input_json_delta", "partial_json": delta.text})
        return b""

    def end(self, finished: Finished, used: Usage | None) -> bytes:
        delta = {"stop_reason": _WRITTEN[finished.finish], "stop_sequence": finished.stop or None}
        return b"".join(
            (
                self._stop(),
                _event({"type": "message_delta", "delta": delta, "usage": usage(used)}),
                _event({"type": "message_stop"}),
            )
        )

    def _start(self, what: int | str, block: Json) -> bytes:
        if self._open == what:
            return b""
        stopped = self._stop()
        self._block += 1
        self._open = what
        event = {"type": "content_block_start", "index": self._block, "content_block": block}
        return stopped + _event(event)

    def _say(self, delta: Json) -> bytes:
        return _event({"type": "content_block_delta", "index": self._block, "delta": delta})

    def _stop(self) -> bytes:
        if self._open is None:
            return b""
        self._open = None
        return _event({"type": "content_block_stop", "index": self._block})


def _event(body: Json) -> bytes:
    return b"event: " + str(body["type"]).encode() + b"\ndata: " + encode(body) + b"\n\n"
