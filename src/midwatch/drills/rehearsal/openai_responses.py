"""The OpenAI responses dialect: its body read, its answers rendered.

`previous_response_id` carries a conversation on: the app keeps the turns of recent responses and hands
them in as `before`.
Source: platform.openai.com/docs/api-reference/responses, as the installed client reads it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Protocol

from midwatch.drills.rehearsal import openai_api as shared
from midwatch.drills.rehearsal import refusals
from midwatch.drills.rehearsal.question import (
    BadQuestion,
    Call,
    Json,
    Question,
    Tool,
    Turn,
    as_count,
    as_list,
    as_object,
    as_text,
)
from midwatch.drills.rehearsal.refusals import Refused
from midwatch.drills.rehearsal.rendering import Event, Rendering, pieces


def read(
    body: Json, before: tuple[Turn, ...] = (), names: dict[str, str] | None = None
) -> Question:
    """Read a request. `before` and `names` (call id → tool) come from the previous response."""
    system = [str(body.get("instructions") or "")]
    turns = list(before)
    known = dict(names or {})
    value = body.get("input")
    items = (
        [{"role": "user", "content": value}] if isinstance(value, str) else as_list(value, "input")
    )
    if not items:
        raise BadQuestion("input: expected text or at least one item", "input")
    for number, raw in enumerate(items):
        _item(as_object(raw, f"input[{number}]"), f"input[{number}]", system, turns, known)
    text = body.get("text")
    return Question(
        api="responses",
        model=as_text(body.get("model"), "model"),
        system="\n".join(s for s in system if s),
        turns=tuple(turns),
        tools=tuple(_tools(body)),
        tool_choice=_choice(body.get("tool_choice")),
        stream=bool(body.get("stream")),
        include_usage=True,
        max_tokens=as_count(body.get("max_output_tokens"), "max_output_tokens"),
        schema=shared.schema_of(as_object(text, "text").get("format"))
        if text is not None
        else None,
        thinks=shared.effort_of(body, _reasoning(body).get("effort")),
        shows_thoughts=bool(_reasoning(body).get("summary")),
        tier=shared.tier_of(body),
        raw=body,
    )


def _reasoning(body: Json) -> Json:
    value = body.get("reasoning")
    return {} if value is None else as_object(value, "reasoning")


def _item(
    item: Json, where: str, system: list[str], turns: list[Turn], names: dict[str, str]
) -> None:
    match item.get("type", "message"):
        case "message":
            text, images, sounds = shared.content(item.get("content"), f"{where}.content")
            role = item.get("role")
            if role in {"system", "developer"}:
                system.append(text)
            elif role in {"user", "assistant"}:
                who = "user" if role == "user" else "assistant"
                turns.append(Turn(who, text, images=images, sounds=sounds))
            else:
                raise BadQuestion(
                    f"{where}.role: expected user, assistant or system, got {role!r}", where
                )
        case "function_call":
            name = as_text(item.get("name"), f"{where}.name")
            names[as_text(item.get("call_id"), f"{where}.call_id")] = name
            call = Call(name, str(item.get("arguments") or "{}"))
            if turns and turns[-1].role == "assistant":  # the items of one answer are one turn
                last = turns.pop()
                turns.append(Turn("assistant", last.text, (*last.calls, call)))
            else:
                turns.append(Turn("assistant", calls=(call,)))
        case "function_call_output":
            call_id = as_text(item.get("call_id"), f"{where}.call_id")
            if call_id not in names:
                raise BadQuestion(
                    f"{where}: no tool call found for call_id {call_id!r}", f"{where}.call_id"
                )
            text = shared.content(item.get("output"), f"{where}.output").text
            turns.append(Turn("result", text, tool=names[call_id]))
        case "reasoning" | "item_reference":
            pass
        case kind:
            raise BadQuestion(
                f"{where}.type: the rehearsal model does not know {kind!r}", f"{where}.type"
            )


def _tools(body: Json) -> Iterator[Tool]:
    for number, raw in enumerate(as_list(body.get("tools") or [], "tools")):
        one = as_object(raw, f"tools[{number}]")
        if one.get("type") == "function":
            yield shared.tool(one, f"tools[{number}]")


def _choice(value: Any) -> str:
    if value is None:
        return "auto"
    if isinstance(value, str):
        return "any" if value == "required" else value
    return as_text(as_object(value, "tool_choice").get("name"), "tool_choice.name")


def _items(r: Rendering, *, status: str = "completed") -> list[Json]:
    items: list[Json] = []
    if r.usage.reasoning:
        summary = [{"type": "summary_text", "text": r.thoughts}] if r.thoughts else []
        items.append({"id": f"rs_{r.token}", "type": "reasoning", "summary": summary})
    if r.text or not r.calls:
        part: Json = {"type": "output_text", "text": r.text, "annotations": [], "logprobs": []}
        ends = status if _cut(r) is None else "incomplete"
        items.append(
            {
                "id": f"msg_{r.token}",
                "type": "message",
                "role": "assistant",
                "status": ends,
                "content": [part],
            }
        )
    for index, call in enumerate(r.calls):
        items.append(
            {
                "id": f"fc_{r.token}{index}",
                "type": "function_call",
                "call_id": f"call_{r.token}{index}",
                "name": call.tool,
                "arguments": call.arguments(),
                "status": status,
            }
        )
    return items


def whole(r: Rendering) -> Json:
    """Return the body of an answer that is not streamed."""
    cut = _cut(r)
    body = _frame(r, "incomplete" if cut else "completed", _items(r))
    body["incomplete_details"] = {"reason": cut} if cut else None
    body["usage"] = {
        "input_tokens": r.usage.input,
        "input_tokens_details": {"cached_tokens": r.usage.cached, "cache_write_tokens": 0},
        "output_tokens": r.usage.output,
        "output_tokens_details": {"reasoning_tokens": r.usage.reasoning},
        "total_tokens": r.usage.input + r.usage.output,
    }
    return body


def _cut(r: Rendering) -> str | None:
    """Return why the answer is not whole, or None."""
    return {"length": "max_output_tokens", "filter": "content_filter"}.get(r.finish)


def _frame(r: Rendering, status: str, output: list[Json]) -> Json:
    raw = r.question.raw
    return {
        "id": f"resp_{r.token}",
        "object": "response",
        "created_at": r.created,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": raw.get("instructions"),
        "max_output_tokens": raw.get("max_output_tokens"),
        "model": r.model,
        "output": output,
        "parallel_tool_calls": bool(raw.get("parallel_tool_calls", True)),
        "previous_response_id": raw.get("previous_response_id"),
        "reasoning": {"effort": None, "summary": None} | _reasoning(raw),
        "service_tier": r.tier,
        "store": bool(raw.get("store", True)),
        "temperature": raw.get("temperature", 1.0),
        "text": raw.get("text") or {"format": {"type": "text"}},
        "tool_choice": raw.get("tool_choice") or "auto",
        "tools": raw.get("tools") or [],
        "top_p": raw.get("top_p", 1.0),
        "truncation": "disabled",
        "usage": None,
        "user": raw.get("user"),
        "metadata": raw.get("metadata") or {},
    }


def events(r: Rendering) -> Iterator[Event]:
    """Yield the events of a streamed answer, numbered as the API numbers them."""
    sequence = iter(range(1_000_000_000))

    def say(kind: str, said: str = "", **fields: Any) -> Event:
        return Event(event({"type": kind, "sequence_number": next(sequence), **fields}), said)

    yield say("response.created", response=_frame(r, "in_progress", []))
    yield say("response.in_progress", response=_frame(r, "in_progress", []))
    for index, item in enumerate(_items(r)):
        place: Json = {"item_id": item["id"], "output_index": index}
        match item["type"]:
            case "message":
                yield from _message_events(r, item, place, say)
            case "reasoning":
                yield from _reasoning_events(r, item, place, say)
            case _:
                yield from _call_events(item, place, say)
        yield say("response.output_item.done", output_index=index, item=item)
    ends = "response.incomplete" if _cut(r) else "response.completed"
    yield say(ends, response=whole(r))


class _Say(Protocol):
    def __call__(self, kind: str, said: str = "", **fields: Any) -> Event: ...


def _message_events(r: Rendering, item: Json, place: Json, say: _Say) -> Iterator[Event]:
    empty: Json = {**item, "status": "in_progress", "content": []}
    part = item["content"][0]
    at: Json = {**place, "content_index": 0}
    yield say("response.output_item.added", output_index=place["output_index"], item=empty)
    yield say("response.content_part.added", **at, part={**part, "text": ""})
    for piece in pieces(r.text):
        yield say("response.output_text.delta", said=piece, **at, delta=piece, logprobs=[])
    yield say("response.output_text.done", **at, text=r.text, logprobs=[])
    yield say("response.content_part.done", **at, part=part)


def _reasoning_events(r: Rendering, item: Json, place: Json, say: _Say) -> Iterator[Event]:
    empty: Json = {**item, "summary": []}
    yield say("response.output_item.added", output_index=place["output_index"], item=empty)
    if not r.thoughts:
        return
    at: Json = {**place, "summary_index": 0}
    part: Json = {"type": "summary_text", "text": r.thoughts}
    yield say("response.reasoning_summary_part.added", **at, part={**part, "text": ""})
    for piece in pieces(r.thoughts):
        yield say("response.reasoning_summary_text.delta", **at, delta=piece)
    yield say("response.reasoning_summary_text.done", **at, text=r.thoughts)
    yield say("response.reasoning_summary_part.done", **at, part=part)


def _call_events(item: Json, place: Json, say: _Say) -> Iterator[Event]:
    started = {**item, "status": "in_progress", "arguments": ""}
    yield say("response.output_item.added", output_index=place["output_index"], item=started)
    for piece in pieces(item["arguments"]):
        yield say("response.function_call_arguments.delta", said=piece, **place, delta=piece)
    done: Json = {"arguments": item["arguments"], "name": item["name"]}
    yield say("response.function_call_arguments.done", **place, **done)


def event(body: Json) -> bytes:
    """Return one server-sent event, named after its type."""
    data = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return b"event: " + str(body["type"]).encode() + b"\ndata: " + data + b"\n\n"


def stream_error(question: Question, refused: Refused) -> bytes:
    """Return the event by which a stream reports an error."""
    inner = refusals.body(refused, question.api)["error"]
    code = inner["code"] or inner["type"]
    message = inner["message"]
    return event(
        {"type": "error", "sequence_number": 0, "code": code, "message": message, "param": None}
    )
