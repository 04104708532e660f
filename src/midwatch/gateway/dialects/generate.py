"""Gemini's generateContent, streamGenerateContent and countTokens.

Source: ai.google.dev/api/generate-content. The body is protobuf's JSON: each name may be written as
`generationConfig` or as `generation_config`, whole numbers also as text. The model is in the path.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from midwatch.core.calls.ask import Ask, Dialect, Kind
from midwatch.gateway.dialects import counting, reading
from midwatch.gateway.dialects.bodies import Json, wrong
from midwatch.gateway.dialects.reading import Contents, objects_of

_OWN: Final = ("functionDeclarations", "function_declarations", "computerUse", "computer_use")
"""Tools that the client runs itself."""

_SEARCHES: Final = ("googleSearch", "google_search", "googleMaps", "google_maps", "enterpriseWebSearch",
                    "enterprise_web_search", "googleSearchRetrieval", "google_search_retrieval")  # fmt: skip
"""Tools whose findings are not billed as input (ai.google.dev/gemini-api/docs/pricing)."""

_READ: Final = reading.NO_INPUT | frozenset(
    ("contents", "systemInstruction", "system_instruction", "generationConfig", "generation_config", "tools",
     "cachedContent", "cached_content")
)  # fmt: skip
_READ_CONFIG: Final = frozenset(
    ("maxOutputTokens", "max_output_tokens", "candidateCount", "candidate_count", "responseMimeType",
     "response_mime_type", "responseSchema", "response_schema", "responseJsonSchema", "response_json_schema",
     "responseModalities", "response_modalities", "stopSequences", "stop_sequences", "thinkingConfig",
     "thinking_config")
)  # fmt: skip


def read(
    headers: Mapping[str, str],
    body: Json,
    model: str,
    *,
    dialect: Dialect = Dialect.GENERATE,
    stream: bool = False,
    array: bool = False,
) -> Ask:
    """Return what a request to Gemini asks. Raises BadRequest."""
    contents = Contents(Kind.GEMINI, reading.model_of(model))
    if dialect is Dialect.COUNT:
        inner = either(body, "generateContentRequest", "generate_content_request")
        body = body if inner is None else reading.object_of(inner, "generateContentRequest")
    turns = objects_of(body.get("contents"), "contents")
    for number, turn in enumerate(turns):
        said = _parts(contents, turn, f"contents[{number}].parts")
        role = turn.get("role", "user")
        if role == "user":
            contents.prompt = said or contents.prompt
        elif role != "model":
            contents.role(role)
        if len(turn) != 2 or "role" not in turn or "parts" not in turn:
            contents.rest(turn, "parts", "role")
    _results(contents, turns)
    config = reading.object_of(
        either(body, "generationConfig", "generation_config") or {}, "generationConfig"
    )
    if either(body, "cachedContent", "cached_content"):
        contents.elsewhere("cachedContent")
    tools = objects_of(body.get("tools"), "tools")
    unbounded = _unbounded(tools)
    for name in unbounded:
        if name not in _SEARCHES:
            contents.elsewhere(name)  # what is found, or comes of it, is input again
    contents.members(body, _READ)
    contents.members(config, _READ_CONFIG)
    return reading.ask_of(
        contents,
        dialect,
        headers,
        system=_system(contents, body),
        tools=tools,
        messages=len(turns),
        stream=stream,
        array=array,
        max_output=0
        if dialect is Dialect.COUNT
        else reading.bound(config, "maxOutputTokens", "max_output_tokens"),
        choices=_choices(config),
        unbounded=unbounded,
        tier=_tier(body),
        **_form(contents, config),
    )


def either(body: Mapping[str, Any], camel: str, snake: str) -> Any:
    """Return what stands under one of the two ways to write a name; both at once are refused."""
    first, second = body.get(camel), body.get(snake)
    if first is not None and second is not None:
        wrong(camel, f"either {camel} or {snake}", "both")
    return second if first is None else first


def _choices(config: Json) -> int:
    value = either(config, "candidateCount", "candidate_count")
    number = int(value) if isinstance(value, str) and value.isdigit() and len(value) < 4 else value
    return reading.count_of({"candidateCount": number}, "candidateCount")


def _tier(body: Json) -> str:
    tier = reading.tier_of(either(body, "serviceTier", "service_tier"))
    return "default" if tier == "standard" else tier


def _system(contents: Contents, body: Json) -> str:
    system = either(body, "systemInstruction", "system_instruction")
    if system is None:
        return ""
    if isinstance(system, str):
        return system
    texts: list[str] = []
    given = reading.object_of(system, "systemInstruction")
    contents.rest(given, "parts")
    for part in objects_of(_listed(given.get("parts")), "systemInstruction.parts"):
        text = part.get("text")
        texts.append(text if len(part) == 1 and isinstance(text, str) else reading.plain(part))
        if "fileData" in part or "file_data" in part:
            contents.elsewhere("file")
    return "\n".join(texts)


def _parts(contents: Contents, turn: Json, param: str) -> str:
    """Gather the parts of a turn and return its text."""
    said = ""
    for part in objects_of(_listed(turn.get("parts")), param):
        if "text" in part:
            said += contents.text(part["text"], f"{param}.text")
        inline = either(part, "inlineData", "inline_data")
        if inline is not None:
            _inline(contents, reading.object_of(inline, f"{param}.inlineData"))
        stored = either(part, "fileData", "file_data")
        if stored is not None:
            contents.elsewhere("file")
            contents.rest(
                reading.object_of(stored, f"{param}.fileData"),
                "fileUri",
                "file_uri",
                "mimeType",
                "mime_type",
            )
        if len(part) > 1 or not ("text" in part or inline is not None or stored is not None):
            _other(contents, part)
    return said


def _listed(parts: object) -> object:
    """Return parts as a list: protobuf's JSON takes one alone, too."""
    return [cast("Json", parts)] if isinstance(parts, dict) else parts


