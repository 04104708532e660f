"""The gateway says no in each dialect's own words; and what whole answers say."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midwatch.core.calls.ask import Ask, Dialect, Kind
from midwatch.core.calls.classes import ErrorClass
from midwatch.gateway.dialects import (
    BadRequest,
    Refusal,
    Route,
    answer,
    error_event,
    listener,
    of_bad_request,
    own_error,
    refusal,
    sentinel,
    streams,
)  # fmt: skip

SPENT = Refusal(
    "midwatch_budget", "The day's budget is used up.", 429, 61.2, facts=(("limit_usd", "5"),)
)

SAID = "midwatch_budget: The day's budget is used up. (retry after 62 s)"
"""What clients print, some of them without anything else."""

CHAT = Route(Kind.OPENAI, Dialect.CHAT)
RESPONSES = Route(Kind.OPENAI, Dialect.RESPONSES)
MESSAGES = Route(Kind.ANTHROPIC, Dialect.MESSAGES)
GEMINI = Route(Kind.GEMINI, Dialect.GENERATE, "g", stream=True)
ARRAY = Route(Kind.GEMINI, Dialect.GENERATE, "g", stream=True, array=True)


def ask_of(route: Route) -> Ask:
    return Ask(route.kind, route.dialect, "m", stream=True, array=route.array)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (Kind.OPENAI, {"error": {"message": SAID, "type": "midwatch_budget", "param": None, "code": "midwatch_budget", "limit_usd": "5"}}),
        (Kind.ANTHROPIC, {"type": "error", "error": {"type": "midwatch_budget", "message": SAID, "limit_usd": "5"}}),
        (Kind.GEMINI, {"error": {"code": 429, "message": SAID, "status": "RESOURCE_EXHAUSTED", "type": "midwatch_budget", "details": [
            {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "midwatch_budget", "domain": "midwatch", "metadata": {"limit_usd": "5"}},
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "62s"}]}}),
    ],
)  # fmt: skip
def test_a_refusal_is_worded_as_the_provider_would(kind: Kind, expected: Any) -> None:
    status, headers, body = refusal(kind, SPENT)
    assert status == 429
    assert dict(headers) == {
        "content-type": "application/json",
        "x-should-retry": "false",
        "retry-after": "62",
    }
    assert json.loads(body) == expected


def test_a_client_is_told_when_it_may_try_again_by_itself() -> None:
    _, headers, _ = refusal(
        Kind.OPENAI, Refusal("midwatch_rate", "Too fast.", 429, 1.0, retry=True)
    )
    assert ("x-should-retry", "true") in headers


def test_a_refused_array_is_an_array() -> None:
    assert json.loads(refusal(Kind.GEMINI, SPENT, array=True)[2])[0]["error"]["code"] == 429


def test_a_bad_request_names_its_field() -> None:
    status, _, body = refusal(Kind.OPENAI, of_bad_request(BadRequest("n: no", "n", 415)))
    assert (status, json.loads(body)["error"]["param"]) == (415, "n")


@pytest.mark.parametrize("route", [CHAT, RESPONSES, MESSAGES, GEMINI, ARRAY])
@settings(max_examples=25)
@given(message=st.text(max_size=50))
def test_an_error_in_mid_stream_is_heard_as_one_in_its_dialect(route: Route, message: str) -> None:
    heard = listener(ask_of(route))
    events = heard.feed(error_event(route, "midwatch_cut", message))
    assert [event.failure for event in events] == [heard.failure]
    assert heard.failure is not None
    assert not heard.complete


def test_an_error_of_a_response_goes_on_counting() -> None:
    heard = listener(ask_of(RESPONSES))
    heard.feed(b'event: x\ndata: {"type":"response.in_progress","sequence_number":41}\n\n')
    event = error_event(RESPONSES, "midwatch_cut", "It broke off.", heard)
    name, body = event.decode().rstrip("\n").split("\n")
    assert name == "event: error"
    told = json.loads(body.removeprefix("data: "))
    assert (told["type"], told["sequence_number"], told["code"]) == ("error", 42, "midwatch_cut")
    assert told["error"]["message"] == told["message"] == "midwatch_cut: It broke off."


def test_an_array_is_closed_whatever_went_out_before() -> None:
    begun = b'[{"candidates":[]}'
    heard = listener(ask_of(ARRAY))
    heard.feed(begun)
    assert len(json.loads(begun + error_event(ARRAY, "midwatch_cut", "x", heard))) == 2
    assert json.loads(begun + sentinel(ARRAY, heard)) == [{"candidates": []}]
    nothing = listener(ask_of(ARRAY))
    assert len(json.loads(error_event(ARRAY, "midwatch_cut", "x", nothing))) == 1
    assert json.loads(sentinel(ARRAY, nothing)) == []


def test_sentinels() -> None:
    for route, expected in (
        (CHAT, b"data: [DONE]\n\n"),
        (MESSAGES, b'event: message_stop\ndata: {"type":"message_stop"}\n\n'),
        (RESPONSES, b""),
        (GEMINI, b""),
    ):
        heard = listener(ask_of(route))
        assert sentinel(route, heard) == expected
        heard.feed(expected)
        assert heard.ended is bool(expected)


def test_a_stream_is_known_by_its_type() -> None:
    assert streams(CHAT, "text/event-stream; charset=utf-8")
    assert streams(CHAT, "")
    assert streams(ARRAY, "application/json; charset=UTF-8")
    assert not streams(CHAT, "application/json")
    assert not streams(CHAT, "text/html")


# -- whole answers


def whole(route: Route, body: Any, status: int = 200) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return answer(ask_of(route), status, (), data)


def test_a_chat_answer() -> None:
    told = whole(CHAT, {"id": "c", "model": "gpt-4o-x", "choices": [{"finish_reason": "stop", "message": {"content": "Hi"}}], "usage": {"prompt_tokens": 3, "completion_tokens": 2}})  # fmt: skip
    assert (told.response_id, told.model, told.finish, told.refused, told.failure) == (
        "c",
        "gpt-4o-x",
        "stop",
        False,
        None,
    )
    assert told.usage.input_tokens == 3
    assert told.text == ""


def test_an_answer_without_usage_keeps_what_was_said() -> None:
    told = whole(
        CHAT,
        {"id": "c", "choices": [{"finish_reason": "stop", "message": {"content": "Hello there"}}]},
    )
    assert told.usage is None
    assert "Hello there" in told.text


@pytest.mark.parametrize(
    ("route", "body", "finish"),
    [
        (CHAT, {"choices": [{"finish_reason": "stop", "message": {"refusal": "No."}}]}, "stop"),
        (CHAT, {"choices": [{"finish_reason": "content_filter", "message": {}}]}, "content_filter"),
        (
            RESPONSES,
            {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}},
            "content_filter",
        ),
        (
            MESSAGES,
            {"stop_reason": "refusal", "usage": {"input_tokens": 1, "output_tokens": 1}},
            "refusal",
        ),
        (GEMINI, {"promptFeedback": {"blockReason": "OTHER"}}, "OTHER"),
        (GEMINI, {"candidates": [{"finishReason": "SAFETY"}]}, "SAFETY"),
    ],
)
def test_what_was_declined_is_told(route: Route, body: Any, finish: str) -> None:
    told = whole(route, body)
    assert (told.finish, told.refused, told.failure) == (finish, True, None)


def test_a_length_is_an_ordinary_end() -> None:
    told = whole(
        MESSAGES,
        {
            "id": "m",
            "model": "c",
            "stop_reason": "max_tokens",
            "usage": {"input_tokens": 1, "output_tokens": 9},
        },
    )
    assert (told.finish, told.refused) == ("max_tokens", False)


@pytest.mark.parametrize(
    ("route", "body", "status", "kind"),
    [
        (CHAT, b"<html>", 200, ErrorClass.TRANSIENT),
        (CHAT, b'{"choices":[{"mess', 200, ErrorClass.TRANSIENT),
        (CHAT, b"", 200, ErrorClass.TRANSIENT),
        (CHAT, b"data: {}", 200, ErrorClass.UNREADABLE),
        (CHAT, b"[]", 200, ErrorClass.UNREADABLE),
        (MESSAGES, {"id": "m"}, 200, ErrorClass.UNREADABLE),
        (GEMINI, b"x({});", 200, ErrorClass.UNREADABLE),
        (CHAT, {"error": {"code": 429, "message": "slow"}}, 200, ErrorClass.RATE_LIMIT),
        (RESPONSES, {"id": "r", "status": "failed", "error": {"code": "server_error", "message": "x"}}, 200, ErrorClass.TRANSIENT),
        (MESSAGES, {"type": "error", "error": {"type": "overloaded_error"}}, 529, ErrorClass.OVERLOADED),
    ],
)  # fmt: skip
def test_what_is_no_answer_is_a_failure(
    route: Route, body: Any, status: int, kind: ErrorClass
) -> None:
    told = whole(route, body, status)
    assert told.failure is not None
    assert told.failure.kind is kind


@pytest.mark.parametrize(
    ("route", "raw", "passed"),
    [
        (CHAT, b'data: {"error":{"message":"x"}}\n\n', b'data: {"error":{"message":"x"}}\n\n'),
        (CHAT, b'event: error\ndata: {"message":"x"}\n\n', None),
        (MESSAGES, b'event: error\ndata: {"type":"error"}\n\n', b'event: error\ndata: {"type":"error"}\n\n'),
        (MESSAGES, b'data: {"type":"error","error":{}}\n\n', None),
        (RESPONSES, b'event: error\ndata: {"type":"error","code":"x"}\n\n', None),
        (RESPONSES, b'event: error\ndata: {"type":"error","error":{}}\n\n', None),
        (RESPONSES, b'data: {"type":"error","error":{"code":"x"}}\n\n', b'data: {"type":"error","error":{"code":"x"}}\n\n'),
        (ARRAY, b',\r\n{"error":{"code":503}}', b',\r\n{"error":{"code":503}}]'),
        (CHAT, b"data: [1]\n\n", None),
        (CHAT, b"data: {\n\n", None),
    ],
)  # fmt: skip
def test_a_provider_s_own_error_passes_where_clients_do_not_take_it_for_content(
    route: Route, raw: bytes, passed: bytes | None
) -> None:
    assert own_error(route, raw) == passed
