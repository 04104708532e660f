"""A client that leaves while its provider fails: nobody is asked again, and no reservation stays behind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from gateways import CHAT, Gate
from midwatch.core.calls.charge import CallState
from midwatch.gateway.http.played import PlayedOutgoing
from midwatch.gateway.http.port import Headers
from midwatch.gateway.upstream.port import Phase
from midwatch.gateway.upstream.scripted import Answer, Refuse


@pytest.mark.parametrize(
    "said", [Answer(500, [b"{}"]), Answer(429, [b"{}"]), Refuse(), Refuse(Phase.HEAD, "slow")]
)
@pytest.mark.parametrize("stream", [True, False])
async def test_an_attempt_whose_client_left_is_settled_or_released(
    said: Answer | Refuse, stream: bool, tmp_path: Path
) -> None:
    gate = Gate(tmp_path, [said] * 9)
    out = PlayedOutgoing()
    out.leave()
    await gate.ask(CHAT, stream=stream, out=out, max_tokens=100, model="openai/gpt-4o-mini")
    rows = await gate.rows()
    assert len(rows) == 1
    assert CallState.OPEN not in {row.state for row in rows}


async def test_a_call_under_way_and_one_that_ended_are_told_as_signs_of_life(
    tmp_path: Path,
) -> None:
    gate = Gate(tmp_path, [Answer(500, [b"{}"])] * 9)
    seen: list[object] = []

    class Watching(PlayedOutgoing):
        def answer(self, status: int, headers: Headers, body: bytes) -> None:
            gate.clock.passed += 5.0
            seen.append(gate.gateway.working())
            super().answer(status, headers, body)

    await gate.ask(CHAT, stream=False, out=Watching(), max_tokens=9, model="openai/gpt-4o-mini")
    (told,) = seen
    assert told["inbox"]["ended_s"] is None  # type: ignore[index]
    assert told["inbox"]["open_s"] >= 5.0  # type: ignore[index]
    gate.clock.passed += 7.0
    assert gate.gateway.working() == {"inbox": {"open_s": None, "ended_s": 7.0}}
    gate.clock.passed += 60.0
    assert gate.gateway.working() == {}
