"""Requests, detail by detail: what a field becomes elsewhere, what goes unsaid, what is refused by its name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conversations import MODEL, ask
from midwatch.core.calls.ask import Ask, Dialect, Kind
from midwatch.gateway.translate import (
    CannotTranslate,
    chat_request,
    generate_request,
    messages_request,
    request,
)
from midwatch.gateway.translate.fields import Table

O, A, G = Kind.OPENAI, Kind.ANTHROPIC, Kind.GEMINI  # noqa: E741  the table below is read by columns
PAGE = Path(__file__).resolve().parents[4] / "docs/reference/translation.md"


def body(kind: Kind, **more: Any) -> dict[str, Any]:
    if kind is O:
        return {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hi"}], **more}
    if kind is A:
        return {
            "model": "claude",
            "max_tokens": 9,
            "messages": [{"role": "user", "content": "Hi"}],
            **more,
        }
    return {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}], **more}


def over(
    first: Kind, second: Kind, *, model: str = "", longest: int | None = None, **more: Any
) -> tuple[Any, tuple[str, ...]]:
    """Return what a request becomes, and what went unsaid."""
    found = request(
        ask(first),
        json.dumps(body(first, **more)).encode(),
        second,
        model or MODEL[second],
        longest,
    )
    return json.loads(found.body), found.left_out


CONFIG = "generationConfig"
PNG = "data:image/png;base64,AA=="
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
ASKED = {"role": "assistant", "content": None, "tool_calls": [CALL]}


@pytest.mark.parametrize(
    ("first", "second", "more", "left_out"),
    [
        (O, A, {"temperature": 1.7}, ("temperature above 1",)),
        (O, A, {"temperature": 0.5, "top_p": 0.9}, ("top_p beside temperature",)),
        (O, G, {"user": "u1"}, ("user",)),
        (O, A, {"reasoning_effort": "low", "verbosity": "low"}, ("reasoning_effort", "verbosity")),
        (A, O, {"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}, ("thinking", "output_config.effort")),
        (A, O, {"thinking": {"type": "disabled"}}, ()),
        (A, O, {"system": [{"type": "text", "text": "S", "cache_control": {"type": "ephemeral"}}]}, ("messages.content.text.cache_control",)),
        (A, G, {"service_tier": "auto"}, ("service_tier",)),
        (G, O, {"safetySettings": [{"category": "X", "threshold": "BLOCK_NONE"}]}, ("safetySettings",)),
        (G, A, {CONFIG: {"thinkingConfig": {"thinkingBudget": 0}}}, ("generationConfig.thinkingConfig",)),
        (G, A, {"generation_config": {"thinking_config": {}}}, ("generationConfig.thinkingConfig",)),
        (O, A, {"logprobs": False, "n": 1, "logit_bias": {}, "modalities": ["text"], "store": False, "seed": None}, ()),
    ],
)  # fmt: skip
def test_what_goes_unsaid_is_named(
    first: Kind, second: Kind, more: dict[str, Any], left_out: tuple[str, ...]
) -> None:
    assert over(first, second, **more)[1] == left_out


@pytest.mark.parametrize(
    ("first", "second", "more", "name"),
    [
        (O, A, {"n": 2}, "n"),
        (O, A, {"n": True}, "n"),
        (O, A, {"logprobs": True}, "logprobs"),
        (O, A, {"seed": 1}, "seed"),
        (O, A, {"frequency_penalty": 0.5}, "frequency_penalty"),
        (O, A, {"audio": {"voice": "x"}}, "audio"),
        (O, A, {"functions": []}, "functions"),
        (O, A, {"top_k": 3}, "top_k"),
        (O, A, {"response_format": {"type": "json_object"}}, "response_format.json_object"),
        (O, G, {"parallel_tool_calls": False}, "parallel_tool_calls"),
        (O, G, {"stop": list("abcdef")}, "stopSequences"),
        (O, A, {"stop": " \n"}, "stop_sequences"),
        (O, A, {"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools.custom"),
        (O, A, {"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]}, "messages.content.input_audio"),
        (O, A, {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]}, "messages.content.file.file_id"),
        (O, A, {"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "b"}]}, "messages[1].role: system"),
        (O, A, {"messages": [{"role": "assistant", "content": "a"}]}, "messages[0]"),
        (O, A, {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "messages[-1]"),
        (O, A, {"messages": [{"role": "user", "content": ""}]}, "messages"),
        (O, A, {"messages": [{"role": "user", "content": "a"}, {"role": "tool", "tool_call_id": "c", "content": "x"}]}, "messages.tool_result"),
        (O, A, {"messages": [{"role": "user", "content": "a"}, {**ASKED, "tool_calls": [{**CALL, "function": {"name": "f", "arguments": "{"}}]}, {"role": "user", "content": "b"}]}, "messages.tool_calls.arguments"),
        (O, G, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]}]}, "image_url"),
        (O, A, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/tiff;base64,AA=="}}]}]}, "image of type image/tiff"),
        (O, A, {"tool_choice": {"type": "allowed_tools", "allowed_tools": {}}}, "tool_choice"),
        (A, O, {"thinking": {"type": "enabled", "budget_tokens": 2000}}, "thinking"),
        (A, O, {"top_k": 5}, "top_k"),
        (A, O, {"stop_sequences": list("abcde")}, "stop"),
        (A, O, {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools.web_search_20250305"),
        (A, O, {"mcp_servers": [{}]}, "mcp_servers"),
        (A, O, {"container": "c"}, "container"),
        (A, O, {"inference_geo": "eu"}, "inference_geo"),
        (A, O, {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "file", "file_id": "f"}}]}]}, "messages.content.image.source.file_id"),
        (A, O, {"messages": [{"role": "user", "content": [{"type": "search_result"}]}]}, "messages.content.search_result"),
        (A, O, {"system": [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}]}, "system.image"),
        (G, O, {"safetySettings": [{"category": "X", "threshold": "BLOCK_LOW_AND_ABOVE"}]}, "safetySettings"),
        (G, O, {"cachedContent": "c"}, "cachedContent"),
        (G, O, {"tools": [{"googleSearch": {}}]}, "tools.googleSearch"),
        (G, O, {CONFIG: {"candidateCount": 2}}, "generationConfig.candidateCount"),
        (G, O, {CONFIG: {"responseModalities": ["AUDIO"]}}, "generationConfig.responseModalities"),
        (G, O, {CONFIG: {"topK": 4}}, "top_k"),
        (G, O, {"contents": [{"parts": [{"inlineData": {"mimeType": "audio/wav", "data": "AA=="}}]}]}, "contents.parts.inlineData of type audio/wav"),
        (G, O, {"contents": [{"parts": [{"executableCode": {}}]}]}, "contents.parts.executableCode"),
        (G, A, {CONFIG: {"responseMimeType": "application/json"}}, "response_format.json_object"),
        (G, A, {"tools": [{"functionDeclarations": [{"name": "a.b"}]}]}, "tools.name 'a.b'"),
        (O, A, {"unheard\nof": 1}, "unheard\\nof"),
    ],
)  # fmt: skip
def test_what_cannot_be_carried_over_is_refused_by_its_name(
    first: Kind, second: Kind, more: dict[str, Any], name: str
) -> None:
    with pytest.raises(CannotTranslate) as told:
        over(first, second, **more)
    assert told.value.name == name
    assert told.value.why


@pytest.mark.parametrize("dialect", [Dialect.RESPONSES, Dialect.EMBEDDINGS, Dialect.COUNT])
def test_other_dialects_are_not_translated(dialect: Dialect) -> None:
    with pytest.raises(CannotTranslate) as told:
        request(Ask(O, dialect, "m"), b"{}", A, "claude")
    assert told.value.name == dialect.value


def test_a_conversation_with_tools_and_pictures_from_chat() -> None:
    said = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Look"}, {"type": "image_url", "image_url": {"url": PNG}}]},
        {**ASKED, "tool_calls": [CALL, {**CALL, "id": "c/2" + "x" * 60}]},
        {"role": "tool", "tool_call_id": "c1", "content": "one"},
        {"role": "tool", "tool_call_id": "c/2" + "x" * 60, "content": "two"},
        {"role": "user", "content": "Well?"},
    ]  # fmt: skip
    tools = [{"type": "function", "function": {"name": "f", "strict": True}}]
    given = {
        "messages": said,
        "tools": tools,
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "stop": "END",
    }
    found, left_out = over(O, A, longest=64_000, **given)
    fit = found["messages"][1]["content"][1]["id"]
    assert left_out == ("tools.strict",)
    assert len(fit) <= 40
    assert found == {
        "model": MODEL[A],
        "max_tokens": 64_000,
        "system": "Be brief.",
        "stop_sequences": ["END"],
        "tools": [{"name": "f", "input_schema": {"type": "object", "properties": {}}}],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Look"}, {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}]},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "f", "input": {}}, {"type": "tool_use", "id": fit, "name": "f", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "one"}, {"type": "tool_result", "tool_use_id": fit, "content": "two"}, {"type": "text", "text": "Well?"}]},
        ],
    }  # fmt: skip


def test_a_conversation_of_gemini_without_ids_keeps_each_result_with_its_call() -> None:
    calls = [{"functionCall": {"name": "f", "args": {"n": n}}} for n in (1, 2)]
    results = [
        {"functionResponse": {"name": "f", "response": {"output": f"got {n}"}}} for n in (1, 2)
    ]
    turns = [
        {"parts": [{"text": "go"}]},
        {"role": "model", "parts": calls},
        {"role": "user", "parts": results},
    ]
    found, _ = over(G, O, contents=turns)
    again, _ = over(G, O, contents=turns)
    first, second = found["messages"][1]["tool_calls"]
    assert found == again
    assert first["id"] != second["id"]
    assert [m["tool_call_id"] for m in found["messages"][2:]] == [first["id"], second["id"]]
    assert [m["content"] for m in found["messages"][2:]] == ["got 1", "got 2"]


def test_calls_that_no_gemini_has_made_carry_the_documented_signature() -> None:
    said = [
        {"role": "user", "content": "a"},
        ASKED,
        {"role": "tool", "tool_call_id": "c1", "content": "x"},
    ]
    for model, signed in (("gemini-3-pro-preview", True), ("gemini-2.5-flash", False)):
        found, _ = over(O, G, model=model, messages=said)
        assert ("thoughtSignature" in found["contents"][1]["parts"][0]) is signed


def test_what_one_side_says_in_a_row_is_one_turn() -> None:
    said = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    assert over(O, A, messages=said)[0]["messages"] == [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    ]


def test_a_failed_result_is_one_where_there_is_a_word_for_it() -> None:
    said = [
        {"role": "user", "content": "a"},
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "c", "name": "f", "input": {}}],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "c", "content": "no", "is_error": True}
            ],
        },
    ]
    assert over(A, G, messages=said)[0]["contents"][2]["parts"][0]["functionResponse"][
        "response"
    ] == {"error": "no"}
    assert over(A, O, messages=said)[1] == ("tool_result.is_error",)


def test_the_bound_that_anthropic_demands() -> None:
    assert over(O, A)[0]["max_tokens"] == 4_096
    assert over(O, A, longest=8_192)[0]["max_tokens"] == 8_192
    assert over(O, A, longest=8_192, max_completion_tokens=100)[0]["max_tokens"] == 100
    found, left_out = over(O, A, longest=8_192, max_tokens=20_000)
    assert (found["max_tokens"], left_out) == (8_192, ("max_tokens above 8192",))


def test_models_of_openai_get_the_words_that_they_take() -> None:
    assert over(A, O, model="gpt-4o", temperature=0.5)[0]["max_completion_tokens"] == 9
    assert over(A, O, model="llama-3")[0]["max_tokens"] == 9
    found, left_out = over(A, O, model="gpt-5-mini", temperature=0.5)
    assert "temperature" not in found
    assert left_out == ("temperature",)


SCHEMA = {
    "type": "object",
    "properties": {
        "a": {"type": "string", "pattern": "x", "default": "y"},
        "default": {"const": "z"},
    },
}


def test_schemas_of_tools_lose_for_gemini_what_it_does_not_know_and_no_property() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": SCHEMA}}]
    found, left_out = over(O, G, tools=tools)
    assert found["tools"][0]["functionDeclarations"][0]["parametersJsonSchema"] == {
        "type": "object",
        "properties": {"a": {"type": "string"}, "default": {"enum": ["z"]}},
    }
    assert left_out == ("tools.parameters.pattern", "tools.parameters.default")
    assert over(O, A, tools=tools)[0]["tools"][0]["input_schema"] == SCHEMA


@pytest.mark.parametrize("word", ["not", "patternProperties", "if", "dependentRequired", "allOf"])
def test_words_that_shape_a_schema_are_refused_for_gemini(word: str) -> None:
    tools = [
        {"type": "function", "function": {"name": "f", "parameters": {"type": "object", word: {}}}}
    ]
    with pytest.raises(CannotTranslate) as told:
        over(O, G, tools=tools)
    assert told.value.name == f"tools.parameters.{word}"


def test_a_form_is_a_promise() -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer", "minimum": 1}},
        "required": ["n"],
    }
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    with pytest.raises(CannotTranslate) as told:
        over(O, A, response_format=form)
    assert told.value.name == "response_format.schema.minimum"
    found, _ = over(O, G, response_format=form)
    assert found[CONFIG] == {"responseMimeType": "application/json", "responseJsonSchema": schema}
    back, left_out = over(G, O, generationConfig=found[CONFIG])
    assert back["response_format"]["json_schema"]["strict"] is True
    assert back["response_format"]["json_schema"]["schema"]["additionalProperties"] is False
    assert left_out == ()
    loose = {"type": "object", "properties": {"n": {"type": "integer"}}}
    found, left_out = over(
        G, O, generationConfig={"responseMimeType": "application/json", "responseSchema": loose}
    )
    assert found["response_format"]["json_schema"]["strict"] is False
    assert left_out == ("response_format.schema (not enforced)",)


def test_geminis_own_schemas_are_read_as_json_schema() -> None:
    own = {"type": "OBJECT", "properties": {"a": {"type": "STRING", "nullable": True, "format": "enum", "enum": ["x"]}, "b": {"type": "ARRAY", "minItems": "2", "items": {"type": "NUMBER"}}}}  # fmt: skip
    found, _ = over(G, A, tools=[{"function_declarations": [{"name": "f", "parameters": own}]}])
    assert found["tools"][0]["input_schema"] == {
        "type": "object",
        "properties": {"a": {"type": ["string", "null"], "enum": ["x", None]}, "b": {"type": "array", "minItems": 2, "items": {"type": "number"}}},
    }  # fmt: skip


def test_documents_and_pictures_go_over() -> None:
    pdf = {
        "type": "file",
        "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="},
    }
    said = [{"role": "user", "content": [pdf]}]
    assert over(O, A, messages=said)[0]["messages"][0]["content"][0] == {
        "type": "document",
        "source": {"type": "base64", "media_type": "application/pdf", "data": "AA=="},
        "title": "a.pdf",
    }
    blob = {"inlineData": {"mimeType": "application/pdf", "data": "AA=="}}
    assert over(O, G, messages=said)[0]["contents"][0]["parts"] == [blob]
    stored = {"fileData": {"mimeType": "image/png", "fileUri": "https://x/y.png"}}
    found = over(G, A, contents=[{"parts": [stored]}])[0]["messages"][0]["content"][0]
    assert found["source"] == {"type": "url", "url": "https://x/y.png"}


@pytest.mark.parametrize("module", [chat_request, messages_request, generate_request])
def test_every_field_of_a_body_stands_on_the_page(module: Any) -> None:
    page = PAGE.read_text(encoding="utf-8")
    tables = [module._BODY, *([module._CONFIG] if module is generate_request else [])]
    for one in tables:
        assert isinstance(one, Table)
        names = (one.carried | one.harmless | set(one.refused)) - {
            "model",
            "output_format",
            "generationConfig",
        }
        missing = {name for name in names if not any(f"`{name}{end}" in page for end in "`.:")}
        assert missing == set()


@pytest.mark.parametrize("module", [chat_request, messages_request, generate_request])
def test_no_field_stands_in_two_columns(module: Any) -> None:
    tables = [value for value in vars(module).values() if isinstance(value, Table)]
    assert len(tables) > 5
    for one in tables:
        assert not one.carried & one.harmless
        assert not (one.carried | one.harmless) & set(one.refused)
