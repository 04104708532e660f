"""OpenAI's chat completions: answers and streams, read and written.

Source: platform.openai.com/docs/api-reference/chat/object and /chat/streaming. Servers that copy it are read as
they are: indexes of tool calls that start anywhere or repeat, reasons of other dialects, content in parts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from midwatch.core.pricing.usage import Usage
from midwatch.gateway.dialects.stream import objects
from midwatch.gateway.translate.fields import arguments_of, dump, encode, within, written
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
    "stop": Finish.STOP,
    "length": Finish.LENGTH,
    "tool_calls": Finish.TOOLS,
    "function_call": Finish.TOOLS,
    "content_filter": Finish.FILTER,
    # of servers that speak for other models
    "eos": Finish.STOP,
    "end_turn": Finish.STOP,
    "stop_sequence": Finish.STOP,
    "tool_use": Finish.TOOLS,
    "max_tokens": Finish.LENGTH,
    "model_length": Finish.LENGTH,
    "refusal": Finish.FILTER,
}

_WRITTEN: Final = {
    Finish.STOP: "stop",
    Finish.SEQUENCE: "stop",
    Finish.LENGTH: "length",
    Finish.TOOLS: "tool_calls",
    Finish.FILTER: "content_filter",
}

_THOUGHTS: Final = ("reasoning_content", "reasoning")
"""Where servers put reasoning; two of them at once say the same."""


def _finish(reason: object) -> Finish:
    if reason is None or reason == "":
        return (
            Finish.STOP
        )  # a whole answer, or [DONE], without any reason: the server means the end
    found = _READ.get(reason) if isinstance(reason, str) else None
    if found is None:
        raise CannotTranslate("finish_reason", f"{str(reason)[:40]!r} is none that others know")
    return found


def _saying(said: Json) -> Iterable[Text | Thought]:
    """Yield what a message or a delta says."""
    for key in _THOUGHTS:
        if isinstance(said.get(key), str) and said[key]:
            yield Thought(said[key])
            break
    content = said.get("content")
    if isinstance(content, str):
        yield Text(content)
    for part in objects(content):
        if part.get("type") == "thinking":
            yield from (Thought(str(t.get("text", ""))) for t in objects(part.get("thinking")))
        elif isinstance(part.get("text"), str):
            yield Text(part["text"])
        else:
            raise CannotTranslate(f"content.{part.get('type')}", "only text is translated")
    if isinstance(said.get("refusal"), str):
        yield Text(said["refusal"])
    for key in ("audio", "function_call", "images"):
        if said.get(key):
            raise CannotTranslate(key, "only text and tool calls are translated")


def read(body: Json) -> Reply:
    """Return what an answer says. Raises CannotTranslate."""
    identity = str(body.get("id") or "")
    choices = objects(body.get("choices"))
    if not choices:
        raise CannotTranslate("choices", "the provider gave none")
    said = within(choices[0], "message")
    parts: list[Text | Thought | Call] = [*_saying(said)]
    finish = _finish(choices[0].get("finish_reason"))
    for number, call in enumerate(objects(said.get("tool_calls"))):
        function = within(call, "function")
        name = function.get("name")
        if not isinstance(name, str) or not name:
            raise CannotTranslate("tool_calls", "a call without a function")
        try:
            given = arguments_of(
                written(function.get("arguments")), "tool_calls.function.arguments"
            )
        except CannotTranslate:
            if finish is Finish.LENGTH:
                continue  # cut in the middle of it, which the reason says
            raise
        parts.append(Call(str(call.get("id") or made(identity, number, name)), name, given))
    if said.get("refusal"):
        finish = Finish.FILTER
    called = any(isinstance(part, Call) for part in parts)
    return Reply(
        joined(parts), ended(finish, called=called), identity, str(body.get("model") or "")
    )


class Reader:
    """Reads a stream: chunks in, deltas out."""

    def __init__(self) -> None:
        self._reason: object = None
        self._refused = False
        self._calls: list[list[str]] = []
        """Id and arguments so far of each call."""
        self._numbers: dict[object, int] = {}
        """The server's index → our own."""
        self._identity = ""

    def read(self, chunk: Json) -> list[Delta]:
        """Return what a chunk says. Raises CannotTranslate."""
        self._identity = self._identity or str(chunk.get("id") or "")
        found: list[Delta] = []
        for choice in objects(chunk.get("choices")):
            if choice.get("index", 0) != 0:
                continue
            if choice.get("finish_reason"):
                self._reason = choice["finish_reason"]
            delta = within(choice, "delta")
            self._refused = self._refused or bool(delta.get("refusal"))
            said = (part for part in _saying(delta) if part.text)
            found += ((Said if isinstance(p, Text) else Mused)(p.text) for p in said)
            for call in objects(delta.get("tool_calls")):
                found += self._call(call)
        return found

    def _call(self, call: Json) -> Iterable[Delta]:
        told = within(call, "function")
        name, identity = told.get("name"), call.get("id")
        index = call.get("index", identity)
        number = self._numbers.get(index)
        named = isinstance(name, str) and bool(name)
        again = isinstance(identity, str) and identity and number is not None
        if number is None or (again and named and self._calls[number][0] != identity):
            if not named:
                raise CannotTranslate("tool_calls", "a call begins without its function's name")
            number = self._numbers[index] = len(self._calls)
            shown = str(identity or made(self._identity, number, name))
            self._calls.append([shown, ""])
            yield Called(number, shown, str(name))
        piece = written(told.get("arguments"))
        if piece:
            self._calls[number][1] += piece
            yield Argued(number, piece)

    def end(self) -> Finished:
        """Return why the stream ended, which it did well. Raises CannotTranslate."""
        finish = Finish.FILTER if self._refused else _finish(self._reason)
        if finish is not Finish.LENGTH:
            for _, given in self._calls:
                arguments_of(given, "tool_calls.function.arguments")
        return Finished(ended(finish, called=bool(self._calls)))


