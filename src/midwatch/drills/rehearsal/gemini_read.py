"""The Gemini dialect, read: generateContent and countTokens bodies become questions.

Like the provider's own parser it takes every name in camel case and in snake case, and it knows
types of schemas in capitals.
Source: ai.google.dev/api/generate-content and /api/caching, as the google-genai client writes them.
"""

from __future__ import annotations

import json
from typing import Any, Final, cast

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
from midwatch.drills.rehearsal.rendering import EFFORTS, thinking

MAX_SCHEMA_DEPTH: Final = 32
"""Schemas nested deeper are refused."""

Names = dict[str, str]


def take(body: Json, name: str) -> Any:
    """Return a field by its camel case name, or by the same in snake case, or None."""
    if name in body:
        return body[name]
    return body.get("".join(f"_{c.lower()}" if c.isupper() else c for c in name))


def read(body: Json, model: str, *, stream: bool = False, as_array: bool = False) -> Question:
    """Read a request; the model comes from the path. Raises BadQuestion with the field's name."""
    cached = take(body, "cachedContent")
    if cached is not None:
        raise BadQuestion(
            f"CachedContent not found (or permission denied): {cached!r}", "cachedContent", 403
        )
    turns = read_contents(take(body, "contents"))
    prefill = turns.pop().text if turns[-1].role == "assistant" and not turns[-1].calls else None
    config = _object(body, "generationConfig")
    if take(config, "candidateCount") not in (None, 1):
        raise BadQuestion(
            "generationConfig.candidateCount: the rehearsal model gives one candidate; leave it out",
            "generationConfig",
        )
    thinks, shows = _thinking(config, model)
    return Question(
        api="generate",
        model=model,
        system=_system(body),
        turns=tuple(turns),
        tools=read_tools(body),
        tool_choice=_choice(body),
        stream=stream,
        include_usage=True,
        max_tokens=as_count(take(config, "maxOutputTokens"), "generationConfig.maxOutputTokens"),
        stops=as_stops(take(config, "stopSequences"), "generationConfig.stopSequences"),
        schema=_schema(config),
        prefill=prefill,
        thinks=thinks,
        shows_thoughts=shows,
        tier=str(take(body, "serviceTier") or "standard").lower(),
        as_array=as_array,
        raw=body,
    )


def read_count(body: Json, model: str) -> Question:
    """Read countTokens: bare contents, or a whole request inside."""
    inner = take(body, "generateContentRequest")
    return read(body if inner is None else as_object(inner, "generateContentRequest"), model)


def read_contents(value: Any) -> list[Turn]:
    """Return the turns of `contents`. Raises BadQuestion."""
    turns: list[Turn] = []
    names: Names = {}
    contents = as_list(value, "contents")
    for number, raw in enumerate(contents):
        content = as_object(raw, f"contents[{number}]")
        role = content.get("role", "user")
        if role not in {"user", "model", "function"}:
            raise BadQuestion("Please use a valid role: user, model.", f"contents[{number}].role")
        turns += _turns(content, str(role), f"contents[{number}].parts", names)
    if not turns:
        raise BadQuestion("contents are required: * GenerateContentRequest.contents", "contents")
    return turns


def _turns(content: Json, role: str, where: str, names: Names) -> list[Turn]:
    """Return the turns of one content: function results first, then what was said."""
    texts: list[str] = []
    calls: list[Call] = []
    results: list[Turn] = []
    images = sounds = 0
    for number, raw in enumerate(as_list(content.get("parts"), where)):
        part = as_object(raw, f"{where}[{number}]")
        call, result = take(part, "functionCall"), take(part, "functionResponse")
        blob = take(part, "inlineData") or take(part, "fileData")
        if call is not None:
            one = as_object(call, f"{where}[{number}].functionCall")
            name = as_text(one.get("name"), f"{where}[{number}].functionCall.name")
            names[str(one.get("id"))] = name
            calls.append(Call(name, as_object(one.get("args") or {}, f"{where}[{number}].args")))
        elif result is not None:
            results.append(_result(as_object(result, f"{where}[{number}].functionResponse"), where))
        elif blob is not None:
            kind = str(take(as_object(blob, f"{where}[{number}].inlineData"), "mimeType"))
            sounds += kind.startswith("audio/")
            images += not kind.startswith("audio/")
        elif part.get("text") is not None and not part.get("thought"):
            texts.append(as_text(part["text"], f"{where}[{number}].text"))
        elif not part:
            raise BadQuestion(
                f"{where}[{number}]: required oneof field 'data' must have one initialized field",
                where,
            )
    turns = list(results)
    if texts or calls or images or sounds or not results:
        who = "assistant" if role == "model" else "user"
        turns.append(Turn(who, "\n".join(texts), tuple(calls), images=images, sounds=sounds))
    return turns


