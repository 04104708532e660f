"""The model misbehaves to order, and the official clients see what they would see of a provider."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from midwatch.drills.rehearsal import Rehearsal, running
from midwatch.drills.rehearsal.script import parse

ASK: Any = [{"role": "user", "content": "Tell me about the tides, at some length, and the moon."}]
TOOL: Any = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}


@pytest.fixture
def model() -> Iterator[Rehearsal]:
    with running() as model:
        yield model


@pytest.fixture
def chat(model: Rehearsal) -> Iterator[Callable[..., Any]]:
    with openai.OpenAI(base_url=f"{model.url}/v1", api_key="rehearsal", max_retries=0) as client:
        yield lambda model_name="gpt-4o-mini", **more: client.chat.completions.create(
            model=model_name, **{"messages": ASK, **more}
        )


@pytest.fixture
def message(model: Rehearsal) -> Iterator[Callable[..., Any]]:
    with anthropic.Anthropic(base_url=model.url, api_key="rehearsal", max_retries=0) as client:
        yield lambda model_name="claude-haiku-4-5", **more: client.messages.create(
            model=model_name, max_tokens=200, messages=ASK, **more
        )


def control(model: Rehearsal, method: str, path: str, value: Any = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(model.url.removeprefix("http://"), timeout=30)
    connection.request(method, path, None if value is None else json.dumps(value))
    reply = connection.getresponse()
    body = json.loads(reply.read())
    connection.close()
    return reply.status, body


def calls(model: Rehearsal) -> list[dict[str, Any]]:
    return control(model, "GET", "/rehearsal/calls")[1]["calls"]


def wait_for(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 30
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


@pytest.mark.parametrize(
    ("mode", "error", "status"),
    [
        ("429", openai.RateLimitError, 429),
        ("error", openai.InternalServerError, 500),
        ("529", openai.InternalServerError, 503),
        ("401", openai.AuthenticationError, 401),
    ],
)
def test_openai_errors_have_their_status_and_body(
    chat: Callable[..., Any], mode: str, error: type[openai.APIStatusError], status: int
) -> None:
    with pytest.raises(error) as caught:
        chat(f"gpt-4o-mini:{mode}")
    assert caught.value.status_code == status
    body: Any = caught.value.body
    assert set(body) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("mode", "error", "kind"),
    [
        ("429", anthropic.RateLimitError, "rate_limit_error"),
        ("500", anthropic.InternalServerError, "api_error"),
        ("529", anthropic.APIStatusError, "overloaded_error"),
        ("401", anthropic.AuthenticationError, "authentication_error"),
    ],
)
def test_anthropic_errors_have_their_status_and_body(
    message: Callable[..., Any], mode: str, error: type[anthropic.APIStatusError], kind: str
) -> None:
    with pytest.raises(error) as caught:
        message(f"claude-haiku-4-5:{mode}")
    body: Any = caught.value.body
    assert body["error"]["type"] == kind
    assert caught.value.status_code == (500 if mode == "500" else int(mode))


def test_a_rate_limit_says_when_to_come_back_and_a_retry_succeeds(model: Rehearsal) -> None:
    order = {"mode": "rate-limit", "times": 2, "retry_after": "50ms"}
    assert control(model, "POST", "/rehearsal/behave", order)[0] == 200
    with openai.OpenAI(base_url=f"{model.url}/v1", api_key="k", max_retries=2) as client:
        started = time.monotonic()
        client.chat.completions.create(model="m", messages=ASK)
        assert 0.1 <= time.monotonic() - started < 30
    assert [call["status"] for call in calls(model)] == [429, 429, 200]
    with openai.OpenAI(base_url=f"{model.url}/v1", api_key="k", max_retries=0) as client:
        control(model, "POST", "/rehearsal/behave", {"mode": "429", "retry_after": 7})
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(model="m", messages=ASK)
    assert caught.value.response.headers["retry-after"] == "7"


def test_slow_delays_the_first_token_and_each_chunk(
    model: Rehearsal, chat: Callable[..., Any]
) -> None:
    order = {"mode": "slow", "first_token": "200ms", "between": "20ms"}
    control(model, "POST", "/rehearsal/behave", order)
    started = time.monotonic()
    arrived = [time.monotonic() - started for _ in chat(stream=True)]
    assert arrived[0] >= 0.2
    # from the request on: the first may be read late, and that would shorten the distance between them
    assert arrived[-1] >= 0.2 + 0.02 * (len(arrived) - 1)
    assert len(arrived) > 3


def test_a_cut_stream_breaks_in_the_middle(
    model: Rehearsal, chat: Callable[..., Any], message: Callable[..., Any]
) -> None:
    seen: list[object] = []
    with pytest.raises(openai.APIConnectionError):
        seen.extend(chat("gpt-4o-mini:cut", stream=True))
    assert len(seen) == 2
    with pytest.raises(httpx2.TransportError):
        list(message("claude-haiku-4-5:cut", stream=True))
    assert wait_for(lambda: [c["end"] for c in calls(model)] == ["cut", "cut"])


def test_a_call_that_is_cut_before_its_answer_is_a_connection_error(
    chat: Callable[..., Any], message: Callable[..., Any]
) -> None:
    with pytest.raises(openai.APIConnectionError):
        chat("gpt-4o-mini:cut")
    with pytest.raises(anthropic.APIConnectionError):
        message("claude-haiku-4-5:cut")


@pytest.mark.parametrize("stream", [False, True])
def test_a_stall_lasts_until_the_client_gives_up(
    model: Rehearsal, chat: Callable[..., Any], stream: bool
) -> None:
    with pytest.raises(openai.APITimeoutError):
        for _ in chat("gpt-4o-mini:stall", stream=stream, timeout=0.3):
            pass
    assert wait_for(lambda: calls(model)[0]["end"] == "stalled")


def test_an_error_in_mid_stream_arrives_as_the_providers_event(
    model: Rehearsal, chat: Callable[..., Any], message: Callable[..., Any]
) -> None:
    control(model, "POST", "/rehearsal/behave", {"mode": "error", "after_chunks": 3})
    with pytest.raises(openai.APIError, match="Overloaded"):
        list(chat(stream=True))
    with pytest.raises(anthropic.APIStatusError, match="overloaded_error"):
        list(message(stream=True))


def test_broken_json_reaches_the_client(
    chat: Callable[..., Any], message: Callable[..., Any]
) -> None:
    for broken in (
        lambda: chat("gpt-4o-mini:json"),
        lambda: list(chat("gpt-4o-mini:json", stream=True)),
        lambda: message("claude-haiku-4-5:json"),
        lambda: list(message("claude-haiku-4-5:json", stream=True)),
    ):
        with pytest.raises(json.JSONDecodeError):
            broken()


def test_arguments_that_are_no_json_reach_the_agent(chat: Callable[..., Any]) -> None:
    reply = chat("gpt-4o-mini:arguments", tools=[TOOL], tool_choice="required")
    (call,) = reply.choices[0].message.tool_calls
    with pytest.raises(json.JSONDecodeError):
        json.loads(call.function.arguments)


def test_a_loop_always_asks_for_the_same_tool_call(chat: Callable[..., Any]) -> None:
    messages = list(ASK)
    seen: set[str] = set()
    for _ in range(6):
        reply = chat("gpt-4o-mini:loop", messages=messages, tools=[TOOL]).choices[0].message
        (call,) = reply.tool_calls
        seen.add(call.function.name + call.function.arguments)
        messages += [reply, {"role": "tool", "tool_call_id": call.id, "content": "nothing"}]
    assert len(seen) == 1


def test_a_header_misbehaves_for_one_call(chat: Callable[..., Any]) -> None:
    with pytest.raises(openai.InternalServerError):
        chat(extra_headers={"x-rehearsal-behave": "error"})
    assert chat().choices
    with pytest.raises(openai.BadRequestError, match="x-rehearsal-behave"):
        chat(extra_headers={"x-rehearsal-behave": "explode"})


def test_a_behaviour_is_about_one_agent_and_is_lifted(
    model: Rehearsal, chat: Callable[..., Any]
) -> None:
    _, added = control(model, "POST", "/rehearsal/behave", [{"mode": "401", "agent": "inbox"}])
    assert chat(extra_headers={"x-midwatch-agent": "prices"}).choices
    with pytest.raises(openai.AuthenticationError):
        chat(extra_headers={"x-midwatch-agent": "inbox"})
    listed = control(model, "GET", "/rehearsal/behave")[1]["behaviours"]
    assert [(b["mode"], b["agent"], b["applied"]) for b in listed] == [("refuse", "inbox", 1)]
    assert control(model, "DELETE", f"/rehearsal/behave?id={added['ids'][0]}") == (
        200,
        {"cleared": 1},
    )
    assert chat(extra_headers={"x-midwatch-agent": "inbox"}).choices


def test_the_key_names_the_agent(model: Rehearsal) -> None:
    with openai.OpenAI(base_url=f"{model.url}/v1", api_key="rehearsal:inbox") as client:
        client.chat.completions.create(model="m", messages=ASK)
    assert calls(model)[0]["agent"] == "inbox"


def test_a_wrong_order_changes_nothing(model: Rehearsal) -> None:
    status, body = control(model, "POST", "/rehearsal/behave", [{"mode": "slow"}, {"mode": "fly"}])
    assert status == 400
    assert "mode: " in body["error"]["message"]
    assert control(model, "GET", "/rehearsal/behave")[1] == {"behaviours": []}


def test_calls_are_listed_with_what_was_asked_and_answered(
    model: Rehearsal, chat: Callable[..., Any]
) -> None:
    headers = {"x-midwatch-task": "triage", "x-midwatch-session": "s1"}
    chat(extra_headers=headers, stream=True, tools=[TOOL]).close()
    chat("other")
    first, second = calls(model)
    assert (first["model"], first["task"], first["session"]) == ("gpt-4o-mini", "triage", "s1")
    assert first["user"] == ASK[0]["content"]
    assert (first["tools"], first["stream"], first["turn"], first["status"]) == (
        ["look"],
        True,
        1,
        200,
    )
    assert second["end"] == "done"
    assert second["output_tokens"] > 0
    page = control(model, "GET", "/rehearsal/calls?after=1&model=other")[1]
    assert [c["number"] for c in page["calls"]] == [2]
    assert page["total"] == 2
    assert control(model, "DELETE", "/rehearsal/calls") == (200, {"cleared": 2})
    assert control(model, "GET", "/rehearsal/calls")[1] == {"calls": [], "total": 2, "forgotten": 2}


def test_a_real_key_is_not_kept(model: Rehearsal) -> None:
    with openai.OpenAI(base_url=f"{model.url}/v1", api_key="sk-secret-123") as client:
        client.chat.completions.create(model="m", messages=ASK)
    assert calls(model)[0]["key"] == "sk-…"
    assert "secret" not in json.dumps(control(model, "GET", "/rehearsal/calls")[1])


def test_a_script_misbehaves_by_rule_and_may_refuse_the_unknown() -> None:
    playing = parse("""
        rules: [{when: {user: tides}, answer: {text: x}, behave: error}]
        otherwise: error
        """)
    with (
        running(playing) as m,
        openai.OpenAI(base_url=f"{m.url}/v1", api_key="k", max_retries=0) as c,
    ):
        with pytest.raises(openai.InternalServerError):
            c.chat.completions.create(model="m", messages=ASK)
        with pytest.raises(openai.BadRequestError, match="no rule of the script matches"):
            c.chat.completions.create(model="m", messages=[{"role": "user", "content": "else"}])
