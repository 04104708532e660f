"""Nothing of a request goes uncounted: wherever a long text stands in a body, its tokens are in the bound.

A body with everything that each dialect knows is changed at one place after the other: a text there becomes
long, an object there gets one more member. Either the request is refused, or it counts so much more.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midwatch.core.calls.ask import Ask
from midwatch.gateway.dialects import BadRequest, Route, find, read
from midwatch.gateway.dialects.reading import NO_INPUT

LONG = "7" * 2_000
"""One token a character, with the densest tokenizers."""

LEAST = len(LONG) - 60
"""What was there before it counted for something, too."""

SEALED = len(LONG) // 4 - 10
"""What only the provider can read holds a quarter of its length."""

MARK = {"cache_control": {"type": "ephemeral", "ttl": "5m"}}

CHAT = {
    "model": "gpt-4o",
    "messages": [
        {"role": "system", "content": "Be brief.", "name": "n"},
        {"role": "developer", "content": [{"type": "text", "text": "Be kind.", **MARK}]},
        {"role": "user", "content": "Hello", "name": "ann"},
        {"role": "assistant", "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}},
                                             {"id": "c2", "type": "custom", "custom": {"name": "g", "input": "x"}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "done"},
        {"content": "two keys", "tool_calls": [{"id": "c3", "function": {"arguments": "{}"}}]},
        {"role": "assistant", "content": "Hi", "refusal": "no", "reasoning_content": "hm", "audio": {"id": "a1"},
         "reasoning_details": [{"type": "reasoning.text", "id": "r1", "text": "so"}], "annotations": [{"url": "u"}]},
        {"role": "user", "content": [
            {"type": "text", "text": "Look", **MARK},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"}},
            {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}},
            {"type": "refusal", "refusal": "no"},
        ]},
    ],
    "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}],
    "functions": [{"name": "old"}],
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {}}},
    "prediction": {"type": "content", "content": "likely"},
    "documents": [{"title": "t", "text": "x"}],
    "max_tokens": 9,
}  # fmt: skip

MESSAGES = {
    "model": "claude-sonnet-4-5",
    "max_tokens": 9,
    "system": [{"type": "text", "text": "Be brief.", **MARK}, {"type": "text", "text": "x", "citations": [{"cited_text": "y"}]}],
    "messages": [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
            {"type": "redacted_thinking", "data": "c2VhbGVk"},
            {"type": "text", "text": "Hi", "citations": [{"type": "char_location", "cited_text": "c", "document_title": "t"}]},
            {"type": "tool_use", "id": "t1", "name": "f", "input": {"id": "x", "query": "y"}},
            {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "q"}},
            {"type": "web_search_tool_result", "tool_use_id": "s1", "content": [
                {"type": "web_search_result", "url": "u", "title": "t", "encrypted_content": "ZQ==", "page_age": "1 day"}]},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "r"}], "is_error": False, **MARK},
            {"type": "tool_result", "tool_use_id": "t2", "content": "plain"},
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
            {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "doc"}, "title": "t", "context": "c"},
            {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}},
            {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "x"}]}, "citations": {"enabled": True}},
            {"type": "search_result", "source": "s", "title": "t", "content": [{"type": "text", "text": "x"}]},
            {"type": "container_upload", "file_id": "f1"},
        ]},
    ],
    "tools": [{"name": "f", "description": "d", "input_schema": {"type": "object"}, **MARK}],
    "tool_choice": {"type": "tool", "name": "f"},
    "output_format": {"type": "json_schema", "schema": {}},
    "output_config": {"effort": "high"},
    "container": {"skills": [{"skill_id": "s"}]},
}  # fmt: skip

RESPONSES = {
    "model": "gpt-5",
    "instructions": "Be brief.",
    "input": [
        {"role": "user", "content": "Hello"},
        {"type": "message", "id": "m1", "status": "completed", "role": "assistant", "content": [
            {"type": "output_text", "text": "Hi", "annotations": [{"type": "url_citation", "url": "u"}]}, {"type": "refusal", "refusal": "no"}]},
        {"type": "reasoning", "id": "r1", "summary": [{"type": "summary_text", "text": "s"}], "encrypted_content": "ZQ=="},
        {"type": "function_call", "id": "f1", "call_id": "c1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "done"},
        {"type": "custom_tool_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "x"}]},
        {"type": "computer_call_output", "call_id": "c3", "output": {"type": "computer_screenshot", "image_url": "data:image/png;base64,AAAA"}},
        {"type": "item_reference", "id": "i1"},
        {"type": "image_generation_call", "id": "g1", "result": "AAAA"},
        {"role": "user", "content": [
            {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "low"},
            {"type": "input_file", "file_data": "data:text/plain;base64,AAAA", "filename": "f"},
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
            {"type": "something new", "of": {"unknown": "shape"}},
        ]},
    ],
    "tools": [{"type": "function", "name": "f", "parameters": {}}],
    "text": {"format": {"type": "json_schema", "name": "n", "schema": {}}, "verbosity": "low"},
    "prompt": {"id": "p1", "variables": {"v": "x"}},
    "tool_choice": {"type": "allowed_tools", "tools": [{"name": "f"}]},
}  # fmt: skip

GEMINI = {
    "contents": [
        {"role": "user", "parts": [{"text": "Hello"}]},
        {"role": "model", "parts": [{"text": "hm", "thought": True, "thoughtSignature": "c2ln"},
                                    {"functionCall": {"id": "c1", "name": "f", "args": {"id": "x"}}, "thoughtSignature": "c2ln"},
                                    {"executableCode": {"language": "PYTHON", "code": "1"}}, {"codeExecutionResult": {"output": "1"}}]},
        {"role": "function", "parts": {"functionResponse": {"id": "c1", "name": "f", "response": {"id": "7", "result": "r"}}}},
        {"parts": [{"inlineData": {"mimeType": "image/png", "data": "AAAA", "displayName": "d"}},
                   {"inline_data": {"mime_type": "text/plain", "data": "AAAA"}},
                   {"inlineData": {"mimeType": "audio/wav", "data": "AAAA"}},
                   {"fileData": {"mimeType": "video/mp4", "fileUri": "u"}, "videoMetadata": {"fps": 1, "startOffset": "1s"}}]},
    ],
    "systemInstruction": {"parts": [{"text": "Be brief."}, {"text": "x", "extra": "y"}]},
    "tools": [{"functionDeclarations": [{"name": "f", "description": "d"}]}],
    "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["f"]}},
    "generationConfig": {"maxOutputTokens": 9, "responseSchema": {"type": "STRING"}, "speechConfig": {"voice": "v"}},
}  # fmt: skip

EMBEDDINGS = {
    "model": "text-embedding-3-small",
    "input": ["one", "two"],
    "instruction": {"task": "search"},
}

PATHS = {
    "chat": ("/v1/chat/completions", CHAT),
    "messages": ("/v1/messages", MESSAGES),
    "responses": ("/v1/responses", RESPONSES),
    "gemini": ("/v1beta/models/gemini-2.5-flash:generateContent", GEMINI),
    "embeddings": ("/v1/embeddings", EMBEDDINGS),
}

SEALS = ("signature", "thoughtSignature", "encrypted_content")
MEDIA = ("url", "image_url", "data", "file_data", "result")
"""Of the base64 of pictures and sound: by their own rules, which `test_counting` holds."""
WORDS = ("type", "detail", "format", "mimeType", "mime_type", "media_type", "role", "fileUri", "file_id", "ttl",
         "model", "verbosity")  # fmt: skip
"""A word of a closed set, or an address: no model reads it."""


def ask(name: str, body: Any) -> Ask:
    found = find("POST", PATHS[name][0], "", {})
    assert isinstance(found, Route)
    return read(found, {"content-type": "application/json"}, json.dumps(body).encode())


Steps = tuple[str | int, ...]


def places(value: Any, at: Steps = ()) -> Iterator[Steps]:
    """Yield the way to every text and every object within."""
    if isinstance(value, str | dict):
        yield at
    for key, inner in (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    ):
        yield from places(inner, (*at, key))


def changed(body: Any, at: Steps, more: str) -> Any:
    """Return the body with a long text at a place, or one more member there."""
    body = copy.deepcopy(body)
    inner = body
    for step in at[:-1]:
        inner = inner[step]
    found = inner[at[-1]] if at else body
    if isinstance(found, dict):
        found[more] = LONG
    else:
        inner[at[-1]] = LONG
    return body


def counted(name: str, body: Any) -> int | None:
    """Return the bound of the input; None for what is refused."""
    try:
        return ask(name, body).input_tokens
    except BadRequest:
        return None


def within(body: Any, at: Steps) -> Any:
    for step in at:
        body = body[step]
    return body


@pytest.mark.parametrize("name", PATHS)
def test_a_long_text_counts_wherever_it_stands(name: str) -> None:
    body: Any = PATHS[name][1]
    before = ask(name, body).input_tokens
    for at in places(body):
        last = next((step for step in reversed(at) if isinstance(step, str)), "")
        if not isinstance(within(body, at), str) or last in (*WORDS, *MEDIA):
            continue
        least = SEALED if last in SEALS else LEAST
        after = counted(name, changed(body, at, ""))
        assert after is None or after >= before + least, at


@pytest.mark.parametrize("name", PATHS)
def test_one_more_member_counts_wherever_it_stands(name: str) -> None:
    body: Any = PATHS[name][1]
    before = ask(name, body).input_tokens
    for at in places(body):
        if isinstance(within(body, at), dict) and not NO_INPUT.intersection(map(str, at)):
            for more, least in {
                "new": LEAST,
                "id": LEAST,
                "thought": LEAST,
                LONG: 2 * LEAST,
            }.items():
                after = counted(name, changed(body, at, more))
                assert after is None or after >= before + least, (at, more[:10])


@pytest.mark.parametrize("name", PATHS)
def test_a_member_in_the_place_of_another_counts_too(name: str) -> None:
    body: Any = PATHS[name][1]
    for at in places(body):
        found = within(body, at)
        for key in found if isinstance(found, dict) else ():
            less = copy.deepcopy(body)
            del within(less, at)[key]
            before, after = counted(name, less), counted(name, changed(less, at, "new"))
            assert before is None or after is None or after >= before + LEAST, (at, key)


TEXTS = st.text(st.characters(codec="utf-8"), max_size=40)
VALUES = st.recursive(
    TEXTS | st.booleans() | st.integers(-(10**20), 10**20) | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None)
@given(VALUES, st.sampled_from(["messages", "chat", "responses", "gemini"]))
def test_what_a_tool_is_given_is_counted_whole(value: Any, name: str) -> None:
    """A token is at least a byte, and prose at least 2.6 bytes: no value is counted lower than that."""
    size = len("".join(leaves(value)).encode())
    empty, full = (ask(name, called(name, given)).input_tokens for given in ({}, {"id": value}))
    assert full - empty >= size / 2.7 - 8


def leaves(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner)
    elif value is not None and not isinstance(value, bool):
        yield str(value)


def called(name: str, given: Any) -> Any:
    """Return a request in which a tool was called with so much."""
    if name == "messages":
        block = {"type": "tool_use", "id": "t", "name": "f", "input": given}
        return {
            "model": "m",
            "max_tokens": 1,
            "messages": [{"role": "assistant", "content": [block]}],
        }
    if name == "chat":
        call = {
            "id": "c",
            "type": "function",
            "function": {"name": "f", "arguments": json.dumps(given, ensure_ascii=False)},
        }
        return {"model": "m", "messages": [{"role": "assistant", "tool_calls": [call]}]}  # fmt: skip
    if name == "responses":
        call = {
            "type": "function_call",
            "call_id": "c",
            "name": "f",
            "arguments": json.dumps(given, ensure_ascii=False),
        }
        return {"model": "m", "input": [call]}  # fmt: skip
    return {
        "contents": [{"role": "model", "parts": [{"functionCall": {"name": "f", "args": given}}]}]
    }


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("messages", {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}}),
        ("chat", {"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA"}}),
        ("chat", {"type": "image_url", "image_url": {"url": "data:video/mp4;base64,AAAA"}}),
        ("chat", {"type": "video_url", "video_url": {"url": "https://x/y.mp4"}}),
        ("chat", {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "opus"}}),
        ("gemini", {"inlineData": {"mimeType": "video/mp4", "data": "AAAA"}}),
        ("gemini", {"inlineData": {"mimeType": "application/pdf", "data": "AAAA"}}),
        ("gemini", {"inlineData": {"mimeType": "audio/ogg", "data": "AAAA"}}),
    ],
)  # fmt: skip
def test_what_is_packed_may_fill_the_window(name: str, part: dict[str, Any]) -> None:
    assert asked_with(name, part).unseen


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("chat", {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}),
        ("chat", {"type": "file", "file": {"file_data": "data:text/plain;base64,AAAA"}}),
        ("gemini", {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}),
    ],
)
def test_what_has_a_least_size_does_not(name: str, part: dict[str, Any]) -> None:
    assert asked_with(name, part).unseen == ()


def asked_with(name: str, part: dict[str, Any]) -> Ask:
    if name == "gemini":
        return ask(name, {"contents": [{"parts": [part]}]})
    return ask(
        name, {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": [part]}]}
    )


def test_two_calls_of_one_tool_with_different_ids_are_not_the_same_request() -> None:
    for name in ("messages", "chat", "gemini"):
        first, second = (ask(name, called(name, {"id": number})) for number in (1, 2))
        assert first.request_hash != second.request_hash
    ids = [json.loads(json.dumps(called("messages", {})).replace('"t"', f'"{n}"')) for n in "ab"]
    assert len({ask("messages", body).request_hash for body in ids}) == 1


@pytest.mark.parametrize("said", ["batch", "Batch"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"model": "m", "messages": []}),
        ("/v1/responses", {"model": "m", "input": "x"}),
        ("/v1/messages", {"model": "m", "max_tokens": 1, "messages": []}),
        ("/v1beta/models/g:generateContent", {"contents": []}),
    ],
)
def test_no_call_is_charged_as_a_batch_because_it_calls_itself_one(
    path: str, body: dict[str, Any], said: str
) -> None:
    route = find("POST", path, "", {})
    assert isinstance(route, Route)
    given = {**body, "serviceTier" if "v1beta" in path else "service_tier": said}
    assert read(route, {}, json.dumps(given).encode()).tier == "default"
