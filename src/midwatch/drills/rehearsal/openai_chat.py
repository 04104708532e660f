"""The OpenAI chat completions dialect: its body read, its answers rendered.

Source: platform.openai.com/docs/api-reference/chat, as the installed client reads it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from midwatch.drills.rehearsal import openai_api as shared
from midwatch.drills.rehearsal import refusals
from midwatch.drills.rehearsal.question import (
    BadQuestion,
    Call,
    Json,
    Question,
    Turn,
    as_count,
    as_list,
    as_object,
    as_stops,
    as_text,
)
from midwatch.drills.rehearsal.refusals import Refused
from midwatch.drills.rehearsal.rendering import Event, Rendering, pieces


def read(body: Json) -> Question:
    """Read a request. Raises BadQuestion with the field's name."""
    if body.get("n") not in (None, 1):
        raise BadQuestion("n: the rehearsal model gives one choice; leave n out", "n")
    system: list[str] = []
    turns: list[Turn] = []
    names: dict[str, str] = {}
    messages = as_list(body.get("messages"), "messages")
    if not messages:
        raise BadQuestion("messages: expected at least one message", "messages")
    for number, raw in enumerate(messages):
        where = f"messages[{number}]"
        message = as_object(raw, where)
        text, images, sounds = shared.content(message.get("content"), f"{where}.content")
        match message.get("role"):
            case "system" | "developer":
                system.append(text)
            case "user":
                turns.append(Turn("user", text, images=images, sounds=sounds))
            case "assistant":
                calls = _calls(message, where, names)
                turns.append(Turn("assistant", text, calls))
            case "tool":
                call_id = as_text(message.get("tool_call_id"), f"{where}.tool_call_id")
                if call_id not in names:
                    raise BadQuestion(
                        f"{where}: a tool message must follow the tool call it answers, "
                        f"and none has the id {call_id!r}",
                        f"{where}.tool_call_id",
                    )
                turns.append(Turn("result", text, tool=names[call_id]))
            case role:
                raise BadQuestion(
                    f"{where}.role: expected system, user, assistant or tool, got {role!r}",
                    f"{where}.role",
                )
    prefill = _prefill(messages[-1], turns)
    options = body.get("stream_options")
    limit = as_count(body.get("max_completion_tokens"), "max_completion_tokens")
    return Question(
        api="chat",
        model=as_text(body.get("model"), "model"),
        system="\n".join(system),
        turns=tuple(turns),
        tools=tuple(_tools(body)),
        tool_choice=_choice(body.get("tool_choice")),
        stream=bool(body.get("stream")),
        include_usage=isinstance(options, dict)
        and bool(as_object(options, "o").get("include_usage")),
        max_tokens=limit or as_count(body.get("max_tokens"), "max_tokens"),
        stops=as_stops(body.get("stop"), "stop"),
        schema=shared.schema_of(body.get("response_format")),
        prefill=prefill,
        thinks=shared.effort_of(body, body.get("reasoning_effort")),
        tier=shared.tier_of(body),
        raw=body,
    )


def _prefill(last: Json, turns: list[Turn]) -> str | None:
    """Take the beginning of the answer off the turns, where the client marked one (`prefix: true`).

    OpenAI's own models answer anew after a message of their own; those of Mistral and DeepSeek go on
    with one that is marked so.
    """
    if last.get("role") == "assistant" and last.get("prefix") is True and turns[-1].text:
        return turns.pop().text
    return None


def _tools(body: Json) -> Iterator[Any]:
    for number, raw in enumerate(as_list(body.get("tools") or [], "tools")):
        where = f"tools[{number}]"
        one = as_object(raw, where)
        if one.get("type") == "function":
            yield shared.tool(
                as_object(one.get("function"), f"{where}.function"), f"{where}.function"
            )


