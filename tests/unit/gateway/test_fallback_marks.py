"""A fallback that is dearer, or weaker, than what was asked for says so to its client."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from gateways import CHAT, Gate
from midwatch.gateway.upstream.scripted import Answer

BUSY = Answer(503, [b'{"error": {"message": "busy", "type": "server_error"}}'])
FIRST, SECOND = "openai/first", "second/other"


def whole() -> Answer:
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    message = {"role": "assistant", "content": "Yes."}
    body = {"id": "x", "model": "other", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}  # fmt: skip
    return Answer(200, [json.dumps(body).encode()])


@pytest.mark.parametrize(
    ("price", "rank", "said"),
    [
        ("$2/M", None, "dearer"),
        ("$2/M", 40, "dearer, weaker"),
        ("$1/M", 40, "weaker"),
        ("$1/M", 90, None),
        ("$0.5/M", None, None),
    ],
)
@pytest.mark.parametrize("resting", [False, True])
async def test_a_fallback_says_what_it_is(
    price: str, rank: int | None, said: str | None, resting: bool, tmp_path: Path
) -> None:
    models = {
        "chains": {"first": [FIRST, SECOND]},
        "prices": {"first": {"input": "$1/M", "output": "$1/M"}, "other": {"input": price, "output": price}},
        "about": {"first": {"rank": 80}, "other": {"rank": rank}},
        "breaker": {"failures": 1},
    }  # fmt: skip
    gate = Gate(tmp_path, [BUSY, whole(), whole()], models=models)
    out = await gate.ask(CHAT, stream=False, model="first")
    if resting:  # the first place is not even asked
        out = await gate.ask(CHAT, stream=False, model="first", prompt="Another.")
        assert out.headed["x-midwatch-attempts"] == "1"
    assert out.headed["x-midwatch-fallback"] == "1"
    assert out.headed.get("x-midwatch-fallback-is") == said


async def test_what_was_asked_for_itself_has_no_mark(tmp_path: Path) -> None:
    gate = Gate(tmp_path, [whole()], models={"about": {"gpt-4o-mini": {"rank": 1}}})
    out = await gate.ask(CHAT, stream=False)
    assert "x-midwatch-fallback-is" not in out.headed
