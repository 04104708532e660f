"""Calls of unknown cost, put right by their providers' word, or by a person's figures."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from gateways import CHAT, Gate, answer, stream_of
from midwatch.core.calls.account import Payer
from midwatch.core.calls.budget import Admitted
from midwatch.core.calls.charge import Call, CallState, Charge, Reservation
from midwatch.core.calls.period import Calendar
from midwatch.gateway import reconciling
from midwatch.gateway.ledger.memory import MemoryLedger
from midwatch.gateway.reconciling import AGAIN_S, EXPIRED, OTHERS_S, RECONCILED, Reconciling
from midwatch.gateway.upstream.scripted import Answer, Break, Refuse, ScriptedUpstream

ROUTER = "https://openrouter.ai/api/v1"
MODEL = "openrouter/openai/gpt-4o-mini"
PROVIDERS: dict[str, Any] = {
    "openrouter": {"base_url": ROUTER},
    "own": {
        "base_url": "http://localhost:1/v1",
        "price_of": "openai",
        "reconcile": "/bills/{call}",
    },
    "mute": {"base_url": "http://localhost:1/v1", "price_of": "openai"},
}
WORST = 50_000_000


def told(value: object, status: int = 200) -> Answer:
    return Answer(status, [json.dumps(value).encode()])


def generation(usd: float) -> Answer:
    return told(
        {"data": {"total_cost": usd, "native_tokens_prompt": 10, "native_tokens_completion": 5}}
    )


class Crash:
    """A gateway after a crash, with calls of its dead predecessor in the ledger."""

    def __init__(self, folder: Path, *script: Answer | Refuse) -> None:
        self.gate = Gate(folder, script, models={"providers": PROVIDERS})
        self.house = self.gate.house
        self.house.name = "heir"
        self.dead = MemoryLedger(Calendar(ZoneInfo("UTC")), self.gate.engine)
        self.reconciling = Reconciling(self.house)

    async def call(
        self, name: str, place: str = MODEL, response: str = "", gateway: str = "heir"
    ) -> None:
        """Leave a call behind that was under way."""
        provider, _, model = place.partition("/")
        at = self.house.wall()
        asked = Reservation(
            name, Payer("inbox"), WORST, at, at + 600, provider=provider, model=model, sent_key="main",
            gateway=gateway,
        )  # fmt: skip
        assert isinstance(await self.dead.reserve(asked), Admitted)
        if response:
            self.dead.note(name, response)

    async def found(self, name: str) -> Call:
        call = await self.house.ledger.call(name)
        assert call is not None
        return call

    def urls(self) -> list[str]:
        assert isinstance(self.gate.upstream, ScriptedUpstream)
        return [request.url for request in self.gate.upstream.asked]


async def test_what_a_crash_left_open_is_settled_by_the_providers_word(tmp_path: Path) -> None:
    crash = Crash(tmp_path, generation(0.00123), told({"usage": {"prompt_tokens": 1000, "completion_tokens": 100}}))  # fmt: skip
    await crash.call("one", response="gen 1/2")
    await crash.call("two", "own/gpt-4o-mini")
    await crash.call("three", "mute/gpt-4o-mini")
    await crash.call("four", response="")  # it died before the first piece
    assert await crash.reconciling.look() == {"settled": 2, "waiting": 0}
    assert crash.urls() == [
        f"{ROUTER}/generation?id=gen%201%2F2",
        "http://localhost:1/v1/bills/two",
    ]
    one, two = await crash.found("one"), await crash.found("two")
    assert (one.state, one.cost_nusd, one.estimated, one.outcome) == (CallState.SETTLED, 1_230_000, False, RECONCILED)  # fmt: skip
    assert (one.input_tokens, one.output_tokens, one.costs["provider"]) == (10, 5, 1_230_000)
    assert (one.provider, one.model) == ("openrouter", "openai/gpt-4o-mini")
    assert (two.cost_nusd, two.price_version != "") == (1000 * 150 + 100 * 600, True)
    for name in ("three", "four"):
        assert (await crash.found(name)).charged_nusd == WORST
    (kept,) = await crash.house.ledger.corrections("one")
    assert (kept.by, kept.was_nusd, kept.cost_nusd) == ("openrouter", WORST, 1_230_000)
    assert await crash.house.ledger.audit() == {}
    assert await crash.reconciling.look(10.0) == {}, "what is exact is not asked for again"


async def test_a_call_that_is_not_known_yet_is_asked_for_ever_more_seldom(tmp_path: Path) -> None:
    crash = Crash(tmp_path, told({}, 404), Refuse(), told("no bill"), generation(0.001))
    await crash.call("one", response="gen-1")
    clock = crash.gate.clock
    for pause in AGAIN_S[:3]:
        asked = len(crash.urls())
        assert (await crash.reconciling.look())["waiting"] == 1
        assert await crash.reconciling.look() == {}, "not at once"
        assert len(crash.urls()) == asked + 1
        clock.passed += pause
    assert (await crash.found("one")).state is CallState.OPEN
    assert (await crash.reconciling.look())["settled"] == 1


async def test_expired_and_estimated_calls_are_put_right_and_told_ones_keep_their_end(
    tmp_path: Path,
) -> None:
    crash = Crash(tmp_path, generation(0.001), generation(0.002))
    await crash.call("expired", response="gen-1")
    await crash.call("cut", response="gen-2")
    crash.dead.settle("cut", Charge(7, crash.house.wall(), estimated=True, outcome="cut", attempts=[{"n": 1}]))  # fmt: skip
    assert await crash.dead.expire(crash.house.wall() + 601) == ["expired"]
    assert (await crash.found("expired")).outcome == EXPIRED
    assert (await crash.reconciling.look())["corrected"] == 2
    expired, cut = await crash.found("expired"), await crash.found("cut")
    assert (expired.cost_nusd, expired.estimated, expired.outcome) == (1_000_000, False, RECONCILED)
    assert (cut.cost_nusd, cut.outcome, cut.attempts) == (2_000_000, "cut", ({"n": 1},))


async def test_a_call_of_another_gateway_may_be_alive_and_waits_unless_a_person_asks(
    tmp_path: Path,
) -> None:
    crash = Crash(tmp_path, told({}, 404), generation(0.001))
    await crash.call("one", response="gen-1", gateway="neighbour")
    assert await crash.reconciling.look() == {}
    assert (await crash.reconciling.look(10.0))["waiting"] == 1
    crash.gate.clock.passed += OTHERS_S
    assert (await crash.reconciling.look())["settled"] == 1


async def test_when_nobody_waits_any_more_what_is_being_looked_up_is_let_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash = Crash(tmp_path)
    await crash.call("one", response="gen-1")
    asked, ended = asyncio.Event(), asyncio.Event()

    class Hangs:
        async def open(self, _: object) -> None:
            asked.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

    monkeypatch.setattr(crash.house, "upstream", Hangs())
    looking = asyncio.create_task(crash.reconciling.look())
    async with asyncio.timeout(30):
        await asked.wait()
        looking.cancel()
        await ended.wait()


async def test_a_call_under_way_here_is_left_alone_and_its_id_is_kept_from_the_first_piece_on(
    tmp_path: Path,
) -> None:
    script = [answer(CHAT, [*stream_of(CHAT, ["a ", "b "], ident="gen-7")[:2], Break()]), generation(0.001)]  # fmt: skip
    crash = Crash(tmp_path, *script)
    noted: list[str] = []
    real = crash.house.ledger.note

    def note(call_id: str, response: str) -> None:
        assert crash.house.ledger.carries(call_id)
        noted.append(response)
        real(call_id, response)

    crash.house.ledger.note = note  # type: ignore[method-assign]
    await crash.gate.ask(CHAT, model=MODEL)
    (row,) = await crash.gate.rows()
    assert (noted, row.response, row.estimated) == (["gen-7"], "gen-7", True)
    assert (await crash.reconciling.look())["corrected"] == 1
    (row,) = await crash.gate.rows()
    assert (row.cost_nusd, row.estimated) == (1_000_000, False)


@pytest.mark.parametrize(("place", "sent"), [("own/gpt-4o-mini", True), ("mute/gpt-4o-mini", False)])  # fmt: skip
async def test_a_provider_learns_our_id_only_where_its_bill_is_by_it(
    tmp_path: Path, place: str, sent: bool
) -> None:
    crash = Crash(tmp_path, Answer(400, [b"{}"]))
    await crash.gate.ask(CHAT, model=place)
    assert isinstance(crash.gate.upstream, ScriptedUpstream)
    names = [name for name, _ in crash.gate.upstream.asked[0].headers]
    assert ("x-midwatch-call" in names) == sent


async def test_a_persons_figures_settle_calls_and_again_is_no_change(tmp_path: Path) -> None:
    crash = Crash(tmp_path)
    await crash.call("one", "mute/gpt-4o-mini")
    await crash.call("two", response="gen-2")
    await crash.call("three", "mute/never-heard-of")
    rows: list[Any] = [
        {"call": "one", "usage": {"prompt_tokens": 1000, "completion_tokens": 100}},
        {"response": "gen-2", "cost_usd": "0.000000007"},
        {"call": "three", "cost_nusd": 5},
        {"call": "nobody", "cost_nusd": 5},
        {"call": "three", "cost_nusd": -5},
        {"cost_nusd": 5},
        17,
    ]
    said = await crash.reconciling.take(rows, "ana")
    assert [one["result"] for one in said] == [
        "settled", "settled", "settled", "unknown", "unread", "unread", "unread",
    ]  # fmt: skip
    assert [one.get("cost_nusd") for one in said[:3]] == [210_000, 7, 5]
    again = await crash.reconciling.take(rows[:3], "ana")
    assert [one["result"] for one in again] == ["same"] * 3
    crash.gate.clock.passed += 1
    changed = await crash.reconciling.take([{"call": "three", "cost_nusd": 6}], "bob")
    assert changed == [{"call": "three", "result": "corrected", "was_nusd": 5, "cost_nusd": 6}]
    kept = await crash.house.ledger.corrections("three")
    assert [(one.by, one.was_nusd, one.cost_nusd) for one in kept] == [("ana", WORST, 5), ("bob", 5, 6)]  # fmt: skip
    assert await crash.house.ledger.audit() == {}


async def test_a_fault_in_a_look_up_is_not_kept_quiet_and_the_others_are_looked_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash = Crash(tmp_path, generation(0.001), generation(0.002))
    await crash.call("one", response="gen-1")
    await crash.call("two", response="gen-2")
    charged = reconciling.charge_of

    def faulty(settings: Any, call: Call, *given: Any) -> Any:
        if call.call_id == "one":
            raise ZeroDivisionError
        return charged(settings, call, *given)

    monkeypatch.setattr(reconciling, "charge_of", faulty)
    with pytest.raises(ZeroDivisionError):
        await crash.reconciling.look()
    assert (await crash.found("two")).state is CallState.SETTLED
