"""Every fault of a provider × its phase × stream or whole × what follows a cut × dialect, against the real HTTP.

In each cell: the client has a whole answer or an error, never a part as the whole; nobody waits beyond the
deadline; no place is asked more often than configured; and the ledger has what the provider bills, to the
nano-dollar, or more and marked as estimated.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from gateways import ARRAY, CHAT, GENERATE, HOME, MESSAGES, NEXT, RESPONSES, Gate, Heard
from midwatch.core.calls.charge import Call, CallState
from midwatch.core.models import Retries
from midwatch.core.pricing.usage import Usage
from midwatch.drills.rehearsal import Rehearsal, running
from midwatch.drills.rehearsal.behave import read
from midwatch.gateway import refusals
from midwatch.gateway.http.played import PlayedOutgoing
from midwatch.gateway.upstream.port import Reply, Request
from midwatch.gateway.upstream.wire import WireUpstream

WORDS = 30
WHOLE = " ".join(f"word{n}" for n in range(1, WORDS + 1))
ATTEMPTS = 1
"""Further attempts at each place."""

NEXT_PLACE, PASSED, ERROR, WELL = "next", "passed", "error", "well"
"""The second place answers; the provider's error is passed on; an error of ours; the first place answers."""

SHORT = {"connect": 2.0, "first_token": 0.4, "between": 0.4, "total": 0.8}
LONGER = {"connect": 5.0, "first_token": 1.0, "between": 1.0, "total": 2.0}
"""For a second try: on a busy machine the place that works may take longer than `SHORT`."""
USUAL = {"connect": 5.0, "first_token": 10.0, "between": 10.0, "total": 20.0}


@dataclass(frozen=True)
class Cell:
    dialect: str
    stream: bool
    policy: str
    fault: dict[str, Any]
    expected: str
    defaults: bool = False
    """The fleet file says nothing but where to go."""

    def __str__(self) -> str:
        fault = " ".join(f"{v}" if k == "mode" else f"{k}={v}" for k, v in self.fault.items())
        how = "defaults" if self.defaults else self.policy
        return f"{self.dialect}-{'stream' if self.stream else 'whole'}-{how}-{fault}"

    @property
    def attempts(self) -> int:
        """Further attempts at each place."""
        return Retries().attempts if self.defaults else ATTEMPTS

    @property
    def stalls(self) -> bool:
        fault = self.fault
        return fault["mode"] in ("stall", "slow", "endless") or fault.get("then") == "hang"


SHORTENED = {"length_off": 40, "then": "close"}
"""Less comes than was declared."""

BEFORE: list[tuple[dict[str, Any], str]] = [
    ({"mode": "bad-request"}, PASSED),
    ({"mode": "unknown-parameter"}, PASSED),
    ({"mode": "context-length"}, NEXT_PLACE),
    ({"mode": "refuse"}, NEXT_PLACE),
    ({"mode": "payment"}, NEXT_PLACE),
    ({"mode": "permission"}, NEXT_PLACE),
    ({"mode": "not-found"}, NEXT_PLACE),
    ({"mode": "too-large"}, PASSED),
    ({"mode": "rate-limit", "retry_after": 0}, NEXT_PLACE),
    ({"mode": "quota"}, NEXT_PLACE),
    ({"mode": "error"}, NEXT_PLACE),
    ({"mode": "overloaded"}, NEXT_PLACE),
    ({"mode": "timeout"}, NEXT_PLACE),
    ({"mode": "status", "status": 418}, PASSED),
    ({"mode": "html"}, NEXT_PLACE),
    ({"mode": "redirect"}, NEXT_PLACE),
    ({"mode": "cut", "after_chunks": 0}, NEXT_PLACE),
    ({"mode": "cut", "how": "reset", "after_chunks": 0}, NEXT_PLACE),
    ({"mode": "status", "status": 418, **SHORTENED}, PASSED),
    ({"mode": "overloaded", **SHORTENED}, NEXT_PLACE),
]
"""Before the head, or at it: nothing has reached the client."""

MIDDLE: list[dict[str, Any]] = [
    {"mode": "cut", "after_chunks": 8},
    {"mode": "cut", "after_chunks": 8, "how": "reset"},
    {"mode": "stall", "after_chunks": 8},
    {"mode": "error", "after_chunks": 8, "between": 0.02},
    {"mode": "json", "after_chunks": 8, "between": 0.02},
]
"""In mid-stream: the client has a part."""

