"""Orders and answers on their way between the gateway and its ledger's process: JSON, a length before each message.

Lists without names, since there are four messages for each call. Limits, which most calls of an agent share, cross
once and are known by a number from then on. Both ends are of one program and one start.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import astuple, fields
from functools import lru_cache
from typing import Any, Final, cast
from zoneinfo import ZoneInfo

from pydantic_core import from_json, to_json

from midwatch.core.calls.account import Payer
from midwatch.core.calls.budget import Admitted, Left, Limit, Notice, Reason, Refused
from midwatch.core.calls.charge import Charge, Reservation
from midwatch.core.calls.period import Calendar, Window
from midwatch.gateway.ledger.books import Answer, Settled
from midwatch.gateway.ledger.orders import (
    Expire,
    Look,
    Note,
    Order,
    Pass,
    Release,
    Reserve,
    Roll,
    Settle,
)

MAX_LIMITS: Final = 2_000
"""Sets of limits that are known by a number; then both sides begin anew."""

_SIZE: Final = 4
"""Bytes of a message's length."""

_PLAIN: Final[dict[str, type[Any]]] = {
    one.__name__: one for one in (Release, Note, Expire, Roll, Pass)
}
"""Orders that are their fields, and nothing else."""

Limits = tuple[Limit, ...]
Packed = list[Any]


def frame(message: object) -> bytes:
    """Return a message as it is sent. Raises ValueError, TypeError or RecursionError for what is no JSON."""
    try:
        data = to_json(message)
    except ValueError:
        data = json.dumps(message).encode()  # half a character, which only that can write
    return len(data).to_bytes(_SIZE) + data


class Frames:
    """Messages out of pieces of a stream."""

    def __init__(self) -> None:
        self._rest = b""

    def take(self, piece: bytes) -> list[Any]:
        """Return the messages that are whole with this piece."""
        data = self._rest + piece if self._rest else piece
        at, end = _SIZE, len(data)
        found: list[Any] = []
        while at <= end:
            stop = at + int.from_bytes(data[at - _SIZE : at])
            if stop > end:
                break
            found.append(_read(data[at:stop]))
            at = stop + _SIZE
        self._rest = data[at - _SIZE :]
        return found


def _read(data: bytes) -> Any:
    try:
        return from_json(data)
    except ValueError:
        return json.loads(data)


class Packer:
    """Packs orders; the other side's `Unpacker` has seen all that this one has made."""

    def __init__(self) -> None:
        self._numbers: dict[int, tuple[int, Limits]] = {}
        """By the identity of what is kept along, so that nothing else can take it."""

    def order(self, order: Order) -> Packed:
        """Return an order as it is sent."""
        if isinstance(order, Reserve):
            asked = order.reservation
            payer = asked.payer
            return [
                "Reserve",
                (payer.agent, payer.entry, payer.group, payer.run, payer.session, payer.key),
                dict(payer.tags) if payer.tags else None,
                self._limits(asked.limits),
                (
                    asked.model_asked, asked.task, asked.gateway, asked.provider, asked.model, asked.sent_key,
                ),
                asked.call_id, asked.worst_nusd, asked.at, asked.deadline_at,
            ]  # fmt: skip
        if isinstance(order, Settle):
            one = order.charge
            return [
                "Settle", order.call_id, order.exact, order.by,
                one.cost_nusd, one.at, one.model, one.provider, dict(one.usage), one.input_tokens,
                one.output_tokens, one.price_version, dict(one.costs), one.disputed, one.estimated,
                one.saved_nusd, list(one.attempts), one.outcome,
            ]  # fmt: skip
        if isinstance(order, Look):
            return ["Look", limits_out(order.limits), order.at]
        return [type(order).__name__, *(getattr(order, field.name) for field in fields(order))]

    def _limits(self, limits: Limits) -> int | Packed:
        known = self._numbers.get(id(limits))
        if known is not None:
            return known[0]
        if len(self._numbers) >= MAX_LIMITS:
            self._numbers.clear()
        number = len(self._numbers)
        self._numbers[id(limits)] = number, limits
        return [number, limits_out(limits)]


