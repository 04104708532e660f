"""Request limits, waiting in line, and what follows when money or a price is missing."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from gateways import CHAT, Gate, question
from midwatch.core.calls.account import Payer
from midwatch.core.calls.budget import Admitted, Refused
from midwatch.core.calls.charge import CallState, Reservation
from midwatch.gateway import affording, lines
from midwatch.gateway.holds import HoldKind
from midwatch.gateway.http.played import PlayedIncoming, PlayedOutgoing
from midwatch.gateway.refusals import held
from midwatch.gateway.upstream.port import Request
from midwatch.gateway.upstream.scripted import Answer, ScriptedReply, ScriptedUpstream

SMALL = {"max_tokens": 100, "model": "openai/gpt-4o-mini"}


def whole(model: str = "gpt-4o-mini", tokens: tuple[int, int] = (10, 5)) -> Answer:
    usage = {
        "prompt_tokens": tokens[0],
        "completion_tokens": tokens[1],
        "total_tokens": sum(tokens),
    }
    message = {"role": "assistant", "content": "Yes."}
    body = {"id": "x", "model": model, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}  # fmt: skip
    return Answer(200, [json.dumps(body).encode()])


class Slow(ScriptedUpstream):
    """Answers when it is let."""

    def __init__(self, script: list[Answer]) -> None:
        super().__init__(script)
        self.let = asyncio.Semaphore(0)

    async def open(self, request: Request) -> ScriptedReply:
        reply = await super().open(request)
        await self.let.acquire()
        return reply


def type_of(out: PlayedOutgoing) -> str:
    return json.loads(out.whole)["error"]["type"]


async def test_calls_above_the_rate_are_refused_with_the_time_to_come_back(tmp_path: Path) -> None:
    gate = Gate(
        tmp_path, [whole()] * 3, agent={"calls": {"limits": {"requests": 12}}}
    )  # two at once, then one in five seconds
    for _ in range(2):
        assert (await gate.ask(CHAT, stream=False, **SMALL)).status == 200
    out = await gate.ask(CHAT, stream=False, **SMALL)
    assert (out.status, type_of(out)) == (429, "midwatch_limit")
    assert out.headed["retry-after"] == "5"
    assert out.headed["x-should-retry"] == "true"
    assert "12 requests a minute" in json.loads(out.whole)["error"]["message"]
    gate.clock.passed += 5
    assert (await gate.ask(CHAT, stream=False, **SMALL)).status == 200


async def test_limits_of_models_hold_for_each_agent_and_an_agents_own_instead(
    tmp_path: Path,
) -> None:
    gate = Gate(
        tmp_path, [whole()] * 3, models={"limits": {"requests": 6}},
        agent={"calls": {"limits": {"requests": 600}}},
    )  # fmt: skip
    for _ in range(3):
        assert (await gate.ask(CHAT, stream=False, **SMALL)).status == 200
    gate = Gate(tmp_path, [whole()] * 2, models={"limits": {"requests": 6}})
    assert (await gate.ask(CHAT, stream=False, **SMALL)).status == 200
    assert (await gate.ask(CHAT, stream=False, **SMALL)).status == 429


async def test_tokens_are_reckoned_with_at_their_worst_and_given_back(tmp_path: Path) -> None:
    limits = {"calls": {"limits": {"tokens": 6_000}}}  # a bucket of 1,000
    gate = Gate(tmp_path, [whole(tokens=(10, 5))] * 5, agent=limits)
    for _ in range(3):  # each may take 900, and takes 15
        out = await gate.ask(CHAT, stream=False, **{**SMALL, "max_tokens": 900})
        assert out.status == 200
    gate = Gate(tmp_path, [whole(tokens=(500, 480)), whole()], agent=limits)
    assert (await gate.ask(CHAT, stream=False, **{**SMALL, "max_tokens": 900})).status == 200
    out = await gate.ask(CHAT, stream=False, **{**SMALL, "max_tokens": 900})
    assert (out.status, type_of(out)) == (429, "midwatch_limit")


async def asked_once(slow: Slow) -> None:
    """Wait until a call has its place."""
    async with asyncio.timeout(30):
        while not slow.asked:
            await asyncio.sleep(0.005)
    assert len(slow.asked) == 1


async def test_calls_at_one_time_wait_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    slow = Slow([whole() for _ in range(4)])
    gate = Gate(tmp_path, slow, agent={"calls": {"limits": {"concurrent": 1}}}, real_time=True)
    order: list[int] = []

    async def one(number: int) -> None:
        await gate.ask(CHAT, stream=False, prompt=f"number {number}", **SMALL)
        order.append(number)

    tasks = []
    for number in range(4):
        tasks.append(asyncio.create_task(one(number)))
        await asyncio.sleep(0.01)
    await asked_once(slow)
    for count in range(1, 5):
        slow.let.release()
        async with asyncio.timeout(30):
            while len(order) < count:
                await asyncio.sleep(0.005)
    assert order == [0, 1, 2, 3]
    await asyncio.gather(*tasks)


async def test_who_waits_too_long_is_refused_and_who_leaves_is_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "WAIT_S", 0.05)
    slow = Slow([whole() for _ in range(2)])
    gate = Gate(tmp_path, slow, agent={"calls": {"limits": {"concurrent": 1}}}, real_time=True)
    first = asyncio.create_task(gate.ask(CHAT, stream=False, **SMALL))
    await asked_once(slow)
    out = await gate.ask(CHAT, stream=False, **SMALL)
    assert (out.status, type_of(out), out.headed["retry-after"]) == (429, "midwatch_limit", "1")
    monkeypatch.setattr(lines, "WAIT_S", 30.0)
    leaving = PlayedOutgoing()
    waits = asyncio.create_task(gate.ask(CHAT, stream=False, out=leaving, **SMALL))
    await asyncio.sleep(0.01)
    leaving.leave()
    await asyncio.wait_for(waits, 30)
    assert leaving.status is None
    slow.let.release()
    await first
    slow.let.release()
    assert (await gate.ask(CHAT, stream=False, **SMALL)).status == 200


async def test_a_killed_agents_calls_leave_the_line_at_once(tmp_path: Path) -> None:
    slow = Slow([whole()])
    gate = Gate(tmp_path, slow, agent={"calls": {"limits": {"concurrent": 1}}}, real_time=True)
    first = asyncio.create_task(gate.ask(CHAT, stream=False, **SMALL))
    waits = asyncio.create_task(gate.ask(CHAT, stream=False, **SMALL))
    await asyncio.sleep(0.01)
    why = held(gate.holds.hold("inbox", HoldKind.KILLED, "by hand"), "inbox")
    await gate.gateway.cut(gate.gateway.calls_of("inbox"), why, 5.0)
    assert type_of(await waits) == "midwatch_suspended"
    assert type_of(await first) == "midwatch_suspended"
    assert {row.state for row in await gate.rows()} == {CallState.SETTLED}


# -- money -----------------------------------------------------------------------------------------


async def test_small_calls_that_fit_once_those_in_flight_settle_are_not_starved(
    tmp_path: Path,
) -> None:
    """Each may cost 60 times what it does; the budget has room for three at their worst, and pays for all."""
    count, worst = 40, 60_600

    class Busy(ScriptedUpstream):
        async def open(self, request: Request) -> ScriptedReply:
            reply = await super().open(request)
            await asyncio.sleep(0.01)
            return reply

    gate = Gate(
        tmp_path, Busy([whole(tokens=(10, 1)) for _ in range(count)]), real_time=True,
        agent={"budget": {"total": 4 * worst}},
    )  # fmt: skip
    outs = await asyncio.gather(
        *(gate.ask(CHAT, stream=False, prompt=f"{n}", **SMALL) for n in range(count))
    )
    admitted = sum(1 for out in outs if out.status == 200)
    assert admitted >= 0.9 * count
    assert sum(row.cost_nusd for row in await gate.rows()) <= 4 * worst
    assert gate.counts["budget.waited"] > 0


async def test_who_waits_for_money_asks_again_when_calls_of_that_account_settle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls of one agent wait for its budget; those of others, that settle meanwhile, give it nothing back."""
    for name in ("WAIT_S", "POLL_S"):  # nothing but a settlement wakes them
        monkeypatch.setattr(affording, name, 600.0)

    class Held(Slow):
        async def open(self, request: Request) -> ScriptedReply:
            if b"hold" in request.body:
                return await super().open(request)
            return await ScriptedUpstream.open(self, request)

    upstream = Held([whole() for _ in range(40)])
    gate = Gate(tmp_path, upstream, real_time=True, agent={"budget": {"total": 100_000}})
    asked: Counter[str] = Counter()
    real = gate.ledger.reserve

    async def reserve(reservation: Reservation) -> Admitted | Refused:
        asked[reservation.payer.agent] += 1
        return await real(reservation)

    gate.ledger.reserve = reserve  # type: ignore[method-assign]
    tight = [
        asyncio.create_task(gate.ask(CHAT, stream=False, prompt=f"hold {n}", **SMALL))
        for n in range(5)
    ]
    async with asyncio.timeout(20):
        while gate.counts["budget.waited"] < 4:
            await asyncio.sleep(0)
    polls = asked["inbox"]
    gate.payer = Payer("other", run="r2")
    for n in range(30):
        assert (await gate.ask(CHAT, stream=False, prompt=f"{n}", **SMALL)).status == 200
    assert asked["other"] == 30
    assert asked["inbox"] == polls
    for _ in tight:
        upstream.let.release()
    outs = await asyncio.gather(*tight)
    assert [out.status for out in outs].count(200) == 5
    assert gate.house.purse.lines == {}