def _calls(message: Json, where: str, names: dict[str, str]) -> tuple[Call, ...]:
    calls: list[Call] = []
    for number, raw in enumerate(as_list(message.get("tool_calls") or [], f"{where}.tool_calls")):
        call = as_object(raw, f"{where}.tool_calls[{number}]")
        function = as_object(call.get("function"), f"{where}.tool_calls[{number}].function")
        name = as_text(function.get("name"), f"{where}.tool_calls[{number}].function.name")
        names[str(call.get("id"))] = name
        calls.append(Call(name, str(function.get("arguments") or "{}")))
    return tuple(calls)


def _choice(value: Any) -> str:
    if value is None:
        return "auto"
    if isinstance(value, str):
        return "any" if value == "required" else value
    choice = as_object(value, "tool_choice")
    return as_text(
        as_object(choice.get("function"), "tool_choice.function").get("name"), "tool_choice"
    )


def _usage(r: Rendering) -> Json:
    return {
        "prompt_tokens": r.usage.input,
        "completion_tokens": r.usage.output,
        "total_tokens": r.usage.input + r.usage.output,
        "prompt_tokens_details": {
            "cached_tokens": r.usage.cached,
            "audio_tokens": r.usage.audio,
        },
        "completion_tokens_details": {
            "reasoning_tokens": r.usage.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _finish(r: Rendering) -> str:
    return {"calls": "tool_calls", "length": "length", "filter": "content_filter"}.get(
        r.finish, "stop"
    )


def whole(r: Rendering) -> Json:
    """Return the body of an answer that is not streamed."""
    message: Json = {
        "role": "assistant",
        "content": r.text or None,
        "refusal": None,
        "annotations": [],
    }
    if r.calls:
        message["tool_calls"] = [
            {
                "id": f"call_{r.token}{index}",
                "type": "function",
                "function": {"name": call.tool, "arguments": call.arguments()},
            }
            for index, call in enumerate(r.calls)
        ]
    elif not r.text:
        message["content"] = ""
    return {
        "id": f"chatcmpl-{r.token}",
        "object": "chat.completion",
        "created": r.created,
        "model": r.model,
        "choices": [
            {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish(r)}
        ],
        "usage": _usage(r),
        "service_tier": r.tier,
        "system_fingerprint": "fp_rehearsal",
    }


def events(r: Rendering) -> Iterator[Event]:
    """Yield the events of a streamed answer; usage only when it was asked for."""

    def chunk(
        delta: Json | None, finish: str | None = None, usage: Json | None = None, said: str = ""
    ) -> Event:
        choices = (
            []
            if delta is None
            else [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]
        )
        body: Json = {
            "id": f"chatcmpl-{r.token}",
            "object": "chat.completion.chunk",
            "created": r.created,
            "model": r.model,
            "service_tier": r.tier,
            "system_fingerprint": "fp_rehearsal",
            "choices": choices,
        }
        if r.include_usage:
            body["usage"] = usage
        return Event(event(body), said)

    yield chunk(
        {"role": "assistant", "content": None if r.calls and not r.text else "", "refusal": None}
    )
    for piece in pieces(r.text):
        yield chunk({"content": piece}, said=piece)
    for index, call in enumerate(r.calls):
        start = {"name": call.tool, "arguments": ""}
        head = {
            "index": index,
            "id": f"call_{r.token}{index}",
            "type": "function",
            "function": start,
        }
        yield chunk({"tool_calls": [head]}, said=call.tool)
        for piece in pieces(call.arguments()):
            delta = {"index": index, "function": {"arguments": piece}}
            yield chunk({"tool_calls": [delta]}, said=piece)
    yield chunk({}, _finish(r))
    if r.include_usage:
        yield chunk(None, usage=_usage(r))
    yield Event(b"data: [DONE]\n\n")


def event(body: Json) -> bytes:
    """Return one server-sent event."""
    return (
        b"data: "
        + json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
        + b"\n\n"
    )


def stream_error(question: Question, refused: Refused) -> bytes:
    """Return the event by which a stream reports an error."""
    return event(refusals.body(refused, question.api))