_SEEN: Final = frozenset(
    ("text", "inlineData", "inline_data", "fileData", "file_data", "thoughtSignature", "thought_signature",
     "thought")
)  # fmt: skip


def _other(contents: Contents, part: Json) -> None:
    for key, value in part.items():
        if key in ("thoughtSignature", "thought_signature"):
            contents.sealed(value)
        elif key not in _SEEN:
            contents.parts(value)
            contents.tokens += counting.PER_MESSAGE + len(key)
        elif key == "thought" and not isinstance(value, bool):
            contents.beside(value)


def _inline(contents: Contents, blob: Json) -> None:
    kind = either(blob, "mimeType", "mime_type")
    name = kind if isinstance(kind, str) else ""
    data = blob.get("data")
    if name.startswith("image/"):
        contents.image(data)
    elif name.startswith(("audio/", "video/")):
        contents.sound(data, name)
    else:
        contents.document(data, name)
    contents.rest(blob, "data", "mimeType", "mime_type")


def _results(contents: Contents, turns: list[Json]) -> None:
    """Note the function responses that the newest turn brings, each with the call that it answers."""
    if not turns:
        return
    responses = _functions(turns[-1], "functionResponse", "function_response")
    if not responses:
        return
    calls = _functions(turns[-2], "functionCall", "function_call") if len(turns) > 1 else []
    for number, response in enumerate(responses):
        # parallel calls of one function are told apart by their order
        same = [c for c in calls if c.get("name") == response.get("name")]
        nth = sum(r.get("name") == response.get("name") for r in responses[:number])
        args = reading.arguments(same[nth].get("args")) if nth < len(same) else ""
        result = reading.plain(response.get("response"))
        contents.results.append(f"{response.get('name')}({args})={result}")


def _functions(turn: Json, camel: str, snake: str) -> list[Json]:
    given = turn.get("parts")
    found: list[Json] = []
    for part in cast("list[object]", given)[:256] if isinstance(given, list) else ():
        function = either(cast("Json", part), camel, snake) if isinstance(part, dict) else None
        if isinstance(function, dict):
            found.append(cast("Json", function))
    return found


def _unbounded(tools: list[Json]) -> tuple[str, ...]:
    """Return the provider's own tools: none of them has a bound that a request could set."""
    names = [name for tool in tools for name, value in tool.items() if value is not None]
    return tuple(dict.fromkeys(name[:64] for name in names if name not in _OWN))


def _form(contents: Contents, config: Json) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    mime = either(config, "responseMimeType", "response_mime_type")
    schemas = [
        either(config, "responseSchema", "response_schema"),
        either(config, "responseJsonSchema", "response_json_schema"),
    ]
    for schema in schemas:
        if schema is not None:
            contents.texts.append(reading.plain(schema))
    facts["structured"] = any(s is not None for s in schemas) or mime not in (None, "text/plain")
    modalities = either(config, "responseModalities", "response_modalities")
    if isinstance(modalities, list):
        names = [str(name).upper() for name in cast("list[Any]", modalities)[:8]]
        facts["audio"], facts["draws"] = "AUDIO" in names, "IMAGE" in names
    return facts
