"""A conversation that grows out of the usual, at the gateway itself: its model is told once where that is asked for,
then its agent is held; nobody has to be asked, and nothing is held against long and honest conversations."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from gateways import CHAT, GENERATE, MESSAGES, RESPONSES, Gate
from midwatch.core.calls.account import Payer
from midwatch.core.calls.growth import ENOUGH
from midwatch.gateway.holds import HoldKind
from midwatch.gateway.upstream.scripted import Answer

ANSWERS = {
    CHAT: {"id": "x", "model": "m", "choices": [{"index": 0, "message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}},
    MESSAGES: {"id": "x", "type": "message", "role": "assistant", "model": "m", "content": [{"type": "text", "text": "Yes."}], "stop_reason": "end_turn", "usage": {"input_tokens": 10, "output_tokens": 5}},
    GENERATE: {"responseId": "x", "candidates": [{"content": {"role": "model", "parts": [{"text": "Yes."}]}, "finishReason": "STOP"}], "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15}},
    RESPONSES: {"id": "x", "model": "m", "status": "completed", "output": [{"id": "m", "type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Yes."}]}], "usage": {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}},
}  # fmt: skip
USUAL = {"growth": [300] * (ENOUGH + 1)}
PAGE = "and a further page of it " * 1_500
TURN = "and a word more " * 30


def whole(dialect: str) -> Answer:
    return Answer(200, [json.dumps(ANSWERS[dialect]).encode()])


def gate_of(folder: Path, dialect: str, **agent: Any) -> Gate:
    gate = Gate(folder, [whole(dialect)] * 400, agent=agent)
    gate.gateway.paces.usual = lambda _: USUAL
    return gate


def turns(dialect: str, said: list[str]) -> dict[str, Any]:
    """A conversation: what was said, and yes to each."""
    texts = [text for one in said for text in (one, "Yes.")][:-1]
    roles = ["user", "model" if dialect == GENERATE else "assistant"]
    if dialect == GENERATE:
        return {"contents": [{"role": roles[n % 2], "parts": [{"text": t}]} for n, t in enumerate(texts)]}  # fmt: skip
    listed = [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]
    return {"input" if dialect == RESPONSES else "messages": listed}


@pytest.mark.parametrize("dialect", [CHAT, MESSAGES, GENERATE, RESPONSES])
async def test_an_agent_whose_calls_grow_and_grow_is_held_and_resume_lifts_it(
    dialect: str, tmp_path: Path
) -> None:
    gate = gate_of(tmp_path, dialect)
    said, statuses = ["Tell me a story."], list[int]()
    for _ in range(7):
        said.append(PAGE)
        out = await gate.ask(dialect, stream=False, **turns(dialect, said))
        statuses.append(out.status)
    assert statuses == [200] * 5 + [429, 403], "the sixth is the fifth that adds a page"
    hold = gate.holds.find("inbox")
    assert hold is not None
    assert hold.kind is HoldKind.LOOP
    assert "tokens more than the one before, usual 300" in hold.why
    gate.holds.lift("inbox")
    gate.gateway.paces.forgive("inbox")
    out = await gate.ask(dialect, stream=False, **turns(dialect, said))
    assert out.status == 200


@pytest.mark.parametrize("dialect", [CHAT, MESSAGES, GENERATE, RESPONSES])
async def test_a_long_conversation_that_grows_by_turns_is_fine(
    dialect: str, tmp_path: Path
) -> None:
    gate = gate_of(tmp_path, dialect)
    said = ["Tell me a story."]
    for turn in range(60):
        said.append(PAGE if turn % 5 == 0 else TURN)
        out = await gate.ask(dialect, stream=False, **turns(dialect, said))
        assert out.status == 200, turn
    assert gate.counts["told.loop"] == 0


async def test_its_model_is_told_once_where_the_fleet_file_says_so(tmp_path: Path) -> None:
    gate = gate_of(tmp_path, CHAT, calls={"nudge": True})
    said = ["Tell me a story."]
    for _ in range(5):
        said.append(PAGE)
        await gate.ask(CHAT, stream=False, **turns(CHAT, said))
    notes = [[m for m in gate.asked(n)["messages"] if m["role"] == "system"] for n in range(5)]
    assert [len(note) for note in notes] == [0, 0, 0, 1, 0]
    assert "grows out of the usual: each of its last 3 calls" in notes[3][0]["content"]
    assert gate.counts["loop.nudged"] == 1


async def test_where_the_action_is_notify_it_is_told_and_goes_on(tmp_path: Path) -> None:
    gate = gate_of(tmp_path, CHAT, loop={"action": "notify"})
    said = ["Tell me a story."]
    for _ in range(7):
        said.append(PAGE)
        assert (await gate.ask(CHAT, stream=False, **turns(CHAT, said))).status == 200
    assert gate.counts["told.loop"] > 0


async def test_calls_that_were_not_answered_neither_begin_a_row_nor_end_one(tmp_path: Path) -> None:
    script = [whole(CHAT)] * 4 + [Answer(503)] * 8 + [whole(CHAT)] * 9
    gate = Gate(tmp_path, script)
    gate.gateway.paces.usual = lambda _: USUAL
    said, statuses = ["Tell me a story."], list[int]()
    for turn in range(13):
        if not 4 <= turn < 12:  # eight times the same, in vain
            said.append(PAGE)
        gate.clock.passed += 30.0
        statuses.append((await gate.ask(CHAT, stream=False, **turns(CHAT, said))).status)
    assert statuses == [200] * 4 + [503] * 8 + [200]
    out = await gate.ask(CHAT, stream=False, **turns(CHAT, [*said, PAGE]))
    assert out.status == 429


async def test_a_sub_agent_is_held_for_its_own_growth_alone(tmp_path: Path) -> None:
    gate = gate_of(tmp_path, CHAT)
    said, statuses = ["Tell me a story."], list[int]()
    for _ in range(7):
        said.append(PAGE)
        gate.payer = Payer("inbox:search", "inbox", run="r1")
        statuses.append((await gate.ask(CHAT, stream=False, **turns(CHAT, said))).status)
    assert statuses[-2:] == [429, 403]
    gate.payer = Payer("inbox:write", "inbox", run="r1")
    assert (await gate.ask(CHAT, stream=False, prompt="something else")).status == 200
