"""Anthropic's messages: requests read into a conversation, and written from one.

Source: docs.anthropic.com/en/api/messages and its pages on tool use, vision and structured outputs.
"""

from __future__ import annotations

from typing import Final

from midwatch.core.calls.ask import Kind
from midwatch.gateway.translate import fields, schemas
from midwatch.gateway.translate.chat_request import plain_name
from midwatch.gateway.translate.fields import objects_of, sort, table, text_of, unless
from midwatch.gateway.translate.form import (
    Call,
    CannotTranslate,
    Choice,
    Conversation,
    Document,
    Form,
    Image,
    Json,
    Mode,
    Notes,
    Part,
    Result,
    Role,
    Text,
    Tool,
    Turn,
    fitting,
    settled,
)

_BODY: Final = table(
    "model messages system max_tokens stop_sequences stream temperature top_p top_k tools tool_choice metadata"
    " output_config output_format thinking",
    "cache_control service_tier speed diagnostics user_profile_id workspace_id",
    container="the container is Anthropic's own",
    mcp_servers="the servers are called by Anthropic itself",
    context_management="the history is edited by Anthropic itself",
    inference_geo="another provider does not promise where it computes",
)

_MESSAGE: Final = table("role content")
_SHARED: Final = "cache_control"
_TEXT: Final = table("type text citations", _SHARED)
_IMAGE: Final = table("type source", f"{_SHARED} transformations")
_DOCUMENT: Final = table(
    "type source title citations",
    _SHARED,
    context="only this dialect describes a document beside it",
)
_SOURCE: Final = table(
    "type media_type data url", file_id="the file is kept by Anthropic; send it as base64"
)
_USE: Final = table("type id name input caller", f"{_SHARED} toolset_name")
_RESULT: Final = table("type tool_use_id content is_error", f"{_SHARED} toolset_name")
_TOOL: Final = table(
    "type name description input_schema allowed_callers defer_loading",
    f"{_SHARED} strict input_examples eager_input_streaming",
)
_CHOICE: Final = table("type name disable_parallel_tool_use")
_CONFIG: Final = table("format", "effort", task_budget="the budget is counted by Anthropic itself")
_FORM: Final = table("type schema")
_METADATA: Final = table("user_id")

_IMAGES: Final = ("image/jpeg", "image/png", "image/gif", "image/webp")

DEFAULT_MAX_TOKENS: Final = 4_096
"""max_tokens is demanded. So many every model of Anthropic's can give; used where its own bound is not known."""

_NO_PARAMETERS: Final[Json] = {"type": "object", "properties": {}}


def read(body: Json, notes: Notes) -> Conversation:
    """Return what a request says. Raises CannotTranslate."""
    given = sort(body, _BODY, "", notes)
    _thinking(given.get("thinking"), notes)
    turns = [
        _turn(sort(message, _MESSAGE, "messages.", notes), number, notes)
        for number, message in enumerate(objects_of(given.get("messages"), "messages"))
    ]
    metadata = sort(
        fields.object_of(given.get("metadata", {}), "metadata"), _METADATA, "metadata.", notes
    )
    conversation = Conversation(
        turns=tuple(turns),
        system=_system(given.get("system"), notes),
        tools=tuple(_tool(tool, notes) for tool in objects_of(given.get("tools"), "tools")),
        choice=_choice(given.get("tool_choice"), notes),
        max_output=fields.whole_of(given.get("max_tokens"), "max_tokens", 1),
        temperature=fields.number_of(given.get("temperature"), "temperature", 0, 1),
        top_p=fields.number_of(given.get("top_p"), "top_p", 0, 1),
        top_k=fields.whole_of(given.get("top_k"), "top_k"),
        stops=fields.texts_of(given.get("stop_sequences"), "stop_sequences"),
        form=_form(given, notes),
        user=text_of(metadata.get("user_id", ""), "metadata.user_id"),
        stream=fields.flag_of(given.get("stream", False), "stream"),
    )
    return settled(conversation, "messages")


