"""OpenAI's responses. Source: platform.openai.com/docs/api-reference/responses/create.

The input may be elsewhere (an earlier response, a conversation, a stored prompt), and tools that run at the
provider may go round and round at the client's expense: both are told to whoever reserves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

from midwatch.core.calls.ask import Ask, Dialect, Kind
from midwatch.gateway.dialects import counting, reading
from midwatch.gateway.dialects.bodies import Json, NotCarried, wrong
from midwatch.gateway.dialects.reading import Contents, objects_of

_ELSEWHERE: Final = ("previous_response_id", "conversation", "prompt")

_READ: Final = reading.NO_INPUT | frozenset(
    ("input", "instructions", "tools", "max_output_tokens", "text", "background", "max_tool_calls",
     "previous_response_id", "conversation")
)  # fmt: skip
"""Members of the request that are read, or that no model reads."""

_SEARCHES: Final = ("web_search", "file_search")
_UNBOUNDED: Final = ("code_interpreter", "image_generation", "computer", "mcp", "shell")
_OWN: Final = ("function", "custom", "local_shell", "apply_patch", "namespace", "tool_search")
"""Kinds of tools that the client runs itself."""

_RESULTS: Final = (
    "function_call_output",
    "custom_tool_call_output",
    "local_shell_call_output",
    "shell_call_output",
    "computer_call_output",
    "apply_patch_call_output",
)
_TEXTS: Final = ("input_text", "output_text", "text", "summary_text", "reasoning_text", "refusal")


def read(headers: Mapping[str, str], body: Json) -> Ask:
    """Return what a request for a response asks. Raises BadRequest."""
    if reading.flag(body, "background"):
        raise NotCarried(
            "background: what is made after the answer is told to nobody here, and could not be held to a"
            " budget; ask for it without, as a stream if it takes long",
            "background",
        )
    contents = Contents(Kind.OPENAI, reading.model_of(body.get("model")))
    given, items = body.get("input"), list[Any]()
    if isinstance(given, str):
        contents.prompt = contents.text(given, "input")
    elif given is not None:
        items = reading.list_of(given, "input")
        for number, item in enumerate(items):
            if not isinstance(item, dict):
                wrong(f"input[{number}]", "an object", item)
            _item(contents, cast("Json", item), number)
        _results(contents, items)
    for name in _ELSEWHERE:
        if body.get(name) is not None:
            contents.elsewhere(name)
    tools = objects_of(body.get("tools"), "tools")
    instructions = body.get("instructions")
    if instructions is not None and not isinstance(instructions, str):
        wrong("instructions", "text", instructions)
    contents.members(body, _READ)
    paid = _tools(contents, body, tools)
    return reading.ask_of(
        contents,
        Dialect.RESPONSES,
        headers,
        system=instructions or "",
        tools=tools,
        messages=max(len(items), 1),
        stream=reading.flag(body, "stream"),
        max_output=reading.bound(body, "max_output_tokens"),
        tier=reading.tier_of(body.get("service_tier")),
        **paid,
        **_form(contents, body),
    )


def _item(contents: Contents, item: Json, number: int) -> None:
    """Gather one item of the input."""
    kind = item.get("type", "message")
    if kind == "message":
        said = _content(contents, item.get("content"), f"input[{number}].content")
        role = item.get("role")
        if role == "user":
            contents.prompt = said or contents.prompt
        contents.role(role)
        if len(item) != 2 or "role" not in item or "content" not in item:
            contents.rest(item, "role", "content")
    elif kind == "item_reference":
        contents.elsewhere("item_reference")
        contents.rest(item)
    elif kind in _RESULTS:
        output: object = item.get("output")
        if isinstance(output, list):
            _content(contents, cast("list[Any]", output), f"input[{number}].output")
        elif isinstance(output, dict) and cast("Json", output).get("type") == "computer_screenshot":
            shot = cast("Json", output)
            contents.image(shot.get("image_url"))
            contents.rest(shot, "image_url")
        else:
            contents.anything(cast("object", output))
        contents.rest(item, "output")
    elif kind == "image_generation_call":
        contents.image(item.get("result"))
        contents.rest(item, "result")
    else:
        contents.sealed(item.get("encrypted_content"))
        contents.rest(item, "encrypted_content")


def _content(contents: Contents, content: object, param: str) -> str:
    if isinstance(content, str):
        contents.texts.append(content)
        return content
    said = ""
    for part in objects_of(content, param):
        kind = part.get("type")
        if kind in _TEXTS:
            said += contents.text(part.get("text", part.get("refusal")), f"{param}.text")
            if len(part) != 2 or "text" not in part:
                contents.rest(part, "text" if "text" in part else "refusal")
        elif kind == "input_image":
            contents.image(part.get("image_url") or part.get("file_id"), part.get("detail"))
            contents.rest(part, "image_url", "file_id", "detail")
        elif kind == "input_audio":
            audio = part.get("input_audio")
            given = cast("Json", audio) if isinstance(audio, dict) else {}
            contents.sound(given.get("data"), given.get("format"))
            contents.rest(given, "data", "format")
            contents.rest(part, "input_audio")
        elif kind == "input_file":
            data = part.get("file_data")
            if data is None or "file_id" in part or "file_url" in part:
                contents.elsewhere("file")
            if data is not None:
                contents.document(data)
            contents.rest(part, "file_data", "file_url", "file_id")
        else:
            contents.rest(part)
    return said


def _results(contents: Contents, items: list[Any]) -> None:
    """Note the tool results that the input ends with, each with its call where that is in the input, too."""
    end = len(items)
    while end and items[end - 1].get("type") in _RESULTS:
        end -= 1
    calls: dict[str, str] = {}
    for item in items[max(end - 64, 0) : end] if end < len(items) else ():
        if "call_id" in item:
            given = item.get("arguments", item.get("input", item.get("action")))
            calls[str(item["call_id"])] = f"{item.get('name')}({reading.arguments(given)})"
    for item in items[end:]:
        call = calls.get(str(item.get("call_id")), "")
        contents.results.append(f"{call}={reading.plain(item.get('output'))}")


def _tools(contents: Contents, body: Json, tools: list[Json]) -> dict[str, Any]:
    """Return what the provider's own tools may cost: paid searches, and what has no bound. What they find is
    input again, and of unknown size."""
    rounds = reading.bound(body, "max_tool_calls")
    searches, unbounded = 0, list[str]()
    for tool in _flat(tools):
        kind = str(tool.get("type"))[:64]
        if kind.startswith(_OWN):
            continue
        if kind != "image_generation":
            contents.elsewhere(kind)
        if rounds is None or kind.startswith(_UNBOUNDED) or not kind.startswith(_SEARCHES):
            unbounded.append(kind)
        else:
            searches = rounds
    return {"searches": searches, "unbounded": tuple(dict.fromkeys(unbounded))}


def _flat(tools: list[Json]) -> Iterator[Json]:
    """Yield tools, and those within a namespace."""
    for tool in tools:
        yield tool
        if tool.get("type") == "namespace":
            yield from _flat(objects_of(tool.get("tools"), "tools.tools"))


def _form(contents: Contents, body: Json) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    text = body.get("text")
    if text is not None:
        form: object = reading.object_of(text, "text").get("format")
        contents.rest(cast("Json", text), "format", "verbosity")
        if isinstance(form, dict):
            shape = cast("Json", form)
            facts["structured"] = shape.get("type") != "text"
            contents.texts.append(reading.plain(shape))
            contents.tokens += counting.PER_MESSAGE
    return facts
