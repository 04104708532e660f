"""The official clients before a gateway that asks providers of other kinds: they notice nothing of it."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from typing import Any

import anthropic
import openai
import pytest
from anthropic.types import Message
from openai.types.chat import ChatCompletion

from midwatch.drills.rehearsal.model import Rehearsal

from .conftest import Running, prepared  # noqa: TID252  there is no tests package

KINDS = ("openai", "anthropic", "gemini")
CHAINS = {
    "gpt-4o-mini": ["anthropic/claude-haiku-4-5"],
    "gpt-4o": ["gemini/gemini-2.5-flash"],
    "claude-haiku-4-5": ["openai/gpt-4o-mini"],
    "claude-sonnet-5-0": ["gemini/gemini-2.5-flash"],
    "gemini-2.5-flash": ["openai/gpt-4o-mini"],
    "gemini-2.5-pro": ["anthropic/claude-haiku-4-5"],
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
}
HI: list[Any] = [{"role": "user", "content": "What is the weather in Oslo?"}]
FUNCTION: Any = {
    "type": "function",
    "function": {"name": "weather", "description": "Look", "parameters": SCHEMA},
}
TOOL: Any = {"name": "weather", "description": "Look", "input_schema": SCHEMA}


@pytest.fixture(scope="module")
def crossing(tmp_path_factory: pytest.TempPathFactory, rehearsal: Rehearsal) -> Generator[Running]:
    """A gateway whose chains lead to other kinds."""
    with prepared(tmp_path_factory.mktemp("crossing") / "data", rehearsal.url) as one:
        one.fleet(models={"providers": {kind: {"kind": kind} for kind in KINDS}, "chains": CHAINS})
        one.start()
        yield one


@pytest.fixture
def gpt(crossing: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{crossing.url}/v1", api_key=crossing.key(), max_retries=0
    ) as client:
        yield client


@pytest.fixture
def claude(crossing: Running) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(
        base_url=crossing.url, api_key=crossing.key(), max_retries=0
    ) as client:
        yield client


@pytest.mark.parametrize("model", ["gpt-4o-mini", "gpt-4o"])
def test_a_loop_of_tools_in_openais_client(gpt: openai.OpenAI, model: str) -> None:
    first = gpt.chat.completions.create(
        model=model, messages=HI, tools=[FUNCTION], tool_choice="required"
    )
    ChatCompletion.model_validate(first.model_dump(), strict=True)
    (call,) = first.choices[0].message.tool_calls or []
    assert first.choices[0].finish_reason == "tool_calls"
    assert call.type == "function"
    assert isinstance(json.loads(call.function.arguments), dict)
    answered = [*HI, first.choices[0].message.model_dump(exclude_none=True)]
    answered.append({"role": "tool", "tool_call_id": call.id, "content": "rain"})
    second = gpt.chat.completions.create(
        model=model, messages=answered, tools=[FUNCTION], tool_choice="none"
    )
    assert second.choices[0].message.content
    assert second.usage is not None
    assert (
        second.usage.total_tokens == second.usage.prompt_tokens + second.usage.completion_tokens > 0
    )


@pytest.mark.parametrize("model", ["claude-haiku-4-5", "claude-sonnet-5-0"])
def test_a_loop_of_tools_in_anthropics_client(claude: anthropic.Anthropic, model: str) -> None:
    first = claude.messages.create(
        model=model, max_tokens=300, messages=HI, tools=[TOOL], tool_choice={"type": "any"}
    )
    Message.model_validate(first.model_dump(), strict=True)
    call = next(block for block in first.content if block.type == "tool_use")
    assert first.stop_reason == "tool_use"
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "rain"}
    answered: list[Any] = [
        *HI,
        {"role": "assistant", "content": first.model_dump(exclude_none=True)["content"]},
    ]
    answered.append({"role": "user", "content": [result]})
    second = claude.messages.create(
        model=model, max_tokens=300, messages=answered, tools=[TOOL], tool_choice={"type": "none"}
    )
    assert second.content[0].type == "text"
    assert second.usage.input_tokens > 0
    assert second.usage.output_tokens > 0


@pytest.mark.parametrize("model", ["gpt-4o-mini", "gpt-4o"])
def test_openais_client_streams(gpt: openai.OpenAI, model: str) -> None:
    whole = gpt.chat.completions.create(model=model, messages=HI)
    with gpt.chat.completions.stream(
        model=model, messages=HI, stream_options={"include_usage": True}
    ) as stream:
        for _ in stream:
            pass
        found = stream.get_final_completion()
    assert found.choices[0].message.content == whole.choices[0].message.content
    assert found.choices[0].finish_reason == whole.choices[0].finish_reason == "stop"
    assert found.usage is not None
    assert whole.usage is not None
    assert found.usage.completion_tokens == whole.usage.completion_tokens > 0


@pytest.mark.parametrize("model", ["claude-haiku-4-5", "claude-sonnet-5-0"])
@pytest.mark.parametrize("choice", ["any", "none"])
def test_anthropics_client_streams(claude: anthropic.Anthropic, model: str, choice: Any) -> None:
    given: Any = {
        "model": model,
        "max_tokens": 300,
        "messages": HI,
        "tools": [TOOL],
        "tool_choice": {"type": choice},
    }
    whole = claude.messages.create(**given)
    with claude.messages.stream(**given) as stream:
        found = stream.get_final_message()
    assert [b.model_dump(exclude={"id"}) for b in found.content] == [
        b.model_dump(exclude={"id"}) for b in whole.content
    ]
    assert found.stop_reason == whole.stop_reason
    # a cache that was written by the first call is read by the second one
    assert _input(found) == _input(whole) > 0
    assert found.usage.output_tokens == whole.usage.output_tokens > 0


def _input(message: Message) -> int:
    usage = message.usage
    return (
        usage.input_tokens
        + (usage.cache_read_input_tokens or 0)
        + (usage.cache_creation_input_tokens or 0)
    )


@pytest.mark.parametrize("model", ["gemini-2.5-flash", "gemini-2.5-pro"])
def test_a_client_of_gemini_is_answered_whole_and_in_both_kinds_of_streams(
    crossing: Running, model: str
) -> None:
    body = {
        "contents": [{"role": "user", "parts": [{"text": "What is the weather in Oslo?"}]}],
        "tools": [{"functionDeclarations": [{"name": "weather", "parameters": SCHEMA}]}],
        "toolConfig": {"functionCallingConfig": {"mode": "ANY"}},
    }
    path = f"/v1beta/models/{model}:"
    whole = crossing.ask("POST", f"{path}generateContent", body)
    events = crossing.ask("POST", f"{path}streamGenerateContent?alt=sse", body)
    array = crossing.ask("POST", f"{path}streamGenerateContent", body)
    assert [one.status for one in (whole, events, array)] == [200, 200, 200]
    assert events.headers["content-type"] == "text/event-stream"
    pieces = [
        json.loads(line[6:])
        for line in events.body.decode().splitlines()
        if line.startswith("data: ")
    ]
    for found in ([whole.json()], pieces, array.json()):
        last = found[-1]
        parts = [part for one in found for part in one["candidates"][0]["content"]["parts"]]
        (call,) = [part["functionCall"] for part in parts if "functionCall" in part]
        assert call["name"] == "weather"
        assert isinstance(call["args"]["city"], str)
        assert last["candidates"][0]["finishReason"] == "STOP"
        assert last["usageMetadata"]["totalTokenCount"] > 0


def test_an_answer_in_a_form_comes_in_that_form(gpt: openai.OpenAI) -> None:
    schema = {**SCHEMA, "additionalProperties": False}
    form: Any = {
        "type": "json_schema",
        "json_schema": {"name": "place", "schema": schema, "strict": True},
    }
    for model in ("gpt-4o-mini", "gpt-4o"):
        found = gpt.chat.completions.create(model=model, messages=HI, response_format=form)
        assert set(json.loads(found.choices[0].message.content or "")) == {"city"}


@pytest.mark.parametrize("model", ["gpt-4o-mini", "gpt-4o"])
def test_an_error_of_another_kind_is_the_clients_own(gpt: openai.OpenAI, model: str) -> None:
    with pytest.raises(openai.BadRequestError) as told:
        gpt.chat.completions.create(model=model, messages=HI, logprobs=True)
    assert told.value.type == "midwatch_translation"
    assert "logprobs" in told.value.message


@pytest.mark.parametrize("model", ["gpt-4o-mini", "gpt-4o"])
def test_a_stream_of_another_kind_that_is_cut_raises(gpt: openai.OpenAI, model: str) -> None:
    cut = {"x-rehearsal-behave": json.dumps({"mode": "cut", "after_chunks": 4})}
    with (
        pytest.raises(openai.APIError),
        gpt.chat.completions.create(
            model=model, messages=HI, stream=True, extra_headers=cut
        ) as stream,
    ):
        for _ in stream:
            pass
