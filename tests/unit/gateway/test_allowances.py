"""What providers' keys may spend in a month, and what the gateway tells when it will be spent."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))
from gateways import CHAT, PROVIDERS, Gate
from midwatch.core.calls.pool import KeyHealth
from midwatch.gateway import allowances
from midwatch.gateway.sending import Recorder
from midwatch.gateway.shown import health
from midwatch.gateway.telling import Telling
from midwatch.gateway.upstream.scripted import Answer

HOUR_S = 3600.0


def whole() -> Answer:
    usage = {"prompt_tokens": 1_000_000, "completion_tokens": 0, "total_tokens": 1_000_000}
    message = {"role": "assistant", "content": "Yes."}
    body = {"id": "x", "model": "mine", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage}  # fmt: skip
    return Answer(200, [json.dumps(body).encode()])


def gate_with(folder: Path, keys: list[dict[str, object]], calls: int) -> Gate:
    """A provider whose calls cost a dollar each."""
    (folder / "secret").write_text("sk-1")
    listed = [{"from": f"file:{folder / 'secret'}", **key} for key in keys]
    models = {
        "providers": {**PROVIDERS, "openai": {"keys": listed}},
        "prices": {"mine": {"input": "$1/M", "output": "$0/M"}},
    }
    return Gate(folder, [whole() for _ in range(calls)], models=models)


async def spend(gate: Gate, calls: int) -> None:
    for n in range(calls):
        await gate.ask(CHAT, stream=False, model="openai/mine", prompt=f"Question {n}.")


async def test_a_budget_that_will_be_spent_is_told_two_hours_before(tmp_path: Path) -> None:
    gate = gate_with(tmp_path, [{"name": "main", "budget": "$7"}], 5)
    sent = Recorder()
    telling = Telling(sent, now=gate.house.now, wall=gate.house.wall)
    telling.join(gate.house)
    await spend(gate, 2)  # $5 are left, at $2 an hour
    assert await allowances.look(gate.house) == ["openai"]
    telling.pool("openai")
    assert sent.events("pool.low") == []
    await spend(gate, 3)  # $2, at $5 an hour
    await allowances.look(gate.house)
    telling.pool("openai")
    (low,) = sent.events("pool.low", "midwatch")
    assert (low["provider"], low["left"], low["by"]) == ("openai", 1, "budgets")
    assert low["empty_in_s"] == pytest.approx(0.4 * HOUR_S)
    [shown] = [p for p in health(gate.house.health, gate.house.now())["pools"] if p["keys"]]
    assert (shown["keys"][0]["budget_usd"], shown["keys"][0]["spent_usd"]) == (7.0, 5.0)


async def test_the_ledger_remembers_the_month_and_the_pace_is_of_the_last_hour(
    tmp_path: Path,
) -> None:
    gate = gate_with(
        tmp_path, [{"name": "main", "budget": "$7"}, {"name": "spare", "weight": 0}], 3
    )
    await spend(gate, 2)
    gate.clock.passed += 2 * HOUR_S
    await spend(gate, 1)
    keys: list[KeyHealth] = gate.house.health.pools["openai"]
    await allowances.look(gate.house)
    assert (keys[0].spent_nusd, keys[0].hour_nusd) == (3 * 10**9, 10**9)
    gate.clock.passed += 31 * 24 * HOUR_S
    await allowances.look(gate.house)
    assert (keys[0].spent_nusd, keys[0].hour_nusd) == (0, 0)


async def test_without_budgets_nobody_asks_the_ledger(tmp_path: Path) -> None:
    gate = gate_with(tmp_path, [{"name": "main"}], 0)
    await gate.start()
    gate.ledger.down = "gone"  # type: ignore[union-attr,misc]
    assert await allowances.look(gate.house) == []
