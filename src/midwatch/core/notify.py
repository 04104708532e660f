"""Who is told what, when: pure stages from an incident to deliveries.

    incident → targets (routes) → notices (first, raised, again, resolved) → Delivery → retry schedule

A delivery is written down right after its incident and sent afterwards, at least once: its `key` is the
same for the same message, so that a hub that was killed in between neither loses nor doubles one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from enum import StrEnum
from typing import Any, Final

from midwatch.core.book import OVER, RAISED, WEIGHT, is_transient, pending
from midwatch.core.conditions import BadCondition, Condition
from midwatch.core.fleet import Fleet
from midwatch.core.incident import Incident, IncidentState, Severity
from midwatch.core.plain import clean
from midwatch.core.times import show_time
from midwatch.core.units import show_duration

CONSOLE: Final = "console"
"""The target that is always there: the output of the hub."""

ACTION_WAIT_S: Final = 2.0
"""How long the first message waits for an action's answer, so that it can say what was done."""

RETRY_S: Final = (5.0, 300.0)
"""First and longest delay between attempts; each is twice the one before."""

GIVE_UP_S: Final = 86_400.0
"""After so long a message that cannot be delivered is of no use any more."""


MAX_LINES: Final = 10
MAX_LINE: Final = 160
"""Bounds of a message that stands for several: chat services refuse more than some 2,000 characters."""


class Why(StrEnum):
    """Why a person is told."""

    OPENED = "opened"
    RAISED = "raised"  # became more severe
    AGAIN = "again"  # still open after the route's `repeat`
    RESOLVED = "resolved"


