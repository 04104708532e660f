"""OpenAI's chat completions: requests read into a conversation, and written from one.

Source: platform.openai.com/docs/api-reference/chat/create.
"""

from __future__ import annotations

import fnmatch
from typing import Any, Final

from midwatch.core.calls.ask import Kind
from midwatch.gateway.translate import fields, schemas
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
    Thought,
    Tool,
    Turn,
    fitting,
    settled,
)

_BODY: Final = table(
    "model messages stream stream_options max_tokens max_completion_tokens temperature top_p stop tools"
    " tool_choice parallel_tool_calls response_format n user presence_penalty frequency_penalty seed"
    " logprobs logit_bias modalities store",
    # who is billed where, what is kept for whom, how fast or how long it is thought: the answer is one anyway
    "metadata service_tier safety_identifier prompt_cache_key prompt_cache_retention prompt_cache_options"
    " reasoning_effort verbosity prediction",
    top_logprobs="only this dialect tells probabilities",
    audio="sound is not translated",
    web_search_options="the search is OpenAI's own",
    moderation="the moderation is OpenAI's own",
    functions="write functions as tools; the old form is not translated",
    function_call="write functions as tools; the old form is not translated",
)

_MESSAGE: Final = table(
    "role content tool_calls tool_call_id refusal",
    # reasoning of another provider tells the next one nothing that it may use
    "name annotations cache_control reasoning_content reasoning reasoning_details",
    audio="sound is not translated",
    function_call="write functions as tools; the old form is not translated",
)

_PART: Final = table("type text image_url file refusal", "cache_control prompt_cache_breakpoint")
_IMAGE: Final = table("url", "detail")
_FILE: Final = table(
    "file_data filename", file_id="the file is kept by OpenAI; send it as file_data"
)
_FUNCTION: Final = table("name description parameters", "strict")
_TOOL: Final = table("type function", "cache_control")
_CALL: Final = table("id type function", "index extra_content")
_CALLED: Final = table("name arguments")
_SCHEMA: Final = table("name schema strict", "description")

MAX_STOPS: Final = 4

_FIXED_SAMPLING: Final = ("o[134]", "o[134]-*", "gpt-5", "gpt-5-*", "gpt-5.*")
"""Models of OpenAI that take no temperature and no top_p but the usual."""

_NEW_LIMIT: Final = ("gpt-*", "o[134]*", "chatgpt-*")
"""Models of OpenAI, for which max_tokens is deprecated, or refused; other servers know it alone."""


def read(body: Json, notes: Notes) -> Conversation:
    """Return what a request says. Raises CannotTranslate."""
    given = sort(body, _BODY, "", notes)
    _idle(given)
    system: list[str] = []
    turns: list[Turn] = []
    for number, message in enumerate(objects_of(given.get("messages"), "messages")):
        said = sort(message, _MESSAGE, "messages.", notes)
        role = said.get("role")
        if role in ("system", "developer"):
            if turns:
                raise CannotTranslate(
                    f"messages[{number}].role: {role}",
                    "other providers take instructions at the beginning alone",
                )
            system += [part.text for part in _texts(said.get("content"), notes)]
        else:
            turns.append(_turn(said, role, number, notes))
    limit = given.get("max_completion_tokens", given.get("max_tokens"))
    conversation = Conversation(
        turns=tuple(turns),
        system=tuple(text for text in system if text),
        tools=tuple(_tool(tool, notes) for tool in objects_of(given.get("tools"), "tools")),
        choice=_choice(given),
        max_output=fields.whole_of(limit, "max_tokens", 1),
        temperature=fields.number_of(given.get("temperature"), "temperature", 0, 2),
        top_p=fields.number_of(given.get("top_p"), "top_p", 0, 1),
        presence=fields.number_of(given.get("presence_penalty"), "presence_penalty", -2, 2),
        frequency=fields.number_of(given.get("frequency_penalty"), "frequency_penalty", -2, 2),
        seed=fields.whole_of(given.get("seed"), "seed", -(2**63), 2**63),
        stops=_stops(given.get("stop")),
        form=_form(given.get("response_format"), notes),
        user=text_of(given.get("user", ""), "user"),
        stream=fields.flag_of(given.get("stream", False), "stream"),
    )
    return settled(conversation, "messages")


