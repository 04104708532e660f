"""Gemini's generateContent: requests read into a conversation, and written from one.

Source: ai.google.dev/api/generate-content. Names may be written in camel case or with underscores; the model
and whether a stream is asked for are in the path.
"""

from __future__ import annotations

import re
from typing import Any, Final, cast

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
    Tool,
    Turn,
    made,
    settled,
)

_BODY: Final = table(
    "model contents systemInstruction tools toolConfig generationConfig safetySettings store",
    "labels serviceTier",
    cachedContent="the content is kept by Gemini",
)
_TURN: Final = table("role parts")
_PART: Final = table(
    "text thought inlineData fileData functionCall functionResponse thoughtSignature",
    "mediaResolution partMetadata",
    executableCode="the code runs at Google",
    codeExecutionResult="the code runs at Google",
    toolCall="the tool is Google's own",
    toolResponse="the tool is Google's own",
    videoMetadata="films are not translated",
)
_BLOB: Final = table("mimeType data", "displayName")
_FILE: Final = table("mimeType fileUri", "displayName")
_CALL: Final = table("id name args")
_RESPONSE: Final = table(
    "id name response", parts="pictures in results of functions are Gemini's own"
)
_TOOL: Final = table("functionDeclarations")
_FUNCTION: Final = table(
    "name description parameters parametersJsonSchema behavior", "response responseJsonSchema"
)
_TOOL_CONFIG: Final = table("functionCallingConfig")
_CALLING: Final = table("mode allowedFunctionNames streamFunctionCallArguments")
_SAFETY: Final = table("category threshold method")
_CONFIG: Final = table(
    "candidateCount stopSequences maxOutputTokens temperature topP topK seed presencePenalty frequencyPenalty"
    " responseMimeType responseSchema responseJsonSchema responseModalities responseLogprobs",
    "thinkingConfig mediaResolution",
    logprobs="probabilities are told by their own provider alone",
    speechConfig="sound is not translated",
    imageConfig="answers with pictures are not translated",
    routingConfig="the routing is Google's own",
    modelSelectionConfig="the routing is Google's own",
)

NO_SIGNATURE: Final = "skip_thought_signature_validator"
"""What Google documents for calls of functions that no Gemini has made
(ai.google.dev/gemini-api/docs/thought-signatures): models from 3 on refuse a call without a signature."""

_UNSIGNED_MODELS: Final = re.compile(r"(?:.*/)?(?:gemini-[12]|gemma)\b.*")
"""Models that ask for no signature."""

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.:-]{0,63}")

MAX_STOPS: Final = 5

_IDLE_SAFETY: Final = ("BLOCK_NONE", "OFF", "HARM_BLOCK_THRESHOLD_UNSPECIFIED")
"""Thresholds that ask for less of a filter. One that asks for more is a promise."""


def signs(model: str) -> bool:
    """Tell whether a model wants its calls of functions back with a signature."""
    return _UNSIGNED_MODELS.fullmatch(model) is None


def camel(given: Json, name: str) -> Json:
    """Return an object with the names of its members in camel case. Raises CannotTranslate for one given twice."""
    if not any("_" in key for key in given):
        return given
    found: Json = {}
    for key, value in given.items():
        head, *rest = key.split("_")
        written = head + "".join(word[:1].upper() + word[1:] for word in rest)
        if found.get(written) is not None and value is not None:
            raise CannotTranslate(f"{name}{written}", "it is given twice")
        if value is not None or written not in found:
            found[written] = value
    return found


def read(body: Json, notes: Notes, *, stream: bool = False) -> Conversation:
    """Return what a request says. Raises CannotTranslate."""
    given = sort(camel(body, ""), _BODY, "", notes)
    _safety(given.get("safetySettings"), notes)
    if "store" in given:
        unless(given["store"], (False,), "store", "it is to be kept by Google")
    config = fields.object_of(given.get("generationConfig", {}), "generationConfig")
    config = sort(camel(config, "generationConfig."), _CONFIG, "generationConfig.", notes)
    _idle(config)
    turns: list[Turn] = []
    for number, content in enumerate(objects_of(given.get("contents"), "contents")):
        turns.append(_turn(content, number, turns, notes))
    conversation = Conversation(
        turns=tuple(turns),
        system=_system(given.get("systemInstruction"), notes),
        tools=_tools(given.get("tools"), notes),
        choice=_choice(given.get("toolConfig"), notes),
        max_output=fields.whole_of(config.get("maxOutputTokens"), "maxOutputTokens", 1),
        temperature=fields.number_of(config.get("temperature"), "temperature", 0, 2),
        top_p=fields.number_of(config.get("topP"), "topP", 0, 1),
        top_k=fields.whole_of(config.get("topK"), "topK"),
        presence=fields.number_of(config.get("presencePenalty"), "presencePenalty", -2, 2),
        frequency=fields.number_of(config.get("frequencyPenalty"), "frequencyPenalty", -2, 2),
        seed=fields.whole_of(config.get("seed"), "seed", -(2**31), 2**31),
        stops=fields.texts_of(config.get("stopSequences"), "stopSequences"),
        form=_form(config),
        stream=stream,
    )
    return settled(conversation, "contents")


