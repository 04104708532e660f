"""Who is told what, when: pure stages from an incident to deliveries.

    incident → targets (routes) → why (first, raised, again, resolved) → Delivery → retry schedule

A delivery is written down in the same breath as the incident and sent afterwards, at least once:
its `key` is the same for the same message, so that a hub that was killed in between neither loses
nor doubles one. Decisions carry their reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


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