def _idle(given: Json) -> None:
    """Refuse fields that are carried only where they ask for nothing."""
    if "n" in given:
        unless(given["n"], (1,), "n", "other providers give one answer")
    if "logprobs" in given:
        unless(given["logprobs"], (False,), "logprobs", "only this dialect tells probabilities")
    if "logit_bias" in given:
        unless(given["logit_bias"], ({},), "logit_bias", "tokens are each provider's own")
    if "modalities" in given:
        unless(given["modalities"], (["text"],), "modalities", "only text is translated")
    if "store" in given:
        unless(given["store"], (False,), "store", "it is to be kept by OpenAI")


def _turn(said: Json, role: object, number: int, notes: Notes) -> Turn:
    content = said.get("content")
    if role == "user":
        return Turn(Role.USER, tuple(_parts(content, notes)))
    if role == "tool":
        found = tuple(_texts(content, notes))
        identity = text_of(said.get("tool_call_id"), f"messages[{number}].tool_call_id")
        return Turn(Role.USER, (Result(identity, found),))
    if role != "assistant":
        raise CannotTranslate(f"messages[{number}].role", "expected user, assistant or tool")
    parts: list[Part] = [*_texts(content, notes)]
    if said.get("refusal"):
        parts.append(Text(text_of(said["refusal"], "messages.refusal")))
    where = "messages.tool_calls."
    for call in objects_of(said.get("tool_calls"), "messages.tool_calls"):
        told = sort(call, _CALL, where, notes)
        unless(
            told.get("type", "function"),
            ("function",),
            f"{where}type",
            "only functions are translated",
        )
        function = sort(
            fields.object_of(told.get("function"), f"{where}function"), _CALLED, where, notes
        )
        parts.append(
            Call(
                text_of(told.get("id"), f"{where}id"),
                text_of(function.get("name"), f"{where}name"),
                fields.arguments_of(function.get("arguments", ""), f"{where}arguments"),
            )
        )
    return Turn(Role.MODEL, tuple(parts))


def _parts(content: object, notes: Notes) -> list[Text | Image | Document]:
    if content is None:
        return []
    if isinstance(content, str):
        return [Text(content)]
    found: list[Text | Image | Document] = []
    for part in objects_of(content, "messages.content"):
        kind = part.get("type")
        if kind not in ("text", "image_url", "file", "refusal"):
            raise CannotTranslate(f"messages.content.{kind}", fields.UNKNOWN)
        told = sort(part, _PART, "messages.content.", notes)
        where = f"messages.content.{kind}"
        if kind in ("text", "refusal"):
            found.append(Text(text_of(told.get(kind), where)))
        elif kind == "image_url":
            image = sort(fields.object_of(told.get("image_url"), where), _IMAGE, f"{where}.", notes)
            found.append(_image(text_of(image.get("url"), f"{where}.url"), f"{where}.url"))
        else:
            found.append(_file(fields.object_of(told.get("file"), where), where, notes))
    return found


def _texts(content: object, notes: Notes) -> list[Text]:
    found: list[Text] = []
    for part in _parts(content, notes):
        if not isinstance(part, Text):
            raise CannotTranslate("messages.content", "only a user can send what is no text")
        found.append(part)
    return found


def _image(url: str, where: str) -> Image:
    inline = fields.data_url(url, where)
    return Image(*inline) if inline is not None else Image(url=fields.web_url(url, where))


def _file(given: Json, where: str, notes: Notes) -> Document:
    told = sort(given, _FILE, f"{where}.", notes)
    name = text_of(told.get("filename", ""), f"{where}.filename")
    inline = fields.data_url(text_of(told.get("file_data"), f"{where}.file_data"), where)
    if inline is None or inline[0] != "application/pdf":
        raise CannotTranslate(
            f"{where}.file_data", "only PDF files within the request are translated"
        )
    return Document(inline[1], name)


