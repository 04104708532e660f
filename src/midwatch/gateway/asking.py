"""The request that an attempt sends to its provider: path, headers with the provider's key, body, time limits."""

from __future__ import annotations

from midwatch.core.calls.exchange import Try
from midwatch.gateway import dialects, translating
from midwatch.gateway.carried import Carried
from midwatch.gateway.house import House
from midwatch.gateway.upstream.port import Request


def request_of(house: House, call: Carried, attempt: Try, body: bytes) -> Request:
    """Return the request for an attempt; `body` is the client's, or with the beginning of its answer."""
    place = attempt.place
    provided = call.settings.providers[place.provider]
    times = place.timeouts
    patience = times.first_token if call.ask.stream else times.total
    headers, path = translating.onward(call, place, rehearsed=house.rehearsed)
    secret = provided.secrets.get(attempt.key, "")
    if house.rehearsed:
        # its bill is by call, for comparison with the ledger
        secret = f"rehearsal:{call.payer.agent or call.payer.key}"
        headers.append(("x-midwatch-call", call.attempt_id(attempt)))
    headers += dialects.credentials(place.kind, secret)
    headers += list(provided.given.headers.items())
    return Request(
        method="POST",
        url=provided.url + path,
        headers=headers,
        body=translating.body_of(call, place, body),
        connect_s=times.connect or 5.0,
        head_s=min(patience or 600.0, max(0.001, attempt.deadline - house.now())),
    )