# -- writing -----------------------------------------------------------------------------------


def usage(used: Usage) -> Json:
    """Return usage as this dialect tells it: cached within the input, reasoning within the output."""
    told: Json = {
        "prompt_tokens": used.input_tokens,
        "completion_tokens": used.output_tokens,
        "total_tokens": used.input_tokens + used.output_tokens,
        "prompt_tokens_details": {"cached_tokens": used.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": used.reasoning},
    }
    if used.cache_write_tokens:
        told["prompt_tokens_details"]["cache_write_tokens"] = used.cache_write_tokens
    return told


def write(reply: Reply, used: Usage | None, frame: Frame) -> Json:
    """Return the body of a whole answer."""
    texts = [part.text for part in reply.parts if isinstance(part, Text)]
    thoughts = [part.text for part in reply.parts if isinstance(part, Thought)]
    calls = [part for part in reply.parts if isinstance(part, Call)]
    message: Json = {"role": "assistant", "content": "".join(texts) or None, "refusal": None}
    if thoughts:
        message["reasoning_content"] = "".join(thoughts)
    if calls:
        message["tool_calls"] = [
            {
                "id": fitting(call.id),
                "type": "function",
                "function": {"name": call.name, "arguments": dump(call.arguments)},
            }
            for call in calls
        ]
    elif not texts:
        message["content"] = ""
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": _WRITTEN[reply.finish],
    }
    body: Json = {
        "id": reply.id or frame.id,
        "object": "chat.completion",
        "created": frame.created,
        "model": reply.model or frame.model,
        "choices": [choice],
    }
    return body if used is None else {**body, "usage": usage(used)}


class Writer:
    """Writes a stream."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._head: Json = {}

    def begin(self, identity: str, model: str) -> bytes:
        self._head = {
            "id": identity or self._frame.id,
            "object": "chat.completion.chunk",
            "created": self._frame.created,
            "model": model or self._frame.model,
        }
        return self._chunk({"role": "assistant", "content": ""})

    def write(self, delta: Delta) -> bytes:
        if isinstance(delta, Said):
            return self._chunk({"content": delta.text})
        if isinstance(delta, Mused):
            return self._chunk({"reasoning_content": delta.text})
        if isinstance(delta, Called):
            function = {"name": delta.name, "arguments": ""}
            call = {
                "index": delta.index,
                "id": fitting(delta.id),
                "type": "function",
                "function": function,
            }
            return self._chunk({"tool_calls": [call]})
        if isinstance(delta, Argued):
            call = {"index": delta.index, "function": {"arguments": delta.text}}
            return self._chunk({"tool_calls": [call]})
        return self._chunk({}, _WRITTEN[delta.finish])

    def end(self, finished: Finished, used: Usage | None) -> bytes:
        parts = [self.write(finished)]
        if self._frame.usage_asked and used is not None:
            none: list[Json] = []
            chunk = {**self._head, "choices": none, "usage": usage(used)}
            parts.append(b"data: " + encode(chunk) + b"\n\n")
        return b"".join((*parts, b"data: [DONE]\n\n"))

    def _chunk(self, delta: Json, reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        chunk = {**self._head, "choices": [choice]}
        if self._frame.usage_asked:
            chunk["usage"] = None
        return b"data: " + encode(chunk) + b"\n\n"
