"""A hub that was killed between the commit of an item and its incident."""

from __future__ import annotations

import pytest

from midwatch.core.fleet import Fleet
from midwatch.core.history import GAPS, AgentHistory
from midwatch.core.incident import IncidentState
from midwatch.core.view import FleetView
from midwatch.watch.engine import Watch
from midwatch.watch.memory import MemoryBook, MemoryDeliveries, RecordingPublisher, ScriptedLink
from midwatch.wire import items as wire
from midwatch.wire.items import Kind

START = 1_750_000_000.0


@pytest.mark.parametrize("kind", GAPS)
async def test_a_gap_that_nobody_heard_of_is_told_by_the_next_hub_and_only_once(kind: str) -> None:
    data = {"from": START - 60, "to": START, "gap_s": 60}
    event = {"agent": "midwatch", "kind": kind, "at": START, "data": data}
    history = AgentHistory("midwatch", gaps=[wire.read(Kind.EVENT, event, START)])
    book, deliveries = MemoryBook(), MemoryDeliveries()
    for _ in range(2):
        view = FleetView(Fleet(agents={}), node="home", now=START)
        view.restore([history], START + 5)
        watch = Watch(
            view=view,
            book=book,
            deliveries=deliveries,
            link=ScriptedLink(),
            publisher=RecordingPublisher(),
            fleet=Fleet(agents={}),
            clock=lambda: START + 5,
            console=lambda _: None,
        )
        await watch.start()
        await watch.stop()
    (incident,) = book.saved.values()
    assert incident.state is IncidentState.RESOLVED
    assert "1 minute" in incident.sentence
    assert len(deliveries.kept) == 1
