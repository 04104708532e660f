"""Many small calls at once against a budget that pays for all of them: none is starved by the worst cases of others."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from gateways import CHAT, Gate
from midwatch.core.calls.charge import CallState
from midwatch.core.calls.period import Calendar
from midwatch.gateway import affording
from midwatch.gateway.http.played import PlayedOutgoing
from midwatch.gateway.ledger.opening import ledger_at
from midwatch.gateway.upstream.port import Request
from midwatch.gateway.upstream.scripted import Answer, ScriptedReply, ScriptedUpstream

CALLS = 64
WORST = 60_600
"""Nano-dollars that each may cost: 100 tokens of gpt-4o-mini, and its prompt."""


class Busy(ScriptedUpstream):
    """A provider that takes its time."""

    async def open(self, request: Request) -> ScriptedReply:
        reply = await super().open(request)
        await asyncio.sleep(0.02)
        return reply


def whole() -> Answer:
    usage = {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11}
    message = {"role": "assistant", "content": "Yes."}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return Answer(200, [json.dumps({"id": "x", "choices": [choice], "usage": usage}).encode()])


async def test_nine_of_ten_small_calls_that_the_budget_pays_for_are_admitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The budget has room for five at their worst, and pays for all of them at what they cost."""
    monkeypatch.setattr(affording, "WAIT_S", 30.0)  # a busy machine may take longer for them all
    ledger = ledger_at(tmp_path / "ledger.db", Calendar(ZoneInfo("UTC")))
    limit = 6 * WORST
    gate = Gate(
        tmp_path, Busy([whole() for _ in range(CALLS)]), real_time=True, ledger=ledger,
        agent={"budget": {"total": limit}},
    )  # fmt: skip
    await gate.start()
    try:
        outs: list[PlayedOutgoing] = await asyncio.gather(
            *(
                gate.ask(CHAT, stream=False, max_tokens=100, prompt=f"{number}")
                for number in range(CALLS)
            )
        )
        rows = await gate.rows()
        assert sum(out.status == 200 for out in outs) >= 0.9 * CALLS
        assert sum(row.cost_nusd for row in rows) <= limit
        assert all(row.state is CallState.SETTLED for row in rows)
    finally:
        await ledger.stop()
