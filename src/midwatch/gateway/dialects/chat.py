"""OpenAI's chat completions, as OpenAI and everyone who copies it takes them.

Source: platform.openai.com/docs/api-reference/chat/create; what others add (reasoning text, cache markers)
is gathered like everything that is not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from midwatch.core.calls.ask import Ask, Dialect, Kind
from midwatch.gateway.dialects import counting, reading
from midwatch.gateway.dialects.bodies import Json, wrong
from midwatch.gateway.dialects.reading import Contents, objects_of

_SYSTEM: Final = ("system", "developer")
_RESULTS: Final = ("tool", "function")


def read(headers: Mapping[str, str], body: Json) -> Ask:
    """Return what a chat request asks. Raises BadRequest."""
    contents = Contents(Kind.OPENAI, reading.model_of(body.get("model")))
    messages = reading.list_of(body.get("messages"), "messages")
    system: list[str] = []
    for number, message in enumerate(messages):
        if not isinstance(message, dict):
            wrong(f"messages[{number}]", "an object", message)
        shown = cast("Json", message)
        role, content = shown.get("role"), shown.get("content")
        if role in _SYSTEM:
            system.append(content if isinstance(content, str) else reading.plain(content))
            continue
        said = _content(contents, content, number)
        if role == "user":
            contents.prompt = said or contents.prompt
        if len(shown) > 2:
            _rest(contents, shown, number)
    _results(contents, messages)
    stream = reading.flag(body, "stream")
    return reading.ask_of(
        contents,
        Dialect.CHAT,
        headers,
        system="\n".join(system),
        tools=_tools(body),
        messages=len(messages),
        stream=stream,
        max_output=reading.bound(body, "max_completion_tokens", "max_tokens"),
        choices=reading.count_of(body, "n"),
        usage_asked=not stream or _usage_asked(body),
        **_extras(contents, body),
    )


def _content(contents: Contents, content: object, number: int) -> str:
    """Gather a message's content and return its text."""
    if isinstance(content, str):
        contents.texts.append(content)
        return content
    if content is None:
        return ""
    said = ""
    for part in objects_of(content, f"messages[{number}].content"):
        kind = part.get("type")
        if kind == "text":
            said += contents.text(part.get("text"), f"messages[{number}].content.text")
        elif kind == "image_url":
            image = part.get("image_url")
            given = cast("Json", image) if isinstance(image, dict) else {"url": image}
            contents.image(given.get("url"), given.get("detail"))
        elif kind == "input_audio":
            contents.sound(_within(part, "input_audio", "data"))
        elif kind == "file":
            _file(contents, _within(part, "file", "file_data"))
        else:
            contents.anything(part)
        if "cache_control" in part:
            contents.keep(part["cache_control"])
    return said


def _within(part: Json, name: str, key: str) -> object:
    inner = part.get(name)
    return cast("Json", inner).get(key) if isinstance(inner, dict) else None


def _file(contents: Contents, data: object) -> None:
    if data is None:
        contents.elsewhere("file")
    else:
        contents.document(data)


def _rest(contents: Contents, message: Json, number: int) -> None:
    """Gather what a message has beside its content."""
    for key, value in message.items():
        if key == "tool_calls":
            for call in objects_of(value, f"messages[{number}].tool_calls"):
                contents.anything(call.get("function", call))
                contents.tokens += counting.PER_MESSAGE
        elif key == "audio" and isinstance(value, dict):
            contents.elsewhere("audio")  # named by its id
        elif key == "cache_control":
            contents.keep(value)
        elif key not in ("role", "content", "tool_call_id"):
            contents.anything(value)


def _results(contents: Contents, messages: list[Any]) -> None:
    """Note the tool results that the request ends with, each with the call that it answers."""
    end = len(messages)
    while end and messages[end - 1].get("role") in _RESULTS:
        end -= 1
    if end == len(messages):
        return
    asked: dict[str, str] = {}
    if end:
        for call in objects_of(messages[end - 1].get("tool_calls"), "tool_calls"):
            function = call.get("function")
            if isinstance(function, dict):
                told = cast("Json", function)
                asked[str(call.get("id"))] = (
                    f"{told.get('name')}({reading.arguments(told.get('arguments'))})"
                )
    for message in messages[end:]:
        call = asked.get(str(message.get("tool_call_id")), "")
        contents.results.append(f"{call}={reading.plain(message.get('content'))}")


def _tools(body: Json) -> list[Any]:
    tools = objects_of(body.get("tools"), "tools")
    functions = objects_of(body.get("functions"), "functions")
    return [*tools, *functions] if functions else tools


def _usage_asked(body: Json) -> bool:
    options = body.get("stream_options")
    if options is None:
        return False
    return reading.flag(reading.object_of(options, "stream_options"), "include_usage")


def _extras(contents: Contents, body: Json) -> dict[str, Any]:
    """Return the facts that few requests have."""
    facts: dict[str, Any] = {"tier": reading.tier_of(body.get("service_tier"))}
    form = body.get("response_format")
    if form is not None:
        shape = reading.object_of(form, "response_format")
        facts["structured"] = shape.get("type") != "text"
        contents.texts.append(reading.plain(shape))
    modalities = body.get("modalities")
    if isinstance(modalities, list):
        facts["audio"] = "audio" in modalities
        facts["draws"] = "image" in modalities
    prediction = body.get("prediction")
    if prediction is not None:
        contents.anything(prediction)
    if body.get("web_search_options") is not None:
        facts["unbounded"] = ("web_search",)
    return facts
