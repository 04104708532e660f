"""Anthropic's messages and count_tokens. Source: docs.anthropic.com/en/api/messages and its pages on tool use,
vision, PDF support, prompt caching and server tools.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from midwatch.core.calls.ask import Ask, Dialect, Kind
from midwatch.core.pricing.anthropic import region_of
from midwatch.gateway.dialects import reading
from midwatch.gateway.dialects.bodies import Json, wrong
from midwatch.gateway.dialects.reading import Contents, objects_of

_OWN: Final = ("custom", "bash_", "text_editor_", "computer_", "memory_", "tool_search_")
"""Tools that the client runs itself, or that cost nothing but tokens."""

_READ: Final = reading.NO_INPUT | frozenset(
    (
        "messages",
        "system",
        "tools",
        "max_tokens",
        "output_format",
        "output_config",
        "cache_control",
        "speed",
    )
)
"""Members of the request that are read, or that no model reads."""

_BOUNDED: Final = ("web_search_", "web_fetch_")
"""Tools of the provider that `max_uses` bounds."""


def read(headers: Mapping[str, str], body: Json, dialect: Dialect = Dialect.MESSAGES) -> Ask:
    """Return what a message request asks. Raises BadRequest."""
    contents = Contents(Kind.ANTHROPIC, reading.model_of(body.get("model")))
    messages = reading.list_of(body.get("messages"), "messages")
    for number, message in enumerate(messages):
        if not isinstance(message, dict):
            wrong(f"messages[{number}]", "an object", message)
        shown = cast("Json", message)
        said = _content(contents, shown.get("content"), f"messages[{number}].content")
        role = shown.get("role")
        if role == "user":
            contents.prompt = said or contents.prompt
        elif role != "assistant":
            contents.role(role)
        if len(shown) != 2 or "role" not in shown or "content" not in shown:
            contents.rest(shown, "role", "content")
    _results(contents, messages)
    tools = objects_of(body.get("tools"), "tools")
    for tool in tools:
        contents.keep(tool.get("cache_control"))
    contents.keep(body.get("cache_control"))
    structured = body.get("output_format") is not None or _configured(body)
    contents.anything(body.get("output_format"))
    contents.anything(body.get("output_config"))
    contents.members(body, _READ)
    paid = _paid(contents, body, tools)
    return reading.ask_of(
        contents,
        dialect,
        headers,
        system=_system(contents, body.get("system")),
        tools=tools,
        messages=len(messages),
        stream=dialect is Dialect.MESSAGES and reading.flag(body, "stream"),
        max_output=0 if dialect is Dialect.COUNT else reading.bound(body, "max_tokens"),
        tier=_tier(body),
        region=region_of(body.get("inference_geo")),
        structured=structured,
        **paid,
    )


def _configured(body: Json) -> bool:
    config = body.get("output_config")
    return isinstance(config, dict) and cast("Json", config).get("format") is not None


def _tier(body: Json) -> str:
    if body.get("speed") == "fast":
        return "fast"
    tier = reading.tier_of(body.get("service_tier"))
    return "default" if tier == "standard_only" else tier


def _system(contents: Contents, system: object) -> str:
    if system is None:
        return ""
    if isinstance(system, str):
        return system
    texts: list[str] = []
    for part in objects_of(system, "system"):
        text = part.get("text")
        bare = part.keys() <= _TEXT
        texts.append(text if bare and isinstance(text, str) else reading.plain(part))
        contents.keep(part.get("cache_control"))
    return "\n".join(texts)


_TEXT: Final = frozenset(("type", "text", "cache_control"))


def _content(contents: Contents, content: object, param: str) -> str:
    """Gather a message's content and return its text."""
    if isinstance(content, str):
        contents.texts.append(content)
        return content
    said = ""
    for block in objects_of(content, param):
        kind = block.get("type")
        if kind == "text":
            said += contents.text(block.get("text"), f"{param}.text")
            if len(block) != 2 or "text" not in block:
                _foreign(contents, block.get("citations"))
                contents.rest(block, "text", "citations")
        else:
            _block(contents, block, kind, param)
    return said