OWN_WORDS = {
    CHAT: "service_unavailable_error",
    MESSAGES: "overloaded_error",
    GENERATE: "",
    ARRAY: "",
}
"""The type of the error by which a provider itself ends its stream; it passes as it came. Google's has none, and
of responses the client would take it for content."""

ODD: list[tuple[dict[str, Any], str]] = [
    ({"mode": "no-end"}, WELL),
    ({"mode": "no-end", "then": "close"}, WELL),
    ({"mode": "no-end", "then": "hang"}, WELL),
    ({"mode": "shape", "usage": "none"}, WELL),
    ({"mode": "shape", "usage": "part"}, WELL),
    ({"mode": "shape", "sse": "comments"}, WELL),
    ({"mode": "shape", "sse": "split"}, WELL),
    ({"mode": "shape", "sse": "crlf"}, WELL),
    ({"mode": "shape", "sse": "long-line", "padding": 100_000}, WELL),
    ({"mode": "stall", "after_chunks": 0}, NEXT_PLACE),
    ({"mode": "slow", "first_token": 1.2, "between": 0}, NEXT_PLACE),
    ({"mode": "shape", "type": "application/json"}, NEXT_PLACE),
    ({"mode": "shape", "type": "text/javascript"}, NEXT_PLACE),
]
"""Streams whose end or form is odd, and those that begin too late."""

WHOLES: list[tuple[dict[str, Any], str]] = [
    ({"mode": "json"}, NEXT_PLACE),
    ({"mode": "cut", "head_first": True}, NEXT_PLACE),
    ({"mode": "shape", "length_off": 40, "then": "close"}, NEXT_PLACE),
    ({"mode": "shape", "usage": "none"}, WELL),
    ({"mode": "shape", "usage": "part"}, WELL),
    ({"mode": "stall"}, NEXT_PLACE),
    ({"mode": "stall", "head_first": True}, ERROR),
]
"""Whole answers that are none."""

ALL = (CHAT, MESSAGES, GENERATE, RESPONSES)


def cells() -> Iterator[Cell]:
    for dialect, stream, (fault, expected) in itertools.product(ALL, (False, True), BEFORE):
        if dialect == GENERATE and fault["mode"] in ("context-length",):
            expected = NEXT_PLACE
        yield Cell(dialect, stream, "continue", fault, expected)
    for dialect, policy, fault in itertools.product(ALL, ("continue", "restart", "error"), MIDDLE):
        mended = policy != "error" and (dialect != RESPONSES or policy == "restart")
        yield Cell(dialect, True, policy, fault, NEXT_PLACE if mended else ERROR)
    for dialect, fault in itertools.product(ALL, MIDDLE):
        yield Cell(dialect, True, "request", fault, NEXT_PLACE)
    for fault, policy in itertools.product(MIDDLE[:2], ("continue", "error")):
        yield Cell(ARRAY, True, policy, fault, NEXT_PLACE if policy == "continue" else ERROR)
    for dialect, (fault, expected) in itertools.product((CHAT, MESSAGES, GENERATE), ODD):
        if dialect == GENERATE and fault["mode"] == "no-end":
            expected = NEXT_PLACE  # it has no sentinel: its last event is the reason of its end
        yield Cell(dialect, True, "continue", fault, expected)
    for dialect, (fault, expected) in itertools.product((CHAT, MESSAGES), WHOLES):
        yield Cell(dialect, False, "continue", fault, expected)
    for dialect, stream in itertools.product((CHAT, MESSAGES, GENERATE), (True, False)):
        faults = [{"mode": "timeout"}, *(MIDDLE[:2] if stream else [WHOLES[1][0]])]
        for fault in faults:
            yield Cell(dialect, stream, "continue", fault, NEXT_PLACE, defaults=True)


CELLS = list(cells())


def test_there_are_a_hundred_cells_and_more() -> None:
    assert len({str(cell) for cell in CELLS}) == len(CELLS) >= 100


@pytest.fixture(scope="module")
def provider() -> Iterator[Rehearsal]:
    with running() as model:
        yield model


class Late(AssertionError):
    """Not what the table says, and nothing that a machine cannot do which is too slow for the cell's deadlines."""


