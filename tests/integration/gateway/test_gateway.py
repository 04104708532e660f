"""One call through the stages, with a provider and a client by script and a ledger on disk."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from midwatch.core.access import mint_key, mint_node
from midwatch.core.calls.charge import CallQuery, CallState
from midwatch.core.errors import SetupError
from midwatch.core.fleet import Fleet
from midwatch.gateway import refusals, settings
from midwatch.gateway.app import App, Options
from midwatch.gateway.control import Control
from midwatch.gateway.counted import Counted
from midwatch.gateway.holds import HoldKind, Holds
from midwatch.gateway.http.played import PlayedIncoming, PlayedOutgoing
from midwatch.gateway.upstream.port import Phase
from midwatch.gateway.upstream.scripted import Answer, Refuse, ScriptedUpstream, Silence

SECRET = bytes(32)
DEADLINE_S = 40.0
ANSWER = {
    "id": "c", "object": "chat.completion", "created": 1, "model": "gpt-4o-mini",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 8, "completion_tokens": 2, "total_tokens": 10},
}  # fmt: skip
WHOLE = Answer(200, [json.dumps(ANSWER).encode()])
SSE = (("content-type", "text/event-stream"),)
PIECE = b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"gpt-4o-mini","choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}\n\n'


class Waits(ScriptedUpstream):
    """A provider that is silent until the test lets it answer."""

    def __init__(self, script: list[Answer | Refuse]) -> None:
        super().__init__(script)
        self.asked_once = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def open(self, request: Any) -> Any:
        self.asked_once.set()
        await self.may_answer.wait()
        return await super().open(request)


@dataclass
class House:
    """An app that serves nobody but the test."""

    app: App
    upstream: ScriptedUpstream
    counts: Counter[str] = field(default_factory=Counter[str])

    async def ask(
        self, body: dict[str, Any] | None = None, out: PlayedOutgoing | None = None,
        path: str = "/v1/chat/completions", agent: str = "inbox", method: str = "POST", **headers: str,
    ) -> PlayedOutgoing:  # fmt: skip
        out = out or PlayedOutgoing()
        key = mint_key(SECRET, agent, "run-1")
        sent = [
            ("authorization", f"Bearer {key}"),
            ("content-type", "application/json"),
            *headers.items(),
        ]
        given = {
            "model": "gpt-4o-mini",
            "max_tokens": 20,
            "messages": [{"role": "user", "content": "hi"}],
        }
        incoming = PlayedIncoming(
            method, path, "", sent, json.dumps({**given, **(body or {})}).encode()
        )
        await asyncio.wait_for(self.app.gateway.handle(incoming, out), DEADLINE_S)
        return out

    def asking(self, body: dict[str, Any] | None = None, out: PlayedOutgoing | None = None) -> asyncio.Task[PlayedOutgoing]:  # fmt: skip
        return asyncio.get_running_loop().create_task(self.ask(body, out))

    async def calls(self) -> list[Any]:
        return await self.app.ledger.calls(CallQuery())

    async def under_way(self) -> list[Any]:
        """Return the calls under way, once there is one."""
        async with asyncio.timeout(DEADLINE_S):
            while not (calls := self.app.gateway.calls_of("inbox")):
                await asyncio.sleep(0)
        return calls


def write(data: Path, **given: Any) -> None:
    fleet = Fleet.model_validate({"agents": {"inbox": {"command": ["x"]}}, **given})
    (data / "fleet.json").write_text(fleet.model_dump_json())


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Any]:
    made: list[App] = []
    (tmp_path / "secret").write_bytes(SECRET)

    async def house(upstream: Any, **given: Any) -> House:
        write(tmp_path, **given)
        counts: Counter[str] = Counter()
        environment = {"OPENAI_API_KEY": "sk-real", "ANTHROPIC_API_KEY": "sk-ant-real"}
        app = App(
            Options(tmp_path, name="test"), environment, upstream=upstream, tell=Counted(counts)
        )
        app.house.chance = random.Random(1).random
        await app.start()
        made.append(app)
        return House(app, upstream, counts)

    yield house
    for app in made:
        await app.stop()


async def test_a_call_is_carried_with_the_provider_s_key_and_settled_to_its_cost(make: Any) -> None:
    house = await make(ScriptedUpstream([WHOLE]))
    out = await house.ask()
    assert (out.status, json.loads(out.whole)) == (200, ANSWER)
    (asked,) = house.upstream.asked
    assert dict(asked.headers)["authorization"] == "Bearer sk-real"
    assert asked.url == "https://api.openai.com/v1/chat/completions"
    (call,) = await house.calls()
    # 8 tokens in at $0.15/M, 2 out at $0.60/M
    assert (call.state, call.cost_nusd, call.outcome) == (CallState.SETTLED, 2_400, "ok")
    assert out.headed["x-midwatch-cost-usd"] == "0.0000024"
    assert house.counts == {"told.call": 1}


async def test_who_shows_no_key_makes_nobody_read_a_body(make: Any) -> None:
    house = await make(ScriptedUpstream([]))
    out = PlayedOutgoing()
    await house.app.gateway.handle(PlayedIncoming("POST", "/v1/messages", payload=b"not json"), out)
    assert (out.status, json.loads(out.whole)["error"]["type"]) == (401, "midwatch_key")


async def test_a_refused_call_is_told_once(make: Any) -> None:
    house = await make(ScriptedUpstream([]), models={"policy": [{"deny": "no"}]})
    assert (await house.ask()).status == 403
    assert (house.counts["told.call"], house.app.house.counts["refused.midwatch_policy"]) == (1, 1)


async def test_a_call_that_is_killed_while_its_provider_is_silent_is_settled_as_estimated(
    make: Any,
) -> None:
    upstream = Waits([])
    house = await make(upstream)
    asking = house.asking()
    await asyncio.wait_for(upstream.asked_once.wait(), DEADLINE_S)
    hold = house.app.holds.hold("inbox", HoldKind.KILLED, "enough")
    cut = await house.app.gateway.cut(await house.under_way(), refusals.held(hold, "inbox"))
    out = await asking
    assert (out.status, cut.left, len(cut.calls)) == (403, 0, 1)
    (call,) = await house.calls()
    assert (call.state, call.outcome, call.estimated) == (CallState.SETTLED, "killed", True)
    assert call.cost_nusd > 0
    assert house.app.house.health.breakers["openai", "gpt-4o-mini"].free_at(0.0) == 0.0


async def test_a_call_that_is_killed_before_anything_was_sent_costs_nothing(make: Any) -> None:
    house = await make(ScriptedUpstream([]))
    ledger, reached, may_go = house.app.ledger, asyncio.Event(), asyncio.Event()
    reserve = ledger.reserve

    async def slow(reservation: Any) -> Any:
        answer = await reserve(reservation)
        reached.set()
        await may_go.wait()
        return answer

    ledger.reserve = slow
    asking = house.asking()
    await asyncio.wait_for(reached.wait(), DEADLINE_S)
    (call,) = await house.under_way()
    call.kill(refusals.stopping())
    may_go.set()
    assert (await asking).status == 503
    (kept,) = await house.calls()
    assert (kept.state, kept.cost_nusd, house.upstream.asked) == (CallState.RELEASED, 0, [])


async def test_a_stream_is_cut_even_when_its_client_does_not_read(make: Any) -> None:
    house = await make(ScriptedUpstream([Answer(200, [PIECE] * 50, SSE)]))
    out = PlayedOutgoing()
    out.room.clear()
    asking = house.asking({"stream": True}, out)
    (call,) = await house.under_way()
    async with asyncio.timeout(DEADLINE_S):
        while not out.begun:
            await asyncio.sleep(0)
    cut = await house.app.gateway.cut([call], refusals.stopping(), within_s=DEADLINE_S)
    await asking
    assert (cut.left, out.aborted, out.ended) == (0, True, False)
    assert house.app.house.counts["stream.unread"] == 1
    (kept,) = await house.calls()
    assert (kept.state, kept.outcome) == (CallState.SETTLED, "killed")


async def test_to_have_tokens_counted_reserves_nothing_and_is_no_loop(make: Any) -> None:
    counted = Answer(200, [b'{"input_tokens":9}'])
    house = await make(ScriptedUpstream([counted] * 20))
    for _ in range(20):
        out = await house.ask({"model": "claude-haiku-4-5"}, path="/v1/messages/count_tokens")
        assert (out.status, out.whole, out.headed["x-midwatch-cost-usd"]) == (
            200,
            b'{"input_tokens":9}',
            "0",
        )
    assert await house.calls() == []


async def test_a_reload_in_the_middle_of_a_call_does_not_move_its_ground(
    make: Any, tmp_path: Path
) -> None:
    upstream = Waits([WHOLE])
    house = await make(upstream)
    asking = house.asking()
    await asyncio.wait_for(upstream.asked_once.wait(), DEADLINE_S)
    write(tmp_path, models={"providers": {"local": {"base_url": "http://127.0.0.1:9/v1"}}})
    assert list(house.app.reload().providers) == ["local"]
    upstream.may_answer.set()
    assert (await asking).status == 200
    (call,) = await house.calls()
    assert (call.provider, call.cost_nusd) == ("openai", 2_400)


async def test_the_same_request_again_and_again_holds_the_agent_and_resume_begins_anew(
    make: Any,
) -> None:
    agents = {"inbox": {"command": ["x"], "calls": {"same_request": 3}}}
    house = await make(ScriptedUpstream([WHOLE] * 9), agents=agents)
    statuses = [(await house.ask()).status for _ in range(4)]
    assert statuses == [200, 200, 429, 403]
    hold = house.app.holds.find("inbox")
    assert (hold.kind, "the same request 3 times" in hold.why) == (HoldKind.LOOP, True)
    house.app.holds.lift("inbox")
    house.app.gateway.paces.forgive("inbox")
    assert (await house.ask()).status == 200


async def control(app: App, path: str, body: dict[str, Any]) -> Any:
    """Ask as the supervisor does."""
    out = PlayedOutgoing()
    given = [("authorization", f"Bearer {mint_node(SECRET, 'here')}")]
    incoming = PlayedIncoming("POST", f"/control/{path}", "", given, json.dumps(body).encode())
    await Control(app).handle(incoming, out)
    assert out.status == 200, out.whole
    return json.loads(out.whole)


@pytest.mark.parametrize(("action", "lifted"), [("restart", True), ("stop", False), ("suspend", False)])  # fmt: skip
async def test_a_loop_that_is_answered_with_a_restart_holds_until_the_next_run_begins(
    make: Any, action: str, lifted: bool
) -> None:
    agents = {"inbox": {"command": ["x"], "loop": {"action": action}, "calls": {"same_request": 3}}}
    house = await make(ScriptedUpstream([WHOLE] * 9), agents=agents)
    assert [(await house.ask()).status for _ in range(3)] == [200, 200, 429]
    hold = house.app.holds.find("inbox")
    assert (hold.then, hold.run) == ("" if action == "suspend" else action, "run-1" if hold.then else "")  # fmt: skip
    same = await control(house.app, "runs/began", {"agent": "inbox", "run": "run-1"})
    other = await control(house.app, "runs/began", {"agent": "writer", "run": "run-2"})
    assert (same["lifted"], other["lifted"]) == ([], [])
    told = await control(house.app, "runs/began", {"agent": "inbox", "run": "run-2"})
    assert [one["agent"] for one in told["lifted"]] == ["inbox"] * lifted
    assert (await house.ask()).status == (200 if lifted else 403)


async def test_a_loop_that_restarts_do_not_end_waits_for_a_person(make: Any) -> None:
    agents = {
        "inbox": {"command": ["x"], "loop": {"action": "restart"}, "calls": {"same_request": 2}}
    }
    house = await make(ScriptedUpstream([WHOLE] * 99), agents=agents)
    holds, wall = house.app.holds, house.app.house.wall
    for number in range(3):
        assert [(await house.ask()).status for _ in range(2)] == [200, 429]
        assert holds.find("inbox").then == "restart"
        await control(house.app, "runs/began", {"agent": "inbox", "run": f"run-{number + 2}"})
    assert [(await house.ask()).status for _ in range(2)] == [200, 429]
    hold = holds.find("inbox")
    assert (hold.then, hold.why.endswith("; 3 restarts did not help")) == ("", True)
    await control(house.app, "runs/began", {"agent": "inbox", "run": "run-9"})
    assert (await house.ask()).status == 403
    holds._wall = lambda: wall() + 3601.0
    assert holds.may_restart("inbox:search")


async def test_a_restart_lifts_what_its_sub_agents_did_and_nothing_that_a_person_holds(
    make: Any,
) -> None:
    house = await make(ScriptedUpstream([]))
    holds = house.app.holds
    holds.hold("inbox:search", HoldKind.LOOP, "", run="run-1", then="restart")
    holds.hold("inbox:write", HoldKind.SUSPENDED, "", "ana")
    holds.hold("inbox:read", HoldKind.LOOP, "", run="run-1", then="restart")
    holds.hold("inbox:read", HoldKind.SUSPENDED, "", "ana")
    await holds.document.saved()
    again = Holds(house.app.options.data / "gateway" / "holds.json", house.app.house.wall)
    again.open()
    assert [hold.agent for hold in again.renew("inbox", "run-2")] == ["inbox:search"]
    assert {hold.agent for hold in again.all()} == {"inbox:write", "inbox:read"}
    await again.document.saved()


async def test_the_ends_of_calls_are_forgotten_though_nobody_asks(make: Any) -> None:
    house = await make(ScriptedUpstream([WHOLE] * 9))
    now = house.app.house.now
    for number in range(3):
        await house.ask({"messages": [{"role": "user", "content": f"{number}"}]}, agent=f"a{number}")  # fmt: skip
    assert set(house.app.gateway._ended) == {"a0", "a1", "a2"}
    house.app.house.now = lambda: now() + 61.0
    await house.ask(agent="a3")
    assert set(house.app.gateway._ended) == {"a3"}


async def test_to_ask_again_after_a_provider_s_failure_is_no_loop(make: Any) -> None:
    agents = {"inbox": {"command": ["x"], "calls": {"same_request": 3}}}
    models = {"retries": {"attempts": 0}, "breaker": {"failures": 100}}
    down = [Refuse(Phase.CONNECT) for _ in range(6)]
    house = await make(ScriptedUpstream([*down, WHOLE]), agents=agents, models=models)
    assert [(await house.ask()).status for _ in range(7)] == [502] * 6 + [200]


async def test_models_are_listed_without_asking_anybody(make: Any) -> None:
    house = await make(ScriptedUpstream([]), models={"policy": [{"allow": ["gpt-4o*"]}]})
    out = await house.ask(path="/v1/models", method="GET")
    names = [model["id"] for model in json.loads(out.whole)["data"]]
    assert "gpt-4o-mini" in names
    assert all(name.startswith("gpt-4o") for name in names)
    assert (await house.ask(path="/v1/models/gpt-4o", method="GET")).status == 200
    assert (await house.ask(path="/v1/models/o3", method="GET")).status == 404


async def test_a_provider_that_falls_silent_in_a_stream_is_settled_and_told(make: Any) -> None:
    answer = Answer(200, [PIECE, Silence()], SSE)
    house = await make(ScriptedUpstream([answer] * 9), models={"on_cut": "error"})
    out = await house.ask({"stream": True})
    assert (out.status, b'"type":"midwatch_cut"' in out.whole, b"[DONE]" in out.whole) == (
        200,
        True,
        False,
    )
    calls = await house.calls()
    assert {call.state for call in calls} == {CallState.SETTLED}


async def test_what_is_usual_of_an_agent_survives_the_process(make: Any) -> None:
    first = await make(ScriptedUpstream([WHOLE]))
    await first.ask()
    usual = {"tokens": [190, 200], "cost": [5, 6]}
    dict(first.app.gateway.paces.all())["inbox"].recall(usual)
    await first.app.stop()
    second = await make(ScriptedUpstream([WHOLE]))
    assert (await second.ask()).status == 200
    assert dict(second.app.gateway.paces.all())["inbox"].to_json() == usual


async def test_a_ledger_whose_address_is_not_there_is_told(make: Any) -> None:
    with pytest.raises(SetupError, match="NOWHERE holds no postgresql://… address; export it"):
        await make(ScriptedUpstream([]), gateway={"ledger": "env:NOWHERE"})


def test_the_settings_of_instances_are_those_of_their_entry() -> None:
    entry = {"command": ["x"], "budget": {"per_day": 5}, "calls": {"record": True}}
    known = settings.build(
        Fleet.model_validate({"agents": {"inbox.1": entry, "inbox.2": entry}}), {}
    )
    assert known.calls("inbox").record
    assert known.budgets.agents["inbox"].per_day == 5
    assert known.agent("inbox:search") == known.agent("inbox.1")