class DeliveryState(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"  # given up: `error` says why


@dataclass(slots=True)
class Delivery:
    """One message to one target. Times are Unix seconds."""

    id: str
    key: str
    """Unique: incident, target, why, and how often. The book keeps the first of equal keys."""
    incident_id: str
    target: str
    """Name under `notify:` in the fleet file, or `console`."""
    why: Why
    title: str
    body: str
    created_at: float
    next_at: float | None
    """When it is to be tried next; None when it is over."""
    state: DeliveryState = DeliveryState.PENDING
    attempts: int = 0
    error: str | None = None
    """Why the last attempt failed; free of secrets."""
    delivered_at: float | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """Somebody who wants to know of an incident. `repeat_s` None: told once."""

    name: str
    repeat_s: float | None = None


class Routes:
    """The fleet file's routes, compiled. Without routes everybody hears of warning and critical."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._routes: list[tuple[Condition | None, Target]] = []
        self.bad: list[str] = []
        """What is wrong with the conditions; a route that cannot be decided applies."""
        for route in fleet.routes:
            condition: Condition | None = None
            try:
                condition = Condition(route.match)
            except BadCondition as error:
                self.bad.append(str(error))
            self._routes.append((condition, Target(route.to, route.repeat)))

    def targets(self, incident: Incident) -> list[Target]:
        """Return who is to be told, each once, the console first."""
        found = {CONSOLE: Target(CONSOLE)}
        if self._routes:
            names = names_of(incident, self._fleet.fleet)
            for condition, target in self._routes:
                if self._applies(condition, names):
                    found.setdefault(target.name, target)
        elif WEIGHT[incident.severity] >= WEIGHT["warning"]:
            for name in self._fleet.notify:
                found.setdefault(name, Target(name))
        return list(found.values())

    def _applies(self, condition: Condition | None, names: dict[str, Any]) -> bool:
        if condition is None:
            return True
        try:
            return condition.holds(names)
        except BadCondition as error:
            # better told once too often than not at all
            if len(self.bad) < 100 and str(error) not in self.bad:
                self.bad.append(str(error))
            return True


def names_of(incident: Incident, fleet: str) -> dict[str, Any]:
    """Return the names that a route's `match` may use."""
    return {
        "fleet": fleet,
        "agent": incident.agent,
        "group": incident.group or "",
        "kind": incident.kind,
        "severity": incident.severity,
        "count": incident.count,
        "sentence": incident.sentence,
    }


@dataclass(frozen=True, slots=True)
class Notice:
    """One thing to tell one target."""

    target: str
    why: Why
    key: str
    next_at: float


def notices(incident: Incident, targets: Iterable[Target], now: float) -> list[Notice]:
    """Return all that should have been told by now, first things first; the book drops what it knows.

    For each target the first notice is OPENED: whoever keeps it as new needs none of the others yet.
    """
    found: list[Notice] = []
    for target in targets:
        base = f"{incident.id}/{target.name}"
        wait = ACTION_WAIT_S if pending(incident) else 0.0
        found.append(Notice(target.name, Why.OPENED, f"{base}/opened", now + wait))
        if RAISED in incident.evidence:
            found.append(
                Notice(target.name, Why.RAISED, f"{base}/raised-{incident.severity}", now + wait)
            )
        if incident.state is IncidentState.RESOLVED:
            if not is_transient(incident):
                found.append(Notice(target.name, Why.RESOLVED, f"{base}/resolved", now))
        elif incident.state is IncidentState.OPEN and target.repeat_s:
            times = int((now - incident.opened_at) / target.repeat_s)
            if times > 0:
                found.append(Notice(target.name, Why.AGAIN, f"{base}/again-{times}", now))
    return found


def next_repeat(incident: Incident, targets: Sequence[Target], now: float) -> float | None:
    """Return when an open incident is to be told again; None when never."""
    if incident.state is not IncidentState.OPEN:
        return None
    moments = [
        incident.opened_at + (int((now - incident.opened_at) / t.repeat_s) + 1) * t.repeat_s
        for t in targets
        if t.repeat_s
    ]
    return min(moments, default=None)


def write(
    notice_why: Why, incident: Incident, fleet: str, now: float, zone: tzinfo
) -> tuple[str, str]:
    """Return title and body of a message, plain text, for the incident as it is now."""
    who = clean(f"{fleet}: {incident.kind}", 120)
    over = incident.state is IncidentState.RESOLVED
    opened = show_time(incident.opened_at, now, zone)
    lines = [incident.sentence]
    if over and not is_transient(incident):
        ended = incident.resolved_at or now
        why = incident.evidence.get(OVER)
        lines.append(
            f"Over after {show_duration(max(1.0, ended - incident.opened_at))}"
            + (f": {clean(str(why))}." if why else ".")
        )
        return f"{who} is over", "\n".join(lines)
    if notice_why is Why.AGAIN:
        lines.append(f"Open since {opened}, {show_duration(max(1.0, now - incident.opened_at))}.")
        return f"{who} is still open ({incident.severity})", "\n".join(lines)
    if incident.count > 1:
        lines.append(f"Seen {incident.count} times since {opened}.")
    if incident.reason:
        lines.append(f"Why: {clean(incident.reason, 400)}")
    word = "raised to " if notice_why is Why.RAISED else ""
    return f"{who} ({word}{incident.severity})", "\n".join(lines)


def digest(deliveries: Sequence[Delivery], fleet: str) -> tuple[str, str]:
    """Return title and body of one message in the place of several: a line each, bounded."""
    head = clean(f"{fleet}: {len(deliveries):,} messages", 120)
    lines = [
        clean(f"{d.title.removeprefix(f'{fleet}: ')}: {d.body.partition(chr(10))[0]}", MAX_LINE)
        for d in deliveries[:MAX_LINES]
    ]
    if len(deliveries) > MAX_LINES:
        lines.append(f"and {len(deliveries) - MAX_LINES:,} more: midwatch incidents lists them all")
    return head, "\n".join(lines)


def gravity(incidents: Iterable[Incident]) -> tuple[Severity, bool]:
    """Return the severity of a message about these incidents, and whether it tells of their end alone."""
    known = list(incidents)
    last = [i for i in known if i.state is not IncidentState.RESOLVED]
    worst = max(last or known, key=lambda i: WEIGHT[i.severity], default=None)
    return "warning" if worst is None else worst.severity, bool(known) and not last


def undelivered(deliveries: Iterable[Delivery], now: float) -> dict[str, tuple[int, str]]:
    """Return what is known to have failed and did not arrive since: target → how many, the last error.

    What was given up is told for as long as it was tried.
    """
    found: dict[str, tuple[int, str]] = {}
    for delivery in deliveries:
        if delivery.error is None or delivery.state is DeliveryState.DELIVERED:
            continue
        if now - delivery.created_at <= 2 * GIVE_UP_S:
            count, error = found.get(delivery.target, (0, delivery.error))
            found[delivery.target] = count + 1, error
    return found


def after_attempt(
    delivery: Delivery, error: str | None, now: float, *, permanent: bool = False
) -> None:
    """Record an attempt: delivered, to be tried again with back-off, or given up."""
    delivery.attempts += 1
    delivery.error = error
    if error is None:
        delivery.state, delivery.delivered_at, delivery.next_at = DeliveryState.DELIVERED, now, None
        return
    wait = min(RETRY_S[1], RETRY_S[0] * 2.0 ** min(delivery.attempts - 1, 20))
    if permanent or now + wait - delivery.created_at > GIVE_UP_S:
        delivery.state, delivery.next_at = DeliveryState.FAILED, None
        return
    delivery.next_at = now + wait
