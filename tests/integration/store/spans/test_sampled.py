"""Sums of what sampling let go, when its spans' time is over: what expired goes on being told as sums tell it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from midwatch.core.spans.form import Signal
from midwatch.core.spans.keeping import Expiry
from midwatch.core.spans.questions import Cost, Window
from midwatch.core.telemetry import SampleRule
from midwatch.store.spans import tidying
from midwatch.store.spans.gone import GONE

sys.path.insert(0, str(Path(__file__).parents[3]))
from sampled import MINUTE_NS, TRACES, WHOLE, EmbeddedHouse, night
from spans import NOON_NS, NOON_S, S, call


def _known(cost: Cost) -> list[Any]:
    """Return what sums say of a cost: not how much of it was unpriced."""
    return [cost.total_nusd, [{**row, "unpriced": None} for row in cost.rows]]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[EmbeddedHouse]:
    made = EmbeddedHouse(tmp_path / "spans")
    await made.open()
    assert await made.letting.round(NOON_S) == 0
    yield made
    await made.store.stop()


async def test_what_expired_costs_what_it_did_by_all_that_sums_are_split_by(
    house: EmbeddedHouse,
) -> None:
    await house.put(*night(4))
    await house.sample()
    await house.put(*night(5, TRACES, 30))
    whole = await house.ask.cost("session", WHOLE)
    house.now += 90_000.0
    await house.store.expire(Expiry({Signal.SPANS: MINUTE_NS + 40 * 3600 * S}))
    assert (await house.ask.cost("session", WHOLE)).total_nusd < whole.total_nusd
    end = MINUTE_NS + 50 * 3600 * S
    for window in (WHOLE, Window(MINUTE_NS + 7 * 3600 * S, end), Window(MINUTE_NS + 3660 * S, MINUTE_NS + 7320 * S)):  # fmt: skip
        for by in ("fleet", "agent", "group", "model", "provider", "day", "tag:customer"):
            mine, true = [await q.cost(by, window) for q in (house.ask, house.truth)]
            assert (by, _known(mine)) == (by, _known(true))


async def test_lines_leave_with_the_age_of_spans_and_become_one_segment(
    house: EmbeddedHouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tidying, "MANY", 5)
    house.rules = [SampleRule(keep=0.0)]
    for number in range(6):
        await house.put(call(f"a{number}", f"t{number}", start_s=60.0 * number, cost_nusd=number))
        await house.sample()
    assert sum(s.kind == GONE for s in house.manifest.named.segments) == 6
    old = Expiry({Signal.SPANS: NOON_NS + 120 * S}, {"else": {Signal.SPANS: NOON_NS}})
    await house.store.expire(old)
    assert sum(s.kind == GONE for s in house.manifest.named.segments) == 1
    assert (await house.ask.cost("session", Window())).total_nusd == sum(range(6))
    house.store._swept_at = 0.0
    await house.store.expire(old)
    assert (await house.ask.cost("session", Window())).total_nusd == sum(range(2, 6))
    assert (await house.ask.cost("fleet", Window())).total_nusd == sum(range(6))
