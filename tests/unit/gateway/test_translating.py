"""Calls that a place of another kind answers: the client sees its own dialect, the ledger the provider's count."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from gateways import (
    ARRAY,
    CHAT,
    GENERATE,
    HOME,
    MESSAGES,
    NEXT,
    RESPONSES,
    Gate,
    Heard,
    answer,
    stream_of,
)
from midwatch.gateway import asking, translate
from midwatch.gateway.http.played import PlayedOutgoing
from midwatch.gateway.upstream.scripted import Answer, Break, Refuse

CLIENTS = (CHAT, MESSAGES, GENERATE, ARRAY)
FAMILY = {ARRAY: GENERATE}
PAIRS = [(c, p) for c in CLIENTS for p in (CHAT, MESSAGES, GENERATE) if FAMILY.get(c, c) != p]
WORDS = ["Once ", "upon ", "a time."]
STOP = {CHAT: "stop", MESSAGES: "end_turn", GENERATE: "STOP", ARRAY: "STOP"}

WHOLE: dict[str, dict[str, Any]] = {
    CHAT: {
        "id": "one",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Once"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    },
    MESSAGES: {
        "id": "one",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "Once"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 5},
    },
    GENERATE: {
        "candidates": [{"index": 0, "content": {"role": "model", "parts": [{"text": "Once"}]}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15},
        "modelVersion": "m",
        "responseId": "one",
    },
}  # fmt: skip


def gate(
    folder: Path, client: str, *providers: str, script: list[Answer | Refuse], **models: Any
) -> Gate:
    """Return a gateway whose model of the client goes to these places, one after the other."""
    name = HOME[client].rpartition("/")[2] if client in (GENERATE, ARRAY) else HOME[client]
    return Gate(folder, script, models={"chains": {name: list(providers)}, **models})


def whole(provider: str) -> Answer:
    return Answer(
        200,
        [json.dumps(WHOLE[provider]).encode()],
        (("content-type", "application/json"), ("anthropic-ratelimit-x", "7")),
    )


def text(client: str, out: PlayedOutgoing) -> str:
    value = json.loads(out.whole)
    if client == CHAT:
        return value["choices"][0]["message"]["content"]
    if client == MESSAGES:
        return value["content"][0]["text"]
    return value["candidates"][0]["content"]["parts"][0]["text"]


@pytest.mark.parametrize(("client", "provider"), PAIRS)
async def test_a_whole_answer_of_another_kind_is_the_clients_own(
    tmp_path: Path, client: str, provider: str
) -> None:
    house = gate(
        tmp_path, client, HOME[client], HOME[provider], script=[Answer(500), whole(provider)]
    )
    client_ = FAMILY.get(client, client)
    out = await house.ask(client_, stream=False)
    told = dict(out.headers)
    assert out.status == 200
    assert text(client_, out) == "Once"
    assert told["x-midwatch-model"] == HOME[provider]
    assert told["x-midwatch-translated"] == provider
    assert house.house.counts[f"translation.{client_}_to_{provider}"] == 1
    assert told["content-type"] == "application/json"
    assert "anthropic-ratelimit-x" not in told
    failed, served = await house.rows()
    assert (served.input_tokens, served.output_tokens) == (10, 5)
    assert served.cost_nusd > 0
    assert failed.cost_nusd == 0


@pytest.mark.parametrize(("client", "provider"), PAIRS)
async def test_a_stream_of_another_kind_is_the_clients_own(
    tmp_path: Path, client: str, provider: str
) -> None:
    script: list[Answer | Refuse] = [Answer(500), answer(provider, stream_of(provider, WORDS))]
    house = gate(tmp_path, client, HOME[client], HOME[provider], script=script)
    more = {"stream_options": {"include_usage": True}} if client == CHAT else {}
    out = await house.ask(client, **more)
    heard = Heard(client, out.whole)
    assert (heard.text, heard.errors) == ("Once upon a time.", [])
    assert heard.finishes == [STOP[client]]
    assert heard.ends == (client in (CHAT, MESSAGES))
    assert len(out.pieces) >= 3  # as they came, not at the end
    assert (
        sum(
            v
            for k, v in heard.usage.items()
            if k in ("input_tokens", "prompt_tokens", "promptTokenCount")
        )
        == 10
    )
    assert (
        sum(
            v
            for k, v in heard.usage.items()
            if k in ("output_tokens", "completion_tokens", "candidatesTokenCount")
        )
        == 5
    )
    assert dict(out.headers)["content-type"] == (
        "application/json" if client == ARRAY else "text/event-stream"
    )
    assert out.ended
    served = (await house.rows())[1]
    assert (served.input_tokens, served.output_tokens, served.estimated) == (10, 5, False)


@pytest.mark.parametrize(("client", "provider"), PAIRS)
async def test_a_translated_stream_that_breaks_off_ends_with_an_error_where_nobody_goes_on_with_it(
    tmp_path: Path, client: str, provider: str
) -> None:
    pieces = [p for p in stream_of(provider, WORDS) if p][:2]
    script: list[Answer | Refuse] = [answer(provider, [*pieces, Break()])]
    house = gate(tmp_path, client, HOME[provider], NEXT[client], script=script, on_cut="error")
    out = await house.ask(client)
    heard = Heard(client, out.whole)
    assert len(heard.errors) == 1
    assert (heard.finishes, heard.ends) == ([], 0)
    assert out.ended
    (row,) = await house.rows()
    assert row.cost_nusd > 0


LONG = [f"w{n} " for n in range(40)]


@pytest.mark.parametrize("policy", ["continue", "restart"])
@pytest.mark.parametrize(
    ("client", "first", "second"),
    [
        *((c, HOME[p], NEXT[FAMILY.get(c, c)]) for c, p in PAIRS),  # another kind breaks off
        *((c, HOME[FAMILY.get(c, c)], NEXT[p]) for c, p in PAIRS),  # another kind goes on
        *((c, HOME[p], NEXT[p]) for c, p in PAIRS),
    ],
)
async def test_an_answer_that_breaks_off_is_gone_on_with_across_dialects(
    tmp_path: Path, client: str, first: str, second: str, policy: str
) -> None:
    kinds = {name: kind for kind in (CHAT, MESSAGES, GENERATE) for name in (HOME[kind], NEXT[kind])}
    begun, rest = (
        client if kinds[name] == FAMILY.get(client) else kinds[name] for name in (first, second)
    )
    pieces = [piece for piece in stream_of(begun, LONG)[:21] if piece]
    words = LONG if policy == "restart" else LONG[20:]
    further = answer(rest, stream_of(rest, words, ident="two", usage=(300, 20)))
    about = {name.rpartition("/")[2]: {"prefill": name == second} for name in (first, second)}
    house = gate(
        tmp_path, client, first, second, script=[answer(begun, [*pieces, Break()]), further],
        on_cut=policy, about=about,
    )  # fmt: skip
    out = await house.ask(client)
    heard = Heard(client, out.whole)
    assert (heard.text, heard.errors, out.ended) == ("".join(LONG), [], True)
    assert len(heard.idents) == 1
    assert len(heard.finishes) == 1
    assert (heard.starts, heard.ends) == ((1, 1) if client in (CHAT, MESSAGES) else (0, 0))
    asked = house.asked(1)
    last = (asked["contents"] if rest in (GENERATE, ARRAY) else asked["messages"])[-1]
    said = json.dumps(last)
    assert ("w19" in said, last["role"] != "user") == ((True, True) if policy == "continue" else (False, False))  # fmt: skip
    rows = await house.rows()
    assert [row.outcome for row in rows] == ["cut", "ok"]
    if client == MESSAGES:
        assert {kind for kind, _ in heard.blocks} == {"start", "delta", "stop"}
        assert {number for _, number in heard.blocks} == {0}


async def test_a_stream_that_fails_before_its_first_word_goes_on_in_another_dialect(
    tmp_path: Path,
) -> None:
    script = [answer(CHAT, [Break()]), answer(MESSAGES, stream_of(MESSAGES, WORDS))]
    house = gate(tmp_path, CHAT, HOME[CHAT], HOME[MESSAGES], script=[*script])
    assert Heard(CHAT, (await house.ask(CHAT)).whole).text == "Once upon a time."


async def test_usage_that_a_chat_client_did_not_ask_for_is_charged_and_not_told(
    tmp_path: Path,
) -> None:
    house = gate(
        tmp_path, CHAT, HOME[MESSAGES], script=[answer(MESSAGES, stream_of(MESSAGES, WORDS))]
    )
    out = await house.ask(CHAT)
    assert b"usage" not in out.whole
    assert (await house.rows())[0].output_tokens == 5


async def test_what_cannot_be_carried_over_passes_a_place_over_and_is_told(tmp_path: Path) -> None:
    script = [Answer(500), answer(CHAT, stream_of(CHAT, WORDS))]
    house = gate(tmp_path, CHAT, HOME[CHAT], HOME[MESSAGES], NEXT[CHAT], script=[*script])
    out = await house.ask(CHAT, seed=7)
    told = dict(out.headers)
    assert told["x-midwatch-model"] == NEXT[CHAT]
    assert told["x-midwatch-passed-over"] == f"{HOME[MESSAGES]} (seed)"
    assert house.house.counts["translation.passed_over"] == 1


@pytest.mark.parametrize("cut", [False, True])
async def test_a_long_request_is_put_into_another_dialect_beside_the_event_loop(
    tmp_path: Path, cut: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    put = translate.request

    def noting(*given: Any, **named: Any) -> Any:
        threads.append(threading.get_ident())
        return put(*given, **named)

    monkeypatch.setattr(translate, "request", noting)
    first = answer(CHAT, [*stream_of(CHAT, WORDS)[:3], Break()]) if cut else Answer(500)
    for prompt in ("Tell.", "Tell. " * asking.LONG_BYTES):
        script = [first, answer(GENERATE, stream_of(GENERATE, WORDS))]
        places = (HOME[CHAT], HOME[MESSAGES], HOME[GENERATE])
        house = gate(tmp_path / prompt[:9], CHAT, *places, script=[*script], on_cut="restart")
        unwell = house.house.health.breaker(house.settings.chains.place(HOME[MESSAGES]))
        for _ in range(5):
            unwell.failed(house.house.now(), "down", house.house.now())
        out = await house.ask(CHAT, prompt=prompt)
        assert Heard(CHAT, out.whole).text == "Once upon a time."
    house = gate(
        tmp_path, CHAT, HOME[MESSAGES], script=[answer(MESSAGES, stream_of(MESSAGES, WORDS))]
    )
    await house.ask(CHAT, prompt="Tell. " * asking.LONG_BYTES)
    here = threading.get_ident()
    assert [one == here for one in threads] == [True, True, False, False, False]


@pytest.mark.parametrize(
    ("client", "provider", "field", "name"),
    [
        (CHAT, MESSAGES, {"seed": 7}, "seed"),
        (CHAT, GENERATE, {"logprobs": True}, "logprobs"),
        (MESSAGES, CHAT, {"thinking": {"type": "enabled", "budget_tokens": 2000}}, "thinking"),
        (MESSAGES, GENERATE, {"never_heard_of": 1}, "never_heard_of"),
        (GENERATE, CHAT, {"cachedContent": "cachedContents/1"}, "cachedContent"),
        (RESPONSES, MESSAGES, {}, "responses"),
    ],
)
async def test_what_nobody_can_be_asked_is_refused_by_its_name(
    tmp_path: Path, client: str, provider: str, field: dict[str, Any], name: str
) -> None:
    house = gate(tmp_path, client, HOME[provider], script=[])
    out = await house.ask(client, stream=False, **field)
    error = json.loads(out.whole)["error"]
    assert out.status == 400
    assert error["type"] == "midwatch_translation"
    assert f"{HOME[provider]}: {name}:" in error["message"]
    assert dict(out.headers)["x-should-retry"] == "false"
    assert await house.rows() == []


async def test_what_goes_unsaid_is_listed_in_a_header_and_in_the_ledger(tmp_path: Path) -> None:
    house = gate(tmp_path, CHAT, HOME[MESSAGES], script=[whole(MESSAGES)])
    out = await house.ask(CHAT, stream=False, temperature=1.5, metadata={"a": "b"})
    assert dict(out.headers)["x-midwatch-left-out"] == "metadata, temperature above 1"
    assert house.asked(0)["temperature"] == 1
    (row,) = await house.rows()
    assert row.attempts[-1]["left_out"] == ["metadata", "temperature above 1"]


@pytest.mark.parametrize(
    ("client", "provider", "status", "error", "told"),
    [
        (CHAT, MESSAGES, 400, {"type": "error", "error": {"type": "invalid_request_error", "message": "too odd"}}, {"message": "too odd", "type": "invalid_request_error", "param": None, "code": None}),
        (MESSAGES, CHAT, 429, {"error": {"message": "slower", "type": "requests", "code": "rate_limit_exceeded"}}, {"type": "rate_limit_error", "message": "slower"}),
        (MESSAGES, GENERATE, 503, {"error": {"code": 503, "message": "full", "status": "UNAVAILABLE"}}, {"type": "overloaded_error", "message": "full"}),
        (GENERATE, MESSAGES, 529, {"type": "error", "error": {"type": "overloaded_error", "message": "full"}}, {"code": 529, "message": "full", "status": "UNAVAILABLE"}),
    ],
)  # fmt: skip
async def test_an_error_of_another_kind_keeps_its_status_and_takes_the_clients_shape(
    tmp_path: Path,
    client: str,
    provider: str,
    status: int,
    error: dict[str, Any],
    told: dict[str, Any],
) -> None:
    headers = (
        ("content-type", "application/json"),
        ("retry-after", "7"),
        ("anthropic-request-id", "x"),
    )
    house = gate(
        tmp_path,
        client,
        HOME[provider],
        script=[Answer(status, [json.dumps(error).encode()], headers)],
    )
    out = await house.ask(client, stream=False)
    shown = json.loads(out.whole)
    assert out.status == status
    assert shown["error"] == told
    assert (shown.get("type") == "error") == (client == MESSAGES)
    assert dict(out.headers)["retry-after"] == "7"
    assert "anthropic-request-id" not in dict(out.headers)


async def test_an_answer_without_words_in_the_clients_dialect_is_an_error_and_charged(
    tmp_path: Path,
) -> None:
    odd = {**WHOLE[MESSAGES], "stop_reason": "pause_turn"}
    house = gate(tmp_path, CHAT, HOME[MESSAGES], script=[Answer(200, [json.dumps(odd).encode()])])
    out = await house.ask(CHAT, stream=False)
    assert out.status == 502
    assert json.loads(out.whole)["error"]["type"] == "midwatch_translation"
    assert (await house.rows())[0].output_tokens == 5


async def test_a_stream_that_ends_for_a_reason_without_words_ends_with_an_error(
    tmp_path: Path,
) -> None:
    pieces = [p.replace(b"end_turn", b"pause_turn") for p in stream_of(MESSAGES, WORDS)]
    house = gate(tmp_path, CHAT, HOME[MESSAGES], script=[answer(MESSAGES, pieces)])
    heard = Heard(CHAT, (await house.ask(CHAT)).whole)
    assert heard.errors == ["midwatch_cut"]
    assert (heard.finishes, heard.ends) == ([], 0)


async def test_nothing_of_the_clients_own_provider_reaches_another(tmp_path: Path) -> None:
    house = gate(tmp_path, CHAT, HOME[MESSAGES], script=[whole(MESSAGES)])
    given = [
        ("openai-organization", "org-1"),
        ("x-stainless-lang", "python"),
        ("user-agent", "agent"),
        ("authorization", "Bearer mwk_x"),
    ]
    await house.ask(CHAT, stream=False, headers=given)
    asked = house.upstream.asked[0]  # pyright: ignore[reportAttributeAccessIssue]
    names = dict(asked.headers)
    assert asked.url.endswith("/v1/messages")
    assert set(names) == {"content-type", "user-agent", "accept-encoding", "anthropic-version"}
    assert (
        house.asked(0)["max_tokens"] == 64_000
    )  # the model's own bound: it must be said, and is what was reserved
