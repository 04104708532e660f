"""The request that an attempt sends to its provider: path, headers with the provider's key, body, time limits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final, TypeVar

from midwatch.core.calls.chain import Place
from midwatch.core.calls.exchange import Try
from midwatch.core.sealed import sealed
from midwatch.gateway import dialects, translating
from midwatch.gateway.carried import Carried
from midwatch.gateway.dialects import additions
from midwatch.gateway.dialects.headers import Pairs
from midwatch.gateway.house import House
from midwatch.gateway.mending import Mending
from midwatch.gateway.upstream.port import Request

T = TypeVar("T")

LONG_BYTES: Final = 256 * 1024
"""A body is read or changed within a millisecond or two up to here."""


@sealed
class Onward:
    """What goes with a body to a provider, made ready while the ledger decides whether it may be sent."""

    url: str
    headers: Pairs


def onward_of(house: House, call: Carried, attempt: Try) -> Onward:
    """Return address and headers of an attempt."""
    place = attempt.place
    provided = call.settings.providers[place.provider]
    headers, path = translating.onward(call, place, rehearsed=house.rehearsed)
    secret = provided.secrets.get(attempt.key, "")
    if house.rehearsed:
        # its bill is by call, for comparison with the ledger
        secret = f"rehearsal:{call.payer.agent or call.payer.key}"
        headers.append(("x-midwatch-call", call.attempt_id(attempt)))
    elif "{call}" in provided.reconcile:
        headers.append(("x-midwatch-call", call.attempt_id(attempt)))
    headers += dialects.credentials(place.kind, secret)
    return Onward(provided.url + path, dialects.overridden(headers, provided.given.headers))


def request_of(house: House, call: Carried, attempt: Try, onward: Onward, body: bytes) -> Request:
    """Return the request for an attempt with this body (`body_for`), to be sent now."""
    place = attempt.place
    times = place.timeouts
    if place.kind is not call.ask.kind:
        dialect = translating.ask_of(call, place).dialect
        house.counts[f"translation.{call.ask.dialect.value}_to_{dialect.value}"] += 1
    now, head_by = house.now(), attempt.head_by
    if call.ask.stream:
        head_by = now + (times.first_token or attempt.deadline)
    return Request(
        method="POST",
        url=onward.url,
        headers=onward.headers,
        body=body,
        connect_s=times.connect or 5.0,
        head_s=max(0.001, min(head_by, attempt.deadline) - now),
        total_s=max(0.001, attempt.deadline - now),
    )


async def body_for(call: Carried, place: Place, mending: Mending | None = None) -> bytes:
    """`body_of`, beside the event loop where it is long."""
    if len(call.body) <= LONG_BYTES:
        return body_of(call, place, mending)
    return await aside(call.body, partial(body_of, call, place, mending))


async def aside(body: bytes, do: Callable[[], T]) -> T:
    """Do what takes the longer the longer a body is: of a long one in a thread, where it keeps nobody waiting."""
    return await asyncio.to_thread(do) if len(body) > LONG_BYTES else do()


def body_of(call: Carried, place: Place, mending: Mending | None = None) -> bytes:
    """Return the body for a place: the client's, or the one that goes on with its answer. Raises BadRequest when
    nothing can be added to it."""
    found = translating.asked(call, place)
    ask, body = (call.ask, call.body) if found is None else (found.ask, found.body)
    if mending is not None:
        way = mending.way(call.settings, place)
        body = mending.body(ask, body, call.settings.providers[place.provider].seller, way)
    if found is not None:
        return body
    if call.calls.prompt_cache:
        body = additions.with_mark(ask, body) or body
    return dialects.outgoing(ask, body, place.model)
