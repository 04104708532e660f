"""Attempts that somebody else ends: a client that leaves, a kill, the end of the task, a fault of ours. Their books are
closed all the same, and no breaker waits for a probe that is over."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from gateways import CHAT, GENERATE, HOME, MESSAGES, SSE, Gate, Heard, stream_of
from midwatch.core.calls.breaker import BreakerState
from midwatch.core.calls.charge import CallState
from midwatch.gateway import refusals, worth
from midwatch.gateway.dialects import BadRequest
from midwatch.gateway.http.played import PlayedOutgoing
from midwatch.gateway.mending import Mending
from midwatch.gateway.upstream.port import Headers, Request
from timed import ANSWER, JSON, WORDS, Broken, Fault, Forever, Says, able, books, gate, hosts

# -- clients that leave, and kills ----------------------------------------------------------------


async def test_a_client_that_hangs_up_before_the_usage_is_charged_by_it(tmp_path: Path) -> None:
    *said, end = stream_of(CHAT, WORDS, usage=(10, 20_000))
    reason, rest = end.split(b"\n\n", 1)
    house = gate(tmp_path, Says([*said, reason + b"\n\n", rest]))
    out = PlayedOutgoing(leaves_after=len(WORDS) + 1)
    await house.ask(CHAT, out=out)
    assert await books(house) == [("settled", "gone")]
    [row] = await house.rows()
    assert (row.output_tokens, row.estimated) == (20_000, False)


async def test_a_client_that_hangs_up_pays_for_the_time_in_which_nothing_was_said(
    tmp_path: Path,
) -> None:
    pieces = stream_of(CHAT, WORDS)
    house = gate(tmp_path, Says([40.0, *pieces[:3], Forever()]))
    out = PlayedOutgoing(leaves_after=1)
    await house.ask(CHAT, out=out, max_tokens=100_000)
    [row] = await house.rows()
    assert row.outcome == "gone"
    assert 40 * worth.MADE_PER_S <= row.output_tokens < 41 * worth.MADE_PER_S
    house = gate(tmp_path, Says([40.0, *pieces[:3], Forever()]))
    await house.ask(CHAT, out=PlayedOutgoing(leaves_after=1), max_tokens=500)
    [row] = await house.rows()
    assert row.output_tokens == 500, "no more than was asked for"


class Waits:
    """A provider that answers nobody, until it is let go."""

    def __init__(self, said: Says | None = None) -> None:
        self.said = said
        self.asked = asyncio.Event()
        self.ends_by_close = False

    @property
    def status(self) -> int:
        return 200

    @property
    def headers(self) -> Headers:
        return JSON

    async def open(self, request: Request) -> Any:
        if self.said is not None:
            return self if self.said.status == 0 else self._stream(self.said)
        self.asked.set()
        return await asyncio.Event().wait()

    def _stream(self, said: Says) -> Says:
        waits, chunk = self, said.chunk

        async def further(within_s: float) -> bytes | None:
            piece = await chunk(within_s)
            if piece is None:
                waits.asked.set()
                await asyncio.Event().wait()
            return piece

        said.chunk = further  # type: ignore[method-assign]
        return said

    async def whole(self, within_s: float, limit_bytes: int) -> bytes:
        self.asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def chunk(self, within_s: float) -> bytes | None:
        return await self.whole(within_s, 0)

    async def close(self) -> None:
        pass


@pytest.fixture
async def tasks() -> AsyncIterator[list[asyncio.Task[Any]]]:
    under_way: list[asyncio.Task[Any]] = []
    yield under_way
    for task in under_way:
        task.cancel()
    await asyncio.gather(*under_way, return_exceptions=True)


Tasks = list[asyncio.Task[Any]]


async def begun(house: Gate, tasks: Tasks, out: PlayedOutgoing, **more: Any) -> asyncio.Task[Any]:
    task = asyncio.create_task(house.ask(out=out, **more))
    tasks.append(task)
    assert isinstance(house.upstream, Waits)
    await asyncio.wait_for(house.upstream.asked.wait(), 5)
    return task


async def test_a_kill_charges_what_may_have_been_made(tmp_path: Path, tasks: Tasks) -> None:
    for said, least, most in ((None, 100 * 250, 100 * 250), (Says([], status=0), 32_768, 32_768)):
        house = Gate(tmp_path, Waits(said), models={"about": {"gpt-4o-mini": {"max_output": 32_768}}})  # type: ignore[arg-type]  # fmt: skip
        out = PlayedOutgoing()
        task = await begun(house, tasks, out, stream=False)
        house.clock.passed += 100.0
        cut = await house.gateway.cut(house.gateway.calls_of("inbox"), refusals.stopping())
        await asyncio.wait_for(task, 30)
        assert (cut.left, out.status) == (0, 503)
        [row] = await house.rows()
        assert (row.state, row.outcome) == (CallState.SETTLED, "killed")
        assert least <= row.output_tokens <= most


async def test_a_kill_settles_before_it_tells_a_client_that_does_not_read(
    tmp_path: Path, tasks: Tasks
) -> None:
    house = Gate(tmp_path, Waits(Says(stream_of(CHAT, WORDS)[:5])))  # type: ignore[arg-type]
    out = PlayedOutgoing()
    task = await begun(house, tasks, out)
    out.room.clear()
    [call] = house.gateway.calls_of("inbox")
    call.kill(refusals.stopping())
    async with asyncio.timeout(30):
        while (await house.rows())[0].state is CallState.OPEN:
            await asyncio.sleep(0.001)
        assert not task.done(), "settled, while the last word is on its way"
        await task
    assert out.aborted
    assert house.counts["stream.unread"] == 1


async def test_the_end_of_the_task_closes_the_books(tmp_path: Path, tasks: Tasks) -> None:
    for said in (None, Says([], status=0), Says(stream_of(CHAT, WORDS)[:5])):
        house = Gate(tmp_path, Waits(said))  # type: ignore[arg-type]
        stream = said is not None and said.status > 0
        task = await begun(house, tasks, PlayedOutgoing(), stream=stream)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await books(house) == [("settled", "stopped")]
        assert (await house.rows())[0].estimated


# -- faults of ours -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [Fault(), Says([Fault()]), Says([*stream_of(CHAT, WORDS)[:9], Fault()]), Says([Fault()], 500)],
)
@pytest.mark.parametrize("stream", [True, False])
async def test_a_fault_of_ours_within_an_attempt_leaves_nothing_open(
    said: Says | Fault, stream: bool, tmp_path: Path
) -> None:
    if isinstance(said, Says):
        said = Says(said.pieces, said.status, SSE if stream else JSON)
    house = gate(tmp_path, said)
    breaker = house.house.health.breaker(house.settings.chains.place(HOME[CHAT]))
    for _ in range(5):
        breaker.failed(house.clock.now(), "down", house.clock.now())
    house.clock.passed += 20.0
    assert breaker.state(house.clock.now()) is BreakerState.HALF_OPEN
    with pytest.raises(Fault):
        await house.ask(CHAT, stream=stream)
    state = "released" if isinstance(said, Says) and said.status == 500 else "settled"
    assert await books(house) == [(state, "fault")]
    assert house.counts["attempt.fault"] == 1


@pytest.mark.parametrize("dialect", [CHAT, MESSAGES, GENERATE])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_fault_of_ours_is_told_in_the_clients_dialect_and_not_tried_again(
    dialect: str, stream: bool, tmp_path: Path
) -> None:
    house = gate(tmp_path, Fault())
    out = PlayedOutgoing()
    with pytest.raises(Fault):
        await house.ask(dialect, out=out, stream=stream)
    error = json.loads(out.whole)["error"]
    assert (out.status, out.headed["x-should-retry"], out.ended) == (500, "false", True)
    assert "midwatch_fault" in json.dumps(error)
    assert house.counts["refused.midwatch_fault"] == 1


async def test_a_fault_of_ours_within_a_stream_ends_it_without_an_end(tmp_path: Path) -> None:
    house = gate(tmp_path, Says([*stream_of(CHAT, WORDS)[:9], Fault()]))
    out = PlayedOutgoing()
    with pytest.raises(Fault):
        await house.ask(CHAT, out=out)
    assert (out.status, out.ended) == (200, False), "the server breaks it off"


async def test_a_price_that_cannot_be_computed_is_charged_as_what_was_reserved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fault(*_: object, **__: object) -> None:
        raise Fault

    monkeypatch.setattr(worth, "charge", fault)
    house = gate(tmp_path, Says([ANSWER], headers=JSON))
    with pytest.raises(Fault):
        await house.ask(CHAT, stream=False)
    [row] = await house.rows()
    assert (row.state, row.cost_nusd) == (CallState.SETTLED, row.reserved_nusd)
    assert row.cost_nusd > 0


async def test_a_request_that_cannot_be_gone_on_with_reserves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unfit(*_: object) -> bytes:
        raise BadRequest("messages: expected a list")

    monkeypatch.setattr(Mending, "body", unfit)
    pieces = [*stream_of(CHAT, WORDS)[:6], Broken()]
    house = gate(tmp_path, Says(pieces), about=able(CHAT), retries={"attempts": 0})
    heard = Heard(CHAT, (await house.ask(CHAT)).whole)
    assert heard.errors == ["midwatch_cut"]
    assert await books(house) == [("settled", "cut")]
    assert len(hosts(house)) == 1


# -- breakers -------------------------------------------------------------------------------------


async def test_a_probe_that_gives_content_opens_its_place_to_others(
    tmp_path: Path, tasks: Tasks
) -> None:
    house = Gate(tmp_path, Waits(Says(stream_of(CHAT, WORDS)[:5])))  # type: ignore[arg-type]
    breaker = house.house.health.breaker(house.settings.chains.place(HOME[CHAT]))
    for _ in range(5):
        breaker.failed(house.clock.now(), "down", house.clock.now())
    house.clock.passed += 20.0
    await begun(house, tasks, PlayedOutgoing())
    assert breaker.state(house.clock.now()) is BreakerState.CLOSED


async def test_a_place_that_begins_each_stream_and_breaks_it_off_is_left_alone(
    tmp_path: Path,
) -> None:
    cuts = [Says([*stream_of(CHAT, WORDS)[:3], Broken()]) for _ in range(5)]
    house = gate(tmp_path, *cuts, chains={}, on_cut="error")
    for _ in range(5):
        await house.ask(CHAT)
    out = await house.ask(CHAT)
    assert (out.status, json.loads(out.whole)["error"]["type"]) == (503, "midwatch_no_provider")


async def test_a_call_for_which_there_is_no_provider_is_counted_as_the_state_tells_it(
    tmp_path: Path,
) -> None:
    house = gate(tmp_path, chains={}, providers={})
    out = await house.ask(CHAT)
    assert (out.status, json.loads(out.whole)["error"]["type"]) == (404, "midwatch_no_provider")
    assert house.house.counts["refused.midwatch_no_provider"] == 1
