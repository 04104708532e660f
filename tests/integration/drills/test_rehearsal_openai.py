"""The official `openai` client at work against the rehearsal model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from midwatch.drills.rehearsal import Rehearsal, running
from midwatch.drills.rehearsal.script import parse

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"enum": ["c", "f"]}},
            "required": ["city", "unit"],
        },
    },
}
ASK: Any = [{"role": "user", "content": "What is the weather in Lisbon?"}]
SCRIPT = parse("""
rules:
  - when: {user: weather, tools: [weather], turn: 1}
    answer: {text: I look., calls: [{tool: weather, args: {city: '${user/in (\\w+)/}', unit: c}}]}
  - when: {after: weather}
    answer: {text: 'It is ${result/(\\d+)/} degrees in ${history/city": "(\\w+)/}.'}
  - when: {user: counted}
    answer: {text: x, usage: {input: 5000, cached: 4096, output: 7}}
""")


@pytest.fixture(scope="module")
def model() -> Iterator[Rehearsal]:
    with running(SCRIPT) as model:
        yield model


@pytest.fixture(scope="module")
def client(model: Rehearsal) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{model.url}/v1", api_key="rehearsal", max_retries=0) as client:
        yield client


def test_a_conversation_with_a_tool_goes_from_call_to_answer(client: openai.OpenAI) -> None:
    first = client.chat.completions.create(model="gpt-4o-mini", messages=ASK, tools=[WEATHER])
    choice = first.choices[0]
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "I look.")
    (call,) = choice.message.tool_calls or []
    assert json.loads(call.function.arguments) == {"city": "Lisbon", "unit": "c"}
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "21 and sunny"}
    messages = [*ASK, choice.message, result]
    last = client.chat.completions.create(model="gpt-4o-mini", messages=messages, tools=[WEATHER])
    assert last.choices[0].message.content == "It is 21 degrees in Lisbon."
    assert last.choices[0].finish_reason == "stop"
    assert last.usage is not None
    assert last.usage.total_tokens == last.usage.prompt_tokens + last.usage.completion_tokens


def test_a_stream_carries_the_same_as_a_whole_answer(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="gpt-4o-mini", messages=ASK, tools=[WEATHER])
    stream = client.chat.completions.create(
        model="gpt-4o-mini",
        messages=ASK,
        tools=[WEATHER],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert [c.usage for c in chunks[:-1]] == [None] * (len(chunks) - 1)
    text = "".join(c.choices[0].delta.content or "" for c in chunks[:-1])
    deltas = [d for c in chunks[:-1] for d in c.choices[0].delta.tool_calls or []]
    arguments = "".join(d.function.arguments or "" for d in deltas if d.function)
    (call,) = whole.choices[0].message.tool_calls or []
    assert (text, arguments) == (whole.choices[0].message.content, call.function.arguments)
    assert chunks[-2].choices[0].finish_reason == "tool_calls"


def test_a_stream_has_no_usage_unless_asked(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(model="gpt-4o-mini", messages=ASK, stream=True)
    assert all(chunk.usage is None and chunk.choices for chunk in stream)


def test_the_clients_own_stream_helper_understands_it(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(model="gpt-4o-mini", messages=ASK, tools=[WEATHER]) as s:
        kinds = {event.type for event in s}
        final = s.get_final_completion()
    assert {"content.delta", "tool_calls.function.arguments.done"} <= kinds
    assert final.choices[0].message.tool_calls is not None


async def test_the_async_client_gets_the_same_answers(model: Rehearsal) -> None:
    async with openai.AsyncOpenAI(base_url=f"{model.url}/v1", api_key="rehearsal") as client:
        whole = await client.chat.completions.create(model="gpt-4o-mini", messages=ASK)
        stream = await client.chat.completions.create(
            model="gpt-4o-mini", messages=ASK, stream=True
        )
        text = "".join([c.choices[0].delta.content or "" async for c in stream])
        assert text == whole.choices[0].message.content
        response = await client.responses.create(model="gpt-4o-mini", input="tell me of whales")
        assert response.output_text


def test_raw_responses_carry_the_request_id(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model="gpt-4o-mini", messages=ASK)
    assert raw.headers["x-request-id"].startswith("req_")
    assert raw.parse().choices[0].message.content


def test_the_same_request_gets_the_same_words_and_ids_of_its_own(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "Tell me about the tides of the North Sea."}]
    answers = [client.chat.completions.create(model="gpt-4o", messages=messages) for _ in range(3)]
    assert len({a.choices[0].message.content for a in answers}) == 1
    assert len({a.id for a in answers}) == 3


def test_another_server_with_the_same_seed_gives_the_same_ids() -> None:
    def ask(seed: int) -> tuple[str, str | None]:
        with running(seed=seed) as m, openai.OpenAI(base_url=f"{m.url}/v1", api_key="k") as c:
            reply = c.chat.completions.create(model="gpt-4o", messages=ASK, tools=[WEATHER])
            return reply.id, reply.choices[0].message.to_json()

    assert ask(5) == ask(5)
    assert ask(5)[0] != ask(6)[0]


def test_a_long_prefix_is_cached_the_second_time(client: openai.OpenAI) -> None:
    def cached(question: str) -> int | None:
        messages: Any = [
            {"role": "system", "content": "You know the sea. " * 300},
            {"role": "user", "content": question},
        ]
        usage = client.chat.completions.create(model="gpt-4.1", messages=messages).usage
        assert usage is not None
        assert usage.prompt_tokens_details is not None
        return usage.prompt_tokens_details.cached_tokens

    assert cached("How deep is it?") == 0
    assert cached("How salt is it?") == 1280


def test_a_script_may_say_what_is_counted(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "counted"}]
    usage = client.chat.completions.create(model="m", messages=messages).usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (5000, 7)
    assert usage.prompt_tokens_details is not None
    assert usage.prompt_tokens_details.cached_tokens == 4096


def test_max_tokens_and_stop_end_the_text(client: openai.OpenAI) -> None:
    short = client.chat.completions.create(model="m", messages=ASK, max_completion_tokens=3)
    assert (short.choices[0].finish_reason, len(short.choices[0].message.content or "")) == (
        "length",
        12,
    )
    stopped = client.chat.completions.create(model="m", messages=ASK, stop=["weather"])
    assert stopped.choices[0].finish_reason == "stop"
    assert "weather" not in (stopped.choices[0].message.content or "")


def test_a_wanted_json_schema_is_met(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"mood": {"enum": ["good", "bad"]}, "score": {"type": "integer"}},
        "required": ["mood", "score"],
        "additionalProperties": False,
    }
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "m", "schema": schema}}
    reply = client.chat.completions.create(model="m", messages=ASK, response_format=wanted)
    value = json.loads(reply.choices[0].message.content or "")
    assert value["mood"] in {"good", "bad"}
    assert isinstance(value["score"], int)


FUNCTION: Any = {"type": "function", "strict": False, **WEATHER["function"]}


def test_responses_carry_a_tool_conversation_by_id(client: openai.OpenAI) -> None:
    first = client.responses.create(
        model="gpt-4o-mini",
        input="the weather in Lisbon",
        tools=[FUNCTION],
        instructions="Be kind.",
    )
    (call,) = [item for item in first.output if item.type == "function_call"]
    assert json.loads(call.arguments) == {"city": "Lisbon", "unit": "c"}
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "19"}
    last = client.responses.create(
        model="gpt-4o-mini", input=[result], previous_response_id=first.id, tools=[FUNCTION]
    )
    assert last.output_text == "It is 19 degrees in Lisbon."
    assert last.usage is not None
    assert last.usage.input_tokens_details.cached_tokens == 0


def test_responses_take_the_conversation_as_items_too(client: openai.OpenAI) -> None:
    first = client.responses.create(model="m", input=ASK, tools=[FUNCTION])
    (call,) = [item for item in first.output if item.type == "function_call"]
    items: Any = [
        *ASK,
        *first.output,
        {"type": "function_call_output", "call_id": call.call_id, "output": "19"},
    ]
    assert client.responses.create(model="m", input=items).output_text.startswith("It is 19")


def test_a_streamed_response_ends_as_the_whole_one(client: openai.OpenAI) -> None:
    whole = client.responses.create(model="m", input="the weather in Lisbon", tools=[FUNCTION])
    with client.responses.stream(model="m", input="the weather in Lisbon", tools=[FUNCTION]) as s:
        events = list(s)
        final = s.get_final_response()
    assert [e.sequence_number for e in events if hasattr(e, "sequence_number")] == list(
        range(len(events))
    )
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"
    assert final.usage == whole.usage
    assert final.output_text == whole.output_text == "I look."


def test_a_response_that_is_too_long_is_incomplete(client: openai.OpenAI) -> None:
    response = client.responses.create(model="m", input="whales and whales", max_output_tokens=16)
    stream = client.responses.create(model="m", input="whales", max_output_tokens=2, stream=True)
    assert list(stream)[-1].type == "response.incomplete"
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"


def test_embeddings_of_like_texts_lie_close(client: openai.OpenAI) -> None:
    texts = ["a brass desk lamp", "the brass lamp of a desk", "profit and loss account"]
    reply = client.embeddings.create(model="text-embedding-3-small", input=texts, dimensions=256)
    a, b, c = (item.embedding for item in reply.data)

    def near(x: list[float], y: list[float]) -> float:
        return sum(p * q for p, q in zip(x, y, strict=True))

    assert len(a) == 256
    assert near(a, a) == pytest.approx(1, abs=1e-5)
    assert near(a, b) > 0.5 > near(a, c)
    floats = client.embeddings.create(
        model="text-embedding-3-small", input=texts[0], dimensions=256, encoding_format="float"
    )
    assert floats.data[0].embedding == pytest.approx(a, abs=1e-6)
    assert floats.usage.prompt_tokens == 5


def test_models_are_listed_and_named(client: openai.OpenAI) -> None:
    assert "gpt-4o-mini" in [m.id for m in client.models.list()]
    assert client.models.retrieve("anything").id == "anything"


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
        (
            {"messages": [{"role": "tool", "tool_call_id": "c", "content": ""}]},
            "messages[0].tool_call_id",
        ),
        ({"messages": ASK, "n": 2}, "n"),
        ({"messages": ASK, "max_tokens": 0}, "max_tokens"),
        (
            {"messages": ASK, "tools": [{"type": "function", "function": {}}]},
            "tools[0].function.name",
        ),
    ],
)
def test_a_wrong_request_is_refused_by_its_field(
    client: openai.OpenAI, request_: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="m", **request_)
    assert caught.value.param == param


def test_a_response_that_is_forgotten_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="resp_gone"):
        client.responses.create(model="m", input="x", previous_response_id="resp_gone")


def test_reasoning_is_streamed_as_it_is_answered(client: openai.OpenAI) -> None:
    ask: Any = {"model": "o4-mini", "input": "tides", "reasoning": {"effort": "low", "summary": "auto"}}  # fmt: skip
    whole = client.responses.create(**ask)
    kinds: list[str] = []
    with client.responses.stream(**ask) as stream:
        kinds += [event.type for event in stream]
        final = stream.get_final_response()
    assert "response.reasoning_summary_text.delta" in kinds
    assert [item.type for item in final.output] == ["reasoning", "message"]
    assert final.output_text == whole.output_text
    assert final.usage is not None
    assert final.usage.output_tokens_details.reasoning_tokens == 64


def test_the_tier_is_that_which_was_asked_for(client: openai.OpenAI) -> None:
    ask: Any = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "tides"}]}
    tiers = [
        client.chat.completions.create(**ask, **more).service_tier
        for more in ({}, {"service_tier": "auto"}, {"service_tier": "flex"})
    ]
    assert tiers == ["default", "default", "flex"]


def test_usage_comes_with_a_stream_only_when_asked(client: openai.OpenAI) -> None:
    ask: Any = {"model": "m", "messages": [{"role": "user", "content": "tides"}], "stream": True}
    without = list(client.chat.completions.create(**ask))
    asked = list(client.chat.completions.create(**ask, stream_options={"include_usage": True}))
    assert all(chunk.usage is None and chunk.choices for chunk in without)
    assert all("usage" not in chunk.model_fields_set for chunk in without)
    assert [chunk.usage is None for chunk in asked] == [True] * (len(asked) - 1) + [False]
    assert asked[-1].choices == []
