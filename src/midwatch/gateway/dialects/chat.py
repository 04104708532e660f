"""OpenAI's chat completions, as OpenAI and everyone who copies it takes them.

Source: platform.openai.com/docs/api-reference/chat/create; what others add (reasoning text, cache markers)
is gathered like everything that is not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from midwatch.core.calls.ask import Ask, Dialect, Kind
from midwatch.gateway.dialects import counting, reading
from midwatch.gateway.dialects.bodies import Json, NotCarried, wrong
from midwatch.gateway.dialects.reading import Contents, objects_of

_SYSTEM: Final = ("system", "developer")
_RESULTS: Final = ("tool", "function")
_ROLES: Final = frozenset(("user", "assistant", *_SYSTEM, *_RESULTS))

_READ: Final = reading.NO_INPUT | frozenset(
    ("messages", "tools", "functions", "max_tokens", "max_completion_tokens", "n", "response_format", "modalities",
     "prediction", "audio")
)  # fmt: skip
"""Members of the request that are read, or that no model reads."""

_OTHERS: Final = ("models", "fallbacks")
"""By which routers (OpenRouter, LiteLLM) are told to answer with another model."""

_SEARCHES: Final = ("web_search_options", "search_parameters", "enable_search", "web_search")
"""By which providers (OpenAI, xAI, Alibaba) are told to search, for a fee of its own."""

_AT_A_FEE: Final = frozenset((*_SEARCHES, "plugins", "tools", "preset"))
"""Where else it may stand that something is to be done at a fee."""

_OWN: Final = ("function", "custom")
"""Kinds of tools that the client runs itself."""


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
        else:
            said = _content(contents, content, number)
            if role == "user":
                contents.prompt = said or contents.prompt
        if len(shown) != 2 or "content" not in shown or role not in _ROLES:
            _rest(contents, shown, number)
    _results(contents, messages)
    contents.members(body, _READ)
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
            if len(part) != 2 or "text" not in part:
                contents.rest(part, "text")
        elif kind in _MEDIA:
            _media(contents, part, kind)
        else:
            if isinstance(kind, str) and kind.startswith(("video", "audio", "document")):
                contents.elsewhere(kind[:64])  # an address, or packed
            contents.rest(part)
    return said


_MEDIA: Final = ("image_url", "input_audio", "file")


def _media(contents: Contents, part: Json, kind: str) -> None:
    """Gather a picture, sound or a file."""
    inner = part.get(kind)
    given = cast("Json", inner) if isinstance(inner, dict) else {"url": inner}
    if kind == "image_url":
        contents.image(given.get("url"), given.get("detail"))
        contents.rest(given, "url", "detail")
    elif kind == "input_audio":
        contents.sound(given.get("data"), given.get("format"))
        contents.rest(given, "data", "format")
    else:
        if given.get("file_data") is None or given.get("file_id") is not None:
            contents.elsewhere("file")
        if given.get("file_data") is not None:
            contents.document(given["file_data"])
        contents.rest(given, "file_data")
    contents.rest(part, kind)


def _rest(contents: Contents, message: Json, number: int) -> None:
    """Gather what a message has beside its content."""
    contents.role(message.get("role"))
    for key, value in message.items():
        if key in ("role", "content"):
            continue
        if key == "tool_calls":
            for call in objects_of(value, f"messages[{number}].tool_calls"):
                _call(contents, call)
        elif key == "tool_call_id":
            contents.identity(value)
        elif key == "cache_control":
            contents.keep(value)
        else:
            if key == "audio":
                contents.elsewhere("audio")  # named by its id
            contents.parts(value)
            if len(key) > reading.MAX_ID:
                contents.texts.append(key)


def _call(contents: Contents, call: Json) -> None:
    """Gather the call of a tool."""
    contents.tokens += counting.PER_MESSAGE
    contents.anything(call.get("function"))
    contents.rest(call, "function")


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
    for name in _OTHERS:
        if name in body and body.get(name) not in (None, [], [contents.model]):
            raise NotCarried(
                f"{name}: the provider would choose among models that policy, price and budget have not judged;"
                " list them under models.chains of the fleet file instead",
                name,
            )
    unbounded = _paid(contents, body)
    if unbounded:
        facts["unbounded"] = unbounded
        for name in unbounded:
            contents.elsewhere(name)  # what is found comes on top of the input
    return facts


def _paid(contents: Contents, body: Json) -> tuple[str, ...]:
    """Return what the provider is to do beside answering, at a fee and with no bound."""
    if _AT_A_FEE.isdisjoint(body) and not contents.model.endswith(":online"):
        return ()
    found = [name for name in _SEARCHES if body.get(name) not in (None, False, {"mode": "off"})]
    plugins = objects_of(body.get("plugins"), "plugins")
    found += [f"plugin {str(plugin.get('id'))[:64]}" for plugin in plugins]
    kinds = [tool.get("type") for tool in objects_of(body.get("tools"), "tools")]
    found += [kind[:64] for kind in kinds if isinstance(kind, str) and kind not in _OWN]
    if contents.model.endswith(":online"):
        found.append("online")
    if body.get("preset") is not None:
        contents.elsewhere("preset")
    return tuple(dict.fromkeys(found))
