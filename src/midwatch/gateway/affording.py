"""Whether a call can be paid for: the reservation, a short wait for money that calls in flight give back, and the
tokens a day of models whose price nobody knows.
"""

from __future__ import annotations

from typing import Final

from midwatch.core.calls.budget import Admitted, Reason, Refused, unavailable
from midwatch.core.calls.chain import Place
from midwatch.core.calls.charge import By, CallQuery, Reservation
from midwatch.core.calls.exchange import Try
from midwatch.core.calls.period import Window
from midwatch.core.sealed import sealed
from midwatch.gateway import refusals
from midwatch.gateway.carried import Carried
from midwatch.gateway.dialects import Refusal
from midwatch.gateway.house import House
from midwatch.gateway.http.port import Outgoing
from midwatch.gateway.ledger.engine import LedgerDown
from midwatch.gateway.lines import MAX_WAITING, POLL_S, WAIT_S, WOKEN, Line, owner

EXPIRY_GRACE_S: Final = 60.0
"""A reservation outlives its call's deadline by so long: the settlement may be on its way."""

DAY_S: Final = 86_400.0


async def reserve(
    house: House, call: Carried, out: Outgoing, attempt: Try, worst_nusd: int
) -> Admitted | Refused:
    """Reserve what an attempt may cost at the most. A call that would fit but for those in flight waits for at most
    `WAIT_S`, in the line of the account that has the least left. Raises Interrupted."""
    wanted = Reservation(
        call_id=call.attempt_id(attempt),
        payer=call.payer,
        worst_nusd=worst_nusd,
        at=call.at,
        deadline_at=house.wall() + (attempt.deadline - house.now()) + EXPIRY_GRACE_S,
        limits=call.limits,
        model_asked=call.ask.model,
        task=call.ask.task,
        gateway=house.name,
        provider=attempt.place.provider,
        model=attempt.place.model,
        sent_key=attempt.key,
    )
    answer = await house.ledger.reserve(wanted)
    if _waits_for(answer) is None:
        return answer
    house.counts["budget.waited"] += 1
    until = house.now() + WAIT_S
    while (account := _waits_for(answer)) is not None and until > house.now():
        line = house.purse.lines.setdefault(account, Line())
        if len(line.waiting) >= MAX_WAITING:
            break
        place = line.join()
        try:
            while _waits_for(answer) == account and (left := until - house.now()) > 0:
                place = await line.pause(place, min(POLL_S, left), call, out)
                answer = await house.ledger.reserve(wanted)
        finally:
            line.waiting.remove(place)
            if not line.waiting:
                house.purse.lines.pop(account, None)
    return answer


def _waits_for(answer: Admitted | Refused) -> str | None:
    """Return the account whose calls in flight may give back enough within moments; None: do not wait."""
    if isinstance(answer, Admitted) or answer.reason is not Reason.IN_FLIGHT:
        return None
    return answer.limit.account if answer.limit is not None else None


def settled(house: House, call: Carried) -> None:
    """A call's reservation has become smaller: let those who wait for the same money ask again."""
    lines = house.purse.lines
    if lines:
        for account in call.payer.accounts():
            if account in lines:
                lines[account].wake(WOKEN)


@sealed
class Share:
    """Tokens taken of a day's share for models without a known price: given back once."""

    whose: tuple[str, str]
    """Owner and day."""
    tokens: int


async def take_unpriced(
    house: House, call: Carried, place: Place, tokens: int
) -> Share | Refusal | Refused:
    """Take tokens of the day's share for models without a known price (`models.unknown_cap`), or say why not.

    What an agent used is read from the ledger once, and then known to this process: several gateways
    each let it have its share.
    """
    name, calendar = owner(call), house.ledger.calendar
    ends = calendar.ends(Window.DAY, call.at) or call.at + DAY_S
    key = (name, calendar.period(Window.DAY, call.at))
    shares = house.purse.unpriced
    if key not in shares:
        try:
            used = await _used(house, call, ends - DAY_S)
        except LedgerDown as down:
            return unavailable(str(down))
        for old in [one for one in shares if one[1] != key[1]]:
            del shares[old]
        shares.setdefault(key, used)
    cap = call.settings.models.unknown_cap
    if shares[key] + tokens > cap:
        return refusals.unpriced_share(place, name, cap, shares[key], ends - call.at, ends)
    shares[key] += tokens
    return Share(key, tokens)


def settle_unpriced(house: House, share: Share, used: int) -> None:
    """Give back what an attempt did not use of the day's share."""
    if share.whose in house.purse.unpriced:
        house.purse.unpriced[share.whose] += used - share.tokens


async def _used(house: House, call: Carried, since: float) -> int:
    """Return the tokens that an agent, or a key, used since then of models without a price. Raises LedgerDown."""
    agent = call.payer.agent.partition(":")[0]
    query = CallQuery(
        agent=agent or None, key=None if agent else call.payer.key, since=since, limit=100_000
    )
    settings, total = call.settings, 0
    for row in await house.ledger.cost(By.MODEL, query):
        model = row.name
        if not any(
            settings.shelf.find(name, provided.seller, model).prices(call.at)
            for name, provided in settings.providers.items()
        ):
            total += row.input_tokens + row.output_tokens
    return total