def _result(result: Json, where: str) -> Turn:
    value = as_object(result.get("response") or {}, f"{where}.functionResponse.response")
    only = next(iter(value.values())) if set(value) in ({"result"}, {"output"}) else value
    text = only if isinstance(only, str) else json.dumps(only, ensure_ascii=False)
    return Turn("result", text, tool=as_text(result.get("name"), f"{where}.functionResponse.name"))


def _object(body: Json, name: str) -> Json:
    value = take(body, name)
    return {} if value is None else as_object(value, name)


def _system(body: Json) -> str:
    instruction = _object(body, "systemInstruction")
    value: Any = instruction.get("parts") or []
    parts: list[Any] = [value] if isinstance(value, dict) else as_list(value, "systemInstruction")
    return "\n".join(str(as_object(p, "systemInstruction.parts").get("text", "")) for p in parts)


def read_tools(body: Json) -> tuple[Tool, ...]:
    """Return the functions that are declared; the provider's own tools are not rehearsed."""
    tools: list[Tool] = []
    for number, raw in enumerate(as_list(body.get("tools") or [], "tools")):
        declared: Any = take(as_object(raw, f"tools[{number}]"), "functionDeclarations") or []
        for one in as_list(declared, f"tools[{number}].functionDeclarations"):
            where = f"tools[{number}].functionDeclarations"
            function = as_object(one, where)
            schema: Any = take(function, "parametersJsonSchema") or function.get("parameters") or {}
            tools.append(
                Tool(
                    as_text(function.get("name"), f"{where}.name"),
                    str(function.get("description") or ""),
                    _lowered(as_object(schema, f"{where}.parameters")),
                )
            )
    return tuple(tools)


def _lowered(schema: Json, depth: int = 0) -> Json:
    """Return a schema with its types as JSON schema writes them: `OBJECT` becomes `object`."""
    if depth > MAX_SCHEMA_DEPTH:
        raise BadQuestion(f"a schema is nested deeper than {MAX_SCHEMA_DEPTH}", "parameters")

    def lower(name: str, value: Any) -> Any:
        if name == "type" and isinstance(value, str):
            return value.lower()
        if isinstance(value, dict):
            return _lowered(cast("Json", value), depth + 1)
        if isinstance(value, list):
            return [lower("", one) for one in cast("list[Any]", value)]
        return value

    return {name: lower(name, value) for name, value in schema.items()}


def _choice(body: Json) -> str:
    config = _object(_object(body, "toolConfig"), "functionCallingConfig")
    match str(config.get("mode", "AUTO")).upper():
        case "NONE":
            return "none"
        case "ANY":
            allowed = as_list(take(config, "allowedFunctionNames") or [], "allowedFunctionNames")
            return as_text(allowed[0], "allowedFunctionNames") if len(allowed) == 1 else "any"
        case _:
            return "auto"


def _schema(config: Json) -> Json | None:
    if take(config, "responseMimeType") != "application/json":
        return None
    schema: Any = take(config, "responseJsonSchema") or take(config, "responseSchema") or {}
    return _lowered(as_object(schema, "generationConfig.responseSchema"))


def _thinking(config: Json, model: str) -> tuple[int, bool]:
    """Return the tokens of reasoning, and whether the client wants to see them."""
    wants = _object(config, "thinkingConfig")
    shows = bool(take(wants, "includeThoughts"))
    budget, level = take(wants, "thinkingBudget"), take(wants, "thinkingLevel")
    if isinstance(budget, int) and not isinstance(budget, bool) and budget >= 0:
        return min(budget, EFFORTS["medium"]), shows
    return thinking(model, None if level is None else str(level).lower()), shows