def _block(contents: Contents, block: Json, kind: object, param: str) -> None:
    if kind == "image":
        source = _source(block)
        contents.image(source.get("data", source.get("url")))
        contents.rest(source, "data", "url", "media_type")
        contents.rest(block, "source")
    elif kind == "document":
        _document(contents, block, param)
    elif kind == "tool_use":
        contents.anything(block.get("name"))
        contents.anything(block.get("input"))
        contents.rest(block, "name", "input")
    elif kind == "tool_result":
        _content(contents, block.get("content"), f"{param}.content")
        contents.rest(block, "content")
    elif kind == "thinking":
        contents.anything(block.get("thinking"))
        contents.sealed(block.get("signature"))
        contents.rest(block, "thinking", "signature")
    elif kind == "redacted_thinking":
        contents.sealed(block.get("data"))
        contents.rest(block, "data")
    elif isinstance(kind, str) and kind.endswith("_tool_result"):
        _foreign(contents, block)
    else:
        if kind == "container_upload":
            contents.elsewhere("file")
        contents.rest(block)


def _foreign(contents: Contents, value: object) -> None:
    """Gather what the provider's tools found: much of it is sealed."""
    if isinstance(value, dict):
        for key, inner in cast("Json", value).items():
            if len(key) > reading.MAX_ID:
                contents.texts.append(key)
            if key in ("encrypted_content", "encrypted_index"):
                contents.sealed(inner)
            elif key == "cache_control":
                contents.keep(inner)
            else:
                _foreign(contents, inner)
    elif isinstance(value, list):
        for inner in cast("list[Any]", value):
            _foreign(contents, inner)
    else:
        contents.anything(value)


def _source(block: Json) -> Json:
    source = block.get("source")
    return cast("Json", source) if isinstance(source, dict) else {}


def _document(contents: Contents, block: Json, param: str) -> None:
    source = _source(block)
    kind = source.get("type")
    if kind == "text":
        contents.text(source.get("data"), f"{param}.source.data")
        contents.rest(source, "data", "media_type")
    elif kind == "content":
        _content(contents, source.get("content"), f"{param}.source.content")
        contents.rest(source, "content")
    elif kind == "base64":
        contents.document(source.get("data"), source.get("media_type"))
        contents.rest(source, "data", "media_type")
    else:
        contents.elsewhere("file")
        contents.rest(source, "url", "file_id")
    contents.rest(block, "source", "citations")
    _foreign(contents, block.get("citations"))


def _results(contents: Contents, messages: list[Any]) -> None:
    """Note the tool results that the newest message brings, each with the call that it answers."""
    last = messages[-1].get("content") if messages else None
    results = [
        cast("Json", block)
        for block in (cast("list[object]", last) if isinstance(last, list) else ())
        if isinstance(block, dict) and cast("Json", block).get("type") == "tool_result"
    ]
    if not results:
        return
    before = messages[-2].get("content") if len(messages) > 1 else None
    asked: dict[str, str] = {}
    for block in cast("list[object]", before) if isinstance(before, list) else ():
        if isinstance(block, dict):
            call = cast("Json", block)
            asked[str(call.get("id"))] = (
                f"{call.get('name')}({reading.arguments(call.get('input'))})"
            )
    for result in results:
        call = asked.get(str(result.get("tool_use_id")), "")
        contents.results.append(f"{call}={reading.plain(result.get('content'))}")


def _paid(contents: Contents, body: Json, tools: list[Json]) -> dict[str, Any]:
    """Return what the provider's own tools may cost: paid searches, and what has no bound. What they find is
    input again, and of unknown size."""
    searches, unbounded = 0, list[str]()
    for tool in tools:
        kind = tool.get("type")
        if not isinstance(kind, str) or kind.startswith(_OWN):
            continue
        contents.elsewhere(kind[:64])
        uses = reading.bound(tool, "max_uses")
        if uses is None or not kind.startswith(_BOUNDED):
            unbounded.append(kind[:64])
        elif kind.startswith("web_search_"):
            searches += uses
    if body.get("mcp_servers"):
        contents.elsewhere("mcp_servers")
        unbounded.append("mcp_servers")
    return {"searches": searches, "unbounded": tuple(dict.fromkeys(unbounded))}
