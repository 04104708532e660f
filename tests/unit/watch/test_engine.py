"""The watch as a whole, on fakes: from items to incidents, actions, messages and live updates."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from midwatch.core.detection import Detector
from midwatch.core.errors import UnknownIncident
from midwatch.core.fleet import Agent, Fleet, Route
from midwatch.core.history import AgentHistory
from midwatch.core.incident import Incident, IncidentState
from midwatch.core.notify import DeliveryState
from midwatch.core.ports import Reply
from midwatch.core.terms import Heartbeat, Loop, Restart
from midwatch.core.view import FleetView
from midwatch.watch.engine import Watch
from midwatch.watch.memory import (
    MemoryBook,
    MemoryDeliveries,
    RecordingPublisher,
    ScriptedLink,
    away,
)
from midwatch.wire import items as wire
from midwatch.wire.items import Item, Kind

START = 1_750_000_000.0
FLEET = Fleet(
    fleet="night",
    agents={
        "inbox": Agent(command=["run"], group="support", restart=Restart(stable_after=600.0)),
        "prices": Agent(command=["run"], loop=Loop(action="notify")),
        "cron": Agent(external=True, heartbeat=Heartbeat(every=60.0, missed=2)),
    },
)


class Night:
    """One hub's worth of watch; `dawn()` starts the next one over the same books."""

    def __init__(self, fleet: Fleet = FLEET) -> None:
        self.now = START
        self.fleet = fleet
        self.book = MemoryBook()
        self.deliveries = MemoryDeliveries()
        self.link = ScriptedLink()
        self.console: list[str] = []
        self.watch = self.dawn()

    def dawn(self, histories: list[AgentHistory] | None = None) -> Watch:
        self.publisher = RecordingPublisher()
        self.view = FleetView(self.fleet, node="home", now=self.now)
        self.view.restore(histories or [], self.now)
        self.watch = Watch(
            view=self.view,
            book=self.book,
            deliveries=self.deliveries,
            link=self.link,
            publisher=self.publisher,
            fleet=self.fleet,
            clock=lambda: self.now,
            console=self.console.append,
        )
        return self.watch

    async def beat(self, agent: str, **more: Any) -> Item:
        item = wire.read(Kind.BEAT, {"agent": agent, "at": self.now, **more}, self.now)
        await self.watch.observe(Kind.BEAT, [item])
        return item

    async def event(self, kind: str, agent: str = "inbox", **data: Any) -> Item:
        raw = {"agent": agent, "at": self.now, "kind": kind, "data": data}
        item = wire.read(Kind.EVENT, raw, self.now)
        await self.watch.observe(Kind.EVENT, [item])
        return item

    async def crash(self, run: str = "r1", failures: int = 1, **data: Any) -> Item:
        values = {"end": "failed", "exit_code": 1, "next": "restart", **data}
        return await self.event("run.ended", run_id=run, failures=failures, **values)

    async def usual(self, agent: str, count: int = 10) -> None:
        for _ in range(count):
            self.now += 1
            await self.beat(agent, tokens=190, cost_usd=0.001)

    def only(self, kind: str) -> Incident:
        (incident,) = [i for i in self.book.saved.values() if i.kind == kind]
        return incident

    def kinds(self) -> list[str]:
        return [i.kind for i in self.watch.open_incidents()]


async def _until(condition: Callable[[], Any], limit_s: float = 30.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.005)


@pytest.fixture
async def night() -> AsyncIterator[Night]:
    night = Night()
    await night.watch.start()
    yield night
    await night.watch.stop()


async def test_a_failure_is_durable_told_and_shown_when_observe_returns(night: Night) -> None:
    await night.crash()
    incident = night.only("crash")
    assert incident.state is IncidentState.OPEN
    assert incident.group == "support"
    (shown,) = night.view.agents(night.now)[1]["incidents"]
    assert shown["id"] == incident.id
    assert night.publisher.of("incident")[-1] == incident.to_json()
    assert [d.target for d in night.deliveries.kept.values()] == ["console"]
    await _until(lambda: night.console)
    assert night.console == ["night: crash (warning): inbox: exited with code 1; restart at once"]


async def test_one_incident_is_open_per_kind_and_agent(night: Night) -> None:
    for number in range(2):
        await night.crash(run=f"r{number}", failures=number + 1)
    assert night.only("crash").count == 2
    await night.event("run.ended", agent="prices", run_id="p", end="failed", failures=1)
    assert sorted((i.kind, i.agent) for i in night.watch.open_incidents()) == [
        ("crash", "inbox"),
        ("crash", "prices"),
    ]


