"""Gives an answer again that was kept, and keeps those that may be given again (`cached`)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from midwatch.core.calls.budget import Admitted
from midwatch.core.calls.chain import Place
from midwatch.core.calls.charge import Charge, Reservation
from midwatch.gateway.cached import Kept, Listening, key_of, wishes
from midwatch.gateway.carried import Carried
from midwatch.gateway.house import House
from midwatch.gateway.http.port import ClientGone, Outgoing

OUTCOME = "cached"


async def give(house: House, call: Carried, out: Outgoing, places: Sequence[Place]) -> bool:
    """Answer from what was kept, free of charge; False: there is nothing to give."""
    may, _ = wishes(call)
    if house.answers is None or not may:
        return False
    kept = await house.answers.get(key_of(call, places), house.wall())
    if kept is None or call.killed is not None or not await _note(house, call, kept):
        call.cached = False
        return False
    call.cached, call.saved_nusd = True, kept.cost_nusd
    house.counts["cache.hit"] += 1
    served = next((p for p in places if (p.provider, p.model) == (kept.provider, kept.model)), None)
    told = [*call.told(house.now(), served), ("x-midwatch-cost-usd", "0")]
    headers = [*kept.headers, *told]
    if not kept.stream:
        out.answer(kept.status, headers, b"".join(kept.pieces))
        return True
    out.begin(kept.status, headers)
    try:
        for piece in kept.pieces:
            await out.send(piece)
        out.end()
    except ClientGone:
        house.counts["client.gone_at_end"] += 1
    return True


async def _note(house: House, call: Carried, kept: Kept) -> bool:
    """Write the call's row: it cost nothing, and saved what the answer had cost. False: the ledger is down,
    and the call goes its usual way."""
    now = house.wall()
    answer = await house.ledger.reserve(
        Reservation(
            call.id, call.payer, 0, call.at, now + 60.0, call.limits, call.ask.model, call.ask.task, house.name
        )
    )  # fmt: skip
    if not isinstance(answer, Admitted):
        return False
    call.admitted = answer
    house.ledger.settle(
        call.id,
        Charge(0, now, kept.model, kept.provider, saved_nusd=kept.cost_nusd, outcome=OUTCOME),
    )
    return True


@asynccontextmanager
async def keeping(
    house: House, call: Carried, out: Outgoing, places: Sequence[Place]
) -> AsyncGenerator[Outgoing]:
    """Let an answer pass, and keep it when it may be given again."""
    read, write = wishes(call)
    if house.answers is None or not (read or write):
        yield out
        return
    call.cached = False
    heard = Listening(out)
    yield heard
    kept = heard.kept(call, house.wall()) if write else None
    if kept is not None:
        house.answers.put(key_of(call, places), kept)
        house.counts["cache.kept"] += 1
