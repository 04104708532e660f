"""The official `anthropic` client at work against the rehearsal model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest

from midwatch.drills.rehearsal import Rehearsal, running
from midwatch.drills.rehearsal.script import parse

TOOL: Any = {
    "name": "weather",
    "description": "The weather in a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}
ASK: Any = [{"role": "user", "content": "What is the weather in Lisbon?"}]
BASE: Any = {"model": "claude-haiku-4-5", "max_tokens": 200}
SCRIPT = parse("""
rules:
  - when: {api: messages, user: weather, tools: [weather], turn: 1}
    answer: {text: I look., calls: [{tool: weather, args: {city: '${user/in (\\w+)/}'}}]}
  - when: {after: weather, result: '\\d'}
    answer: {text: 'It is ${result/(\\d+)/} degrees.'}
""")


@pytest.fixture(scope="module")
def model() -> Iterator[Rehearsal]:
    with running(SCRIPT) as model:
        yield model


@pytest.fixture(scope="module")
def client(model: Rehearsal) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=model.url, api_key="rehearsal", max_retries=0) as client:
        yield client


def test_a_conversation_with_a_tool_goes_from_call_to_answer(client: anthropic.Anthropic) -> None:
    first = client.messages.create(**BASE, messages=ASK, tools=[TOOL])
    assert first.stop_reason == "tool_use"
    text, call = first.content
    assert text.type == "text"
    assert call.type == "tool_use"
    assert (text.text, call.input) == ("I look.", {"city": "Lisbon"})
    result: Any = [
        {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "21"}]}
    ]
    messages: Any = [
        *ASK,
        {"role": "assistant", "content": first.content},
        {"role": "user", "content": result},
    ]
    last = client.messages.create(**BASE, messages=messages, tools=[TOOL])
    assert [b.text for b in last.content if b.type == "text"] == ["It is 21 degrees."]
    assert last.stop_reason == "end_turn"


def test_a_stream_carries_the_same_as_a_whole_answer(client: anthropic.Anthropic) -> None:
    whole = client.messages.create(**BASE, messages=ASK, tools=[TOOL])
    with client.messages.stream(**BASE, messages=ASK, tools=[TOOL]) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_message()
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"
    assert [b.model_dump(exclude={"id", "parsed_output"}) for b in final.content] == [
        b.model_dump(exclude={"id"}) for b in whole.content
    ]
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert final.stop_reason == "tool_use"


async def test_the_async_client_gets_the_same_answers(model: Rehearsal) -> None:
    async with anthropic.AsyncAnthropic(base_url=model.url, api_key="rehearsal") as client:
        whole = await client.messages.create(**BASE, messages=ASK)
        async with client.messages.stream(**BASE, messages=ASK) as stream:
            text = await stream.get_final_text()
        events = await client.messages.create(**BASE, messages=ASK, stream=True)
        kinds = [event.type async for event in events]
    assert text == "".join(b.text for b in whole.content if b.type == "text")
    assert kinds[-1] == "message_stop"


def test_what_is_marked_is_written_to_the_cache_and_read_from_it(
    client: anthropic.Anthropic,
) -> None:
    system: Any = [
        {"type": "text", "text": "Know the sea. " * 400, "cache_control": {"type": "ephemeral"}}
    ]
    first = client.messages.create(**BASE, system=system, messages=ASK).usage
    second = client.messages.create(**BASE, system=system, messages=ASK).usage
    assert (first.cache_creation_input_tokens, first.cache_read_input_tokens) == (1404, 0)
    assert (second.cache_creation_input_tokens, second.cache_read_input_tokens) == (0, 1404)
    assert first.input_tokens == second.input_tokens < 20


def test_nothing_is_cached_unless_asked(client: anthropic.Anthropic) -> None:
    for _ in range(2):
        usage = client.messages.create(**BASE, system="Plain words. " * 800, messages=ASK).usage
        assert usage.cache_read_input_tokens == 0


def test_tokens_are_counted_as_they_are_charged(client: anthropic.Anthropic) -> None:
    counted = client.messages.count_tokens(
        model="claude-haiku-4-5", messages=ASK, system="Be kind.", tools=[TOOL]
    )
    charged = client.messages.create(**BASE, messages=ASK, system="Be kind.", tools=[TOOL])
    assert counted.input_tokens == charged.usage.input_tokens > 20


def test_max_tokens_and_stop_sequences_end_the_text(client: anthropic.Anthropic) -> None:
    short = client.messages.create(model="m", max_tokens=2, messages=ASK)
    assert (short.stop_reason, short.usage.output_tokens) == ("max_tokens", 2)
    stopped = client.messages.create(**BASE, messages=ASK, stop_sequences=["weather"])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "weather")


def test_models_are_listed_and_named(client: anthropic.Anthropic) -> None:
    listed = client.models.list()
    assert "claude-haiku-4-5" in [m.id for m in listed]
    assert client.models.retrieve("claude-haiku-4-5").display_name == "Claude Haiku 4.5"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"messages": []}, "at least one message"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "expected user or assistant"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t"}]}
                ]
            },
            "unexpected `tool_use_id`",
        ),
        ({"messages": ASK, "max_tokens": 0}, "max_tokens"),
    ],
)
def test_a_wrong_request_is_refused_in_the_dialects_own_body(
    client: anthropic.Anthropic, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        client.messages.create(**{**BASE, **change})
    body: Any = caught.value.body
    assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error")
    assert message in body["error"]["message"]


def test_thinking_is_streamed_as_it_is_answered(client: anthropic.Anthropic) -> None:
    ask: Any = {**BASE, "messages": ASK, "thinking": {"type": "enabled", "budget_tokens": 64}}
    whole = client.messages.create(**ask)
    with client.messages.stream(**ask) as stream:
        final = stream.get_final_message()
    assert [block.type for block in final.content] == ["thinking", "text"]
    assert [getattr(b, "thinking", None) for b in final.content] == [
        getattr(b, "thinking", None) for b in whole.content
    ]
    assert final.usage.output_tokens == whole.usage.output_tokens > 64


def test_a_refusal_has_its_own_stop_reason(client: anthropic.Anthropic) -> None:
    headers = {"x-rehearsal-behave": "refusal"}
    with client.messages.stream(**BASE, messages=ASK, extra_headers=headers) as stream:
        assert stream.get_final_message().stop_reason == "refusal"
