"""Whose pace a call counts for: nobody hides a loop behind names, and nobody's names cost another anything."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from gateways import CHAT, Gate
from midwatch.core.calls.account import Payer
from midwatch.gateway import paces
from midwatch.gateway.holds import HoldKind
from midwatch.gateway.paces import OTHERS, WHOLE, surplus
from midwatch.gateway.upstream.scripted import Answer

BODY = {
    "id": "x", "model": "gpt-4o-mini", "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}],
}  # fmt: skip
WHOLE_ANSWER = Answer(200, [json.dumps(BODY).encode()])


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path, [WHOLE_ANSWER] * 2_000)


async def asked(gate: Gate, agent: str, prompt: str, **headers: str) -> int:
    gate.payer = Payer(agent, "inbox", run="r1")
    gate.clock.passed += 0.5
    given = [(name.replace("_", "-"), value) for name, value in headers.items()]
    out = await gate.ask(CHAT, stream=False, prompt=prompt, headers=given, max_tokens=50)
    return out.status


def known(gate: Gate) -> dict[str, Any]:
    return dict(gate.gateway.paces.all())


async def test_a_new_name_for_each_call_hides_no_loop(gate: Gate) -> None:
    statuses = [await asked(gate, f"inbox:{n}", "the same") for n in range(60)]
    assert statuses.index(429) == 47, "four times what one agent may"
    hold = gate.holds.find("inbox")
    assert hold is not None
    assert (hold.kind, hold.agent) == (HoldKind.LOOP, "inbox")
    assert hold.why.endswith("all its sub-agents together")
    assert set(statuses[48:]) == {403}, "the whole tree is held"


async def test_many_sub_agents_that_begin_alike_and_share_a_result_are_fine(gate: Gate) -> None:
    for worker in range(30):
        for step in range(3):
            prompt = "list the files" if step == 0 else f"part {worker}, step {step}"
            assert await asked(gate, f"inbox:w{worker}", prompt) == 200


async def test_a_sub_agent_is_held_for_its_own_loop_alone(gate: Gate) -> None:
    assert [await asked(gate, "inbox:search", "again") for _ in range(12)][-1] == 429
    assert await asked(gate, "inbox:search", "another") == 403
    assert await asked(gate, "inbox:write", "another") == 200
    gate.holds.lift("inbox:search")
    gate.gateway.paces.forgive("inbox:search")
    assert await asked(gate, "inbox:search", "again") == 200


async def test_names_beyond_the_bound_share_one_pace(gate: Gate, monkeypatch: Any) -> None:
    monkeypatch.setattr(paces, "MAX_BELOW", 5)
    for number in range(20):
        await asked(gate, f"inbox:{number}", f"work {number}")
    assert [f"inbox:{n}" for n in range(5)] == sorted(n for n in known(gate) if n[-1].isdigit())
    assert {f"inbox:{WHOLE}", f"inbox:{OTHERS}"} <= set(known(gate))
    statuses = [await asked(gate, f"inbox:new{n}", "the same") for n in range(12)]
    assert statuses == [200] * 11 + [429]


async def test_a_name_that_rests_makes_room_in_its_own_tree_alone(
    gate: Gate, monkeypatch: Any
) -> None:
    monkeypatch.setattr(paces, "MAX_BELOW", 2)
    await asked(gate, "other:a", "x")
    for name in ("inbox:a", "inbox:b", "inbox:a"):
        await asked(gate, name, "x")
    gate.clock.passed += 601.0
    await asked(gate, "inbox:c", "x")
    assert {"inbox:a", "inbox:c", "other:a"} <= set(known(gate))
    assert "inbox:b" not in known(gate), "it called least recently"


async def test_the_agent_that_called_least_recently_goes_first(
    gate: Gate, monkeypatch: Any
) -> None:
    monkeypatch.setattr(paces, "MAX_TREES", 2)
    for name in ("first", "second", "first", "third"):
        await asked(gate, name, "x")
    assert set(known(gate)) == {"first", "third"}


async def test_a_tree_that_spends_far_above_its_usual_is_held_whole(tmp_path: Path) -> None:
    large = {**BODY, "usage": {"prompt_tokens": 3_000, "completion_tokens": 5, "total_tokens": 3_005}}  # fmt: skip
    gate = Gate(tmp_path, [Answer(200, [json.dumps(large).encode()])] * 20)
    gate.gateway.paces.usual = lambda agent: {"tokens": [100] * 9} if agent == "inbox:*" else None
    statuses = [await asked(gate, f"inbox:{n}", f"work {n}") for n in range(4)]
    assert statuses == [200, 200, 403, 403], "6,010 tokens within a minute, over the floor of 5,000"
    hold = gate.holds.find("inbox")
    assert hold is not None
    assert "usual 100 tokens, all its sub-agents together" in hold.why


async def test_what_is_usual_is_what_is_known_now_not_at_the_start(gate: Gate) -> None:
    usual: dict[str, dict[str, list[int]]] = {}
    gate.gateway.paces.usual = usual.get
    usual["inbox"] = {"tokens": [200], "cost": [6]}
    await asked(gate, "inbox", "x")
    assert known(gate)["inbox"].to_json() == usual["inbox"]


def test_what_is_kept_of_each_tree_and_of_all_is_bounded_and_strangers_go_first() -> None:
    honest = ["inbox", "inbox:*", "inbox:search"]
    crowd = [f"loud:{n}" for n in range(paces.MAX_BELOW + 7)]
    gone = surplus([*honest, *crowd], {"loud:0"}, 5_000)
    assert set(gone) == {f"loud:{n}" for n in range(1, 8)}
    assert surplus([*honest, *crowd], {*honest, *crowd}, 50)[:7] == [f"loud:{n}" for n in range(7)]
    assert surplus(["a", "b", "c"], {"a"}, 2) == ["b"]