@pytest.mark.parametrize("cell", CELLS, ids=str)
async def test_a_fault(cell: Cell, provider: Rehearsal, tmp_path: Path) -> None:
    """A cell that stalls is played with deadlines so short that a busy machine may miss them at the place that works,
    too. Who answers is then seen at a second try; that nobody is told a lie, that nothing stays reserved and that the
    ledger has what is billed holds at the first."""
    try:
        await _play(cell, provider, tmp_path, SHORT)
    except Late:
        if not cell.stalls:
            raise
        (tmp_path / "again").mkdir()
        await _play(cell, provider, tmp_path / "again", LONGER)


async def _play(cell: Cell, provider: Rehearsal, folder: Path, short: dict[str, float]) -> None:
    home, second = HOME[cell.dialect], NEXT[cell.dialect]
    await _quiet_at(provider)
    provider.orders.clear()
    provider.billed.reset()
    provider.calls.clear()
    provider.orders.add(read({"mode": "shape", "words": WORDS}))
    fault = {**cell.fault, "words": WORDS, "model": home.rpartition("/")[2]}
    assert second.rpartition("/")[2] != fault["model"]
    provider.orders.add(read(fault))
    gate = _gate(cell, provider, folder, short)
    await gate.start()
    began = time.monotonic()
    try:
        async with asyncio.timeout(30):
            out = await gate.ask(cell.dialect, stream=cell.stream, **_quiet(cell))
        took = time.monotonic() - began
        _check_honesty(cell, out)
        _check_attempts(cell, provider, gate)
        await _check_money(provider, gate)
        try:
            _check_answer(cell, provider, out)
            if cell.stalls:
                assert took < 10, "no deadline of the cell is longer than a few seconds"
            await _check_health(provider, gate, cell)
        except AssertionError as wrong:
            if took < 10 and not _may_be_late(cell, await gate.rows(), took, short):
                raise
            raise Late(str(wrong)) from wrong
        await _check_money(provider, gate)
    finally:
        await gate.upstream.close()
        gate.engine.close()


@pytest.mark.parametrize("dialect", [CHAT, MESSAGES, GENERATE])
@pytest.mark.parametrize("head_first", [True, False])
async def test_a_whole_answer_that_is_killed_is_charged_what_may_have_been_made(
    dialect: str, head_first: bool, provider: Rehearsal, tmp_path: Path
) -> None:
    provider.orders.clear()
    provider.billed.reset()
    provider.calls.clear()
    provider.orders.add(read({"mode": "stall", "head_first": head_first, "words": WORDS}))
    cell = Cell(dialect, False, "continue", {"mode": "kill"}, ERROR)
    gate = _gate(cell, provider, tmp_path)
    await gate.start()
    call = asyncio.create_task(gate.ask(dialect, stream=False))
    try:
        async with asyncio.timeout(10):
            while not provider.calls.page(0, 1, None)["calls"]:
                await asyncio.sleep(0.005)
            [carried] = gate.gateway.calls_of("inbox")
            while head_first and not carried.attempts[-1].status:
                await asyncio.sleep(0.005)
            cut = await gate.gateway.cut(gate.gateway.calls_of("inbox"), refusals.stopping())
            out = await call
        assert (cut.left, out.status) == (0, 503)
        [row] = await gate.rows()
        assert (row.state, row.outcome, row.estimated) == (CallState.SETTLED, "killed", True)
        await _check_money(provider, gate)
    finally:
        call.cancel()
        await gate.upstream.close()
        gate.engine.close()


class Fault(Exception):
    """Something of ours that goes wrong."""


class Faulty:
    """The real HTTP, behind which something of ours goes wrong."""

    def __init__(self) -> None:
        self._wire = WireUpstream()

    async def open(self, request: Request) -> Reply:
        return FaultyReply(await self._wire.open(request))

    async def close(self) -> None:
        await self._wire.close()


class FaultyReply:
    """The first piece of a stream comes, and nothing of a whole answer."""

    def __init__(self, reply: Reply) -> None:
        self.status, self.headers, self.ends_by_close = reply.status, reply.headers, False
        self._reply = reply
        self._pieces = 0

    async def chunk(self, within_s: float) -> bytes | None:
        self._pieces += 1
        if self._pieces > 1:
            raise Fault
        return await self._reply.chunk(within_s)

    async def whole(self, within_s: float, limit_bytes: int) -> bytes:
        raise Fault

    async def close(self) -> None:
        await self._reply.close()