def _thinking(value: object, notes: Notes) -> None:
    """Refuse thinking that is asked for: a turn without it would be refused when it goes back to Anthropic."""
    if value is None:
        return
    kind = fields.object_of(value, "thinking").get("type")
    if kind == "adaptive":
        notes.leave("thinking")
    else:
        unless(
            kind,
            ("disabled",),
            "thinking",
            "the thoughts of others lack the signature that is asked for later",
        )


def _system(value: object, notes: Notes) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,) if value else ()
    texts: list[str] = []
    for block in objects_of(value, "system"):
        part = _block(block, notes)
        if not isinstance(part, Text):
            raise CannotTranslate(f"system.{block.get('type')}", "expected text")
        if part.text:
            texts.append(part.text)
    return tuple(texts)


def _turn(message: Json, number: int, notes: Notes) -> Turn:
    role, content = message.get("role"), message.get("content")
    if role not in ("user", "assistant"):
        raise CannotTranslate(f"messages[{number}].role", "expected user or assistant")
    who = Role.USER if role == "user" else Role.MODEL
    if isinstance(content, str):
        return Turn(who, (Text(content),))
    found: list[Part] = []
    for block in objects_of(content, "messages.content"):
        if block.get("type") in ("thinking", "redacted_thinking"):
            # signed for Anthropic alone, and no use to anybody else
            notes.leave("messages.content.thinking")
            continue
        part = _block(block, notes)
        if isinstance(part, Call) is (who is Role.USER) and isinstance(part, Call | Result):
            raise CannotTranslate(
                f"messages[{number}].content", f"{block.get('type')} of the wrong side"
            )
        if who is Role.MODEL and isinstance(part, Image | Document):
            raise CannotTranslate(
                f"messages[{number}].content", "only a user can send what is no text"
            )
        found.append(part)
    return Turn(who, tuple(found))


def _block(block: Json, notes: Notes) -> Part:
    kind = block.get("type")
    where = f"messages.content.{kind}"
    if kind == "text":
        told = sort(block, _TEXT, f"{where}.", notes)
        if told.get("citations"):
            notes.leave(f"{where}.citations")
        return Text(text_of(told.get("text"), where))
    if kind == "image":
        told = sort(block, _IMAGE, f"{where}.", notes)
        return _image(fields.object_of(told.get("source"), f"{where}.source"), where, notes)
    if kind == "document":
        return _document(sort(block, _DOCUMENT, f"{where}.", notes), where, notes)
    if kind == "tool_use":
        told = sort(block, _USE, f"{where}.", notes)
        if "caller" in told:
            unless(
                told["caller"],
                ({"type": "direct"},),
                f"{where}.caller",
                "called by Anthropic's own tools",
            )
        return Call(
            text_of(told.get("id"), f"{where}.id"),
            text_of(told.get("name"), f"{where}.name"),
            fields.object_of(told.get("input", {}), f"{where}.input"),
        )
    if kind == "tool_result":
        return _result(sort(block, _RESULT, f"{where}.", notes), where, notes)
    raise CannotTranslate(where, fields.UNKNOWN)


def _image(source: Json, where: str, notes: Notes) -> Image:
    told = sort(source, _SOURCE, f"{where}.source.", notes)
    if told.get("type") == "base64":
        mime = text_of(told.get("media_type"), f"{where}.source.media_type")
        return Image(mime.lower(), text_of(told.get("data"), f"{where}.source.data"))
    if told.get("type") == "url":
        url = text_of(told.get("url"), f"{where}.source.url")
        return Image(url=fields.web_url(url, f"{where}.source.url"))
    raise CannotTranslate(f"{where}.source", "expected base64 or url")


def _document(told: Json, where: str, notes: Notes) -> Document:
    if "citations" in told:
        unless(
            told["citations"],
            ({"enabled": False},),
            f"{where}.citations",
            "only this dialect cites documents",
        )
    source = sort(
        fields.object_of(told.get("source"), f"{where}.source"), _SOURCE, f"{where}.source.", notes
    )
    if source.get("type") != "base64" or source.get("media_type") != "application/pdf":
        raise CannotTranslate(f"{where}.source", "only PDF files within the request are translated")
    return Document(
        text_of(source.get("data"), where), text_of(told.get("title", ""), f"{where}.title")
    )