async def test_a_crash_loop_replaces_the_crash_and_is_escalated_when_parked(night: Night) -> None:
    for number in range(1, 4):
        await night.crash(run=f"r{number}", failures=number)
    assert night.kinds() == ["crash-loop"]
    assert night.only("crash").state is IncidentState.RESOLVED
    assert night.only("crash-loop").severity == "warning"
    await night.crash(run="r4", failures=4, next="park")
    await night.event("agent.state", state="parked")
    sentence = (
        "inbox: exited with code 1; 4 failed starts in a row; parked until a person starts it"
    )
    await _until(lambda: night.only("crash-loop").sentence == sentence)
    loop = night.only("crash-loop")
    assert (loop.severity, loop.count) == ("critical", 2)
    assert [a.do for a in loop.actions] == ["restart", "park"]
    whys = [d.why.value for d in night.deliveries.kept.values() if d.incident_id == loop.id]
    assert whys == ["opened", "raised"]


async def test_an_agent_that_is_stable_again_ends_its_incident_and_that_is_told(
    night: Night,
) -> None:
    await night.crash()
    night.now += 700
    await night.event("agent.recovered", stable_s=600)
    incident = night.only("crash")
    assert (incident.state, incident.resolved_at) == (IncidentState.RESOLVED, night.now)
    assert night.view.agents(night.now)[1]["incidents"] == []
    await _until(lambda: len(night.console) == 2)
    assert night.console[1].startswith("night: crash is over")


async def test_a_parked_agent_that_a_person_starts_ends_its_incident(night: Night) -> None:
    await night.event("run.ended", run_id="r", end="credentials", credential="KEY", next="park")
    await night.event("agent.state", state="parked")
    assert night.kinds() == ["auth-crash"]
    night.now += 5
    await night.event("agent.state", state="starting")
    assert night.only("auth-crash").evidence["over"] == "started again"


# --- runaways


async def test_a_runaway_is_suspended_and_the_sentence_says_when_and_for_how_much(
    night: Night,
) -> None:
    await night.usual("inbox")
    night.now += 1
    await night.beat("inbox", tokens=41_200, cost_usd=0.38)
    await _until(lambda: night.only("runaway-loop").actions[0].result == "suspended")
    assert night.link.sent == [("inbox", "suspend")]
    assert night.link.by == ["the hub (runaway-loop)"], "no person did it"
    incident = night.only("runaway-loop")
    assert incident.sentence.startswith(
        "inbox: 41,200 tokens in one cycle, usual 190; suspended at 15:06:51"
    )
    assert incident.sentence.endswith("after $0.38")
    await night.beat("inbox", tokens=40_000)
    await night.event("agent.state", state="suspended")
    assert len(night.link.sent) == 1
    agent = night.view.agent("inbox", night.now)
    assert agent is not None
    assert agent["sentence"].startswith("41,200 tokens in one cycle, usual 190; suspended at")


async def test_the_message_about_a_runaway_waits_for_what_was_done(night: Night) -> None:
    await night.usual("inbox")
    await night.beat("inbox", tokens=41_200)
    await _until(lambda: night.only("runaway-loop").actions[0].result == "suspended")
    assert night.console == []
    night.now += 3
    await night.watch.tick()
    night.watch._notifier._wake.set()
    await _until(lambda: night.console)
    assert "suspended at" in night.console[0]


async def test_resuming_a_suspended_agent_ends_the_runaway_and_the_next_one_is_a_new_one(
    night: Night,
) -> None:
    await night.usual("inbox")
    await night.beat("inbox", tokens=41_200)
    await _until(lambda: night.only("runaway-loop").actions[0].result == "suspended")
    await night.event("agent.state", state="suspended")
    night.now += 60
    await night.event("agent.state", state="starting")
    assert night.kinds() == []
    night.now += 1
    await night.beat("inbox", tokens=41_200)
    assert night.kinds() == ["runaway-loop"]
    await _until(lambda: len(night.link.sent) == 2)


async def test_a_runaway_that_is_only_to_be_told_ends_when_it_calms_down(night: Night) -> None:
    await night.usual("prices")
    await night.beat("prices", tokens=41_200)
    assert night.kinds() == ["runaway-loop"]
    await night.usual("prices", 2)
    assert night.kinds() == ["runaway-loop"]
    await night.usual("prices", 1)
    assert night.kinds() == []
    assert night.link.sent == []


async def test_a_burst_after_draining_is_left_alone(night: Night) -> None:
    await night.usual("inbox")
    await night.event("agent.draining")
    for _ in range(20):
        await night.beat("inbox", tokens=90_000, cost_usd=3.0, draining=True)
    assert night.kinds() == []
    assert night.book.saved == {}