def _tool(tool: Json, notes: Notes) -> Tool:
    kind = tool.get("type")
    if kind != "function":
        raise CannotTranslate(f"tools.{kind}", "only functions are translated")
    told = sort(tool, _TOOL, "tools.", notes)
    function = sort(
        fields.object_of(told.get("function"), "tools.function"), _FUNCTION, "tools.", notes
    )
    schema = function.get("parameters")
    return Tool(
        text_of(function.get("name"), "tools.name"),
        text_of(function.get("description", ""), "tools.description"),
        None if schema is None else fields.object_of(schema, "tools.parameters"),
    )


def _choice(given: Json) -> Choice:
    parallel = fields.flag_of(given.get("parallel_tool_calls", True), "parallel_tool_calls")
    choice = given.get("tool_choice")
    if choice is not None and not isinstance(choice, str):
        picked = fields.object_of(choice, "tool_choice")
        if picked.get("type") != "function" or set(picked) != {"type", "function"}:
            raise CannotTranslate(
                "tool_choice", f"type {str(picked.get('type'))[:40]!r}: expected function"
            )
        function = fields.object_of(picked["function"], "tool_choice.function")
        return Choice(
            Mode.ANY, text_of(function.get("name"), "tool_choice.function.name"), parallel
        )
    modes = {None: Mode.UNSAID, "auto": Mode.AUTO, "none": Mode.NONE, "required": Mode.ANY}
    if choice not in modes:
        raise CannotTranslate("tool_choice", "expected auto, none, required or a function")
    return Choice(modes[choice], "", parallel)


def _stops(value: object) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else fields.texts_of(value, "stop")


def _form(value: object, notes: Notes) -> Form | None:
    if value is None:
        return None
    given = fields.object_of(value, "response_format")
    kind = given.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return Form()
    if kind != "json_schema":
        raise CannotTranslate(f"response_format.{kind}", fields.UNKNOWN)
    where = "response_format.json_schema"
    told = sort(fields.object_of(given.get("json_schema"), where), _SCHEMA, f"{where}.", notes)
    schema = fields.object_of(told.get("schema"), f"{where}.schema")
    return Form(schema, text_of(told.get("name", "answer"), f"{where}.name"))


# -- writing -----------------------------------------------------------------------------------


def write(said: Conversation, model: str, notes: Notes) -> Json:
    """Return the body for a model. Raises CannotTranslate."""
    body: Json = {"model": model, "messages": _messages(said, notes)}
    if said.tools:
        body["tools"] = [_write_tool(tool) for tool in said.tools]
    _write_choice(body, said.choice)
    if said.max_output is not None:
        new = any(fnmatch.fnmatchcase(model.rpartition("/")[2], name) for name in _NEW_LIMIT)
        body["max_completion_tokens" if new else "max_tokens"] = said.max_output
    _write_sampling(body, said, model, notes)
    if len(said.stops) > MAX_STOPS:
        raise CannotTranslate(
            "stop", f"OpenAI's dialect takes {MAX_STOPS}, here are {len(said.stops)}"
        )
    if said.stops:
        body["stop"] = said.stops[0] if len(said.stops) == 1 else list(said.stops)
    if said.form is not None:
        body["response_format"] = _write_form(said.form, notes)
    if said.user:
        body["user"] = said.user
    if said.stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    return body


def _write_sampling(body: Json, said: Conversation, model: str, notes: Notes) -> None:
    fixed = any(fnmatch.fnmatchcase(model.rpartition("/")[2], name) for name in _FIXED_SAMPLING)
    for name, value in (("temperature", said.temperature), ("top_p", said.top_p)):
        if value is None:
            continue
        if fixed:
            notes.leave(name)
        else:
            body[name] = value
    if said.top_k is not None:
        raise CannotTranslate("top_k", "OpenAI's dialect does not have it")
    for name, value in (
        ("presence_penalty", said.presence),
        ("frequency_penalty", said.frequency),
        ("seed", said.seed),
    ):
        if value is not None:
            body[name] = value


