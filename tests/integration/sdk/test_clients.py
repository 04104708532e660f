"""Tracked model clients: the real packages against a small local provider."""

from __future__ import annotations

import gc
import http.server
import json
import subprocess
import sys
import textwrap
import threading
import types
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from model_server import (
    CHAT_COST,
    CLAUDE_COST,
    Provider,
)

import midwatch as mw
from midwatch.sdk import calls, track, usage
from midwatch.sdk.testing import Recording, recording

MESSAGES: Any = [{"role": "user", "content": "a secret question"}]


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    class Server(http.server.ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a client that leaves a stream early is part of the tests

    server = Server(("127.0.0.1", 0), Provider)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def seen() -> Iterator[Recording]:
    calls._told_unmetered.clear()
    with recording() as one:
        track.track_clients(["openai", "anthropic"])
        yield one
    track.unwrap_client("openai")
    track.unwrap_client("anthropic")
    usage.tracking = False


@pytest.fixture
def oai(provider: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=provider + "/v1", api_key="k", max_retries=0) as client:
        yield client


@pytest.fixture
def claude(provider: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=provider, api_key="k", max_retries=0) as client:
        yield client


def check_one(
    seen: Recording, cost_usd: float | None, *, operation: str = "chat", tokens: int = 1_100
) -> dict[str, Any]:
    """One call is in the cycle's beat and in a span below it. Returns the span."""
    (beat,) = seen.beats
    assert beat["model_calls"] == 1
    assert beat["tokens"] == tokens
    assert beat["cost_usd"] == pytest.approx(cost_usd)
    spans = {span["attributes"]["midwatch.span"]: span for span in seen.spans}
    call = spans["call"]
    assert call["parentSpanId"] == spans["cycle"]["spanId"]
    assert call["attributes"]["gen_ai.operation.name"] == operation
    assert call["attributes"]["midwatch.cost_usd"] == pytest.approx(cost_usd)
    assert call["status"] == {"code": 1}
    assert "secret" not in json.dumps(seen.spans)
    assert seen.told == ["call opened", "call done", "beat"]
    return call


def test_a_chat_completion_is_counted(seen: Recording, oai: openai.OpenAI) -> None:
    with mw.cycle():
        answer = oai.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
    assert answer.choices[0].message.content == "good evening"
    call = check_one(seen, CHAT_COST)
    assert call["name"] == "chat gpt-4o-mini"
    assert call["kind"] == 3
    assert call["attributes"] == {
        "midwatch.span": "call",
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
        "gen_ai.response.id": "c-1",
        "gen_ai.usage.input_tokens": 1_000,
        "gen_ai.usage.output_tokens": 100,
        "gen_ai.usage.cache_read.input_tokens": 400,
        "gen_ai.usage.cache_creation.input_tokens": 0,
        "midwatch.cost_usd": pytest.approx(CHAT_COST),
    }
    (beat,) = seen.beats
    assert beat["input_tokens"] == 1_000
    assert beat["output_tokens"] == 100
    assert beat["cached_tokens"] == 400


def test_a_chat_stream_is_counted_as_it_passes(seen: Recording, oai: openai.OpenAI) -> None:
    with mw.cycle():
        stream = oai.chat.completions.create(
            model="gpt-4o-mini",
            messages=MESSAGES,
            stream=True,
            stream_options={"include_usage": True},
        )
        pieces = [chunk.choices[0].delta.content for chunk in stream if chunk.choices]
    assert pieces == ["good ", '"usage": evening']
    assert "iter_bytes" not in vars(stream.response)
    call = check_one(seen, CHAT_COST)
    assert call["attributes"]["midwatch.call_id"] == "0192-77"


def test_the_stream_helper_is_counted(seen: Recording, oai: openai.OpenAI) -> None:
    with (
        mw.cycle(),
        oai.chat.completions.stream(
            model="gpt-4o-mini", messages=MESSAGES, stream_options={"include_usage": True}
        ) as stream,
    ):
        stream.until_done()
    check_one(seen, CHAT_COST)


def test_a_stream_without_usage_is_told_once_and_counts_no_tokens(
    seen: Recording, oai: openai.OpenAI
) -> None:
    with mw.cycle():
        for _ in range(2):
            list(oai.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, stream=True))
    (beat,) = seen.beats
    assert beat["model_calls"] == 2
    assert beat["unmetered_calls"] == 2
    assert "tokens" not in beat
    assert "cost_usd" not in beat
    (event,) = seen.events
    assert event["kind"] == "sdk.untracked"
    assert "include_usage" in event["data"]["reason"]