async def test_a_call_that_never_fits_does_not_wait(tmp_path: Path) -> None:
    gate = Gate(tmp_path, [], agent={"budget": {"total": 10}})
    out = await gate.ask(CHAT, stream=False, **SMALL)
    assert (out.status, type_of(out)) == (403, "midwatch_budget")
    assert gate.counts["budget.waited"] == 0


async def test_a_used_up_budget_that_parks_holds_the_agent_until_it_is_resumed(
    tmp_path: Path,
) -> None:
    budget = {"budget": {"per_day": 70_000, "on_exhausted": "park"}}
    gate = Gate(tmp_path, [whole(tokens=(10, 100)), whole()], agent=budget)
    assert (await gate.ask(CHAT, stream=False, **SMALL)).status == 200
    out = await gate.ask(CHAT, stream=False, **SMALL)
    assert type_of(out) == "midwatch_budget"
    held = gate.holds.find("inbox")
    assert held is not None
    assert held.kind is HoldKind.BUDGET
    gate.clock.passed += 86_400 * 2  # a new day alone does not lift it
    out = await gate.ask(CHAT, stream=False, **SMALL)
    assert (out.status, type_of(out)) == (403, "midwatch_budget")
    assert "midwatch resume inbox" in json.loads(out.whole)["error"]["message"]
    gate.holds.lift("inbox")
    assert (await gate.ask(CHAT, stream=False, **SMALL)).status == 200


