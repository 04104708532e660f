"""What the next hub makes of what the one before it left."""

from __future__ import annotations

import pytest

from midwatch.core.fleet import Agent, Fleet
from midwatch.core.history import GAPS, AgentHistory
from midwatch.core.incident import IncidentState
from midwatch.core.terms import Loop
from midwatch.core.view import FleetView
from midwatch.watch.engine import Watch
from midwatch.watch.memory import MemoryBook, MemoryDeliveries, RecordingPublisher, ScriptedLink
from midwatch.wire import items as wire
from midwatch.wire.items import Item, Kind

START = 1_750_000_000.0


def _watch(view: FleetView, fleet: Fleet, book: MemoryBook, deliveries: MemoryDeliveries) -> Watch:
    return Watch(
        view=view,
        book=book,
        deliveries=deliveries,
        link=ScriptedLink(),
        publisher=RecordingPublisher(),
        fleet=fleet,
        clock=lambda: START + 5,
        console=lambda _: None,
    )


@pytest.mark.parametrize("kind", GAPS)
async def test_a_gap_that_nobody_heard_of_is_told_by_the_next_hub_and_only_once(kind: str) -> None:
    data = {"from": START - 60, "to": START, "gap_s": 60}
    event = {"agent": "midwatch", "kind": kind, "at": START, "data": data}
    history = AgentHistory("midwatch", gaps=[wire.read(Kind.EVENT, event, START)])
    book, deliveries = MemoryBook(), MemoryDeliveries()
    for _ in range(2):
        view = FleetView(Fleet(agents={}), node="home", now=START)
        view.restore([history], START + 5)
        watch = _watch(view, Fleet(agents={}), book, deliveries)
        await watch.start()
        await watch.stop()
    (incident,) = book.saved.values()
    assert incident.state is IncidentState.RESOLVED
    assert "1 minute" in incident.sentence
    assert len(deliveries.kept) == 1


@pytest.mark.parametrize("field", ["tokens", "cost_usd"])
async def test_a_runaway_that_nobody_stopped_is_not_usual_to_the_next_hub(field: str) -> None:
    fleet = Fleet(agents={"prices": Agent(command=["run"], loop=Loop(action="notify"))})
    book, deliveries = MemoryBook(), MemoryDeliveries()

    def beat(value: float) -> Item:
        return wire.read(Kind.BEAT, {"agent": "prices", "at": START, field: value}, START)

    history: list[AgentHistory] = []
    for values in ([0.02] * 50 + [8.0] * 60, [8.0] * 4):
        view = FleetView(fleet, node="home", now=START)
        view.restore(history, START)
        watch = _watch(view, fleet, book, deliveries)
        await watch.start()
        beats = [beat(v if field == "cost_usd" else int(v * 10_000)) for v in values]
        await watch.observe(Kind.BEAT, beats)
        await watch.stop()
        assert [i.kind for i in watch.open_incidents()] == ["runaway-loop"]
        history = [AgentHistory("prices", beats[-60:])]
    (incident,) = book.saved.values()
    assert incident.count == 64


async def test_of_several_hubs_one_whose_disk_is_fine_ends_no_other_ones_incident() -> None:
    fleet, book = Fleet(agents={}), MemoryBook()

    async def told(watch: Watch, kind: str, **data: str) -> list[str]:
        raw = {"agent": "midwatch", "at": START, "kind": kind, "data": {"reason": "it is", **data}}
        await watch.observe(Kind.EVENT, [wire.read(Kind.EVENT, raw, START)])
        return sorted(incident.subject for incident in watch.open_incidents())

    watch = _watch(FleetView(fleet, node="home", now=START), fleet, book, MemoryDeliveries())
    await watch.start()
    for node in ("a", "b", "b"):
        await told(watch, "disk.full", node=node)
    await watch.stop()
    watch = _watch(FleetView(fleet, node="home", now=START), fleet, book, MemoryDeliveries())
    await watch.start()
    assert await told(watch, "disk.low", node="a") == ["a", "b"], "also after a restart"
    assert await told(watch, "disk.fine") == ["a", "b"]
    assert await told(watch, "disk.fine", node="b") == ["a"]
    await watch.stop()