def test_a_stream_that_the_agent_leaves_early_has_ended(
    seen: Recording, oai: openai.OpenAI
) -> None:
    with mw.cycle():
        stream = oai.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, stream=True)
        next(iter(stream))
        stream.close()
    assert seen.told == ["call opened", "call done", "beat"]


def test_a_stream_that_is_never_read_has_ended_when_it_is_dropped(
    seen: Recording, oai: openai.OpenAI
) -> None:
    with mw.cycle():
        oai.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, stream=True)
        gc.collect()
    assert seen.told == ["call opened", "call done", "beat"]


def test_a_stream_that_is_closed_unread_has_ended(seen: Recording, oai: openai.OpenAI) -> None:
    with mw.cycle():
        stream = oai.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, stream=True)
        stream.close()
    assert seen.told == ["call opened", "call done", "beat"]


def test_a_raw_answer_is_counted_and_left_as_it_is(seen: Recording, oai: openai.OpenAI) -> None:
    with mw.cycle():
        raw = oai.chat.completions.with_raw_response.create(model="gpt-4o-mini", messages=MESSAGES)
        assert raw.parse().choices[0].message.content == "good evening"
    assert not {"iter_bytes", "close"} & vars(raw.http_response).keys()
    check_one(seen, CHAT_COST)


def test_a_raw_stream_is_counted(seen: Recording, oai: openai.OpenAI) -> None:
    with mw.cycle():
        raw = oai.chat.completions.with_raw_response.create(
            model="gpt-4o-mini",
            messages=MESSAGES,
            stream=True,
            stream_options={"include_usage": True},
        )
        assert len(list(raw.parse())) == 3
    check_one(seen, CHAT_COST)


def test_a_streaming_response_is_counted_however_it_is_read(
    seen: Recording, oai: openai.OpenAI
) -> None:
    ways = (
        lambda raw: raw.parse(),
        lambda raw: raw.json(),
        lambda raw: list(raw.iter_lines()),
        lambda raw: list(raw.iter_bytes()),
        lambda raw: raw.read(),
    )
    for way in ways:
        with (
            mw.cycle(),
            oai.chat.completions.with_streaming_response.create(
                model="gpt-4o-mini", messages=MESSAGES
            ) as raw,
        ):
            way(raw)
    assert [beat["tokens"] for beat in seen.beats] == [1_100] * len(ways)


def test_a_response_is_counted(seen: Recording, oai: openai.OpenAI) -> None:
    with mw.cycle():
        oai.responses.create(model="gpt-4o-mini", input="hello")
    check_one(seen, CHAT_COST)


def test_a_response_stream_is_counted(seen: Recording, oai: openai.OpenAI) -> None:
    with mw.cycle():
        kinds = [e.type for e in oai.responses.create(model="gpt-4o-mini", input="x", stream=True)]
    assert kinds == ["response.created", "response.completed"]
    check_one(seen, CHAT_COST)


def test_embeddings_are_counted(seen: Recording, oai: openai.OpenAI) -> None:
    with mw.cycle():
        oai.embeddings.create(model="text-embedding-3-small", input="x", encoding_format="float")
    check_one(seen, 500 * 0.02 / 1e6, operation="embeddings", tokens=500)


