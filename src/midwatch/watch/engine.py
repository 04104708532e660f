"""The watch: from committed items to incidents, actions and notifications.

    observe → view (fold) → detectors (judge) → book (open, count, resolve)
            → saved → action to the node, notification, live update

What an item means is decided at once, without waiting (the fold must see items in the order of their
commit); saving follows. What could not be saved, or was cut off, stays in `_unsaved` and is saved by the
next tick, so an incident is told only once it is durable, and none is forgotten.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from midwatch.core import book as steps
from midwatch.core.detection import (
    MIDWATCH,
    OVERDUE,
    Detector,
    Facts,
    Verdict,
    by_wake,
    load,
    wake_of,
)
from midwatch.core.errors import StoreError, UnknownIncident
from midwatch.core.fleet import Agent, Fleet
from midwatch.core.incident import Clear, Finding, Incident
from midwatch.core.notify import next_repeat
from midwatch.core.plain import number_of
from midwatch.core.ports import DeliveryBook, IncidentBook, NodeLink, Publisher
from midwatch.core.spans.digest import Digest
from midwatch.core.view import Change, FleetView
from midwatch.watch.actions import Actions
from midwatch.watch.notifier import Notifier
from midwatch.watch.sender import Console
from midwatch.watch.updates import Updates
from midwatch.wire.ids import new_id
from midwatch.wire.items import Item, Kind

LONGEST_SLEEP_S: Final = 5.0
"""The tick looks for silent nodes, repeats and unsaved incidents at least so often."""

PAUSE_S: Final = 3 * LONGEST_SLEEP_S
"""So long between two ticks means that the process or the host stood still."""

SET_BACK_S: Final = 1.0
"""By so much the clock must have been set back to be noticed; less makes nobody late."""

RETRY_SAVE_S: Final = 0.5
"""How soon an incident that could not be saved is tried again."""

LAZY_SAVE_S: Final = 1.0
"""How long an incident that was only counted once more may wait to be saved."""

FORGET_EVERY_S: Final = 60.0
REJUDGE_S: Final = 900.0
"""At start, what reached the store within this time is judged once more."""

KNOWN: Final = 500
"""Newest incidents that are looked through at start, so that none is opened twice for one item."""

log = logging.getLogger(__name__)


def _print(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


class Watch:
    """Implements `core.ports.Observer` and `core.spans.digest.SpanObserver`. `clock` returns Unix seconds; `console` takes one line."""

    def __init__(
        self,
        *,
        view: FleetView,
        book: IncidentBook,
        deliveries: DeliveryBook,
        link: NodeLink,
        publisher: Publisher,
        fleet: Fleet,
        clock: Callable[[], float],
        console: Console = _print,
    ) -> None:
        self._view = view
        self._book = book
        self._publisher = publisher
        self._clock = clock
        self._wakes = by_wake(load())
        self._open: dict[tuple[str, str, str], Incident] = {}
        self._unsaved: dict[str, Incident] = {}
        self._is_urgent = False
        self._later: asyncio.TimerHandle | None = None
        self._saving = asyncio.Lock()
        self._known_items: set[str] = set()
        self._repeats: dict[str, float] = {}
        self._updates = Updates(publisher, self._read)
        self._actions = Actions(link, is_wanted=self._is_wanted, done=self._answered)
        self._notifier = Notifier(
            deliveries=deliveries,
            fleet=fleet,
            clock=clock,
            incident_of=self._incident,
            console=console,
        )
        self._wake = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._ticked_at = clock()
        self._forget_at = clock() + FORGET_EVERY_S
        self._counts = dict.fromkeys(
            ("opened", "counted", "resolved", "detector_failures", "save_failures"), 0
        )

    # --- life

    async def start(self) -> None:
        """Load open incidents, resume actions and deliveries, start the loops.

        Call after `view.restore` and before the first `observe`.
        """
        recent = await self._book.page(state=None, agent=None, after=None, limit=KNOWN)
        for incident in await self._book.open_incidents():
            self._open[incident.kind, incident.agent, incident.subject] = incident
        self._known_items = {
            item for i in (*recent, *self._open.values()) for item in steps.items_of(i)
        }
        for agent in {agent for _, agent, _ in self._open}:
            self._show(agent)
        self._recall_usual()
        now = self._ticked_at = self._clock()
        self._drop_strangers(now)
        self._rejudge(now)
        # a hub that was killed between saving and telling tells now; the book knows what was told
        for incident in recent:
            if incident.resolved_at is not None and now - incident.resolved_at < REJUDGE_S:
                self._unsaved.setdefault(incident.id, incident)
        for incident in self._open.values():
            self._unsaved.setdefault(incident.id, incident)
        await self._save()
        self._notifier.start()
        self._updates.start()
        self._loop = asyncio.get_running_loop().create_task(self._run(), name="watch")

    async def stop(self) -> None:
        """End the loops; nothing is lost, what is pending is resumed at the next start."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
            self._loop = None
        if self._later is not None:
            self._later.cancel()
            self._later = None
        await self._actions.stop()
        await self._save()
        await self._notifier.stop()
        await self._updates.stop()

    def reload(self, fleet: Fleet) -> None:
        """Take a new fleet file, and pass it on to the view."""
        self._view.reload(fleet)
        self._notifier.reload(fleet)
        self._drop_strangers(self._clock())
        for name in self._view.names():
            self._updates.changed(name)
        self._wake.set()

    def statistics(self) -> dict[str, int | float]:
        """Return counters for /metrics."""
        return {
            "held": 1,
            **{f"incidents_{name}": count for name, count in self._counts.items()},
            "incidents_open": len(self._open),
            "incidents_unsaved": len(self._unsaved),
            "actions_answered": self._actions.answered,
            "actions_failed_attempts": self._actions.failed_attempts,
            "deliveries_delivered": self._notifier.delivered,
            "deliveries_failed_attempts": self._notifier.failed_attempts,
            "deliveries_given_up": self._notifier.given_up,
            "deliveries_store_failures": self._notifier.store_failures,
            "routes_bad": len(self._notifier.routes.bad),
            "updates_published": self._updates.published,
            "agents_refused": self._view.refused_agents,
        }

    # --- observing

    async def observe(self, kind: Kind, items: Sequence[Item]) -> None:
        """Take committed items, in the order of their commit."""
        now = self._clock()
        for item in items:
            change = self._view.apply(kind, item, now)
            if change is not None:
                self._mark(change, kind)
            if change is None or change.is_news:
                self._judge(wake_of(kind, item), item, change, now)
        due = self._view.next_due()
        if due is not None and due - now < LONGEST_SLEEP_S:
            self._wake.set()
        if self._is_urgent:
            await self._save()

    async def see(self, digest: Digest) -> None:
        """Take what committed spans come to: an agent that sends nothing else is seen by them."""
        now = self._clock()
        for name, seen in digest.items():
            if self._view.see(name, seen, now):
                self._updates.changed(name)

    def _mark(self, change: Change, kind: Kind) -> None:
        name = change.agent.name
        if kind is Kind.BEAT:
            if change.agent.state is change.state_before:
                self._updates.beaten(name)
                return
        elif kind is Kind.SAMPLE and change.agent.state is change.state_before:
            self._updates.beaten(name)
            return
        self._updates.changed(name)

    def _judge(self, wake: str, item: Item, change: Change | None, now: float) -> None:
        detectors = self._wakes.get(wake)
        if not detectors:
            return
        name = item["agent"] if item else (change.agent.name if change else "")
        if change is None and name != MIDWATCH:
            return
        facts: Facts | None = None
        for one in detectors:
            facts = facts or self._facts(name, item, change, now)
            verdict = self._ask(one, facts)
            if verdict is not None:
                self._take(verdict, item.get("id"), now)
                facts = None  # it may have changed what is open

    def _facts(self, name: str, item: Item, change: Change | None, now: float) -> Facts:
        if change is None:
            own = [i for i in self._open.values() if i.agent == name]
            return Facts(
                agent=name,
                item=item,
                now=now,
                config=_OURSELVES,
                zone=self._view.zone,
                open_kinds={i.kind: i.seen_at for i in own},
                open_evidence={i.kind: i.evidence for i in own},
            )
        agent = change.agent
        return Facts(
            agent=name,
            item=item,
            now=now,
            config=agent.config,
            zone=self._view.zone,
            state=agent.state.value,
            state_at=agent.since,
            state_before=None if change.state_before is agent.state else change.state_before.value,
            managed=agent.managed,
            declared=agent.declared,
            last_beat_at=agent.last_beat_at,
            beat_due_at=agent.due_at,
            cycle=change.cycle,
            open_kinds=agent.open_kinds,
            run_id=agent.run_id,
            ended=agent.ended,
            spent_nusd=agent.spent_nusd,
            calm_cycles=agent.calm_cycles,
            outlay=agent.outlay,
            progress_at=agent.progress_at,
            open_evidence={i["kind"]: i["evidence"] for i in agent.incidents},
        )

    def _ask(self, one: Detector, facts: Facts) -> Verdict:
        try:
            return one.judge(facts)
        except Exception:  # a fault in one detector must not blind the others; it is counted
            self._counts["detector_failures"] += 1
            log.exception("detector %s failed on an item of %s", one.kind, facts.agent)
            return None

    # --- the book

    def _take(self, verdict: Finding | Clear, item_id: str | None, now: float) -> None:
        """Change the incidents in memory; `_save` makes it durable and acts on it."""
        key = (verdict.kind, verdict.agent, verdict.subject)
        incident = self._open.get(key)
        zone = self._view.zone
        if isinstance(verdict, Clear):
            resolved = steps.cleared(incident, verdict, now, zone) if incident is not None else None
            if resolved is not None:
                del self._open[key]
                self._counts["resolved"] += 1
                self._change(resolved)
            return
        if incident is None or verdict.transient:
            fresh = steps.opened(verdict, new_id(), self._group(verdict.agent), now, item_id, zone)
            if not verdict.transient:
                self._open[key] = fresh
            self._counts["opened"] += 1
            self._change(fresh)
            return
        self._counts["counted"] += 1
        again = steps.seen_again(incident, verdict, now, item_id, zone)
        self._open[key] = again
        same = (again.severity, again.actions) == (incident.severity, incident.actions)
        self._change(again, can_wait=same and incident.id not in self._unsaved)

    def _change(self, incident: Incident, *, can_wait: bool = False) -> None:
        """Take an incident's new form. One that only counts is saved a moment later, once for many."""
        self._unsaved[incident.id] = incident
        self._show(incident.agent)
        if not can_wait:
            self._is_urgent = True
            self._wake.set()
        elif self._later is None:
            self._later = asyncio.get_running_loop().call_later(LAZY_SAVE_S, self._end_wait)

    def _end_wait(self) -> None:
        self._later = None
        self._wake.set()

    def _show(self, agent: str) -> None:
        own = [i for i in self._open.values() if i.agent == agent]
        self._view.set_incidents(agent, own)
        if agent != MIDWATCH:
            self._updates.changed(agent)

    async def _save(self) -> None:
        """Save what changed, then act on it and tell it; what fails stays for the next tick."""
        async with self._saving:
            self._is_urgent = False
            for incident_id, incident in list(self._unsaved.items()):
                try:
                    await self._book.save(incident)
                    await self._notifier.tell(incident)
                except StoreError as error:
                    self._counts["save_failures"] += 1
                    log.warning("cannot keep incident %s, trying again: %s", incident_id, error)
                    return
                if self._unsaved.get(incident_id) is incident:
                    del self._unsaved[incident_id]
                self._publisher.publish("incident", incident.to_json())
                self._follow(incident)

    def _follow(self, incident: Incident) -> None:
        """Start what an incident that is durable asks for."""
        for do in steps.pending(incident):
            self._actions.begin(incident.id, incident.agent, do, f"the hub ({incident.kind})")
        moment = next_repeat(incident, self._notifier.routes.targets(incident), self._clock())
        if moment is None:
            self._repeats.pop(incident.id, None)
        else:
            self._repeats[incident.id] = moment

    async def ack(self, incident_id: str, by: str) -> Incident:
        """Acknowledge an incident: it is not told again. Raises UnknownIncident or StoreError."""
        incident = await self._incident(incident_id)
        if incident is None:
            raise UnknownIncident(incident_id)
        changed = steps.acked(incident, by, self._clock())
        if changed is not incident:
            self._replace(changed)
            await self._save()
        return changed

    def _replace(self, incident: Incident) -> None:
        """Take a new form of an incident, which may be over while a newer one of its kind is open."""
        key = (incident.kind, incident.agent, incident.subject)
        held = self._open.get(key)
        if held is not None and held.id == incident.id:
            self._open[key] = incident
        self._change(incident)

    async def _incident(self, incident_id: str) -> Incident | None:
        for incident in (*self._open.values(), *self._unsaved.values()):
            if incident.id == incident_id:
                return incident
        return await self._book.get(incident_id)

    def _is_wanted(self, incident_id: str, do: str) -> bool:
        return any(i.id == incident_id and do in steps.pending(i) for i in self._open.values())

    async def _answered(self, incident_id: str, do: str, result: str) -> None:
        incident = await self._incident(incident_id)
        if incident is None:
            return
        self._replace(steps.answered(incident, do, result, self._clock(), self._view.zone))
        await self._save()

    # --- time

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            wait = LONGEST_SLEEP_S
            try:
                wait = await self.tick()
            except Exception:  # the top of a loop that must outlive its faults; counted
                self._counts["detector_failures"] += 1
                log.exception("a round of the watch failed; the next one follows")
            # not wait_for: on Python 3.11 it can swallow a cancellation that comes with the event
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._wake.wait()

    async def tick(self) -> float:
        """Look at what time alone brings; return the seconds until there is something to do."""
        now = self._clock()
        paused = now - self._ticked_at
        if paused > PAUSE_S:
            # the host slept, or we did: what was sent meanwhile has not been read yet
            log.warning("the watch stood still for %.0f s; nobody is late because of that", paused)
            self._view.excuse(paused)
        elif paused < -SET_BACK_S:
            log.warning("the clock was set back by %.0f s; what is due is moved with it", -paused)
            self._view.excuse(paused)
        self._ticked_at = now
        for agent in self._view.overdue(now):
            change = Change(agent, is_news=True, state_before=agent.state)
            self._judge(OVERDUE, {}, change, now)
            self._updates.changed(agent.name)
        for agent in self._view.lose_silent(now):
            self._updates.changed(agent.name)
        if now >= self._forget_at:
            self._forget_at = now + FORGET_EVERY_S
            if self._view.forget(now):
                self._drop_strangers(now)
        for incident in list(self._open.values()):
            if self._repeats.get(incident.id, now + 1) <= now:
                self._unsaved.setdefault(incident.id, incident)
        if self._unsaved:
            await self._save()
        if self._unsaved:
            return RETRY_SAVE_S
        moments = [now + LONGEST_SLEEP_S, *self._repeats.values()]
        due = self._view.next_due()
        return max(0.0, min(moments if due is None else [*moments, due]) - now)

    # --- at start and after a reload

    def _rejudge(self, now: float) -> None:
        """Judge what was stored last once more: a hub may die between a commit and its incident."""
        for gap in self._view.gaps:
            if self._is_unjudged(gap, now):
                self._judge(wake_of(Kind.EVENT, gap), gap, None, now)
        for name in self._view.names():
            agent = self._view.look(name)
            if agent is None:
                continue
            change = Change(agent, is_news=True, state_before=agent.state)
            if agent.ended is not None and self._is_unjudged(agent.ended, now):
                self._judge("run.ended", agent.ended, change, now)
            last = agent.last_beat
            if last is not None and self._is_unjudged(last, now):
                beat = Change(agent, True, agent.state, agent.cycle)
                self._judge(Kind.BEAT.value, last, beat, now)

    def _recall_usual(self) -> None:
        for incident in self._open.values():
            view = self._view.look(incident.agent)
            usual = number_of(incident.evidence, "usual")
            if view is not None and usual is not None:
                view.recall_usual(str(incident.evidence.get("measure")), usual)

    def _is_unjudged(self, item: Item, now: float) -> bool:
        return now - item["at"] < REJUDGE_S and item["id"] not in self._known_items

    def _drop_strangers(self, now: float) -> None:
        """Resolve incidents of agents that are no longer there."""
        for kind, agent, subject in list(self._open):
            if agent != MIDWATCH and self._view.look(agent) is None:
                gone = Clear(kind, agent, "no longer in the fleet file", now, subject)
                self._take(gone, None, now)

    # --- small things

    def _read(self, name: str) -> dict[str, object] | None:
        return self._view.agent(name, self._clock())

    def _group(self, agent: str) -> str | None:
        view = self._view.look(agent)
        return view.config.group if view is not None else None

    def open_incidents(self) -> Iterable[Incident]:
        """Return what is not resolved, as it is in memory."""
        return list(self._open.values())


_OURSELVES: Final = Agent(external=True)
"""Settings of Midwatch itself as an agent; its detectors need none."""
