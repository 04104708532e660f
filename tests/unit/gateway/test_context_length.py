"""What does not fit into a model's window goes to a place with a larger one, where the chain has any."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from gateways import CHAT, Gate
from midwatch.gateway.upstream.scripted import Answer

TOO_LONG = Answer(
    400,
    [json.dumps({"error": {"message": "too long", "type": "invalid_request_error", "code": "context_length_exceeded"}}).encode()],
)  # fmt: skip


def whole() -> Answer:
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    message = {"role": "assistant", "content": "Yes."}
    body = {"id": "x", "model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}  # fmt: skip
    return Answer(200, [json.dumps(body).encode()])


def chain(**windows: int) -> dict[str, Any]:
    """Three places in order; of those that are named, the window is known."""
    places = ["openai/first", "openai/middle", "second/last"]
    prices = {name: {"input": "$1/M", "output": "$1/M"} for name in ("first", "middle", "last")}
    about = {name: {"context": tokens} for name, tokens in windows.items()}
    return {"chains": {"first": places}, "prices": prices, "about": about}


@pytest.mark.parametrize(
    ("windows", "asked"),
    [
        ({"first": 8_000, "middle": 8_000, "last": 32_000}, ["first", "last"]),
        ({"first": 8_000, "middle": 4_000}, ["first", "last"]),
        ({"middle": 4_000, "last": 4_000}, ["first", "middle"]),  # of the first nothing is known
        ({"first": 8_000, "middle": 16_000}, ["first", "middle"]),
    ],
)
async def test_a_place_with_a_larger_window_is_asked(
    windows: dict[str, int], asked: list[str], tmp_path: Path
) -> None:
    gate = Gate(tmp_path, [TOO_LONG, whole()], models=chain(**windows))
    out = await gate.ask(CHAT, stream=False, model="first")
    assert out.status == 200
    assert [gate.asked(n)["model"] for n in range(2)] == asked


async def test_nobody_with_a_smaller_window_is_asked_and_the_error_is_passed_on(
    tmp_path: Path,
) -> None:
    models = chain(first=8_000, middle=8_000, last=4_000)
    gate = Gate(tmp_path, [TOO_LONG], models=models)
    out = await gate.ask(CHAT, stream=False, model="first")
    assert (out.status, json.loads(out.whole)["error"]["code"]) == (400, "context_length_exceeded")
    assert len(gate.upstream.asked) == 1  # type: ignore[union-attr]