def _safety(value: object, notes: Notes) -> None:
    for setting in objects_of(value, "safetySettings"):
        told = sort(setting, _SAFETY, "safetySettings.", notes)
        idle = told.get("threshold") in _IDLE_SAFETY
        if not idle:
            raise CannotTranslate("safetySettings", "another provider's filters cannot be set so")
        notes.leave("safetySettings")


def _idle(config: Json) -> None:
    where = "generationConfig."
    if "candidateCount" in config:
        one = fields.whole_of(config["candidateCount"], f"{where}candidateCount")
        unless(one, (1,), f"{where}candidateCount", "other providers give one answer")
    if "responseLogprobs" in config:
        unless(
            config["responseLogprobs"],
            (False,),
            f"{where}responseLogprobs",
            "only this dialect tells them",
        )
    if "responseModalities" in config:
        idle = (["TEXT"], ["text"])
        unless(
            config["responseModalities"],
            idle,
            f"{where}responseModalities",
            "only text is translated",
        )


def _system(value: object, notes: Notes) -> tuple[str, ...]:
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,) if value else ()
    given = sort(fields.object_of(value, "systemInstruction"), _TURN, "systemInstruction.", notes)
    texts: list[str] = []
    for part in _listed(given.get("parts"), "systemInstruction.parts"):
        told = sort(camel(part, "systemInstruction."), table("text"), "systemInstruction.", notes)
        texts.append(text_of(told.get("text"), "systemInstruction.text"))
    return tuple(text for text in texts if text)


def _listed(value: object, name: str) -> list[Json]:
    """Return parts; one alone may stand without its list."""
    if isinstance(value, dict):
        return [fields.object_of(cast("object", value), name)]
    return objects_of(value, name)


def _turn(content: Json, number: int, before: list[Turn], notes: Notes) -> Turn:
    given = sort(content, _TURN, "contents.", notes)
    role = given.get("role", "user")
    if role not in ("user", "model", "function"):
        raise CannotTranslate(f"contents[{number}].role", "expected user or model")
    asked = [p for p in before[-1].parts if isinstance(p, Call)] if before else []
    found: list[Part] = []
    for place, raw in enumerate(_listed(given.get("parts"), "contents.parts")):
        told = sort(camel(raw, "contents.parts."), _PART, "contents.parts.", notes)
        signature = told.pop("thoughtSignature", None)
        if signature is not None and not _unsigned(signature):
            notes.leave("contents.parts.thoughtSignature")
        if told.pop("thought", False) is True:
            notes.leave("contents.parts.thought")
            continue
        if not told and signature is not None:
            continue
        if len(told) != 1:
            raise CannotTranslate("contents.parts", f"expected one kind of data, got {len(told)}")
        part = _part(*next(iter(told.items())), f"{number}.{place}", asked, notes)
        wrong = (Result, Image, Document) if role == "model" else (Call,)
        if isinstance(part, wrong):
            raise CannotTranslate(f"contents[{number}]", f"{next(iter(told))} of the wrong side")
        found.append(part)
    return Turn(Role.MODEL if role == "model" else Role.USER, tuple(found))


def _unsigned(signature: object) -> bool:
    """Tell whether a signature is the one that says there is none; clients write it in either base64."""
    return isinstance(signature, str) and signature.replace("/", "_") == NO_SIGNATURE


def _part(key: str, value: Any, place: str, asked: list[Call], notes: Notes) -> Part:
    where = f"contents.parts.{key}"
    if key == "text":
        return Text(text_of(value, where))
    given = camel(fields.object_of(value, where), f"{where}.")
    if key == "inlineData":
        told = sort(given, _BLOB, f"{where}.", notes)
        return _inline(told, where)
    if key == "fileData":
        return _stored(sort(given, _FILE, f"{where}.", notes), where)
    if key == "functionCall":
        told = sort(given, _CALL, f"{where}.", notes)
        name = text_of(told.get("name"), f"{where}.name")
        args = fields.object_of(told.get("args", {}), f"{where}.args")
        return Call(text_of(told.get("id") or made("asked", place), f"{where}.id"), name, args)
    return _result(sort(given, _RESPONSE, f"{where}.", notes), where, asked)