def _messages(said: Conversation, notes: Notes) -> list[Json]:
    messages: list[Json] = []
    if said.system:
        messages.append({"role": "system", "content": _content([Text(t) for t in said.system])})
    for turn in said.turns:
        if turn.role is Role.MODEL:
            messages.append(_assistant(turn))
            continue
        rest: list[Part] = []
        for part in turn.parts:
            if isinstance(part, Result):
                messages.append(_result(part, notes))
            else:
                rest.append(part)
        if rest:
            messages.append({"role": "user", "content": _content(rest)})
    return messages


def _assistant(turn: Turn) -> Json:
    texts: list[Part] = [part for part in turn.parts if isinstance(part, Text)]
    calls = [part for part in turn.parts if isinstance(part, Call)]
    message: Json = {"role": "assistant", "content": _content(texts) if texts else None}
    if calls:
        message["tool_calls"] = [
            {
                "id": fitting(call.id),
                "type": "function",
                "function": {"name": call.name, "arguments": fields.dump(call.arguments)},
            }
            for call in calls
        ]
    return message


def _result(result: Result, notes: Notes) -> Json:
    if any(isinstance(part, Image) for part in result.content):
        raise CannotTranslate("tool_result.image", "OpenAI's tool results are text alone")
    if result.failed:
        notes.leave("tool_result.is_error")
    texts: list[Part] = [part for part in result.content if isinstance(part, Text)]
    content = _content(texts) if texts else ""
    return {"role": "tool", "tool_call_id": fitting(result.id), "content": content}


def _content(parts: list[Part]) -> str | list[Json]:
    """Return what is said: as text where it is one, which every server understands."""
    if len(parts) == 1 and isinstance(parts[0], Text):
        return parts[0].text
    return [_write_part(part) for part in parts]


def _write_part(part: Part) -> Json:
    if isinstance(part, Text):
        return {"type": "text", "text": part.text}
    if isinstance(part, Image):
        url = part.url or f"data:{part.mime};base64,{part.data}"
        return {"type": "image_url", "image_url": {"url": url}}
    if isinstance(part, Document):
        data = f"data:application/pdf;base64,{part.data}"
        return {
            "type": "file",
            "file": {"filename": part.name or "document.pdf", "file_data": data},
        }
    assert isinstance(part, Thought | Call | Result)
    raise CannotTranslate("messages.content", "this stands only in answers and their results")


_NAME: Final = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"


def plain_name(name: str, longest: int) -> str:
    """Return a tool's name. Raises CannotTranslate for one that OpenAI and Anthropic refuse."""
    if not 0 < len(name) <= longest or name.strip(_NAME):
        raise CannotTranslate(
            f"tools.name {name[:40]!r}", f"elsewhere: 1 to {longest} of A-Z a-z 0-9 _ -"
        )
    return name


def _write_tool(tool: Tool) -> Json:
    function: dict[str, Any] = {"name": plain_name(tool.name, 64)}
    if tool.description:
        function["description"] = tool.description
    if tool.schema is not None:
        function["parameters"] = tool.schema
    return {"type": "function", "function": function}


def _write_choice(body: Json, choice: Choice) -> None:
    if choice.name:
        body["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
    elif choice.mode is not Mode.UNSAID:
        body["tool_choice"] = "required" if choice.mode is Mode.ANY else choice.mode.value
    if not choice.parallel:
        body["parallel_tool_calls"] = False


def _write_form(form: Form, notes: Notes) -> Json:
    if form.schema is None:
        return {"type": "json_object"}
    where = "response_format.schema"
    schema = schemas.of_form(form.schema, Kind.OPENAI, where, notes)
    strict = schemas.is_strict(schema)
    if not strict:
        # with properties that may be missing OpenAI follows a schema without keeping to it
        notes.leave(f"{where} (not enforced)")
    return {
        "type": "json_schema",
        "json_schema": {"name": form.name, "schema": schema, "strict": strict},
    }
