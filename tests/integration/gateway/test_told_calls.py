"""What the hub is told of calls that were really carried: one span, the ledger's cost, the right events."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from midwatch.core.access import mint_key
from midwatch.core.calls.charge import CallQuery
from midwatch.core.fleet import Fleet
from midwatch.gateway.app import App, Options
from midwatch.gateway.http.played import PlayedIncoming, PlayedOutgoing
from midwatch.gateway.recording import read
from midwatch.gateway.sending import Recorder
from midwatch.gateway.telling import Telling
from midwatch.gateway.upstream.port import Phase
from midwatch.gateway.upstream.scripted import Answer, Break, Refuse, ScriptedUpstream

SECRET = bytes(32)
DEADLINE_S = 40.0
SSE = (("content-type", "text/event-stream"),)


def answer(model: str = "gpt-4o-mini", tokens: int = 8) -> Answer:
    said = {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": model,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": tokens, "completion_tokens": 2, "total_tokens": tokens + 2},
    }  # fmt: skip
    return Answer(200, [json.dumps(said).encode()])


def piece(text: str) -> bytes:
    chunk = {
        "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-mini",
        "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}],
    }  # fmt: skip
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


class Stage:
    def __init__(self, app: App, sent: Recorder, telling: Telling, data: Path) -> None:
        self.app, self.sent, self.telling, self.data = app, sent, telling, data

    async def ask(self, **headers: str) -> PlayedOutgoing:
        stream = headers.pop("stream", "") == "yes"
        body = {
            "model": "gpt-4o-mini",
            "max_tokens": 20,
            "stream": stream,
            "messages": [{"role": "user", "content": "hi"}],
        }
        sent = [
            ("authorization", f"Bearer {mint_key(SECRET, 'inbox', 'run-1')}"),
            ("content-type", "application/json"),
        ]
        incoming = PlayedIncoming(
            "POST", "/v1/chat/completions", "", [*sent, *headers.items()], json.dumps(body).encode()
        )
        out = PlayedOutgoing()
        await asyncio.wait_for(self.app.gateway.handle(incoming, out), DEADLINE_S)
        return out

    async def ledger_nusd(self) -> int:
        return sum(call.cost_nusd for call in await self.app.ledger.calls(CallQuery()))

    def kinds(self) -> list[str]:
        return [i["kind"] for k, i in self.sent.items if k == "event"]

    def facts(self) -> list[dict[str, Any]]:
        return [
            {a["key"]: next(iter(a["value"].values())) for a in s["attributes"]}
            for s in self.sent.spans
        ]


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Any]:
    made: list[App] = []
    (tmp_path / "secret").write_bytes(SECRET)

    async def stage(*script: Any, agent: dict[str, Any] | None = None, **given: Any) -> Stage:
        fleet = Fleet.model_validate(
            {"agents": {"inbox": {"command": ["x"], **(agent or {})}}, **given}
        )
        (tmp_path / "fleet.json").write_text(fleet.model_dump_json())
        sent = Recorder()
        telling = Telling(sent)
        environment = {"OPENAI_API_KEY": "sk-real", "ANTHROPIC_API_KEY": "sk-ant-real"}
        upstream = ScriptedUpstream(list(script))
        app = App(Options(tmp_path, name="test"), environment, upstream=upstream, tell=telling)
        telling.join(app.house)
        await app.start()
        made.append(app)
        return Stage(app, sent, telling, tmp_path)

    yield stage
    for app in made:
        await app.stop()


CHAIN = {
    "retries": {"attempts": 0},
    "providers": {
        "openai": {"keys": [{"name": "main", "from": "env:OPENAI_API_KEY"}]},
    },
    "chains": {"gpt-4o-mini": ["openai/gpt-4o-mini", "openai/gpt-4o"]},
}


async def test_the_cost_of_the_span_is_that_of_the_ledger_to_the_nano_dollar(make: Any) -> None:
    stage = await make(answer())
    await stage.ask(traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01")
    (facts,) = stage.facts()
    assert int(facts["midwatch.cost_nusd"]) == await stage.ledger_nusd() == 2_400
    assert facts["gen_ai.response.id"] == "chatcmpl-1"
    assert facts["midwatch.key"] == "main"
    (span,) = stage.sent.spans
    assert (span["traceId"], span["parentSpanId"]) == ("a" * 32, "b" * 16)
    assert stage.kinds() == []
    stage.telling.close()
    assert stage.sent.events("call.ended")[0]["cost_nusd"] == 2_400


async def test_a_fallback_is_one_span_with_two_children_and_one_event(make: Any) -> None:
    stage = await make(Refuse(Phase.CONNECT), answer("gpt-4o"), models=CHAIN)
    assert (await stage.ask()).status == 200
    costs = [f.get("midwatch.cost_nusd") for f in stage.facts()]
    assert [int(c) for c in costs if c is not None] == [await stage.ledger_nusd()]
    assert len(stage.sent.spans) == 3
    assert stage.kinds() == ["call.retried", "call.fallback"]
    (told,) = stage.sent.events("call.fallback")
    assert (told["from"], told["to"], told["dearer"]) == (
        "openai/gpt-4o-mini",
        "openai/gpt-4o",
        True,
    )


async def test_a_cut_stream_is_told_as_cut_and_its_cost_is_the_ledgers(make: Any) -> None:
    stage = await make(Answer(200, [piece("Hel"), Break()], SSE), models={"on_cut": "error"})
    await stage.ask(stream="yes")
    (told,) = stage.sent.events("call.cut", "inbox")
    assert told["told"] is True
    (facts,) = stage.facts()
    assert facts["error.type"] == "cut"
    assert int(facts["midwatch.cost_nusd"]) == await stage.ledger_nusd() > 0


async def test_a_refused_budget_is_a_span_and_a_notice(make: Any) -> None:
    stage = await make(answer(), agent={"budget": {"per_day": 1_000}})
    assert (await stage.ask()).status in (403, 429)
    deadline = time.monotonic() + DEADLINE_S
    while not stage.sent.events("budget.exhausted") and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    (told,) = stage.sent.events("budget.exhausted", "inbox")
    assert (told["window"], told["limit_nusd"]) == ("day", 1_000)
    assert told["renews_at"] > time.time()
    assert stage.facts()[0]["error.type"] == "midwatch_budget"


async def test_a_breaker_and_a_quota_are_told_of_the_instance(make: Any) -> None:
    quota = {
        "error": {
            "message": "You exceeded your current quota",
            "type": "insufficient_quota",
            "code": "insufficient_quota",
        }
    }
    spent = Answer(429, [json.dumps(quota).encode()])
    stage = await make(spent, models={**CHAIN, "chains": {}})
    await stage.ask()
    (told,) = stage.sent.events("key.quota", "midwatch")
    assert (told["provider"], told["key"], told["keys"], told["keys_left"]) == (
        "openai",
        "main",
        1,
        0,
    )
    (low,) = stage.sent.events("pool.low", "midwatch")
    assert (low["left"], low["empty_in_s"]) == (0, 0)


async def test_a_rule_that_denies_is_a_span_and_an_event(make: Any) -> None:
    stage = await make(models={"policy": [{"name": "never", "deny": "too dear"}]})
    assert (await stage.ask(**{"x-midwatch-task": "mail"})).status == 403
    (told,) = stage.sent.events("call.denied", "inbox")
    assert (told["rule"], told["task"]) == ("never", "mail")
    assert stage.facts()[0]["error.type"] == "midwatch_policy"


async def test_an_agent_that_is_recorded_has_its_words_kept_and_no_other(make: Any) -> None:
    stage = await make(answer(), agent={"calls": {"record": True}})
    call = (await stage.ask()).headed["x-midwatch-call"]
    folder = stage.data / "gateway" / "recorded"
    deadline = time.monotonic() + DEADLINE_S
    while read(folder, call) is None and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    kept = read(folder, call)
    assert kept is not None
    assert json.loads(kept["request"]["text"])["messages"][0]["content"] == "hi"
    assert json.loads(kept["answer"]["text"])["id"] == "chatcmpl-1"
    assert (kept["agent"], kept["status"], kept["cost_nusd"]) == ("inbox", 200, 2_400)
    assert "sk-real" not in json.dumps(kept)