def _inline(told: Json, where: str) -> Image | Document:
    mime = text_of(told.get("mimeType"), f"{where}.mimeType").lower()
    # bytes in protobuf's JSON may be written in either alphabet of base64; others take the usual one
    data = text_of(told.get("data"), f"{where}.data").replace("-", "+").replace("_", "/")
    if mime.startswith("image/"):
        return Image(mime, data)
    if mime == "application/pdf":
        return Document(data)
    raise CannotTranslate(
        f"{where} of type {mime[:40]}", "only pictures and PDF files are translated"
    )


def _stored(told: Json, where: str) -> Image:
    url = text_of(told.get("fileUri"), f"{where}.fileUri")
    mime = text_of(told.get("mimeType", ""), f"{where}.mimeType")
    if not mime.startswith("image/") or "generativelanguage.googleapis.com" in url:
        raise CannotTranslate(where, "only pictures at a public address are translated")
    return Image(url=fields.web_url(url, f"{where}.fileUri"))


def _result(told: Json, where: str, asked: list[Call]) -> Result:
    name = text_of(told.get("name"), f"{where}.name")
    identity = told.get("id") or None
    match = next(
        (call for call in asked if (call.id == identity if identity else call.name == name)), None
    )
    if match is None:
        raise CannotTranslate(where, f"no call before it is of {name[:60]!r}")
    asked.remove(match)
    given = fields.object_of(told.get("response", {}), f"{where}.response")
    key = next(iter(given)) if len(given) == 1 else ""
    value: Any = given.get(key)
    if key in ("output", "result", "error"):
        text = value if isinstance(value, str) else fields.dump(value)
        return Result(match.id, (Text(text),), name, failed=key == "error")
    return Result(match.id, (Text(fields.dump(given)),), name)


def _tools(value: object, notes: Notes) -> tuple[Tool, ...]:
    found: list[Tool] = []
    for tool in objects_of(value, "tools"):
        own = sort(camel(tool, "tools."), _TOOL, "tools.", notes)
        for function in objects_of(own.get("functionDeclarations"), "functionDeclarations"):
            told = sort(camel(function, "tools."), _FUNCTION, "tools.", notes)
            if "behavior" in told:
                idle = ("UNSPECIFIED", "BLOCKING")
                unless(
                    told["behavior"],
                    idle,
                    "tools.behavior",
                    "other providers wait for their functions",
                )
            found.append(
                Tool(
                    text_of(told.get("name"), "tools.name"),
                    text_of(told.get("description", ""), "tools.description"),
                    _parameters(told),
                )
            )
    return tuple(found)


def _parameters(told: Json) -> Json | None:
    if "parametersJsonSchema" in told:
        return fields.object_of(told["parametersJsonSchema"], "tools.parametersJsonSchema")
    if "parameters" in told:
        return schemas.of_openapi(fields.object_of(told["parameters"], "tools.parameters"))
    return None


def _choice(value: object, notes: Notes) -> Choice:
    if value is None:
        return Choice()
    given = sort(
        camel(fields.object_of(value, "toolConfig"), ""), _TOOL_CONFIG, "toolConfig.", notes
    )
    if not given:
        return Choice()
    where = "functionCallingConfig."
    calling = fields.object_of(given["functionCallingConfig"], where)
    told = sort(camel(calling, where), _CALLING, where, notes)
    if "streamFunctionCallArguments" in told:
        unless(
            told["streamFunctionCallArguments"],
            (False,),
            f"{where}streamFunctionCallArguments",
            fields.UNKNOWN,
        )
    names = fields.texts_of(told.get("allowedFunctionNames"), f"{where}allowedFunctionNames")
    mode = text_of(told.get("mode", "AUTO"), f"{where}mode").upper()
    if mode == "NONE":
        return Choice(Mode.NONE)
    if mode in ("AUTO", "MODE_UNSPECIFIED") and not names:
        return Choice(Mode.AUTO)
    if mode != "ANY" or len(names) > 1:
        raise CannotTranslate(
            f"{where}mode", f"{mode[:20]} with {len(names)} names: others cannot be told so"
        )
    return Choice(Mode.ANY, names[0] if names else "")