class Unpacker:
    """Makes orders again."""

    def __init__(self) -> None:
        self._limits: dict[int, Limits] = {}

    def order(self, packed: Packed) -> Order:
        """Return the order that was packed."""
        kind, *parts = packed
        if kind == "Reserve":
            whose, tags, limits, names, call_id, worst, at, deadline_at = parts
            agent, entry, group, run, session, key = whose
            if tags is None:
                payer = _payer(agent, entry, group, run, session, key)
            else:
                payer = Payer(agent, entry, group, run, session, key, tags)
            known = self._known(limits)
            return Reserve(Reservation(call_id, payer, worst, at, deadline_at, known, *names))
        if kind == "Settle":
            call_id, exact, by, *charge = parts
            return Settle(call_id, Charge(*charge), exact, by)
        if kind == "Look":
            return Look(limits_in(parts[0]), parts[1])
        return cast("Order", _PLAIN[kind](*parts))

    def _known(self, limits: int | Packed) -> Limits:
        if isinstance(limits, int):
            return self._limits[limits]
        number, fresh = limits
        self._limits[number] = found = limits_in(fresh)
        return found


@lru_cache(4096)
def _payer(
    agent: str, entry: str, group: str | None, run: str | None, session: str | None, key: str | None
) -> Payer:
    return Payer(agent, entry, group, run, session, key)


def limits_out(limits: Sequence[Limit]) -> list[Packed]:
    """Return limits as they are sent."""
    return [list(astuple(limit)) for limit in limits]


def limits_in(packed: Sequence[Packed]) -> Limits:
    """Return limits that were packed."""
    return tuple([_limit(one) for one in packed])


def _limit(packed: Packed) -> Limit:
    account, window, *rest = packed
    return Limit(account, Window(window), *rest)


def ended_out(order: Order, answer: Answer) -> object:
    """Return the answer to an order that nobody waits for: of most of them the result is all that is counted."""
    if isinstance(answer, Settled) and not answer.over_nusd:
        return answer.result
    return answer_out(order, answer)


def answer_out(order: Order, answer: Answer) -> object:
    """Return an answer as it is sent."""
    if isinstance(answer, Admitted):
        limits = order.reservation.limits if isinstance(order, Reserve) else ()
        at = next((n for n, one in enumerate(limits) if one is answer.limit), None)
        return ["Admitted", answer.left_nusd, at]
    if isinstance(answer, Settled):
        return ["Settled", answer.result, answer.cost_nusd, answer.over_nusd]
    if isinstance(answer, Refused):
        return ["Refused", *astuple(answer)]
    if isinstance(answer, tuple):
        return ["Left", *map(astuple, answer)]
    if isinstance(answer, list):
        return ["ids", *answer]
    return answer


def answer_in(order: Order, packed: Any) -> Answer:
    """Return the answer that was packed."""
    if not isinstance(packed, list):
        return cast("int | None", packed)
    kind, *parts = cast("Packed", packed)
    if kind == "Admitted":
        left_nusd, at = parts
        limits: Limits = order.reservation.limits if isinstance(order, Reserve) else ()
        return Admitted(left_nusd, None if at is None else limits[int(at)])
    if kind == "Settled":
        return Settled(*parts)
    if kind == "Refused":
        reason, sentence, retry_after_s, renews_at, limit, *rest = parts
        known = None if limit is None else _limit(limit)
        return Refused(Reason(reason), sentence, retry_after_s, renews_at, known, *rest)
    if kind == "Left":
        return tuple([Left(_limit(limit), *rest) for limit, *rest in parts])
    return [str(one) for one in parts]


def notice_in(packed: Packed) -> Notice:
    """Return a notice that was sent as its fields (`astuple`)."""
    kind, limit, *rest = packed
    return Notice(kind, _limit(limit), *rest)


def calendar_out(calendar: Calendar) -> Packed:
    """Return a calendar as it is sent: the zone's name, and its own."""
    return [str(calendar.zone), calendar.name]


def calendar_in(packed: Packed) -> Calendar:
    """Return the calendar that was packed."""
    zone, name = packed
    return Calendar(ZoneInfo(zone), name)
