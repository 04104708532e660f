"""Stores that sample, beside one in memory in which nothing is let go: what both must say alike."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest

from midwatch.core.calls.news import SCOPE
from midwatch.core.counts import Counts
from midwatch.core.spans.form import Role
from midwatch.core.spans.keeping import Sampling
from midwatch.core.spans.questions import Choice, Metric, Window
from midwatch.core.telemetry import SampleRule
from midwatch.store.clickhouse import carrying
from midwatch.store.questions.embedded import EmbeddedQuestions
from midwatch.store.questions.memory import MemoryQuestions
from midwatch.store.spans.embedded import Due, EmbeddedSpans
from midwatch.store.spans.manifest import MemoryManifest
from midwatch.store.spans.memory import MemorySpans, Shelf
from midwatch.store.spans.settled import Books, Terms
from midwatch.store.spending import COST_BY, carried
from spans import GROUPS, NOON_NS, NOON_S, PLACES, WINDOWS, S, batch, call, span

TRACES = 120
MINUTE_NS = NOON_NS // (60 * S) * 60 * S
WHOLE = Window(MINUTE_NS, MINUTE_NS + 4 * 86_400 * S)
BYS = ("fleet", "agent", "group", "model", "provider", "tool", "session", "day", "tag:customer", "tag:shade")  # fmt: skip
SUMS = (
    "session", "agents", "user", "at", "last_at", "traces", "spans", "errors", "calls", "tools", "input_tokens",
    "cached_tokens", "output_tokens", "cost_nusd",
)  # fmt: skip


def night(seed: int, first: int = 0, count: int = TRACES) -> list[list[Any]]:
    """Return traces of three days whose tokens and cost are all different."""
    dice = random.Random(seed)
    made: list[list[Any]] = []
    for number in range(first, first + count):
        name, start_s = f"t{number}", dice.randrange(3 * 86_400)
        more: dict[str, Any] = {
            "agent": dice.choice(["inbox", "search", "other"]),
            "session": dice.choice([None, "s1", "s2", "s3"]),
            "user": dice.choice([None, "ann", "bob"]),
            "tags": json.dumps({"customer": f"c{number % 3}", "shade": f"h{number % 7}"}),
        }
        made += [
            call(
                f"{name}.{part}", name, start_s=start_s + part, cost_nusd=dice.choice([None, dice.randrange(10**12)]),
                input_tokens=dice.randrange(10**6), output_tokens=dice.randrange(10**5),
                model=dice.choice([None, "gpt-4o-mini", "big"]), provider=dice.choice(["openai", "other"]), **more,
            )
            for part in range(1 + number % 3)
        ]  # fmt: skip
        status = 2 if number % 40 == 7 else 0
        made.append(span(f"{name}.x", name, start_s=start_s + 1, role=Role.TOOL.value, tool="mail", status=status, **more))  # fmt: skip
    return made


def gateway(count: int) -> list[list[Any]]:
    """Return calls as the gateway tells of them, each a trace of its own."""
    return [
        call(
            f"g{number}", f"g{number}", start_s=float(number * 600), scope=SCOPE, operation="chat", cost_nusd=1_000 + number,
            run_id=f"r{number % 2}", session=f"gs{number % 4}",
            attributes=json.dumps({
                "midwatch.model": f"m{number % 3}", "midwatch.provider": "house", "midwatch.task": f"j{number % 5}",
                "midwatch.tags": ["a", "b"][: number % 3], "midwatch.virtual_key": f"k{number % 2}",
                "midwatch.estimated": number % 2 == 0, "midwatch.saved_nusd": number,
            }),
        )
        for number in range(count)
    ]  # fmt: skip


class House:
    """A store that samples, and one in memory with all that came."""

    store: Any
    ask: Any
    letting: Sampling
    carried_by: Sequence[str] = tuple(COST_BY)
    """What it is asked by what the gateway carried."""

    def __init__(self) -> None:
        self.rules = [
            SampleRule(name="failures", when="errors > 0", keep=1.0),
            SampleRule(keep=0.1),
        ]
        shelf = Shelf()
        self.all = MemorySpans(shelf)
        self.truth = MemoryQuestions(shelf, GROUPS, WINDOWS)

    async def open(self) -> None:
        """Open the store, which may have been open before."""
        raise NotImplementedError

    async def sample(self) -> int:
        """Let go of everything that is over; return how many spans went."""
        raise NotImplementedError

    async def carried(self, by: str, since: float | None = None) -> tuple[int, Mapping[Any, Any]]:
        """Return what the gateway's calls cost: in all, and by what they are asked by."""
        raise NotImplementedError

    async def put(self, *rows: Any, **more: Any) -> None:
        await self.store.append(batch(*rows, **more))
        await self.all.append(batch(*rows, **more))

    async def cost_is_the_truth(self, *bys: str, agents: tuple[str, ...] = ()) -> None:
        for by in bys or BYS:
            mine, true = [await q.cost(by, WHOLE, agents) for q in (self.ask, self.truth)]
            assert (by, mine) == (by, true)

    async def sums_are_the_truth(self, *metrics: Metric) -> None:
        mine, true = [(await q.sessions(Choice(), None, 50)).items for q in (self.ask, self.truth)]
        assert [_sums(one) for one in mine] == [_sums(one) for one in true]
        for metric in metrics:
            lines = [await q.series(metric, "agent", WHOLE, "p50") for q in (self.ask, self.truth)]
            assert lines[0].whole == pytest.approx(lines[1].whole, rel=0.02)


def _sums(item: dict[str, Any]) -> dict[str, Any]:
    return {name: item.get(name) for name in SUMS}


class EmbeddedHouse(House):
    """The embedded store."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.manifest = folder, MemoryManifest()
        self.steady_s, self.now = 0.0, NOON_S

    async def open(self) -> None:
        books = Books(Terms(lambda: GROUPS, lambda _: WINDOWS, lambda: ("customer",)))
        self.store = EmbeddedSpans(
            self.folder,
            self.manifest,
            Counts(),
            due=Due(age_s=0.0),
            settling=books,
            clock=lambda: self.now,
        )
        await self.store.open()
        self.letting = self.store.letting(lambda: self.rules, GROUPS.get, lambda: self.steady_s)
        self.ask = EmbeddedQuestions(self.store, lambda: GROUPS, lambda: WINDOWS)

    async def sample(self) -> int:
        await self.store.settle(NOON_S)
        gone = await self.letting.round(NOON_S)
        self.steady_s += 61.0
        return gone + await self.letting.round(NOON_S)

    async def carried(self, by: str, since: float | None = None) -> tuple[int, Mapping[Any, Any]]:
        one = await self.store.read(lambda view: carried(view, by, since))
        return one.total_nusd, {**one.rows, "runs": sorted(one.runs, key=str)}


class ClickHouseHouse(House):
    """A hub over ClickHouse."""

    carried_by = ("task", "tag")  # each is seven statements

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.place = PLACES["clickhouse"](folder)

    async def open(self) -> None:
        self.store, self.ask = await self.place.opened()
        self.letting = self.store.letting(lambda: self.rules, GROUPS.get, quiet_s=0.0, rest_s=0.0)

    async def sample(self) -> int:
        await self.store.settle(NOON_S)
        return await self.letting.round(NOON_S)

    async def carried(self, by: str, since: float | None = None) -> tuple[int, Mapping[Any, Any]]:
        one = await self.store.question(lambda ask: carrying.cost(ask, by, since, UTC))
        return one["total_nusd"], {row[by]: row for row in one["rows"]}


HOUSES = {"embedded": EmbeddedHouse, "clickhouse": ClickHouseHouse}