def _form(config: Json) -> Form | None:
    mime = config.get("responseMimeType", "text/plain")
    schema = config.get("responseJsonSchema")
    if schema is not None:
        schema = fields.object_of(schema, "responseJsonSchema")
    elif config.get("responseSchema") is not None:
        schema = schemas.of_openapi(fields.object_of(config["responseSchema"], "responseSchema"))
    if mime == "text/plain" and schema is None:
        return None
    if mime != "application/json":
        raise CannotTranslate(
            "generationConfig.responseMimeType", "expected text/plain or application/json"
        )
    return Form(schema)


# -- writing -----------------------------------------------------------------------------------


def write(said: Conversation, model: str, notes: Notes) -> Json:
    """Return the body for a model. Raises CannotTranslate."""
    body: Json = {"contents": [_write_turn(turn, model) for turn in said.turns]}
    if said.system:
        body["systemInstruction"] = {"parts": [{"text": text} for text in said.system]}
    if said.tools:
        body["tools"] = [
            {"functionDeclarations": [_write_tool(tool, notes) for tool in said.tools]}
        ]
    calling = _write_choice(said.choice)
    if calling:
        body["toolConfig"] = {"functionCallingConfig": calling}
    config: Json = {
        "maxOutputTokens": said.max_output,
        "temperature": said.temperature,
        "topP": said.top_p,
        "topK": said.top_k,
        "presencePenalty": said.presence,
        "frequencyPenalty": said.frequency,
        "seed": _seed(said.seed),
        "stopSequences": _stops(said.stops),
        **_write_form(said.form, notes),
    }
    config = {name: value for name, value in config.items() if value is not None}
    if config:
        body["generationConfig"] = config
    if said.user:
        notes.leave("user")
    return body


def _seed(seed: int | None) -> int | None:
    if seed is not None and not -(2**31) <= seed < 2**31:
        raise CannotTranslate("seed", "Gemini's are of 32 bits")
    return seed


def _stops(stops: tuple[str, ...]) -> list[str] | None:
    if len(stops) > MAX_STOPS:
        raise CannotTranslate("stopSequences", f"Gemini takes {MAX_STOPS}, here are {len(stops)}")
    return list(stops) or None


def _write_turn(turn: Turn, model: str) -> Json:
    parts: list[Json] = []
    signed = not signs(model)
    for part in turn.parts:
        written = _write_part(part)
        if isinstance(part, Call) and not signed:
            # of calls made at once the first one carries it
            written["thoughtSignature"] = NO_SIGNATURE
            signed = True
        parts.append(written)
    return {"role": "user" if turn.role is Role.USER else "model", "parts": parts}


def _write_part(part: Part) -> Json:
    if isinstance(part, Text):
        return {"text": part.text}
    if isinstance(part, Image):
        if part.url:
            raise CannotTranslate(
                "image_url", "Gemini takes pictures within the request, not at an address"
            )
        return {"inlineData": {"mimeType": part.mime, "data": part.data}}
    if isinstance(part, Document):
        return {"inlineData": {"mimeType": "application/pdf", "data": part.data}}
    if isinstance(part, Call):
        return {"functionCall": {"id": part.id, "name": part.name, "args": part.arguments}}
    assert isinstance(part, Result)
    if any(isinstance(one, Image) for one in part.content):
        raise CannotTranslate("tool_result.image", "Gemini's results of functions are text here")
    text = "\n".join(one.text for one in part.content if isinstance(one, Text))
    response = {"error" if part.failed else "output": text}
    return {"functionResponse": {"id": part.id, "name": part.name, "response": response}}


def _write_tool(tool: Tool, notes: Notes) -> Json:
    if not _NAME.fullmatch(tool.name):
        raise CannotTranslate(
            f"tools.name {tool.name[:40]!r}", "Gemini's begin with a letter or _, up to 64 long"
        )
    written: Json = {"name": tool.name}
    if tool.description:
        written["description"] = tool.description
    if tool.schema is not None:
        schema = schemas.of_tool(tool.schema, Kind.GEMINI, "tools.parameters", notes)
        written["parametersJsonSchema"] = schema
    return written


def _write_choice(choice: Choice) -> Json:
    if not choice.parallel:
        raise CannotTranslate("parallel_tool_calls", "Gemini cannot be told to call one at a time")
    if choice.mode is Mode.UNSAID:
        return {}
    calling: Json = {"mode": choice.mode.value.upper()}
    return {**calling, "allowedFunctionNames": [choice.name]} if choice.name else calling


def _write_form(form: Form | None, notes: Notes) -> Json:
    if form is None:
        return {}
    written: Json = {"responseMimeType": "application/json"}
    if form.schema is not None:
        where = "response_format.schema"
        written["responseJsonSchema"] = schemas.of_form(form.schema, Kind.GEMINI, where, notes)
    return written