DEAR = {"model": "openai/gpt-4o", "max_tokens": 1_000}


def falls_to(target: str) -> dict[str, Any]:
    return {"budget": {"total": 5_000_000, "on_exhausted": target}}


async def test_a_used_up_budget_falls_to_the_cheaper_model_and_says_so(tmp_path: Path) -> None:
    gate = Gate(tmp_path, [whole("gpt-4o-mini")], agent=falls_to("second/gpt-4o-mini"))
    out = await gate.ask(CHAT, stream=False, **DEAR)
    assert out.status == 200
    assert out.headed["x-midwatch-model"] == "second/gpt-4o-mini"
    assert out.headed["x-midwatch-fallback"] == "1"
    assert gate.asked(0)["model"] == "gpt-4o-mini"
    [row] = await gate.rows()
    assert (row.model_asked, row.model) == ("openai/gpt-4o", "gpt-4o-mini")


@pytest.mark.parametrize(
    ("target", "rule"),
    [
        ("openai/gpt-4-turbo", None),  # dearer
        ("nobody/gpt-4o-mini", None),
        ("openai/no-price-known", None),
        ("anthropic/claude-haiku-4-5", {"deny": "not this one", "when": "fallback"}),
        ("second/gpt-4o-mini", {"deny": "not this one", "when": "fallback"}),
    ],
)
async def test_it_does_not_fall_to_a_dearer_an_unknown_or_a_denied_model(
    target: str, rule: dict[str, Any] | None, tmp_path: Path
) -> None:
    policy = {"policy": [rule]} if rule else {}
    gate = Gate(tmp_path, [], agent=falls_to(target), models=policy)
    out = await gate.ask(CHAT, stream=False, **DEAR)
    assert type_of(out) == "midwatch_budget"
    assert gate.upstream.asked == []  # type: ignore[union-attr]


