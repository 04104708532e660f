"""The Anthropic messages dialect: its body read, its answers and errors rendered.

Source: docs.anthropic.com/en/api/messages, messages-streaming and errors, as the installed client reads it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

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
    as_stops,
    as_text,
)
from midwatch.drills.rehearsal.rendering import Rendering, pieces

MODELS: Final = {
    "claude-haiku-4-5": "Claude Haiku 4.5",
    "claude-sonnet-4-5": "Claude Sonnet 4.5",
    "claude-opus-4-5": "Claude Opus 4.5",
}
_KINDS: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}


def error(status: int, message: str, param: str | None = None) -> Json:
    """Return the error body that belongs to a status; this dialect names no field apart."""
    del param
    kind = _KINDS.get(status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": None}


def read(body: Json, *, counting: bool = False) -> Question:
    """Read a request (or one to count tokens, which has no max_tokens). Raises BadQuestion."""
    limit = as_count(body.get("max_tokens"), "max_tokens")
    if limit is None and not counting:
        raise BadQuestion("max_tokens: Field required", "max_tokens")
    system, caches_system = _system(body.get("system"))
    turns: list[Turn] = []
    names: dict[str, str] = {}
    messages = as_list(body.get("messages"), "messages")
    if not messages:
        raise BadQuestion("messages: at least one message is required", "messages")
    for number, raw in enumerate(messages):
        message = as_object(raw, f"messages.{number}")
        role = message.get("role")
        if role not in {"user", "assistant"}:
            raise BadQuestion(
                f"messages.{number}.role: expected user or assistant, got {role!r}", "messages"
            )
        turns += _turns(message, f"messages.{number}.content", names)
    if turns and isinstance(body.get("cache_control"), dict):
        turns[-1] = _marked(turns[-1])
    tools, caches_tools = _tools(body)
    return Question(
        api="messages",
        model=as_text(body.get("model"), "model"),
        system=system,
        turns=tuple(turns),
        tools=tools,
        tool_choice=_choice(body.get("tool_choice")),
        stream=bool(body.get("stream")),
        include_usage=True,
        max_tokens=limit,
        stops=as_stops(body.get("stop_sequences"), "stop_sequences"),
        schema=_schema(body),
        caches_tools=caches_tools,
        caches_system=caches_system,
        explicit_cache=True,
        raw=body,
    )


def _system(value: Any) -> tuple[str, bool]:
    if value is None or isinstance(value, str):
        return value or "", False
    blocks = [as_object(b, "system") for b in as_list(value, "system")]
    text = "\n".join(as_text(b.get("text"), "system.text") for b in blocks)
    return text, any("cache_control" in b for b in blocks)


def _tools(body: Json) -> tuple[tuple[Tool, ...], bool]:
    tools: list[Tool] = []
    cached = False
    for number, raw in enumerate(as_list(body.get("tools") or [], "tools")):
        one = as_object(raw, f"tools.{number}")
        cached = cached or "cache_control" in one
        schema = as_object(one.get("input_schema") or {}, f"tools.{number}.input_schema")
        tools.append(
            Tool(
                as_text(one.get("name"), f"tools.{number}.name"),
                str(one.get("description") or ""),
                schema,
            )
        )
    return tuple(tools), cached


def _schema(body: Json) -> Json | None:
    config = body.get("output_config")
    form = as_object(config, "output_config").get("format") if config is not None else None
    if isinstance(form, dict) and as_object(form, "f").get("type") == "json_schema":
        return as_object(as_object(form, "f").get("schema") or {}, "output_config.format.schema")
    return None


def _choice(value: Any) -> str:
    if value is None:
        return "auto"
    choice = as_object(value, "tool_choice")
    return str(choice.get("name")) if choice.get("type") == "tool" else str(choice.get("type"))


def _marked(turn: Turn) -> Turn:
    return Turn(turn.role, turn.text, turn.calls, turn.tool, turn.images, cacheable=True)


def _turns(message: Json, where: str, names: dict[str, str]) -> list[Turn]:
    """Return the turns of one message: tool results first, then what was said."""
    value = message.get("content")
    role = "user" if message["role"] == "user" else "assistant"
    if isinstance(value, str):
        return [Turn(role, value)]
    texts: list[str] = []
    calls: list[Call] = []
    results: list[Turn] = []
    images, marked = 0, False
    for number, raw in enumerate(as_list(value, where)):
        block = as_object(raw, f"{where}.{number}")
        marked = marked or "cache_control" in block
        match block.get("type"):
            case "text":
                texts.append(as_text(block.get("text"), f"{where}.{number}.text"))
            case "image" | "document":
                images += 1
            case "tool_use":
                names[str(block.get("id"))] = as_text(block.get("name"), f"{where}.{number}.name")
                calls.append(
                    Call(
                        str(block["name"]),
                        as_object(block.get("input") or {}, f"{where}.{number}.input"),
                    )
                )
            case "tool_result":
                results.append(_result(block, f"{where}.{number}", names))
            case "thinking" | "redacted_thinking":
                pass
            case kind:
                raise BadQuestion(
                    f"{where}.{number}: the rehearsal model does not know {kind!r} blocks", where
                )
    turns = list(results)
    if texts or calls or images or not results:
        turns.append(Turn(role, "\n".join(texts), tuple(calls), images=images))
    if marked:
        turns[-1] = _marked(turns[-1])
    return turns


def _result(block: Json, where: str, names: dict[str, str]) -> Turn:
    call_id = str(block.get("tool_use_id"))
    if call_id not in names:
        raise BadQuestion(
            f"{where}: unexpected `tool_use_id` found in `tool_result` blocks: {call_id}. Each `tool_result` "
            "block must have a corresponding `tool_use` block in the previous message.",
            where,
        )
    value = block.get("content") or ""
    if not isinstance(value, str):
        parts = [as_object(p, where) for p in as_list(value, where)]
        value = "\n".join(str(p.get("text", "")) for p in parts)
    return Turn("result", value, tool=names[call_id])


def _usage(r: Rendering) -> Json:
    return {
        "input_tokens": r.usage.input - r.usage.cached - r.usage.written,
        "cache_creation_input_tokens": r.usage.written,
        "cache_read_input_tokens": r.usage.cached,
        "output_tokens": r.usage.output,
        "service_tier": "standard",
    }


def _content(r: Rendering) -> list[Json]:
    blocks: list[Json] = [{"type": "text", "text": r.text}] if r.text else []
    for index, call in enumerate(r.calls):
        value: Any = call.args if not isinstance(call.args, str) else {"": call.args}
        blocks.append(
            {"type": "tool_use", "id": f"toolu_{r.token}{index}", "name": call.tool, "input": value}
        )
    return blocks


def _reason(r: Rendering) -> str:
    return {
        "calls": "tool_use",
        "length": "max_tokens",
        "end": "end_turn",
        "stop": "stop_sequence",
    }[r.finish]


def _frame(r: Rendering, content: list[Json], reason: str | None, usage: Json) -> Json:
    return {
        "id": f"msg_{r.token}",
        "type": "message",
        "role": "assistant",
        "model": r.model,
        "content": content,
        "stop_reason": reason,
        "stop_sequence": r.stop if reason == "stop_sequence" else None,
        "usage": usage,
    }


def whole(r: Rendering) -> Json:
    """Return the body of an answer that is not streamed."""
    return _frame(r, _content(r), _reason(r), _usage(r))


def events(r: Rendering) -> Iterator[bytes]:
    """Yield the events of a streamed answer."""
    usage = _usage(r)
    yield event(
        {"type": "message_start", "message": _frame(r, [], None, {**usage, "output_tokens": 1})}
    )
    yield event({"type": "ping"})
    calls = iter(r.calls)
    for index, block in enumerate(_content(r)):
        if block["type"] == "text":
            start: Json = {"type": "text", "text": ""}
            deltas = [{"type": "text_delta", "text": piece} for piece in pieces(r.text)]
        else:
            start = {**block, "input": {}}
            text = next(calls).arguments()
            deltas = [{"type": "input_json_delta", "partial_json": p} for p in ("", *pieces(text))]
        yield event({"type": "content_block_start", "index": index, "content_block": start})
        for delta in deltas:
            yield event({"type": "content_block_delta", "index": index, "delta": delta})
        yield event({"type": "content_block_stop", "index": index})
    reason = _reason(r)
    end = {"stop_reason": reason, "stop_sequence": r.stop if reason == "stop_sequence" else None}
    yield event({"type": "message_delta", "delta": end, "usage": usage})
    yield event({"type": "message_stop"})


def event(body: Json) -> bytes:
    """Return one server-sent event, named after its type."""
    data = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return b"event: " + str(body["type"]).encode() + b"\ndata: " + data + b"\n\n"


def stream_error(status: int, message: str) -> bytes:
    """Return the event by which a stream reports an error."""
    return event(error(status, message))


def model(name: str, created: int) -> Json:
    """Return one model."""
    return {
        "type": "model",
        "id": name,
        "display_name": MODELS.get(name, name),
        "created_at": datetime.fromtimestamp(created, UTC).isoformat().replace("+00:00", "Z"),
        "lifecycle": "active",
    }


def models(created: int) -> Json:
    """Return the body of GET /v1/models."""
    data = [model(name, created) for name in MODELS]
    return {"data": data, "has_more": False, "first_id": data[0]["id"], "last_id": data[-1]["id"]}
