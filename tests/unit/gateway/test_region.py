"""A call that is to be computed in one place is dearer: what is reserved for it covers that, and so does an estimate."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from gateways import MESSAGES, Gate
from midwatch.gateway.upstream.scripted import Answer, Break

LONGEST = 4_000
MODEL = "anthropic/claude-sonnet-4-6"
"""For which a list says what a place costs."""


def told(**usage: Any) -> Answer:
    said = {
        "id": "one",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "Once"}],
        "stop_reason": "max_tokens",
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": LONGEST, **usage},
    }
    return Answer(200, [json.dumps(said).encode()])


async def spent(folder: Path, answer: Answer, **more: Any) -> tuple[int, int]:
    """Return what was reserved for a call, and what it cost."""
    folder.mkdir()
    gate = Gate(folder, [answer] * 9)
    await gate.ask(MESSAGES, stream=False, model=MODEL, max_tokens=LONGEST, **more)
    row = (await gate.rows())[0]
    return row.reserved_nusd, row.cost_nusd


@pytest.mark.parametrize("place", ["us", "eu"])
async def test_the_longest_answer_from_one_place_costs_no_more_than_was_reserved(
    tmp_path: Path, place: str
) -> None:
    reserved, cost = await spent(tmp_path / "a", told(inference_geo=place), inference_geo=place)
    usually, _ = await spent(tmp_path / "b", told())
    assert cost <= reserved
    assert usually < cost


@pytest.mark.parametrize("place", ["global", "", None, 7])
async def test_what_costs_no_more_anywhere_is_reserved_as_usual(
    tmp_path: Path, place: object
) -> None:
    reserved, cost = await spent(tmp_path / "a", told(), inference_geo=place)
    usually, was = await spent(tmp_path / "b", told())
    assert cost == was
    assert usually <= reserved < usually * 1.01, "the words for it are input"


async def test_an_answer_that_broke_off_is_estimated_by_the_place_that_was_asked_for(
    tmp_path: Path,
) -> None:
    breaks = Answer(200, [b'{"id"', Break()])
    _, here = await spent(tmp_path / "a", breaks, inference_geo="us")
    _, anywhere = await spent(tmp_path / "b", breaks)
    assert here * 10 >= anywhere * 11 - 10