def _result(told: Json, where: str, notes: Notes) -> Result:
    content = told.get("content", "")
    found: list[Text | Image] = []
    if isinstance(content, str):
        found = [Text(content)] if content else []
    else:
        for inner in objects_of(content, f"{where}.content"):
            part = _block(inner, notes)
            if not isinstance(part, Text | Image):
                raise CannotTranslate(
                    f"{where}.{inner.get('type')}", "only text and pictures are translated here"
                )
            found.append(part)
    failed = fields.flag_of(told.get("is_error", False), f"{where}.is_error")
    return Result(
        text_of(told.get("tool_use_id"), f"{where}.tool_use_id"), tuple(found), failed=failed
    )


def _tool(tool: Json, notes: Notes) -> Tool:
    kind = tool.get("type", "custom")
    if kind != "custom":
        raise CannotTranslate(f"tools.{kind}", "this tool is Anthropic's own")
    told = sort(tool, _TOOL, "tools.", notes)
    if "allowed_callers" in told:
        unless(
            told["allowed_callers"],
            (["direct"],),
            "tools.allowed_callers",
            "called by Anthropic's own tools",
        )
    if "defer_loading" in told:
        unless(
            told["defer_loading"],
            (False,),
            "tools.defer_loading",
            "the search for tools is Anthropic's own",
        )
    schema = fields.object_of(told.get("input_schema"), "tools.input_schema")
    return Tool(
        text_of(told.get("name"), "tools.name"),
        text_of(told.get("description", ""), "tools.description"),
        None if schema == _NO_PARAMETERS else schema,
    )


def _choice(value: object, notes: Notes) -> Choice:
    if value is None:
        return Choice()
    given = sort(fields.object_of(value, "tool_choice"), _CHOICE, "tool_choice.", notes)
    kind, name = given.get("type"), given.get("name", "")
    alone = fields.flag_of(
        given.get("disable_parallel_tool_use", False), "disable_parallel_tool_use"
    )
    if kind == "tool":
        return Choice(Mode.ANY, text_of(name, "tool_choice.name"), not alone)
    if kind not in ("auto", "any", "none"):
        raise CannotTranslate("tool_choice.type", "expected auto, any, none or tool")
    return Choice(Mode(kind), "", not alone)


def _form(given: Json, notes: Notes) -> Form | None:
    config = sort(
        fields.object_of(given.get("output_config", {}), "output_config"),
        _CONFIG,
        "output_config.",
        notes,
    )
    form = config.get("format", given.get("output_format"))
    if form is None:
        return None
    told = sort(
        fields.object_of(form, "output_config.format"), _FORM, "output_config.format.", notes
    )
    if told.get("type") != "json_schema":
        raise CannotTranslate("output_config.format.type", "expected json_schema")
    return Form(fields.object_of(told.get("schema"), "output_config.format.schema"))


# -- writing -----------------------------------------------------------------------------------


def write(said: Conversation, model: str, notes: Notes, longest: int | None = None) -> Json:
    """Return the body for a model, whose answers have at most `longest` tokens. Raises CannotTranslate."""
    body: Json = {
        "model": model,
        "max_tokens": _max_tokens(said.max_output, longest, notes),
        "messages": [_write_turn(turn) for turn in said.turns],
    }
    if said.system:
        blocks = [{"type": "text", "text": text} for text in said.system]
        body["system"] = said.system[0] if len(said.system) == 1 else blocks
    if said.tools:
        body["tools"] = [_write_tool(tool) for tool in said.tools]
    _write_choice(body, said.choice)
    _write_sampling(body, said, notes)
    for stop in said.stops:
        if not stop.strip():
            raise CannotTranslate("stop_sequences", "Anthropic's stops are more than white space")
    if said.stops:
        body["stop_sequences"] = list(said.stops)
    if said.form is not None:
        body["output_config"] = {"format": _write_form(said.form, notes)}
    if said.user:
        body["metadata"] = {"user_id": said.user}
    if said.stream:
        body["stream"] = True
    return body


