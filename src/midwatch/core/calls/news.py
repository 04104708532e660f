"""What the gateway tells the hub: the kinds of its events. They decide about agents, so that only a node's
token may send them (`ingest.intake`)."""

from __future__ import annotations

from enum import StrEnum


class News(StrEnum):
    """Kinds of events of the gateway (docs/reference/events.md)."""

    READY = "gateway.ready"
    CALLS = "gateway.calls"
    ENDED = "call.ended"
    FALLBACK = "call.fallback"
    RETRIED = "call.retried"
    SLOW = "call.slow"
    STALLED = "call.stalled"
    CUT = "call.cut"
    DENIED = "call.denied"
    MOVED = "call.moved"
    SHADOW = "call.shadow"
    OPENED = "breaker.opened"
    CLOSED = "breaker.closed"
    COOLING = "key.cooling"
    QUOTA = "key.quota"
    REFUSED = "key.refused"
    REVOKED = "key.revoked_used"
    POOL = "pool.low"
    WARNED = "budget.warned"
    EXHAUSTED = "budget.exhausted"
    LOOP_WARNED = "loop.warned"
    LOOP_HELD = "loop.held"
    UNPRICED = "price.unknown"
    DISPUTED = "price.disputed"
    MISMATCH = "model.mismatch"
    FILLING = "context.filling"
    SHORT = "reservation.short"


ALL = frozenset(news.value for news in News)

SCOPE = "midwatch.gateway"
"""Scope of the gateway's spans: the ledger's word on cost. Only a node's token may send it."""