async def test_an_action_is_tried_until_a_node_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("midwatch.watch.actions.RETRY_S", (0.01, 0.02))
    night = Night()
    night.link.answer = away
    await night.watch.start()
    await night.usual("inbox")
    await night.beat("inbox", tokens=41_200)
    await _until(lambda: len(night.link.sent) >= 3)
    assert night.only("runaway-loop").actions[0].result == "pending"
    night.link.answer = lambda _a, _d: Reply("suspended", "suspended")
    await _until(lambda: night.only("runaway-loop").actions[0].result == "suspended")
    assert night.watch.statistics()["actions_failed_attempts"] >= 3
    await night.watch.stop()


async def test_a_hub_that_died_before_the_answer_asks_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    night = Night()
    night.link.answer = away
    await night.watch.start()
    await night.usual("inbox")
    await night.beat("inbox", tokens=41_200)
    await night.watch.stop()
    night.link.answer = lambda _a, _d: Reply("suspended", "suspended")
    await night.dawn().start()
    await _until(lambda: night.only("runaway-loop").actions[0].result == "suspended")
    await night.watch.stop()


async def test_an_answer_that_comes_late_leaves_the_next_runaway_alone(night: Night) -> None:
    night.link.answer = away
    await night.usual("inbox")
    await night.beat("inbox", tokens=41_200)
    (first,) = night.watch.open_incidents()
    await night.event("agent.state", state="suspended")
    await night.event("agent.state", state="starting")
    await night.beat("inbox", tokens=41_200)
    (second,) = night.watch.open_incidents()
    await night.watch._answered(first.id, "suspend", "suspended")
    assert night.watch.open_incidents() == [second]
    assert night.book.saved[first.id].actions[0].result == "suspended"


# --- what only time shows


async def test_an_external_agent_that_falls_silent_is_told_and_its_next_beat_ends_it(
    night: Night,
) -> None:
    await night.beat("cron")
    night.now += 119
    night.watch._ticked_at = night.now
    await night.watch.tick()
    assert night.kinds() == []
    night.now += 1
    await night.watch.tick()
    assert night.only("hung-loop").sentence.startswith("cron: no beat for 2 minutes")
    night.now += 300
    await night.beat("cron")
    assert night.only("hung-loop").state is IncidentState.RESOLVED


async def test_the_loop_itself_finds_what_is_overdue() -> None:
    fleet = Fleet(agents={"quick": Agent(external=True, heartbeat=Heartbeat(every=0.1, missed=2))})
    night = Night(fleet)
    watch = Watch(
        view=FleetView(fleet, node="n", now=time.time()),
        book=night.book,
        deliveries=night.deliveries,
        link=night.link,
        publisher=night.publisher,
        fleet=fleet,
        clock=time.time,
        console=night.console.append,
    )
    await watch.start()
    beat = wire.read(Kind.BEAT, {"agent": "quick"}, time.time())
    await watch.observe(Kind.BEAT, [beat])
    await _until(lambda: night.book.saved)
    late_s = night.only("hung-loop").opened_at - beat["at"]
    await watch.stop()
    assert 0.2 <= late_s < 1.2


async def test_an_open_incident_is_told_again_by_its_route_until_acknowledged() -> None:
    night = Night(FLEET.model_copy(update={"routes": [Route(to="console", repeat=3_600.0)]}))
    night.fleet = FLEET.model_copy(
        update={
            "routes": [Route(to="ops", repeat=3_600.0)],
            "notify": {"ops": "json://localhost:9"},
        }
    )
    await night.dawn().start()
    await night.crash()
    incident = night.only("crash")
    for hours in (1, 2):
        night.now = START + hours * 3_600
        night.watch._ticked_at = night.now
        await night.watch.tick()
    await night.watch.ack(incident.id, "ann")
    night.now = START + 3 * 3_600
    night.watch._ticked_at = night.now
    await night.watch.tick()
    keys = [d.key for d in night.deliveries.kept.values() if d.target == "ops"]
    await night.watch.stop()
    assert keys == [f"{incident.id}/ops/{end}" for end in ("opened", "again-1", "again-2")]


# --- durability


async def test_what_cannot_be_saved_now_is_saved_and_told_later(night: Night) -> None:
    night.book.broken = True
    await night.crash()
    assert night.book.saved == {}
    assert night.deliveries.kept == {}
    assert night.kinds() == ["crash"]
    night.book.broken = False
    await night.watch.tick()
    assert night.only("crash").state is IncidentState.OPEN
    assert len(night.deliveries.kept) == 1
    assert night.watch.statistics()["incidents_save_failures"] >= 1