@pytest.mark.parametrize("dialect", [CHAT, MESSAGES, GENERATE])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_fault_of_ours_is_charged_and_leaves_nothing_reserved(
    dialect: str, stream: bool, provider: Rehearsal, tmp_path: Path
) -> None:
    provider.orders.clear()
    provider.billed.reset()
    provider.calls.clear()
    provider.orders.add(read({"mode": "shape", "words": WORDS, "between": 0.02}))
    gate = Gate(tmp_path, Faulty(), real_time=True, rehearsal_url=provider.url)
    await gate.start()
    try:
        with pytest.raises(Fault):
            await gate.ask(dialect, stream=stream)
        [row] = await gate.rows()
        assert (row.state, row.outcome, row.estimated) == (CallState.SETTLED, "fault", True)
        assert gate.gateway.under_way == {}
        await _check_money(provider, gate)
    finally:
        await gate.upstream.close()
        gate.engine.close()


def _gate(cell: Cell, provider: Rehearsal, folder: Path, short: dict[str, float] = SHORT) -> Gate:
    home, second = HOME[cell.dialect], NEXT[cell.dialect]
    name = home if cell.dialect not in (GENERATE, ARRAY) else home.rpartition("/")[2]
    asked = cell.policy == "request"  # for the rest, of a model that takes no beginning
    able = {"prefill": not asked, "continuation": asked, "context": 5_000_000}
    models = {
        "chains": {name: [home, second]},
        "about": {home.rpartition("/")[2]: {"prefill": False}, second.rpartition("/")[2]: able},
        "on_cut": "continue" if asked else cell.policy,
        "retries": {"attempts": ATTEMPTS, "backoff": [0.001, 0.002]},
        "timeouts": short if cell.stalls else USUAL,
    }  # fmt: skip
    if cell.defaults:
        del models["on_cut"], models["timeouts"]
        models["retries"] = {}
    elif cell.stalls and cell.stream:
        models["timeouts"] = {**short, "total": 20.0}
    return Gate(folder, WireUpstream(), models=models, real_time=True, rehearsal_url=provider.url)


def _quiet(cell: Cell) -> dict[str, Any]:
    """Thoughts that are not shown are in no estimate: Gemini's models are told not to think."""
    if cell.dialect not in (GENERATE, ARRAY):
        return {}
    return {"generationConfig": {"thinkingConfig": {"thinkingBudget": 0}}}


def _check_honesty(cell: Cell, out: PlayedOutgoing) -> None:
    """Whole or an error, however slow the machine is: never a part as the whole, and no end after an error."""
    if out.status != 200:
        body = json.loads(out.whole)
        assert "error" in (body[0] if isinstance(body, list) else body)
        return
    if not cell.stream:
        assert _text(json.loads(out.whole)) == WHOLE
        return
    heard = Heard(cell.dialect, out.whole)
    if heard.errors:
        assert len(heard.errors) == 1
        assert (heard.finishes, heard.ends) == ([], 0), "an end after an error is a lie"
        assert WHOLE.startswith(heard.text)
        return
    assert out.ended
    assert heard.text == WHOLE
    assert len(heard.finishes) == 1
    # the response that ends a restarted one is the provider's own: later requests refer to it
    assert len(heard.idents) <= (2 if cell.dialect == RESPONSES else 1)
    if cell.dialect in (CHAT, MESSAGES):
        assert (heard.starts, heard.ends) == (1, 1)


def _check_answer(cell: Cell, provider: Rehearsal, out: PlayedOutgoing) -> None:
    """What the table says."""
    served = out.headed.get("x-midwatch-model", "")
    if cell.expected == WELL:
        assert len(_asked(provider)) == 1
    if out.status != 200:
        assert cell.expected in (PASSED, ERROR), (out.status, out.whole[:300])
        return
    if not cell.stream:
        assert served == (HOME if cell.expected == WELL else NEXT)[cell.dialect]
        return
    heard = Heard(cell.dialect, out.whole)
    unseen = served == NEXT[cell.dialect]
    if (
        cell.expected == ERROR and not unseen
    ):  # a busy machine may read all of it at once, as nothing
        said_itself = cell.fault["mode"] == "error" and cell.dialect in OWN_WORDS
        assert heard.errors == [OWN_WORDS[cell.dialect] if said_itself else "midwatch_cut"]
        assert heard.text != WHOLE
        return
    assert heard.errors == []