def test_a_message_is_counted(seen: Recording, claude: anthropic.Anthropic) -> None:
    with mw.cycle():
        answer = claude.messages.create(model="claude-haiku-4-5", max_tokens=100, messages=MESSAGES)
    assert answer.content[0].text == "good evening"
    call = check_one(seen, CLAUDE_COST)
    assert call["attributes"]["gen_ai.provider.name"] == "anthropic"
    assert call["attributes"]["gen_ai.usage.input_tokens"] == 1_000


def test_a_message_stream_is_counted(seen: Recording, claude: anthropic.Anthropic) -> None:
    with mw.cycle():
        stream = claude.messages.create(
            model="claude-haiku-4-5", max_tokens=100, messages=MESSAGES, stream=True
        )
        assert len(list(stream)) == 6
    check_one(seen, CLAUDE_COST)


def test_the_message_stream_helper_is_counted(seen: Recording, claude: anthropic.Anthropic) -> None:
    with (
        mw.cycle(),
        claude.messages.stream(
            model="claude-haiku-4-5", max_tokens=100, messages=MESSAGES
        ) as stream,
    ):
        assert "".join(stream.text_stream) == "good evening"
    check_one(seen, CLAUDE_COST)


def test_a_raw_message_is_counted(seen: Recording, claude: anthropic.Anthropic) -> None:
    with mw.cycle():
        raw = claude.messages.with_raw_response.create(
            model="claude-haiku-4-5", max_tokens=100, messages=MESSAGES
        )
        assert raw.parse().content[0].text == "good evening"
    check_one(seen, CLAUDE_COST)


def test_counting_tokens_is_no_model_call(seen: Recording, claude: anthropic.Anthropic) -> None:
    with mw.cycle():
        counted = claude.messages.count_tokens(model="claude-haiku-4-5", messages=MESSAGES)
    assert counted.input_tokens == 7
    (beat,) = seen.beats
    assert beat["model_calls"] == 0
    assert beat["tokens"] == 0
    assert beat["cost_usd"] == 0.0
    assert seen.told == ["beat"]


async def test_the_async_openai_client_is_counted(seen: Recording, provider: str) -> None:
    async with openai.AsyncOpenAI(base_url=provider + "/v1", api_key="k") as client, mw.cycle():
        await client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
        stream = await client.chat.completions.create(
            model="gpt-4o-mini",
            messages=MESSAGES,
            stream=True,
            stream_options={"include_usage": True},
        )
        assert len([chunk async for chunk in stream]) == 3
        async with client.chat.completions.with_streaming_response.create(
            model="gpt-4o-mini", messages=MESSAGES
        ) as raw:
            await raw.parse()
    (beat,) = seen.beats
    assert beat["model_calls"] == 3
    assert beat["tokens"] == 3_300
    assert beat["cost_usd"] == pytest.approx(3 * CHAT_COST)
    assert seen.told == ["call opened", "call done"] * 3 + ["beat"]


async def test_the_async_anthropic_client_is_counted(seen: Recording, provider: str) -> None:
    async with anthropic.AsyncAnthropic(base_url=provider, api_key="k") as client, mw.cycle():
        await client.messages.create(model="claude-haiku-4-5", max_tokens=100, messages=MESSAGES)
        async with client.messages.stream(
            model="claude-haiku-4-5", max_tokens=100, messages=MESSAGES
        ) as stream:
            assert await stream.get_final_text() == "good evening"
    (beat,) = seen.beats
    assert beat["model_calls"] == 2
    assert beat["tokens"] == 2_200
    assert beat["cost_usd"] == pytest.approx(2 * CLAUDE_COST)