def _max_tokens(asked: int | None, longest: int | None, notes: Notes) -> int:
    if asked is None:
        return longest or DEFAULT_MAX_TOKENS
    if longest is not None and asked > longest:
        notes.leave(f"max_tokens above {longest}")
        return longest
    return asked


def _write_sampling(body: Json, said: Conversation, notes: Notes) -> None:
    if said.temperature is not None:
        if said.temperature > 1:
            notes.leave("temperature above 1")  # hotter than Anthropic's hottest
        body["temperature"] = min(said.temperature, 1)
    if said.top_p is not None:
        if said.temperature is None:
            body["top_p"] = said.top_p
        else:
            notes.leave("top_p beside temperature")  # newer models refuse both at once
    if said.top_k is not None:
        body["top_k"] = said.top_k
    for name, value in (("presence_penalty", said.presence), ("frequency_penalty", said.frequency)):
        if value:
            raise CannotTranslate(name, "Anthropic's dialect does not have it")
    if said.seed is not None:
        raise CannotTranslate("seed", "Anthropic's dialect does not have it")


def _write_turn(turn: Turn) -> Json:
    role = "user" if turn.role is Role.USER else "assistant"
    if len(turn.parts) == 1 and isinstance(turn.parts[0], Text):
        return {"role": role, "content": turn.parts[0].text}
    return {"role": role, "content": [_write_part(part) for part in turn.parts]}


def _write_part(part: Part) -> Json:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    if isinstance(part, Image):
        return {"type": "image", "source": _write_image(part)}
    if isinstance(part, Document):
        source = {"type": "base64", "media_type": "application/pdf", "data": part.data}
        block: Json = {"type": "document", "source": source}
        return {**block, "title": part.name} if part.name else block
    if isinstance(part, Call):
        return {
            "type": "tool_use",
            "id": fitting(part.id),
            "name": part.name,
            "input": part.arguments,
        }
    assert isinstance(part, Result)
    block = {"type": "tool_result", "tool_use_id": fitting(part.id)}
    content = [_write_part(one) for one in part.content if one != Text("")]
    if len(content) == 1 and content[0]["type"] == "text":
        block["content"] = content[0]["text"]
    elif content:
        block["content"] = content
    return {**block, "is_error": True} if part.failed else block


def _write_image(image: Image) -> Json:
    if image.url:
        return {"type": "url", "url": image.url}
    if image.mime not in _IMAGES:
        raise CannotTranslate(
            f"image of type {image.mime[:40]}", "Anthropic takes JPEG, PNG, GIF and WebP"
        )
    return {"type": "base64", "media_type": image.mime, "data": image.data}


def _write_tool(tool: Tool) -> Json:
    written: Json = {"name": plain_name(tool.name, 128)}
    if tool.description:
        written["description"] = tool.description
    schema = _NO_PARAMETERS if tool.schema is None else tool.schema
    if schema.get("type") != "object":
        if "type" in schema or "anyOf" in schema or "$ref" in schema:
            raise CannotTranslate("tools.parameters", "Anthropic's tools take an object")
        schema = {"type": "object", **schema}
    return {**written, "input_schema": schema}


def _write_choice(body: Json, choice: Choice) -> None:
    kind = "tool" if choice.name else choice.mode.value
    if choice.mode is Mode.UNSAID:
        if choice.parallel or "tools" not in body:
            return
        kind = "auto"
    written: Json = {"type": kind}
    if choice.name:
        written["name"] = choice.name
    if not choice.parallel and choice.mode is not Mode.NONE:
        written["disable_parallel_tool_use"] = True
    body["tool_choice"] = written


def _write_form(form: Form, notes: Notes) -> Json:
    if form.schema is None:
        raise CannotTranslate(
            "response_format.json_object", "Anthropic gives JSON by a schema alone"
        )
    where = "response_format.schema"
    return {
        "type": "json_schema",
        "schema": schemas.of_form(form.schema, Kind.ANTHROPIC, where, notes),
    }
