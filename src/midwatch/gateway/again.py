"""Gives an answer again that was kept, and keeps those that may be given again (`cached`).

Kept is what the first place answered itself: an answer of a fallback, or of a cheaper model since a budget was used
up, stands for nobody else. What is asked is hashed once, whichever of both needs it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from midwatch.core.calls.budget import Refused
from midwatch.core.calls.chain import Place
from midwatch.core.calls.charge import Charge, Reservation
from midwatch.gateway import refusals
from midwatch.gateway.cached import PARSED_BYTES, Kept, Listening, key_of, wishes
from midwatch.gateway.carried import Carried
from midwatch.gateway.house import House
from midwatch.gateway.http.port import Outgoing
from midwatch.gateway.waiting import Interrupted, Waiting

OUTCOME = "cached"


async def give(house: House, call: Carried, out: Outgoing, places: Sequence[Place]) -> bool:
    """Answer from what was kept, free of charge; False: there is nothing to give. While the ledger is down the
    answer is no: what an agent was given would stand nowhere."""
    may, _ = wishes(call)
    if house.answers is None or not may:
        return False
    kept = await house.answers.get(await _key(call, places), house.wall())
    if kept is None or call.killed is not None:
        call.cached = False
        return False
    refused = await _note(house, call, kept)
    if refused is not None:
        refusals.answer(out, call, refusals.budget(refused), house.now())
        return True
    call.cached, call.saved_nusd = True, kept.cost_nusd
    house.counts["cache.hit"] += 1
    told = [*call.told(house.now(), places[0]), ("x-midwatch-cost-usd", "0")]
    headers = [*kept.headers, *told]
    if not kept.stream:
        out.answer(kept.status, headers, b"".join(kept.pieces))
        return True
    out.begin(kept.status, headers)
    try:
        with Waiting(call, out):
            for piece in kept.pieces:
                await out.send(piece)
            out.end()
    except Interrupted:
        house.counts["client.gone_at_end"] += 1
        out.abort()
    return True


async def _key(call: Carried, places: Sequence[Place]) -> str:
    if not call.cache_key:
        if len(call.body) > PARSED_BYTES:  # hashing gives up Python's lock
            call.cache_key = await asyncio.to_thread(key_of, call, places)
        else:
            call.cache_key = key_of(call, places)
    return call.cache_key


async def _note(house: House, call: Carried, kept: Kept) -> Refused | None:
    """Write the call's row: it cost nothing, and saved what the answer had cost. Or return why it cannot be."""
    now = house.wall()
    answer = await house.ledger.reserve(
        Reservation(
            call.id, call.payer, 0, call.at, now + 60.0, call.limits, call.ask.model, call.ask.task, house.name
        )
    )  # fmt: skip
    if isinstance(answer, Refused):
        return answer
    call.admitted = answer
    house.ledger.settle(
        call.id,
        Charge(0, now, kept.model, kept.provider, saved_nusd=kept.cost_nusd, outcome=OUTCOME),
    )
    return None


def listen(house: House, call: Carried, out: Outgoing) -> Outgoing:
    """Return where the call's answer is to go: past somebody who listens, when it may be given again."""
    if house.answers is None or not any(wishes(call)):
        return out
    call.cached = False
    return Listening(out)


async def keep(house: House, call: Carried, heard: Outgoing, places: Sequence[Place]) -> None:
    """Keep an answer that has passed, when it may be given again."""
    if house.answers is None or not isinstance(heard, Listening) or not wishes(call)[1]:
        return
    kept = heard.kept(call, places[0], house.wall())
    if kept is not None:
        house.answers.put(await _key(call, places), kept)
        house.counts["cache.kept"] += 1
