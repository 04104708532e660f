"""What a request asks is read once, counted from above, and hashed without what changes between two tries."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midwatch.core.calls.ask import Ask, Dialect, Kind
from midwatch.gateway.dialects import BadRequest, Route, find, of_bad_request, outgoing, read
from midwatch.gateway.dialects.bodies import NotCarried

HEADERS = {"content-type": "application/json"}
PATHS = {
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "embeddings": "/v1/embeddings",
    "messages": "/v1/messages",
    "count": "/v1/messages/count_tokens",
    "gemini": "/v1beta/models/gemini-2.5-flash:generateContent",
    "gemini-stream": "/v1beta/models/gemini-2.5-flash:streamGenerateContent",
    "gemini-count": "/v1beta/models/gemini-2.5-flash:countTokens",
}
PICTURE = base64.b64encode(bytes(range(256)) * 40).decode()


def route(name: str, query: str = "") -> Route:
    found = find("POST", PATHS[name], query, {})
    assert isinstance(found, Route)
    return found


def ask(name: str, body: Any, headers: dict[str, str] | None = None, query: str = "") -> Ask:
    return read(route(name, query), {**HEADERS, **(headers or {})}, json.dumps(body).encode())


def user(text: Any, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": text}


def chat(*messages: Any, **more: Any) -> Ask:
    return ask("chat", {"model": "gpt-4o", "messages": list(messages), **more})


def claude(*messages: Any, **more: Any) -> Ask:
    return ask(
        "messages",
        {"model": "claude-sonnet-4-5", "max_tokens": 100, "messages": list(messages), **more},
    )


def gemini(*parts: Any, **more: Any) -> Ask:
    return ask("gemini", {"contents": [{"role": "user", "parts": list(parts)}], **more})


# -- each dialect


def test_a_chat_is_read() -> None:
    found = chat(
        user("Be brief.", "system"), user("What is up?"), stream=True, max_tokens=5, max_completion_tokens=9, n=2,
        tools=[{"type": "function", "function": {"name": "f"}}], service_tier="flex",
    )  # fmt: skip
    assert (found.kind, found.dialect, found.model) == (Kind.OPENAI, Dialect.CHAT, "gpt-4o")
    assert (found.stream, found.max_output, found.choices, found.tools, found.tier) == (
        True,
        9,
        2,
        True,
        "flex",
    )
    assert (found.prompt, found.usage_asked, found.images) == ("What is up?", False, False)
    assert 0 < found.system_tokens < found.input_tokens


def test_a_chat_that_asks_for_usage_is_left_alone() -> None:
    assert chat(user("x"), stream=True, stream_options={"include_usage": True}).usage_asked
    assert chat(user("x")).usage_asked
    assert not chat(
        user("x"), stream=True, stream_options={"include_obfuscation": False}
    ).usage_asked


def test_a_message_is_read() -> None:
    found = claude(
        user([{"type": "text", "text": "Hi", "cache_control": {"type": "ephemeral"}}, {"type": "image", "source": {"type": "base64", "data": PICTURE}}]),
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        stream=True,
    )  # fmt: skip
    assert (found.kind, found.dialect, found.stream, found.max_output) == (
        Kind.ANTHROPIC,
        Dialect.MESSAGES,
        True,
        100,
    )
    assert (found.images, found.cache_write, found.prompt) == (True, "1h", "Hi")
    assert 1_600 <= found.input_tokens < 1_700


def test_a_response_is_read() -> None:
    found = ask("responses", {
        "model": "gpt-5", "instructions": "Be brief.", "max_output_tokens": 7, "previous_response_id": "resp_1",
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "Hi"}, {"type": "input_image", "image_url": "https://x/y.png", "detail": "low"}]},
                  {"type": "reasoning", "id": "rs_1", "encrypted_content": "x" * 400, "summary": []}],
        "text": {"format": {"type": "json_schema", "schema": {}}},
    })  # fmt: skip
    assert (found.dialect, found.max_output, found.prompt, found.images) == (
        Dialect.RESPONSES,
        7,
        "Hi",
        True,
    )
    assert (found.unseen, found.structured) == (("previous_response_id",), True)
    assert 170 < found.input_tokens < 300
    assert ask("responses", {"model": "m", "input": "Hi"}).prompt == "Hi"


def test_embeddings_are_read() -> None:
    assert ask("embeddings", {"model": "e", "input": ["a", "b"]}).max_output == 0
    tokens = ask("embeddings", {"model": "e", "input": [[1, 2, 3], [4]]})
    assert 4 <= tokens.input_tokens < 30
    assert ask("embeddings", {"model": "e", "input": [1] * 500}).input_tokens >= 500


@pytest.mark.parametrize("spelling", ["camel", "snake"])
def test_gemini_is_read_in_both_spellings(spelling: str) -> None:
    names = (
        {"system": "systemInstruction", "config": "generationConfig", "max": "maxOutputTokens", "count": "candidateCount", "inline": "inlineData", "mime": "mimeType"}
        if spelling == "camel"
        else {"system": "system_instruction", "config": "generation_config", "max": "max_output_tokens", "count": "candidate_count", "inline": "inline_data", "mime": "mime_type"}
    )  # fmt: skip
    found = gemini(
        {"text": "Hi"}, {names["inline"]: {names["mime"]: "image/png", "data": PICTURE}},
        **{names["system"]: {"parts": [{"text": "Be brief."}]}, names["config"]: {names["max"]: "9", names["count"]: 2}},
    )  # fmt: skip
    assert (found.kind, found.dialect, found.model) == (
        Kind.GEMINI,
        Dialect.GENERATE,
        "gemini-2.5-flash",
    )
    assert (found.max_output, found.choices, found.images, found.prompt) == (9, 2, True, "Hi")
    assert found.system_tokens > 0
    assert found.input_tokens > 16 * 258


def test_both_spellings_at_once_are_refused() -> None:
    with pytest.raises(BadRequest, match="either"):
        gemini(
            {"text": "x"},
            generationConfig={"maxOutputTokens": 5},
            generation_config={"maxOutputTokens": 9000},
        )


def test_both_forms_of_geminis_stream_are_told_apart() -> None:
    body = {"contents": [{"parts": [{"text": "x"}]}]}
    assert (ask("gemini-stream", body).stream, ask("gemini-stream", body).array) == (True, True)
    assert not ask("gemini-stream", body, query="alt=sse").array


def test_counting_generates_nothing() -> None:
    counted = ask("count", {"model": "claude-x", "messages": [user("x")], "max_tokens": 5})
    assert (counted.dialect, counted.kind, counted.max_output) == (Dialect.COUNT, Kind.ANTHROPIC, 0)
    body = {
        "generateContentRequest": {
            "model": "models/x",
            "contents": [{"parts": [{"text": "long " * 50}]}],
        }
    }
    counted = ask("gemini-count", body)
    assert (counted.dialect, counted.kind, counted.max_output) == (Dialect.COUNT, Kind.GEMINI, 0)
    assert counted.input_tokens > 50


def test_labels_come_from_headers() -> None:
    headers = {
        "x-midwatch-task": "health",
        "x-midwatch-session": "s1",
        "x-midwatch-tags": "customer=acme, beta",
    }
    found = ask("chat", {"model": "m", "messages": []}, headers)
    assert (found.task, found.session, found.tags) == (
        "health",
        "s1",
        {"customer": "acme", "beta": ""},
    )
    with pytest.raises(BadRequest):
        ask("chat", {"model": "m", "messages": []}, {"x-midwatch-task": "a\x00b"})
    with pytest.raises(BadRequest):
        ask(
            "chat",
            {"model": "m", "messages": []},
            {"x-midwatch-tags": ",".join(map(str, range(50)))},
        )


# -- what has no bound


@pytest.mark.parametrize(
    ("found", "unbounded", "searches"),
    [
        (lambda: chat(user("x"), web_search_options={}), ("web_search_options",), 0),
        (lambda: chat(user("x"), plugins=[{"id": "web"}], search_parameters={"mode": "auto"}), ("search_parameters", "plugin web"), 0),
        (lambda: chat(user("x"), search_parameters={"mode": "off"}), (), 0),
        (lambda: chat(user("x"), tools=[{"type": "function", "function": {}}, {"type": "openrouter:web_search"}]), ("openrouter:web_search",), 0),
        (lambda: ask("chat", {"model": "openai/gpt-4o:online", "messages": []}), ("online",), 0),
        (lambda: ask("responses", {"model": "m", "input": "x", "tools": [{"type": "mcp"}], "max_tool_calls": 4}), ("mcp",), 0),
        (lambda: claude(user("x"), tools=[{"type": "web_search_20250305", "name": "web_search", "max_uses": 3}]), (), 3),
        (lambda: claude(user("x"), tools=[{"type": "web_search_20250305", "name": "web_search"}]), ("web_search_20250305",), 0),
        (lambda: claude(user("x"), tools=[{"type": "code_execution_20250522", "name": "c"}]), ("code_execution_20250522",), 0),
        (lambda: claude(user("x"), tools=[{"name": "f", "input_schema": {}}, {"type": "bash_20250124", "name": "bash"}]), (), 0),
        (lambda: ask("responses", {"model": "m", "input": "x", "tools": [{"type": "web_search"}]}), ("web_search",), 0),
        (lambda: ask("responses", {"model": "m", "input": "x", "tools": [{"type": "web_search"}], "max_tool_calls": 4}), (), 4),
        (lambda: ask("responses", {"model": "m", "input": "x", "tools": [{"type": "function", "name": "f"}]}), (), 0),
        (lambda: ask("responses", {"model": "m", "input": "x", "tools": [{"type": "namespace", "tools": [{"type": "mcp"}, {"type": "function"}]}]}), ("mcp",), 0),
        (lambda: gemini({"text": "x"}, tools=[{"googleSearch": {}}, {"functionDeclarations": []}]), ("googleSearch",), 0),
    ],
)  # fmt: skip
def test_tools_of_the_provider_have_a_bound_or_are_named(
    found: Any, unbounded: tuple[str, ...], searches: int
) -> None:
    asked = found()
    assert (asked.unbounded, asked.searches) == (unbounded, searches)
    # what they find is input again: the whole window is reckoned with
    assert bool(asked.unseen) == (bool(unbounded or searches) and unbounded != ("googleSearch",))


@pytest.mark.parametrize(
    ("name", "body", "param"),
    [
        ("responses", {"model": "m", "input": "x", "background": True}, "background"),
        ("chat", {"model": "m", "messages": [], "models": ["m", "o3-pro"]}, "models"),
        ("chat", {"model": "m", "messages": [], "fallbacks": [{"m": ["o3-pro"]}]}, "fallbacks"),
    ],
)
def test_what_could_be_held_to_no_budget_is_refused_by_name(
    name: str, body: dict[str, Any], param: str
) -> None:
    with pytest.raises(NotCarried) as caught:
        ask(name, body)
    assert caught.value.param == param
    refused = of_bad_request(caught.value)
    assert (refused.type, refused.status) == ("midwatch_not_carried", 400)


def test_a_list_of_models_that_names_no_other_is_carried() -> None:
    assert ask("chat", {"model": "m", "messages": [], "models": ["m"]}).model == "m"
    assert ask("chat", {"model": "m", "messages": [], "models": None, "fallbacks": []}).model == "m"


@pytest.mark.parametrize(
    ("found", "unseen"),
    [
        (lambda: chat(user([{"type": "file", "file": {"file_id": "f1"}}])), "file"),
        (
            lambda: claude(
                user([{"type": "document", "source": {"type": "url", "url": "https://x"}}])
            ),
            "file",
        ),
        (
            lambda: ask("responses", {"model": "m", "conversation": "c", "input": "x"}),
            "conversation",
        ),
        (lambda: gemini({"fileData": {"fileUri": "x"}}), "file"),
        (lambda: gemini({"text": "x"}, cachedContent="cachedContents/1"), "cachedContent"),
    ],
)
def test_input_that_is_elsewhere_is_named(found: Any, unseen: str) -> None:
    assert found().unseen == (unseen,)


# -- hashes


def test_the_same_question_has_the_same_hash_whatever_the_time() -> None:
    def at(clock: str, call: str) -> Ask:
        return chat(
            user(f"Now: {clock}", "system"), user("Check the inbox."),
            {"role": "assistant", "tool_calls": [{"id": call, "type": "function", "function": {"name": "inbox", "arguments": '{"a": 1, "b": 2}'}}]},
            {"role": "tool", "tool_call_id": call, "content": f'{{"at": "{clock}", "new": 0, "id": "123e4567-e89b-12d3-a456-4266141740{call[-2:]}"}}'},
        )  # fmt: skip

    first, second = at("2026-01-01T10:00:00Z", "call_11"), at("2026-01-01T10:05:33.120Z", "call_22")
    assert first.request_hash == second.request_hash
    assert first.result_hash == second.result_hash
    assert first.result_hash is not None
    assert first.request_hash != chat(user("Check the outbox.")).request_hash


def test_a_different_number_is_a_different_question() -> None:
    assert chat(user("item 17")).request_hash != chat(user("item 18")).request_hash
    assert chat(user("costs 12.30")).request_hash != chat(user("costs 12.40")).request_hash


def test_parameters_and_streaming_do_not_make_it_another_question() -> None:
    assert (
        chat(user("x"), temperature=0).request_hash
        == chat(user("x"), temperature=1, stream=True).request_hash
    )


def test_another_picture_is_another_question() -> None:
    def look(data: str) -> Ask:
        return chat(
            user([{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}])
        )

    assert look(PICTURE).request_hash != look(PICTURE[::-1]).request_hash
    assert look(PICTURE).request_hash == look(PICTURE).request_hash


def tool_round(args: str, result: str) -> list[Any]:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": args}}
    return [
        user("go"),
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": result},
    ]


def test_a_result_is_hashed_with_its_call() -> None:
    base = chat(*tool_round('{"a":1,"b":2}', "same")).result_hash
    assert base == chat(*tool_round('{"b": 2, "a": 1}', "same")).result_hash
    assert base != chat(*tool_round('{"a":2,"b":2}', "same")).result_hash
    assert base != chat(*tool_round('{"a":1,"b":2}', "other")).result_hash


def test_an_old_result_is_no_new_one() -> None:
    assert chat(*tool_round("{}", "same"), user("thanks")).result_hash is None
    assert chat(user("x")).result_hash is None


def test_every_dialect_hashes_its_newest_results() -> None:
    def anthropic(result: str) -> str | None:
        use = {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}}
        return claude(
            user([use], "assistant"),
            user([{"type": "tool_result", "tool_use_id": "t1", "content": result}]),
        ).result_hash

    def responses(result: str) -> str | None:
        call = {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}
        items = [
            user("x"),
            call,
            {"type": "function_call_output", "call_id": "c1", "output": result},
        ]
        return ask("responses", {"model": "m", "input": items}).result_hash

    def google(result: str) -> str | None:
        turns = [{"role": "model", "parts": [{"functionCall": {"name": "f", "args": {}}}]},
                 {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"r": result}}}]}]  # fmt: skip
        return ask("gemini", {"contents": turns}).result_hash

    for of in (anthropic, responses, google):
        assert of("a") is not None
        assert of("a") == of("a")
        assert of("a") != of("b")


def test_what_stays_the_same_is_hashed_apart() -> None:
    first, second = chat(user("S", "system"), user("a")), chat(user("S", "system"), user("b"))
    assert first.system_hash == second.system_hash
    assert first.system_hash != chat(user("T", "system"), user("a")).system_hash
    assert (
        first.system_hash
        != chat(user("S", "system"), user("a"), tools=[{"type": "function"}]).system_hash
    )


def test_the_prompt_is_the_beginning_of_the_newest_text() -> None:
    assert (
        chat(user("old"), user("answer", "assistant"), user("new" * 2_000)).prompt
        == ("new" * 2_000)[:2_000]
    )


# -- bad requests


@pytest.mark.parametrize(
    "model", ["", "a\nb", "a\x00b", " a", "x" * 201, 7, None, [], {"a": 1}, "a\x1b[31m", "a\u2028b"]
)
def test_a_model_that_could_not_stand_in_a_log_is_refused(model: Any) -> None:
    with pytest.raises(BadRequest) as caught:
        ask("chat", {"model": model, "messages": []})
    assert caught.value.param == "model"
    assert "\n" not in caught.value.reason
    assert len(caught.value.reason) < 200


def test_a_model_in_the_path_is_held_to_the_same() -> None:
    found = find("POST", "/v1beta/models/a%0Ab:generateContent", "", {})
    assert isinstance(found, Route)
    with pytest.raises(BadRequest):
        read(found, HEADERS, b"{}")


@pytest.mark.parametrize(
    ("name", "body", "param"),
    [
        ("chat", {"model": "m"}, "messages"),
        ("chat", {"model": "m", "messages": {}}, "messages"),
        ("chat", {"model": "m", "messages": ["x"]}, "messages[0]"),
        ("chat", {"model": "m", "messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        ("chat", {"model": "m", "messages": [{"role": "user", "content": [5]}]}, "messages[0].content[0]"),
        ("chat", {"model": "m", "messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]}, "messages[0].content.text"),
        ("chat", {"model": "m", "messages": [], "stream": "yes"}, "stream"),
        ("chat", {"model": "m", "messages": [], "max_tokens": "many"}, "max_tokens"),
        ("chat", {"model": "m", "messages": [], "max_tokens": -2}, "max_tokens"),
        ("chat", {"model": "m", "messages": [], "max_tokens": True}, "max_tokens"),
        ("chat", {"model": "m", "messages": [], "n": 0}, "n"),
        ("chat", {"model": "m", "messages": [], "n": 10**9}, "n"),
        ("chat", {"model": "m", "messages": [], "tools": {}}, "tools"),
        ("chat", {"model": "m", "messages": [], "stream": True, "stream_options": 1}, "stream_options"),
        ("messages", {"model": "m", "messages": [], "system": 5}, "system"),
        ("messages", {"model": "m", "messages": [], "max_tokens": 1.5}, "max_tokens"),
        ("responses", {"model": "m", "input": 5}, "input"),
        ("responses", {"model": "m", "input": [5]}, "input[0]"),
        ("embeddings", {"model": "m", "input": 5}, "input"),
        ("embeddings", {"model": "m", "input": [1, "a"]}, "input"),
        ("gemini", {"contents": 5}, "contents"),
        ("gemini", {"contents": [{"parts": 5}]}, "contents[0].parts"),
        ("gemini", {"contents": [], "generationConfig": []}, "generationConfig"),
        ("gemini", {"contents": [], "generationConfig": {"candidateCount": "x"}}, "candidateCount"),
    ],
)  # fmt: skip
def test_a_wrong_type_is_refused_by_its_name(name: str, body: Any, param: str) -> None:
    if body.get("generationConfig") == []:
        body["generationConfig"] = [1]
    with pytest.raises(BadRequest) as caught:
        ask(name, body)
    assert caught.value.param == param


def test_a_bound_beyond_reason_is_cut_and_none_is_none() -> None:
    assert chat(user("x"), max_tokens=10**30).max_output == 10**9
    assert chat(user("x"), max_tokens=-1).max_output is None
    assert chat(user("x"), max_tokens=None).max_output is None
    assert chat(user("x"), max_tokens=0).max_output is None
    assert gemini({"text": "x"}, generationConfig={"maxOutputTokens": 0}).max_output is None
    assert ask("gemini-count", {"contents": []}).max_output == 0


KEYS = ["model", "messages", "role", "content", "type", "text", "image_url", "tools", "tool_calls", "function", "input", "system",
        "contents", "parts", "source", "data", "cache_control", "tool_call_id", "stream_options", "output", "functionResponse",
        "generationConfig", "response_format", "id", "name", "max_uses", "thinking", "encrypted_content", "inlineData", "call_id"]  # fmt: skip
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["user", "tool", "text", "image_url", "tool_result", "message", "document", "m"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=20,
)  # fmt: skip


@pytest.mark.parametrize("name", list(PATHS))
@settings(max_examples=25)
@given(body=st.dictionaries(st.sampled_from(KEYS), ANY, max_size=6), seed=ANY)
def test_any_object_is_read_or_refused(name: str, body: dict[str, Any], seed: Any) -> None:
    body = {"model": "m", "messages": [seed], "input": [seed], "contents": [seed], **body}
    try:
        found = ask(name, body)
    except BadRequest:
        return
    assert found.input_tokens >= 0
    assert 0 <= found.system_tokens <= found.input_tokens


# -- what goes out


def test_a_body_goes_out_as_it_came() -> None:
    body = b'{ "model": "gpt-4o",  "messages":[], "unknown": 1e2, "x":"\\u00e9" }'
    asked = read(route("chat"), HEADERS, body)
    assert outgoing(asked, body, "gpt-4o") == body


def test_only_the_model_and_the_usage_are_changed() -> None:
    body = b'{"model":"openai/gpt-4o","messages":[],"stream":true}'
    asked = read(route("chat"), HEADERS, body)
    assert outgoing(asked, body, "gpt-4o") == (
        b'{"stream_options":{"include_usage":true},"model":"gpt-4o","messages":[],"stream":true}'
    )
    assert outgoing(asked, body, "gpt-4o", ask_usage=False) == body.replace(b"openai/", b"")


def test_geminis_model_is_in_the_path_and_the_body_stays() -> None:
    body = b'{"contents":[]}'
    assert outgoing(read(route("gemini"), HEADERS, body), body, "gemini-2.5-pro") == body
