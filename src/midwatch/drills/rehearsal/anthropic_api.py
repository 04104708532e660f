"""The Anthropic messages dialect: its body read, its answers and errors rendered.

Source: docs.anthropic.com/en/api/messages, messages-streaming and errors, as the installed client reads it.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from midwatch.drills.rehearsal import refusals, tokens
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
from midwatch.drills.rehearsal.refusals import Refused
from midwatch.drills.rehearsal.rendering import EFFORTS, Event, Rendering, pieces

MODELS: Final = {
    "claude-haiku-4-5": "Claude Haiku 4.5",
    "claude-sonnet-4-5": "Claude Sonnet 4.5",
    "claude-opus-4-5": "Claude Opus 4.5",
}


def read(body: Json, *, counting: bool = False) -> Question:
    """Read a request (or one to count tokens, which has no max_tokens). Raises BadQuestion."""
    limit = as_count(body.get("max_tokens"), "max_tokens")
    if limit is None and not counting:
        raise BadQuestion("max_tokens: Field required", "max_tokens")
    system, system_ttl = _system(body.get("system"))
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
        turns[-1] = dataclasses.replace(turns[-1], ttl=_ttl(body))
    tools, tools_ttl = _tools(body)
    prefill = _prefill(turns)
    thinks, shows = _thinking(body)
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
        tools_ttl=tools_ttl,
        system_ttl=system_ttl,
        explicit_cache=True,
        prefill=prefill,
        thinks=thinks,
        shows_thoughts=shows,
        tier="standard",
        raw=body,
    )


def _ttl(*blocks: Json) -> tokens.Ttl:
    """Return the longest time for which one of these blocks is to be cached."""
    found: tokens.Ttl = ""
    for block in blocks:
        control = block.get("cache_control")
        if control is None:
            continue
        ttl = as_object(control, "cache_control").get("ttl", "5m")
        if ttl not in {"5m", "1h"}:
            raise BadQuestion(f"cache_control.ttl: expected 5m or 1h, got {ttl!r}", "cache_control")
        found = "1h" if "1h" in (ttl, found) else "5m"
    return found


def _prefill(turns: list[Turn]) -> str | None:
    """Take the beginning of the answer off the turns, if the client wrote one.

    The rule is the provider's: such a text must not end with white space.
    """
    if not turns or turns[-1].role != "assistant" or turns[-1].calls:
        return None
    text = turns[-1].text
    if text != text.rstrip():
        raise BadQuestion(
            "messages: final assistant content cannot end with trailing whitespace", "messages"
        )
    turns.pop()
    return text


def _thinking(body: Json) -> tuple[int, bool]:
    """Return the tokens of reasoning, and whether they are shown."""
    value = body.get("thinking")
    thinking = {} if value is None else as_object(value, "thinking")
    if thinking.get("type") not in {"enabled", "adaptive"}:
        return 0, False
    budget = as_count(thinking.get("budget_tokens"), "thinking.budget_tokens")
    config = body.get("output_config")
    effort = as_object(config, "output_config").get("effort") if config is not None else None
    thinks = EFFORTS.get(str(effort), EFFORTS["medium"])
    return min(thinks, budget or thinks), thinking.get("display") != "omitted"


def _system(value: Any) -> tuple[str, tokens.Ttl]:
    if value is None or isinstance(value, str):
        return value or "", ""
    blocks = [as_object(b, "system") for b in as_list(value, "system")]
    text = "\n".join(as_text(b.get("text"), "system.text") for b in blocks)
    return text, _ttl(*blocks)


def _tools(body: Json) -> tuple[tuple[Tool, ...], tokens.Ttl]:
    tools: list[Tool] = []
    raws: list[Json] = []
    for number, raw in enumerate(as_list(body.get("tools") or [], "tools")):
        one = as_object(raw, f"tools.{number}")
        raws.append(one)
        schema = as_object(one.get("input_schema") or {}, f"tools.{number}.input_schema")
        tools.append(
            Tool(
                as_text(one.get("name"), f"tools.{number}.name"),
                str(one.get("description") or ""),
                schema,
            )
        )
    return tuple(tools), _ttl(*raws)


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


def _turns(message: Json, where: str, names: dict[str, str]) -> list[Turn]:
    """Return the turns of one message: tool results first, then what was said."""
    value = message.get("content")
    role = "user" if message["role"] == "user" else "assistant"
    if isinstance(value, str):
        return [Turn(role, value)]
    texts: list[str] = []
    calls: list[Call] = []
    results: list[Turn] = []
    images = 0
    ttl: tokens.Ttl = ""
    for number, raw in enumerate(as_list(value, where)):
        block = as_object(raw, f"{where}.{number}")
        ttl = _ttl(block) or ttl
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
    if ttl:
        turns[-1] = dataclasses.replace(turns[-1], ttl=ttl)
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
        "cache_creation": {
            "ephemeral_5m_input_tokens": r.usage.written - r.usage.written_1h,
            "ephemeral_1h_input_tokens": r.usage.written_1h,
        },
        "output_tokens": r.usage.output,
        "service_tier": r.tier,
        **_details(r),
    }


def _details(r: Rendering) -> Json:
    if not r.usage.reasoning:
        return {}
    return {"output_tokens_details": {"thinking_tokens": r.usage.reasoning}}


def _last_usage(r: Rendering) -> Json:
    """Return the usage that a stream ends with: the same counts, without what never changes."""
    fixed = {"cache_creation", "service_tier"}
    return {name: value for name, value in _usage(r).items() if name not in fixed}


def _content(r: Rendering) -> list[Json]:
    blocks: list[Json] = []
    if r.usage.reasoning:
        signature = base64.b64encode(f"rehearsal:{r.token}".encode()).decode()
        blocks.append({"type": "thinking", "thinking": r.thoughts, "signature": signature})
    if r.text:
        blocks.append({"type": "text", "text": r.text})
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
        "filter": "refusal",
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


def events(r: Rendering) -> Iterator[Event]:
    """Yield the events of a streamed answer."""
    usage = {**_usage(r), "output_tokens": 1}
    usage.pop("output_tokens_details", None)
    yield Event(event({"type": "message_start", "message": _frame(r, [], None, usage)}))
    yield Event(event({"type": "ping"}))
    calls = iter(r.calls)
    for index, block in enumerate(_content(r)):
        said = True
        match block["type"]:
            case "text":
                start: Json = {"type": "text", "text": ""}
                deltas = [({"type": "text_delta", "text": p}, p) for p in pieces(r.text)]
            case "thinking":
                said = False
                start = {"type": "thinking", "thinking": "", "signature": ""}
                deltas = [
                    ({"type": "thinking_delta", "thinking": p}, p) for p in pieces(r.thoughts)
                ]
                deltas.append(({"type": "signature_delta", "signature": block["signature"]}, ""))
            case _:
                start = {**block, "input": {}}
                text = next(calls).arguments()
                deltas = [
                    ({"type": "input_json_delta", "partial_json": p}, p)
                    for p in ("", *pieces(text))
                ]
        yield Event(event({"type": "content_block_start", "index": index, "content_block": start}))
        for delta, piece in deltas:
            data = event({"type": "content_block_delta", "index": index, "delta": delta})
            yield Event(data, piece if said else "")
        yield Event(event({"type": "content_block_stop", "index": index}))
    reason = _reason(r)
    end = {"stop_reason": reason, "stop_sequence": r.stop if reason == "stop_sequence" else None}
    yield Event(event({"type": "message_delta", "delta": end, "usage": _last_usage(r)}))
    yield Event(event({"type": "message_stop"}))


def event(body: Json) -> bytes:
    """Return one server-sent event, named after its type."""
    data = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return b"event: " + str(body["type"]).encode() + b"\ndata: " + data + b"\n\n"


def stream_error(question: Question, refused: Refused) -> bytes:
    """Return the event by which a stream reports an error."""
    return event(refusals.body(refused, question.api))


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