def test_a_call_that_fails_is_counted_and_raises_what_it_raised(
    seen: Recording, oai: openai.OpenAI
) -> None:
    with mw.cycle(), pytest.raises(openai.BadRequestError):
        oai.chat.completions.create(model="failing", messages=MESSAGES)
    (beat,) = seen.beats
    assert beat["model_calls"] == 1
    assert "unmetered_calls" not in beat
    span = next(one for one in seen.spans if one["attributes"]["midwatch.span"] == "call")
    assert span["status"] == {"code": 2, "message": "BadRequestError"}
    assert span["attributes"]["error.type"] == "BadRequestError"
    assert seen.told == ["call opened", "call done", "beat"]


def test_a_model_without_a_price_has_no_cost_rather_than_none_at_all(
    seen: Recording, oai: openai.OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "cost_usd", lambda *_: None)
    with mw.cycle():
        oai.chat.completions.create(model="home-made", messages=MESSAGES)
    (beat,) = seen.beats
    assert beat["tokens"] == 1_100
    assert beat["unpriced_calls"] == 1
    assert "cost_usd" not in beat


def test_calls_outside_a_cycle_are_taken_along_by_the_next_beat(
    seen: Recording, oai: openai.OpenAI
) -> None:
    oai.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
    mw.beat()
    mw.beat()
    assert [beat["tokens"] for beat in seen.beats] == [1_100, 0]


def test_calls_from_a_thread_that_was_started_in_the_cycle_are_counted(
    seen: Recording, oai: openai.OpenAI
) -> None:
    def work() -> None:
        oai.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)

    with mw.cycle():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert [beat["tokens"] for beat in seen.beats] == [1_100]


def test_the_clients_signature_and_name_stay(seen: Recording) -> None:
    request = openai._base_client.SyncAPIClient.request
    assert request.__name__ == "request"
    track.unwrap_client("openai")
    assert request.__wrapped__ is openai._base_client.SyncAPIClient.request


def test_tracking_twice_counts_once(seen: Recording, oai: openai.OpenAI) -> None:
    track.track_clients(["openai"])
    with mw.cycle():
        oai.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
    check_one(seen, CHAT_COST)


@pytest.mark.parametrize(
    ("shape", "reason"),
    [
        ("", "does not exist"),
        ("class SyncAPIClient: pass", "has no method request"),
        ("class SyncAPIClient:\n def request(self, url): pass", "other arguments: self, url"),
        ("class SyncAPIClient:\n async def request(self, options, stream): pass", "another kind"),
    ],
)
def test_a_client_of_another_shape_is_left_alone_and_told(shape: str, reason: str) -> None:
    module = types.ModuleType("openai._base_client")
    exec(shape, module.__dict__)
    before = dict(vars(module))
    with recording() as seen:
        track.wrap_client("openai", module)
    assert dict(vars(module)) == before
    (event,) = seen.events
    assert event["kind"] == "sdk.untracked"
    assert event["data"]["client"] == "openai"
    assert reason in event["data"]["reason"]


def test_an_unknown_client_is_told_with_the_known_ones() -> None:
    with recording() as seen:
        track.track_clients(["opnai"])
    assert seen.events[0]["data"] == {
        "client": "opnai",
        "reason": "unknown client; known are openai, anthropic",
    }


def test_clients_that_are_imported_later_are_wrapped_then(hub: Any) -> None:
    program = f"""
        import midwatch as mw, sys
        mw.init(url={hub.url!r}, track=("openai", "anthropic"))
        assert not {{"openai", "anthropic"}} & sys.modules.keys()
        import anthropic, openai, inspect
        for base in (anthropic._base_client, openai._base_client):
            assert hasattr(base.SyncAPIClient.request, "_midwatch_original")
            assert hasattr(base.AsyncAPIClient.request, "_midwatch_original")
            assert type(base.__loader__).__name__ == "SourceFileLoader"
            assert base.__spec__.loader is base.__loader__
            assert "def request" in inspect.getsource(base)
        assert not [f for f in sys.meta_path if "midwatch" in type(f).__module__]
        print("fine")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("fine\n", "")
