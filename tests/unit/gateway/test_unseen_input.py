"""Input that the request only names, or packs, is charged as the whole window where nobody says how much it was."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from gateways import RESPONSES, Gate
from midwatch.gateway.upstream.scripted import Answer, Break

WHOLE: dict[str, Any] = {
    "id": "r",
    "object": "response",
    "status": "completed",
    "model": "gpt-4o-mini",
    "output": [],
}
WINDOW = 128_000
BREAKS = Answer(200, [b'{"id"', Break()])


def told(**more: Any) -> Answer:
    return Answer(200, [json.dumps({**WHOLE, **more}).encode()])


@pytest.mark.parametrize(
    ("answer", "more", "least", "most"),
    [
        (BREAKS, {"previous_response_id": "resp_1"}, WINDOW, WINDOW),
        (told(), {"previous_response_id": "resp_1"}, WINDOW, WINDOW),
        (told(usage={"input_tokens": 700, "output_tokens": 5}), {"previous_response_id": "resp_1"}, 700, 700),
        (BREAKS, {}, 1, 200),
        (told(), {}, 1, 200),
    ],
)  # fmt: skip
async def test_what_is_not_in_the_request_is_charged_from_above(
    tmp_path: Path, answer: Answer, more: dict[str, Any], least: int, most: int
) -> None:
    night = Gate(tmp_path, [answer])
    await night.ask(RESPONSES, stream=False, **more)
    row = (await night.rows())[0]
    assert least <= row.input_tokens <= most
