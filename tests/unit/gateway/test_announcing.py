"""What is done for a call before the ledger has decided: it hears of it, and the request is made ready. Nothing of
that is sent, counted or kept when the call is not made after all."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from gateways import CHAT, HOME, MESSAGES, Gate, question
from midwatch.core.calls.budget import Refused, unavailable
from midwatch.core.calls.charge import CallState
from midwatch.gateway import asking, refusals
from midwatch.gateway.http.played import PlayedIncoming, PlayedOutgoing
from midwatch.gateway.upstream.scripted import Answer, ScriptedUpstream

JSON = [("content-type", "application/json")]


def made_ready(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return where the addresses are noted of the requests that are made ready."""
    found: list[str] = []
    real = asking.onward_of

    def watched(*given: Any) -> asking.Onward:
        onward = real(*given)
        found.append(onward.url)
        return onward

    monkeypatch.setattr(asking, "onward_of", watched)
    return found


def asked_of(gate: Gate) -> list[Any]:
    """Return the requests that went out."""
    assert isinstance(gate.upstream, ScriptedUpstream)
    return list(gate.upstream.asked)


async def test_the_ledger_hears_of_calls_that_reserve_and_of_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, heard = Gate(tmp_path, [Answer(400)] * 9), [0]

    def expect() -> None:
        heard[0] += 1

    monkeypatch.setattr(gate.house.ledger, "expect", expect)
    await gate.start()
    path, query, body = question(MESSAGES, stream=False)
    for below, expected in (("/count_tokens", 0), ("", 1)):
        asked = PlayedIncoming("POST", path + below, query, JSON, json.dumps(body).encode())
        await gate.gateway.handle(asked, PlayedOutgoing())
        assert heard == [expected]


async def test_a_request_that_was_ready_when_the_ledger_refused_is_neither_sent_nor_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chains = {HOME[CHAT]: [HOME[MESSAGES]]}
    gate, ready = Gate(tmp_path, [], models={"chains": chains}), made_ready(monkeypatch)

    async def refuse(_: object) -> Refused:
        while not ready:
            await asyncio.sleep(0)
        return unavailable("away")

    monkeypatch.setattr(gate.house.ledger, "reserve", refuse)
    out = await gate.ask(CHAT, stream=False)
    assert out.status == 503
    assert len(ready) == 1
    assert [name for name in gate.counts if "_to_" in name] == []
    assert gate.gateway.under_way == {}
    assert asked_of(gate) == []


@pytest.mark.parametrize("how", ["killed", "client gone"])
async def test_who_is_gone_while_the_ledger_decides_is_not_asked_for_and_pays_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    gate, ready, out = Gate(tmp_path, []), made_ready(monkeypatch), PlayedOutgoing()
    await gate.start()
    real = gate.house.ledger.reserve

    async def reserve(reservation: Any) -> Any:
        while not ready:
            await asyncio.sleep(0)
        if how == "killed":
            [call] = gate.gateway.calls_of("inbox")
            call.kill(refusals.stopping())
        else:
            out.gone.set_result(None)
        return await real(reservation)

    monkeypatch.setattr(gate.house.ledger, "reserve", reserve)
    await gate.ask(CHAT, out=out)
    [row] = await gate.rows()
    assert (row.state, row.cost_nusd) == (CallState.RELEASED, 0)
    assert gate.gateway.under_way == {}
    assert asked_of(gate) == []
