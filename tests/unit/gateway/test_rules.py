"""The model policy at work: what rules refuse and move, and that none is a way around another."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from gateways import CHAT, Gate
from midwatch.gateway.upstream.scripted import Answer

CHEAP = {"name": "cheap", "when": 'task == "health_check"', "force": "second/gpt-4o-mini"}
HEALTH = (("x-midwatch-task", "health_check"),)


def whole() -> Answer:
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    message = {"role": "assistant", "content": "Yes."}
    body = {"id": "x", "model": "gpt-4o-mini", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}  # fmt: skip
    return Answer(200, [json.dumps(body).encode()])


async def test_a_rule_moves_a_call(tmp_path: Path) -> None:
    gate = Gate(tmp_path, [whole()], models={"policy": [CHEAP]})
    out = await gate.ask(CHAT, stream=False, headers=HEALTH, model="openai/gpt-4o")
    assert out.status == 200
    assert out.headed["x-midwatch-model"] == "second/gpt-4o-mini"


@pytest.mark.parametrize(  # the last: behind a rule that would move it on
    "rules",
    [
        [CHEAP, {"name": "own", "when": 'provider == "second"', "deny": "not there"}],
        [{"name": "own", "when": 'provider == "second"', "deny": "not there"}, CHEAP],
        [CHEAP, {"name": "own", "max_price": 1}],
        [
            CHEAP,
            {"name": "back", "when": 'provider == "second"', "force": "openai/gpt-4o"},
            {"name": "own", "when": 'provider == "second"', "deny": "not there"},
        ],
    ],
)
async def test_what_a_rule_moves_a_call_to_is_judged_by_all_rules(
    rules: list[dict[str, Any]], tmp_path: Path
) -> None:
    gate = Gate(tmp_path, [whole()], models={"policy": rules})
    out = await gate.ask(CHAT, stream=False, headers=HEALTH, model="openai/gpt-4o")
    told = json.loads(out.whole)["error"]
    assert (out.status, told["type"]) == (403, "midwatch_policy")
    assert told["message"].endswith("(own)")
    assert gate.upstream.asked == []  # type: ignore[union-attr]


async def test_the_first_rule_that_moves_a_call_decides_where_to(tmp_path: Path) -> None:
    other = {"name": "other", "when": 'provider == "second"', "force": "openai/gpt-4o-mini"}
    gate = Gate(tmp_path, [whole()], models={"policy": [CHEAP, other]})
    out = await gate.ask(CHAT, stream=False, headers=HEALTH, model="openai/gpt-4o")
    assert out.headed["x-midwatch-model"] == "second/gpt-4o-mini"


async def test_a_fallback_is_judged_by_rules_behind_one_that_would_move_it(tmp_path: Path) -> None:
    home, second = "openai/gpt-4o", "second/gpt-4o-mini"
    back = {"name": "back", "when": 'provider == "second"', "force": home}
    deny = {"name": "own", "when": 'provider == "second"', "deny": "not there"}
    models = {"policy": [back, deny], "chains": {home: [home, second]}}
    gate = Gate(tmp_path, [Answer(503), whole()], models=models)
    out = await gate.ask(CHAT, stream=False, model=home)
    assert out.status == 503
    assert len(gate.upstream.asked) == 1  # type: ignore[union-attr]
