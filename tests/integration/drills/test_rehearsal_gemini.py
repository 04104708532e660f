"""Gemini's dialect, as the google-genai client writes and reads it, over plain HTTP."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest

from midwatch.drills.rehearsal import Rehearsal, running

from .rehearsed import CONTENTS, ask, call, control, post  # noqa: TID252  there is no tests package

MODEL = "/v1beta/models/gemini-2.0-flash"
LOOK: Any = {
    "functionDeclarations": [
        {
            "name": "look",
            "description": "Look at the weather",
            "parameters": {
                "type": "OBJECT",
                "properties": {"city": {"type": "STRING"}, "days": {"type": "INTEGER"}},
                "required": ["city", "days"],
            },
        }
    ]
}


@pytest.fixture(scope="module")
def model() -> Iterator[Rehearsal]:
    with running() as model:
        yield model


def get(model: Rehearsal, path: str, headers: dict[str, str] | None = None) -> Any:
    connection = http.client.HTTPConnection(model.url.removeprefix("http://"), timeout=30)
    connection.request("GET", path, headers=headers or {})
    body = json.loads(connection.getresponse().read())
    connection.close()
    return body


def test_an_answer_has_the_providers_form(model: Rehearsal) -> None:
    body = post(model, f"{MODEL}:generateContent", {"contents": CONTENTS}).json
    (candidate,) = body["candidates"]
    assert set(body) == {"candidates", "usageMetadata", "modelVersion", "responseId"}
    assert (candidate["finishReason"], candidate["content"]["role"]) == ("STOP", "model")
    assert "tides" in candidate["content"]["parts"][0]["text"]
    usage = body["usageMetadata"]
    assert usage["totalTokenCount"] == usage["promptTokenCount"] + usage["candidatesTokenCount"]
    assert usage["promptTokensDetails"] == [{"modality": "TEXT", "tokenCount": usage["promptTokenCount"]}]  # fmt: skip


def test_a_stream_carries_the_same_text_with_usage_that_grows(model: Rehearsal) -> None:
    whole = call(model, "generate").json
    reply = call(model, "generate", stream=True)
    assert reply.headers["content-type"].startswith("text/event-stream")
    events = reply.events
    text = "".join(e["candidates"][0]["content"]["parts"][0]["text"] for e in events)
    assert text == whole["candidates"][0]["content"]["parts"][0]["text"]
    counts = [e["usageMetadata"]["candidatesTokenCount"] for e in events]
    assert counts == sorted(counts)
    assert counts[-1] == whole["usageMetadata"]["candidatesTokenCount"]
    reasons = [e["candidates"][0].get("finishReason") for e in events]
    assert reasons == [None] * (len(events) - 1) + ["STOP"]


def test_without_sse_a_stream_is_one_array_of_the_same_pieces(model: Rehearsal) -> None:
    path = f"{MODEL}:streamGenerateContent"
    as_array = post(model, path, {"contents": CONTENTS})
    events = post(model, f"{path}?alt=sse", {"contents": CONTENTS}).events
    assert as_array.headers["content-type"] == "application/json; charset=UTF-8"
    ids = {"responseId"}
    bare = [[{k: v for k, v in e.items() if k not in ids} for e in s] for s in (as_array.json, events)]  # fmt: skip
    assert bare[0] == bare[1]


def test_a_function_is_called_and_its_result_is_used(model: Rehearsal) -> None:
    turn: Any = {"role": "user", "parts": [{"text": "The weather in Oslo for 3 days, please"}]}
    body = {"contents": [turn], "tools": [LOOK]}
    said = post(model, f"{MODEL}:generateContent", body).json["candidates"][0]
    (part,) = said["content"]["parts"]
    assert part["functionCall"]["name"] == "look"
    assert part["functionCall"]["args"]["days"] == 3
    result = {"functionResponse": {"name": "look", "response": {"result": "sunny"}}}
    body["contents"] = [turn, said["content"], {"role": "user", "parts": [result]}]
    body["toolConfig"] = {"functionCallingConfig": {"mode": "NONE"}}
    after = post(model, f"{MODEL}:generateContent", body).json["candidates"][0]
    assert "sunny" in after["content"]["parts"][0]["text"]


def test_names_in_snake_case_are_read_like_those_in_camel_case(model: Rehearsal) -> None:
    camel = {
        "contents": CONTENTS,
        "systemInstruction": {"parts": [{"text": "Be brief and kind."}]},
        "generationConfig": {"maxOutputTokens": 3},
    }
    snake = {
        "contents": CONTENTS,
        "system_instruction": {"parts": [{"text": "Be brief and kind."}]},
        "generation_config": {"max_output_tokens": 3},
    }
    one, two = (post(model, f"{MODEL}:generateContent", b).json for b in (camel, snake))
    assert one["usageMetadata"] == two["usageMetadata"]
    assert one["candidates"][0]["finishReason"] == "MAX_TOKENS"


def test_thoughts_are_counted_beside_the_answer_and_shown_only_when_asked(model: Rehearsal) -> None:
    path = "/v1beta/models/gemini-2.5-flash:generateContent"
    hidden = post(model, path, {"contents": CONTENTS}).json
    config = {"thinkingConfig": {"includeThoughts": True, "thinkingBudget": 32}}
    shown = post(model, path, {"contents": CONTENTS, "generationConfig": config}).json
    off = {"thinkingConfig": {"thinkingBudget": 0}}
    none = post(model, path, {"contents": CONTENTS, "generationConfig": off}).json
    assert hidden["usageMetadata"]["thoughtsTokenCount"] == 64
    assert len(hidden["candidates"][0]["content"]["parts"]) == 1
    assert shown["usageMetadata"]["thoughtsTokenCount"] == 32
    assert shown["candidates"][0]["content"]["parts"][0]["thought"] is True
    assert "thoughtsTokenCount" not in none["usageMetadata"]
    usage = shown["usageMetadata"]
    assert (
        usage["totalTokenCount"] == usage["promptTokenCount"] + usage["candidatesTokenCount"] + 32
    )


def test_pictures_are_counted_in_their_own_modality(model: Rehearsal) -> None:
    parts = [{"text": "What is it?"}, {"inlineData": {"mimeType": "image/png", "data": "AA=="}}]
    body = {"contents": [{"parts": parts}]}
    usage = post(model, f"{MODEL}:generateContent", body).json["usageMetadata"]
    assert {"modality": "IMAGE", "tokenCount": 258} in usage["promptTokensDetails"]
    counted = post(model, f"{MODEL}:countTokens", body).json
    assert counted["totalTokens"] == usage["promptTokenCount"]
    inner = {"generateContentRequest": {"model": "models/gemini-2.0-flash", **body}}
    assert post(model, f"{MODEL}:countTokens", inner).json == counted


def test_a_long_prefix_is_cached_when_it_comes_again(model: Rehearsal) -> None:
    body = {
        "contents": CONTENTS,
        "systemInstruction": {"parts": [{"text": "Know the sea. " * 400}]},
    }
    first, second = (post(model, f"{MODEL}:generateContent", body).json for _ in range(2))
    assert "cachedContentTokenCount" not in first["usageMetadata"]
    assert 1404 <= second["usageMetadata"]["cachedContentTokenCount"] <= second["usageMetadata"]["promptTokenCount"]  # fmt: skip


def test_the_key_travels_in_a_header_or_in_the_query(model: Rehearsal) -> None:
    path, body = ask("generate")
    for where, headers in (
        (path, {"x-goog-api-key": "rehearsal:inbox", "authorization": ""}),
        (f"{path}?key=rehearsal:inbox", {"authorization": ""}),
    ):
        assert post(model, where, body, headers).status == 200
    last = control(model, "GET", "/rehearsal/calls")["calls"][-2:]
    assert [c["agent"] for c in last] == ["inbox", "inbox"]
    refused = post(model, path, body, {"authorization": ""})
    assert (refused.status, refused.json["error"]["status"]) == (403, "PERMISSION_DENIED")


def test_models_are_listed_under_every_version(model: Rehearsal) -> None:
    key = {"x-goog-api-key": "k"}
    listed = get(model, "/v1beta/models", key)["models"]
    assert "models/gemini-2.5-flash" in [m["name"] for m in listed]
    assert get(model, "/v1/models", key)["models"] == listed
    assert get(model, "/v1beta/models/gemini-2.5-pro?key=k")["displayName"] == "Gemini 2.5 Pro"
    assert post(model, "/v1/models/gemini-2.0-flash:generateContent", {"contents": CONTENTS}).status == 200  # fmt: skip


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        (f"{MODEL}:generateContent", {"contents": []}, 400, "contents are required"),
        (f"{MODEL}:generateContent", {"contents": [{"role": "wizard", "parts": []}]}, 400, "role"),
        (f"{MODEL}:generateContent", {"contents": [{"parts": [{}]}]}, 400, "oneof field"),
        (f"{MODEL}:generateContent", {"contents": CONTENTS, "cachedContent": "c/1"}, 403, "CachedContent"),
        (f"{MODEL}:paint", {"contents": CONTENTS}, 404, "generateContent"),
        (f"{MODEL}:countTokens", {"contents": 5}, 400, "expected a list"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_refused_in_googles_form(
    model: Rehearsal, path: str, body: Any, status: int, words: str
) -> None:
    reply = post(model, path, body)
    assert reply.status == status
    error = reply.json["error"]
    assert (error["code"], words in error["message"]) == (status, True)
    assert error["status"].isupper()


def test_a_prompt_that_policy_forbids_is_a_good_answer_without_candidates(
    model: Rehearsal,
) -> None:
    whole = call(model, "generate", "content-policy")
    assert (whole.status, whole.json["promptFeedback"]) == (200, {"blockReason": "PROHIBITED_CONTENT"})  # fmt: skip
    assert "candidates" not in whole.json
    (event,) = call(model, "generate", "content-policy", stream=True).events
    assert event["promptFeedback"] == whole.json["promptFeedback"]


def test_arguments_that_are_no_json_have_a_reason_of_their_own(model: Rehearsal) -> None:
    config = {"functionCallingConfig": {"mode": "ANY"}}
    reply = call(model, "generate", "arguments", tools=[LOOK], toolConfig=config)
    assert reply.json["candidates"][0]["finishReason"] == "MALFORMED_FUNCTION_CALL"


def test_an_error_in_mid_stream_is_a_piece_of_the_stream(model: Rehearsal) -> None:
    order = {"mode": "error", "after_chunks": 2}
    events = call(model, "generate", order, stream=True).events
    assert [next(iter(e)) for e in events] == ["candidates", "candidates", "error"]
    header = {"x-rehearsal-behave": json.dumps(order)}
    array = post(model, f"{MODEL}:streamGenerateContent", {"contents": CONTENTS}, header).json
    assert array[-1]["error"]["status"] == "UNAVAILABLE"