async def test_a_call_that_does_not_fit_there_either_is_refused_by_the_first_budget(
    tmp_path: Path,
) -> None:
    agent = {"budget": {"total": 100_000, "on_exhausted": "second/gpt-4o-mini"}}
    gate = Gate(tmp_path, [], agent=agent)
    out = await gate.ask(CHAT, stream=False, **DEAR)
    assert type_of(out) == "midwatch_budget"
    assert "may cost $0.01" in json.loads(out.whole)["error"]["message"]


# -- prices that nobody knows ----------------------------------------------------------------------

UNKNOWN = {"model": "openai/made-up", "max_tokens": 100}
POOR = {"budget": {"total": 10**12}}


async def test_refuse_is_for_agents_with_a_budget_alone(tmp_path: Path) -> None:
    gate = Gate(tmp_path, [], agent=POOR)
    assert type_of(await gate.ask(CHAT, stream=False, **UNKNOWN)) == "midwatch_budget"
    gate = Gate(tmp_path, [whole("made-up")])
    assert (await gate.ask(CHAT, stream=False, **UNKNOWN)).status == 200


async def test_worst_charges_by_the_providers_dearest_model(tmp_path: Path) -> None:
    gate = Gate(tmp_path, [whole("made-up")], agent=POOR, models={"unknown_price": "worst"})
    assert (await gate.ask(CHAT, stream=False, **UNKNOWN)).status == 200
    [row] = await gate.rows()
    assert row.cost_nusd > 0
    assert row.estimated


async def test_cap_lets_an_agent_have_its_tokens_a_day_also_after_a_restart(tmp_path: Path) -> None:
    models = {"unknown_price": "cap", "unknown_cap": 1_000}
    gate = Gate(tmp_path, [whole("made-up", (400, 100))] * 9, agent=POOR, models=models)
    for _ in range(2):
        assert (await gate.ask(CHAT, stream=False, **UNKNOWN)).status == 200
    out = await gate.ask(CHAT, stream=False, **UNKNOWN)
    assert (out.status, type_of(out)) == (429, "midwatch_budget")
    assert "1,000 tokens a day" in json.loads(out.whole)["error"]["message"]
    gate.house.purse.unpriced.clear()  # as a new process would begin
    assert (await gate.ask(CHAT, stream=False, **UNKNOWN)).status == 429
    gate.clock.passed += 86_400
    assert (await gate.ask(CHAT, stream=False, **UNKNOWN)).status == 200


async def test_a_failed_call_gives_its_share_back(tmp_path: Path) -> None:
    models = {"unknown_price": "cap", "unknown_cap": 300}
    gate = Gate(
        tmp_path, [Answer(400, [b"{}"])] * 4 + [whole("made-up")], agent=POOR, models=models
    )
    for status in (400, 400, 400, 400, 200):
        assert (await gate.ask(CHAT, stream=False, **UNKNOWN)).status == status


async def test_counting_tokens_and_answers_out_of_the_cache_count_as_requests(
    tmp_path: Path,
) -> None:
    counted = Answer(200, [b'{"input_tokens":9}'])
    gate = Gate(
        tmp_path, [counted] * 2, agent={"calls": {"limits": {"requests": 12}}}
    )  # two at once
    path, query, body = question("messages", stream=False)
    statuses: list[int | None] = []
    for _ in range(3):
        out = PlayedOutgoing()
        given = [("content-type", "application/json")]
        incoming = PlayedIncoming("POST", f"{path}/count_tokens", query, given, json.dumps(body).encode())  # fmt: skip
        await gate.start()
        await gate.gateway.handle(incoming, out)
        statuses.append(out.status)
    assert statuses == [200, 200, 429]
    calls = {"limits": {"requests": 12}, "cache": "1h"}
    gate = Gate(tmp_path, [whole()], agent={"calls": calls}, disk=True)
    hits = [await gate.ask(CHAT, stream=False, **SMALL) for _ in range(3)]
    assert [(out.status, out.headed.get("x-midwatch-cache")) for out in hits] == [
        (200, "miss"),
        (200, "hit"),
        (429, None),
    ]


async def test_to_ask_again_when_a_limit_allows_it_is_no_loop(tmp_path: Path) -> None:
    calls = {"limits": {"requests": 6}, "same_request": 5}
    gate = Gate(tmp_path, [whole()] * 2, agent={"calls": calls})
    statuses = [(await gate.ask(CHAT, stream=False, **SMALL)).status for _ in range(20)]
    assert statuses == [200] + [429] * 19
    assert gate.holds.find("inbox") is None