def _may_be_late(cell: Cell, rows: list[Call], took: float, short: dict[str, float]) -> bool:
    """Tell whether the place that works was given up, or not come to before the call's own deadline: nothing else that
    differs from the table is to be had from a slow machine."""
    works = (HOME if cell.expected == WELL else NEXT)[cell.dialect].rpartition("/")[2]
    outcomes = [row.outcome for row in rows if row.model == works]
    if outcomes:
        return any(outcome != "ok" for outcome in outcomes)
    return not cell.stream and took >= short["total"]


def _asked(provider: Rehearsal) -> list[str]:
    """Return the models that were asked."""
    return [record["model"] for record in provider.calls.page(0, 1000, None)["calls"]]


def _text(body: Any) -> str:
    if "choices" in body:
        return str(body["choices"][0]["message"]["content"])
    if "candidates" in body:
        return "".join(part["text"] for part in body["candidates"][0]["content"]["parts"])
    if "output" in body:
        return str(body["output"][-1]["content"][0]["text"])
    return str(body["content"][0]["text"])


def _check_attempts(cell: Cell, provider: Rehearsal, gate: Gate) -> None:
    """No place more often than configured, and none after a refusal that is passed on; nothing is left reserved."""
    asked = _asked(provider)
    for model in set(asked):
        assert asked.count(model) <= 1 + cell.attempts, asked
    if cell.expected == PASSED:
        assert len(asked) == 1
    assert gate.counts["reservation.expired"] == 0
    assert gate.gateway.under_way == {}


async def _check_money(provider: Rehearsal, gate: Gate) -> None:
    """The ledger has what the provider bills, call by call."""
    rows: dict[str, Call] = {row.call_id: row for row in await gate.rows()}
    assert all(row.state is not CallState.OPEN for row in rows.values()), "nothing is left reserved"
    bills = {bill["call"]: bill for bill in await _bills(provider, rows)}
    for call_id, row in rows.items():
        bill = bills.pop(call_id, None)
        if bill is None:
            assert row.cost_nusd == 0 or row.estimated, (row.outcome, row.cost_nusd)
            continue
        due = _price(gate, row, bill)
        if row.estimated:
            assert row.cost_nusd >= due, (row.outcome, dict(row.usage), bill)
        else:
            assert row.cost_nusd == due, (row.outcome, dict(row.usage), bill)
    assert bills == {}, "the provider bills what the ledger does not know"


async def _bills(provider: Rehearsal, rows: dict[str, Call]) -> list[dict[str, Any]]:
    """Return the provider's bills when no call of ours is under way there any more."""
    await _quiet_at(provider)
    assert rows
    found: list[dict[str, Any]] = provider.billed.calls(0, 1000, None, None)["calls"]
    return found


async def _quiet_at(provider: Rehearsal) -> None:
    """Wait until no call is under way there any more."""
    async with asyncio.timeout(20):
        while any(r["end"] == "under-way" for r in provider.calls.page(0, 1000, None)["calls"]):
            await asyncio.sleep(0.005)


def _price(gate: Gate, row: Call, bill: dict[str, Any]) -> int:
    usage = Usage(
        input_text=bill["input"] - bill["cached"] - bill["written"],
        cache_read=bill["cached"],
        cache_write_5m=bill["written"],
        output_text=bill["output"],
    )
    seller = gate.settings.providers[_who(bill)].seller
    quote = gate.settings.shelf.quote(usage, _who(bill), seller, bill["model"], row.reserved_at)
    assert quote.nusd is not None
    return quote.nusd


def _who(bill: dict[str, Any]) -> str:
    """Return who serves the model of a bill."""
    served = {target.rpartition("/")[2]: target.partition("/")[0] for target in (*HOME.values(), *NEXT.values())}  # fmt: skip
    return served[bill["model"]]


async def _check_health(provider: Rehearsal, gate: Gate, cell: Cell) -> None:
    """The gateway answers as ever when its provider does."""
    provider.orders.clear()
    out = await gate.ask(cell.dialect, stream=False, model=NEXT[cell.dialect])
    assert out.status == 200, out.whole[:300]
