"""The invoice: each call that reached the model, for what was generated until it ended."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from midwatch.drills.rehearsal import Rehearsal, running

from .rehearsed import (  # noqa: TID252  there is no tests package
    PATHS,
    STREAMED,
    WORDS,
    ask,
    billed,
    call,
    control,
    open_stream,
    post,
    wait_for,
)


@pytest.fixture
def model() -> Iterator[Rehearsal]:
    with running() as model:
        yield model


@pytest.mark.parametrize("api", PATHS)
def test_a_good_call_is_billed_as_its_answer_says(model: Rehearsal, api: str) -> None:
    path, body = ask(api)
    usage = post(model, path, body, {"x-midwatch-call": "c-1"}).json
    usage = usage.get("usage") or usage["usageMetadata"]
    (bill,) = billed(model)
    names = {
        "chat": ("prompt_tokens", "completion_tokens"),
        "generate": ("promptTokenCount", "candidatesTokenCount"),
        "embeddings": ("prompt_tokens", ""),
    }.get(api, ("input_tokens", "output_tokens"))
    assert (bill["call"], bill["api"], bill["end"]) == ("c-1", api, "done")
    assert (bill["input"], bill["output"]) == (usage[names[0]], usage.get(names[1], 0))
    total = control(model, "GET", "/rehearsal/billed")["total"]
    assert {name: bill[name] for name in total if name != "calls"} == {n: v for n, v in total.items() if n != "calls"}  # fmt: skip


@pytest.mark.parametrize("api", STREAMED)
def test_a_cut_stream_is_billed_for_what_was_sent(model: Rehearsal, api: str) -> None:
    call(model, api, {"mode": "shape", "words": 60}, stream=True)
    reply = call(model, api, {"mode": "cut", "after_chunks": 9, "words": 60}, stream=True)
    assert wait_for(lambda: len(billed(model)) == 2)
    whole, cut = billed(model)
    assert (cut["input"], cut["end"]) == (whole["input"], "cut")
    assert 0 < cut["output"] < whole["output"]
    if api == "generate":  # this dialect says so itself
        assert reply.events[-1]["usageMetadata"]["candidatesTokenCount"] == cut["output"]


def test_a_client_that_leaves_pays_for_what_was_generated(model: Rehearsal) -> None:
    order = {"mode": "slow", "first_token": 0, "between": "10ms", "words": 3000}
    with open_stream(model, "chat", order) as client:
        got = b""
        while got.count(b"\ndata: ") < 5:
            got += client.recv(65_536)
    assert wait_for(lambda: len(billed(model)) == 1)
    (bill,) = billed(model)
    assert bill["end"] == "left"
    assert 5 <= bill["output"] < 3000


def test_a_client_that_leaves_before_the_first_token_pays_for_its_question(
    model: Rehearsal,
) -> None:
    with open_stream(model, "messages", {"mode": "slow", "first_token": "60s"}):
        assert wait_for(lambda: model.calls.total == 1)
    assert wait_for(lambda: len(billed(model)) == 1)
    (bill,) = billed(model)
    assert (bill["end"], bill["output"]) == ("left", 0)
    assert bill["input"] > 0


def test_what_did_not_reach_the_model_is_free_unless_ordered_otherwise(model: Rehearsal) -> None:
    for order in ("429", "500", "html", "cut"):
        call(model, "chat", order)
    assert billed(model) == []
    call(model, "chat", {"mode": "cut", "bill": "whole"})
    call(model, "chat", {"mode": "shape", "usage": "none", "bill": "nothing"})
    (bill,) = billed(model)
    assert (bill["end"], bill["output"] > 0) == ("cut", True)


def test_usage_that_is_not_told_is_billed_all_the_same(model: Rehearsal) -> None:
    call(model, "chat")
    call(model, "chat", "no-usage")
    call(model, "chat", "no-usage", stream=True)
    bills = [(b["input"], b["output"]) for b in billed(model)]
    assert len(set(bills)) == 1
    assert len(bills) == 3


def test_a_new_invoice_is_empty_and_a_wrong_question_is_told(model: Rehearsal) -> None:
    call(model, "chat")
    assert control(model, "DELETE", "/rehearsal/billed") == {"cleared": 1}
    sums = control(model, "GET", "/rehearsal/billed")
    assert (sums["total"]["calls"], sums["models"], sums["forgotten"]) == (0, {}, 0)
    wrong = control(model, "GET", "/rehearsal/billed/calls?after=x")
    assert "expected numbers" in wrong["error"]["message"]


def test_another_header_may_name_the_call() -> None:
    with running(call_header="X-Trace") as model:
        post(model, *ask("chat"), {"x-trace": "t-9"})
        assert [bill["call"] for bill in billed(model)] == ["t-9"]


def test_a_record_shows_headers_and_the_bodys_hash_but_no_secret(model: Rehearsal) -> None:
    path, body = ask("messages")
    headers = {"anthropic-beta": "context-1m-2025-08-07", "x-api-key": "sk-very-secret"}
    post(model, f"{path}?beta=true&key=sk-other-secret", body, headers)
    (record,) = control(model, "GET", "/rehearsal/calls")["calls"]
    assert record["headers"]["anthropic-beta"] == "context-1m-2025-08-07"
    assert record["query"]["beta"] == "true"
    assert record["body_sha256"] == hashlib.sha256(json.dumps(body).encode()).hexdigest()
    assert "secret" not in json.dumps(record)


def test_an_answer_that_was_begun_is_gone_on_with(model: Rehearsal) -> None:
    def said(**more: Any) -> str:
        return call(model, "messages", **more).json["content"][0]["text"]

    whole = said()
    begun = whole[: len(whole) // 2].rstrip()
    prefilled = [*WORDS, {"role": "assistant", "content": begun}]
    assert begun + said(messages=prefilled) == whole
    asked = [*prefilled, {"role": "user", "content": "Continue exactly where you left off."}]
    assert begun + said(messages=asked) == whole
    refused = call(model, "messages", messages=[*WORDS, {"role": "assistant", "content": "a "}])
    assert (refused.status, "trailing whitespace" in refused.json["error"]["message"]) == (400, True)  # fmt: skip


def test_headers_that_matter_are_each_providers_own(model: Rehearsal) -> None:
    chat, message = call(model, "chat").headers, call(model, "messages").headers
    assert chat["x-request-id"].startswith("req_")
    assert chat["openai-processing-ms"].isdigit()
    assert int(chat["x-ratelimit-remaining-requests"]) < int(chat["x-ratelimit-limit-requests"])
    assert message["request-id"].startswith("req_")
    assert "anthropic-ratelimit-tokens-remaining" in message
    assert not {"request-id"} & set(chat) | {"x-request-id"} & set(message)


def test_an_hour_and_five_minutes_of_cache_are_told_apart(model: Rehearsal) -> None:
    def part(text: str, ttl: str) -> dict[str, Any]:
        return {"type": "text", "text": text * 500, "cache_control": {"type": "ephemeral", "ttl": ttl}}  # fmt: skip

    messages = [{"role": "user", "content": [part("Know the sky. ", "5m")]}]
    body = {"system": [part("Know the sea. ", "1h")], "messages": messages}
    first, second = (call(model, "messages", **body).json["usage"] for _ in range(2))
    created = first["cache_creation"]
    assert created["ephemeral_1h_input_tokens"] > 1024
    assert created["ephemeral_5m_input_tokens"] > 1024
    assert first["cache_creation_input_tokens"] == sum(created.values())
    assert second["cache_read_input_tokens"] == first["cache_creation_input_tokens"]
    assert [b["written_1h"] for b in billed(model)] == [created["ephemeral_1h_input_tokens"], 0]


def test_reasoning_is_counted_in_each_dialects_place(model: Rehearsal) -> None:
    chat = call(model, "chat", reasoning_effort="high").json["usage"]
    assert chat["completion_tokens_details"]["reasoning_tokens"] == 256
    assert chat["completion_tokens"] > 256
    body = call(model, "responses", reasoning={"effort": "low", "summary": "auto"}).json
    assert body["usage"]["output_tokens_details"]["reasoning_tokens"] == 64
    assert body["output"][0]["type"] == "reasoning"
    thinking = {"type": "enabled", "budget_tokens": 100}
    message = call(model, "messages", thinking=thinking).json
    assert [block["type"] for block in message["content"]] == ["thinking", "text"]
    assert message["usage"]["output_tokens_details"]["thinking_tokens"] == 100
    short = call(model, "chat", reasoning_effort="high", max_completion_tokens=50).json
    assert (short["choices"][0]["finish_reason"], short["usage"]["completion_tokens"]) == ("length", 50)  # fmt: skip