async def test_a_hub_that_died_between_saving_and_telling_tells_once() -> None:
    night = Night()
    await night.watch.start()
    await night.crash()
    await _until(lambda: night.console)
    await night.watch.stop()
    for lose in (True, False):
        if lose:
            night.deliveries.kept.clear()
        await night.dawn().start()
        await _until(lambda: len(night.console) == 2)
        await night.watch.stop()
    assert len(night.console) == 2
    (delivery,) = night.deliveries.kept.values()
    assert delivery.state is DeliveryState.DELIVERED


async def test_what_was_committed_before_the_hub_died_is_judged_at_its_next_start_and_only_once() -> (
    None
):
    night = Night()
    raw = {
        "agent": "inbox",
        "at": START,
        "kind": "run.ended",
        "data": {"end": "silent", "run_id": "r"},
    }
    ended = wire.read(Kind.EVENT, raw, START)
    history = [AgentHistory("inbox", ended=ended)]
    night.now += 30
    await night.dawn(history).start()
    assert night.only("silent-exit").state is IncidentState.OPEN
    await night.event("agent.recovered")
    await night.watch.stop()
    await night.dawn(history).start()
    assert night.kinds() == []
    assert len(night.book.saved) == 1
    await night.watch.stop()


async def test_an_item_that_comes_twice_is_judged_once(night: Night) -> None:
    await night.usual("prices")
    item = await night.beat("prices", tokens=41_200)
    await night.watch.observe(Kind.BEAT, [item, item])
    assert night.only("runaway-loop").count == 1


async def test_a_request_that_is_cut_off_loses_no_incident(night: Night) -> None:
    async with night.watch._saving:
        task = asyncio.create_task(night.crash())
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await _until(lambda: night.book.saved)
    assert night.only("crash").state is IncidentState.OPEN


# --- gaps of Midwatch itself


async def test_a_gap_is_one_resolved_incident_that_is_told_once(night: Night) -> None:
    for _ in range(2):
        await night.event(
            "hub.down", agent="midwatch", **{"from": START - 60, "to": START, "gap_s": 60}
        )
    assert [(i.kind, i.state.value) for i in night.book.saved.values()] == [
        ("hub-down", "resolved")
    ] * 2
    await _until(lambda: len(night.console) == 2)
    assert night.kinds() == []
    assert night.view.fleet(night.now)["open_incidents"] == 0


# --- people


async def test_acknowledging_is_kept_and_an_unknown_id_is_an_error(night: Night) -> None:
    await night.crash()
    incident = await night.watch.ack(night.only("crash").id, "ann")
    assert incident.state is IncidentState.ACKED
    assert night.only("crash").state is IncidentState.ACKED
    await night.crash(run="r2", failures=2)
    await night.watch.stop()
    assert night.only("crash").state is IncidentState.ACKED
    assert night.only("crash").count == 2
    with pytest.raises(UnknownIncident, match="'nope'"):
        await night.watch.ack("nope", "ann")


async def test_incidents_of_an_agent_that_left_the_fleet_are_over(night: Night) -> None:
    await night.crash()
    await night.event("agent.state", state="backing-off")
    night.watch.reload(FLEET.model_copy(update={"agents": {"prices": FLEET.agents["prices"]}}))
    await _until(lambda: night.only("crash").state is IncidentState.RESOLVED)
    assert night.only("crash").evidence["over"] == "no longer in the fleet file"


async def test_a_fault_in_one_detector_does_not_blind_the_others(
    night: Night, caplog: pytest.LogCaptureFixture
) -> None:
    def faulty(_: Any) -> None:
        raise RuntimeError("a bug")

    wakes = night.watch._wakes
    bad = Detector("bad", frozenset({"run.ended"}), faulty)
    wakes["run.ended"] = (bad, *wakes["run.ended"])
    await night.crash()
    assert night.kinds() == ["crash"]
    assert night.watch.statistics()["incidents_detector_failures"] == 1


# --- live updates


async def test_changes_are_published_and_busy_agents_are_bounded(night: Night) -> None:
    began = time.monotonic()
    for _ in range(200):
        await night.beat("inbox", tokens=1)
    await _until(lambda: night.publisher.of("beat"))
    await asyncio.sleep(0.3)
    updates = [a for a in night.publisher.of("fleet") if a["agent"] == "inbox"]
    assert 1 <= len(updates) <= 2 + 4 * (time.monotonic() - began), "more than four a second"
    await night.event("agent.state", state="parked")
    await _until(lambda: night.publisher.of("fleet")[-1]["state"] == "parked")
