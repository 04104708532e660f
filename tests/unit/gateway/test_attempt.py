"""Attempts whose time passes by the clock: what follows a time-out with no setting at all, and what each end of an
attempt is charged. After each of them nothing is reserved any more, and no breaker waits for a probe."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from gateways import (
    CHAT,
    HOME,
    MESSAGES,
    NEXT,
    RESPONSES,
    SSE,
    Clock,
    Gate,
    Heard,
    event,
    stream_of,
)
from midwatch.core.calls.breaker import BreakerState
from midwatch.core.calls.charge import CallState
from midwatch.gateway import refusals, worth
from midwatch.gateway.dialects import BadRequest
from midwatch.gateway.http.played import PlayedOutgoing
from midwatch.gateway.mending import Mending
from midwatch.gateway.upstream.port import Headers, Phase, Request, UpstreamError

JSON = (("content-type", "application/json"),)
WORDS = [f"w{n} " for n in range(20)]
WHOLE = "".join(WORDS)
USED = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
ANSWER = json.dumps(
    {
        "id": "one",
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": WHOLE},
                "finish_reason": "stop",
            }
        ],
        "usage": USED,
    }
).encode()


class Forever:
    """In the place of a piece, or of an answer: nothing comes, for longer than anybody waits."""


class Broken:
    """In the place of a piece: the connection breaks."""


class Fault(Exception):
    """Something of ours that goes wrong."""


Piece = bytes | float | Forever | Broken | Fault


@dataclass
class Says:
    """An answer. A number among its pieces: so many seconds pass."""

    pieces: Sequence[Piece]
    status: int = 200
    headers: Headers = SSE
    head_after: float = 0.0
    clock: Clock = field(default_factory=Clock)
    closed: bool = False
    ends_by_close: bool = False

    def __post_init__(self) -> None:
        self.left = list(self.pieces)

    async def chunk(self, within_s: float) -> bytes | None:
        await asyncio.sleep(0)
        while self.left:
            piece = self.left.pop(0)
            if isinstance(piece, Forever):
                piece = float("inf")
            if isinstance(piece, Broken):
                raise UpstreamError(Phase.BODY, "reset")
            if isinstance(piece, Fault):
                raise piece
            if isinstance(piece, bytes):
                return piece
            self.clock.passed += min(piece, within_s)
            if piece > within_s:
                raise UpstreamError(Phase.BETWEEN, f"nothing came for {within_s:g} s")
            within_s -= piece
        return None

    async def whole(self, within_s: float, limit_bytes: int) -> bytes:
        until, body = self.clock.passed + within_s, b""
        while (piece := await self.chunk(until - self.clock.passed)) is not None:
            body += piece
            if len(body) > limit_bytes:
                raise UpstreamError(Phase.BODY, "too long")
        return body

    async def close(self) -> None:
        self.closed = True


@dataclass
class Timed:
    """A provider by script in whose answers time passes."""

    script: Iterable[Says | Forever | Fault]
    clock: Clock = field(default_factory=Clock)
    asked: list[Request] = field(default_factory=list[Request])

    def __post_init__(self) -> None:
        self.script = iter(self.script)

    async def open(self, request: Request) -> Says:
        self.asked.append(request)
        await asyncio.sleep(0)
        said = next(iter(self.script), None)
        assert said is not None, f"the script ends before request {len(self.asked)}"
        if isinstance(said, Fault):
            raise said
        if isinstance(said, Forever) or said.head_after > request.head_s:
            self.clock.passed += request.head_s
            raise UpstreamError(Phase.HEAD, f"no answer within {request.head_s:g} s")
        said.clock = self.clock
        self.clock.passed += said.head_after
        return said

    async def close(self) -> None:
        pass

    def hosts(self) -> list[str]:
        return [json.loads(request.body)["model"] for request in self.asked]


def gate(folder: Path, *script: Says | Forever | Fault, **models: Any) -> Gate:
    """A gateway with no settings but a chain of two: whatever else is not given is the default."""
    timed = Timed(script)
    chains = {HOME[d]: [HOME[d], NEXT[d]] for d in (CHAT, MESSAGES)}
    house = Gate(folder, timed, models={"retries": {}, "chains": chains, **models})
    timed.clock = house.clock
    return house


def hosts(house: Gate) -> list[str]:
    assert isinstance(house.upstream, Timed)
    return house.upstream.hosts()


def able(dialect: str, second: bool = True) -> dict[str, Any]:
    return {NEXT[dialect].rpartition("/")[2]: {"prefill": second}, HOME[dialect].rpartition("/")[2]: {"prefill": False}}  # fmt: skip


async def books(house: Gate) -> list[tuple[str, str]]:
    """Return the states and outcomes of all attempts, none of which is open, nor holds anything else."""
    rows = await house.rows()
    assert CallState.OPEN not in {row.state for row in rows}
    assert house.house.purse.unpriced == {}
    for breaker in house.house.health.breakers.values():
        now = house.clock.now()
        if breaker.state(now) is BreakerState.HALF_OPEN:
            assert breaker.free_at(now) == now, "a probe was not given back"
    return [(row.state.value, row.outcome) for row in rows]


# -- time, with all defaults --------------------------------------------------------------------


async def test_a_place_that_hangs_is_left_for_the_next_one(tmp_path: Path) -> None:
    house = gate(tmp_path, Forever(), Says(stream_of(CHAT, WORDS)))
    out = await house.ask(CHAT)
    assert (Heard(CHAT, out.whole).text, house.clock.passed) == (WHOLE, 60.0)
    assert hosts(house) == ["gpt-4o-mini", "gpt-4o"]
    assert await books(house) == [("settled", "transient"), ("settled", "ok")]


async def test_a_head_and_nothing_behind_it_takes_no_longer_than_the_first_token(
    tmp_path: Path,
) -> None:
    house = gate(tmp_path, Says([Forever()], head_after=59.0), Says(stream_of(CHAT, WORDS)))
    out = await house.ask(CHAT)
    assert (Heard(CHAT, out.whole).text, house.clock.passed) == (WHOLE, 60.0)


async def test_a_whole_answer_that_does_not_begin_leaves_half_of_the_time_to_the_next_place(
    tmp_path: Path,
) -> None:
    house = gate(tmp_path, Forever(), Says([ANSWER], headers=JSON, head_after=200.0))
    out = await house.ask(CHAT, stream=False)
    assert (out.status, out.headed["x-midwatch-model"]) == (200, NEXT[CHAT])
    assert house.clock.passed == 500.0
    house = gate(tmp_path, Says([ANSWER], headers=JSON, head_after=599.0), chains={})
    assert (await house.ask(CHAT, stream=False)).status == 200


async def test_no_time_is_kept_for_places_that_cannot_be_asked_in_the_calls_dialect(
    tmp_path: Path,
) -> None:
    chains = {HOME[RESPONSES]: [HOME[RESPONSES], HOME[MESSAGES]]}
    body = (
        b'{"id":"r","status":"completed","output":[],"usage":{"input_tokens":1,"output_tokens":1}}'
    )
    house = gate(tmp_path, Says([body], headers=JSON, head_after=599.0), chains=chains)
    assert (await house.ask(RESPONSES, stream=False)).status == 200


@pytest.mark.parametrize("dialect", [CHAT, MESSAGES])
@pytest.mark.parametrize("how", [Forever(), Broken()])
async def test_a_stream_that_stalls_or_breaks_off_when_it_is_old_is_mended(
    dialect: str, how: Piece, tmp_path: Path
) -> None:
    pieces = stream_of(dialect, WORDS)
    old: list[Piece] = [*pieces[:6], 50.0, pieces[6], 50.0, pieces[7], 50.0, pieces[8], how]
    rest = Says(stream_of(dialect, WORDS[8:], ident="two"))
    house = gate(tmp_path, Says(old), rest, about=able(dialect))
    out = await house.ask(dialect)
    heard = Heard(dialect, out.whole)
    assert (heard.text, heard.errors, out.ended) == (WHOLE, [], True)
    assert house.clock.passed >= 150.0
    assert await books(house) == [("settled", "cut"), ("settled", "ok")]


async def test_without_a_chain_the_same_place_goes_on_with_an_old_stream(tmp_path: Path) -> None:
    pieces = stream_of(CHAT, WORDS)
    old: list[Piece] = [*pieces[:6], 55.0, pieces[6], 55.0, Broken()]
    about = {"gpt-4o-mini": {"prefill": True}}
    script = [Says(old), Says(stream_of(CHAT, WORDS[6:]))]
    house = gate(tmp_path, *script, chains={}, about=about, retries={"backoff": [0.001, 0.001]})
    assert Heard(CHAT, (await house.ask(CHAT)).whole).text == WHOLE


async def test_nothing_begins_after_the_deadline_of_the_call(tmp_path: Path) -> None:
    house = gate(tmp_path, Forever(), timeouts={"total": 50.0})
    out = await house.ask(CHAT)
    assert (out.status, house.clock.passed, len(hosts(house))) == (504, 50.0, 1)


async def test_a_place_with_a_shorter_time_leaves_the_rest_of_it_to_the_next(
    tmp_path: Path,
) -> None:
    quick = {"gpt-4o-mini": {"timeouts": {"total": 20.0}}}
    script = [Forever(), Says([ANSWER], headers=JSON, head_after=100.0)]
    house = gate(tmp_path, *script, about=quick, retries={"attempts": 0})
    out = await house.ask(CHAT, stream=False)
    assert (out.status, house.clock.passed) == (200, 120.0)


# -- refusals -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [[b'{"err', Broken()], [Forever()], [b"x" * 300_000]])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_refusal_whose_words_break_off_keeps_its_class_and_costs_nothing(
    how: list[Piece], stream: bool, tmp_path: Path
) -> None:
    house = gate(tmp_path, Says(how, 400, JSON))
    out = await house.ask(CHAT, stream=stream)
    assert out.status == 400
    assert json.loads(out.whole)["error"]["type"] == "invalid_request_error"
    assert await books(house) == [("released", "bad_request")]
    assert (await house.rows())[0].cost_nusd == 0


async def test_a_rate_limit_whose_words_break_off_keeps_its_retry_after(tmp_path: Path) -> None:
    headers = (*JSON, ("retry-after", "90"))
    house = gate(tmp_path, Says([Broken()], 429, headers), chains={})
    out = await house.ask(CHAT)
    assert (out.status, out.headed["retry-after"]) == (429, "90")
    assert await books(house) == [("released", "rate_limit")]


# -- a success behind which there is no answer ----------------------------------------------------


async def test_a_whole_answer_for_a_stream_is_charged_and_the_next_place_asked(
    tmp_path: Path,
) -> None:
    house = gate(tmp_path, Says([ANSWER], headers=JSON), Says(stream_of(CHAT, WORDS)))
    out = await house.ask(CHAT)
    assert Heard(CHAT, out.whole).text == WHOLE
    assert await books(house) == [("settled", "unreadable"), ("settled", "ok")]
    first, second = await house.rows()
    assert (first.input_tokens, first.output_tokens, first.estimated) == (10, 5, False)
    assert first.cost_nusd > 0
    assert second.cost_nusd > 0
    [home] = [b for n, b in house.house.health.breakers.items() if n[0] == "openai"]
    assert home.blank, "what an agent can bring about closes no place to others"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_page_of_a_proxy_costs_nothing_and_is_no_answer(
    stream: bool, tmp_path: Path
) -> None:
    page = Says([b"<!DOCTYPE html><p>login</p>"], headers=(("content-type", "text/html"),))
    good = stream_of(CHAT, WORDS) if stream else [ANSWER]
    script = [page, Says(good, headers=SSE if stream else JSON)]
    house = gate(tmp_path, *script, retries={"attempts": 0})
    out = await house.ask(CHAT, stream=stream)
    assert out.status == 200
    assert await books(house) == [("released", "transient"), ("settled", "ok")]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("body", "kind"),
    [(b"x({});", "text/javascript"), (b"\x0a\x02hi", "application/x-protobuf"), (b"[]", "application/json")],
)  # fmt: skip
async def test_what_cannot_be_read_is_charged_its_worst_case_once_and_not_passed_on(
    body: bytes, kind: str, stream: bool, tmp_path: Path
) -> None:
    odd = (("content-type", kind),)
    house = gate(tmp_path, Says([body], headers=odd), Says([body], headers=odd))
    out = await house.ask(CHAT, stream=stream, max_tokens=7_000)
    assert out.status == 502
    assert body not in out.whole
    assert hosts(house) == ["gpt-4o-mini", "gpt-4o"], "each place once"
    rows = await house.rows()
    assert {row.outcome for row in rows} == {"unreadable"}
    assert [row.output_tokens for row in rows] == [7_000, 7_000]
    assert all(row.estimated for row in rows)


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
        await asyncio.wait_for(task, 5)
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
    async with asyncio.timeout(5):
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


# -- what is said of a cut --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dialect", "policy", "why"),
    [
        (CHAT, "error", "models.on_cut says so"),
        (RESPONSES, "continue", "responses cannot be continued, only restarted"),
        (CHAT, "continue", "nobody was there to go on with it"),
    ],
)
async def test_a_cut_says_why_nobody_goes_on_with_it(
    dialect: str, policy: str, why: str, tmp_path: Path
) -> None:
    pieces: list[Piece] = [*stream_of(CHAT, WORDS)[:4], Broken()]
    if dialect == RESPONSES:
        delta = {"type": "response.output_text.delta", "delta": "w0 ", "sequence_number": 4}
        pieces = [event(delta, delta["type"]), Broken()]  # type: ignore[arg-type]
    house = gate(tmp_path, Says(pieces), chains={}, on_cut=policy)
    out = await house.ask(dialect)
    assert why in out.whole.decode()
