"""What tests and people ask of the rehearsal model at run time: its calls, and its misbehaviour.

GET    /rehearsal/calls?after=N&limit=M&model=NAME     what was asked, oldest first
DELETE /rehearsal/calls                                forget it
GET    /rehearsal/behave                               what is in force, and how often it applied
POST   /rehearsal/behave                               one behaviour, or a list; newest first in force
DELETE /rehearsal/behave[?id=N]                        lift one, or all
GET    /rehearsal/billed                               what the provider would bill: in all, by model
GET    /rehearsal/billed/calls?call=ID&after=N&limit=M&model=NAME    the same, call by call
DELETE /rehearsal/billed                               begin a new invoice
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, cast

from midwatch.drills.rehearsal import behave
from midwatch.drills.rehearsal.billed import Billed
from midwatch.drills.rehearsal.calls import Calls
from midwatch.drills.rehearsal.http import Reply, Request, json_reply
from midwatch.drills.rehearsal.orders import Orders


class Control:
    """The routes under /rehearsal."""

    def __init__(self, calls: Calls, orders: Orders, billed: Billed) -> None:
        self._calls = calls
        self._orders = orders
        self._billed = billed
        self.routes: dict[tuple[str, str], Callable[[Request], Awaitable[Reply]]] = {
            ("GET", "/rehearsal/calls"): self._list_calls,
            ("DELETE", "/rehearsal/calls"): self._clear_calls,
            ("GET", "/rehearsal/behave"): self._list_orders,
            ("POST", "/rehearsal/behave"): self._add_orders,
            ("DELETE", "/rehearsal/behave"): self._clear_orders,
            ("GET", "/rehearsal/billed"): self._sums,
            ("GET", "/rehearsal/billed/calls"): self._bills,
            ("DELETE", "/rehearsal/billed"): self._reset_billed,
        }

    async def _list_calls(self, request: Request) -> Reply:
        page = _page(request)
        if isinstance(page, Reply):
            return page
        return json_reply(self._calls.page(*page, request.query.get("model")))

    async def _clear_calls(self, _request: Request) -> Reply:
        return json_reply({"cleared": self._calls.clear()})

    async def _sums(self, _request: Request) -> Reply:
        return json_reply(self._billed.sums())

    async def _bills(self, request: Request) -> Reply:
        page = _page(request)
        if isinstance(page, Reply):
            return page
        call, model = request.query.get("call"), request.query.get("model")
        return json_reply(self._billed.calls(*page, call, model))

    async def _reset_billed(self, _request: Request) -> Reply:
        return json_reply({"cleared": self._billed.reset()})

    async def _list_orders(self, _request: Request) -> Reply:
        return json_reply({"behaviours": self._orders.listed()})

    async def _add_orders(self, request: Request) -> Reply:
        try:
            value = json.loads(request.body)
            many = cast("list[Any]", value) if isinstance(value, list) else [value]
            orders = [behave.read(one) for one in many]  # all are read before one is in force
            return json_reply({"ids": [self._orders.add(order) for order in orders]})
        except (ValueError, RecursionError) as error:
            return _wrong(f'{error}; write for example {{"mode": "slow", "first_token": "2s"}}')

    async def _clear_orders(self, request: Request) -> Reply:
        number = request.query.get("id")
        if number is not None and not _is_number(number):
            return _wrong(f"id: expected a number, got {number!r}")
        return json_reply({"cleared": self._orders.clear(None if number is None else int(number))})


def _page(request: Request) -> tuple[int, int] | Reply:
    """Return `after` and `limit` of a query, or the answer to one that is wrong."""
    after, limit = request.query.get("after", "0"), request.query.get("limit", "1000")
    if not (_is_number(after) and _is_number(limit)):
        return _wrong(f"after and limit: expected numbers, got {after!r} and {limit!r}")
    return int(after), int(limit)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 16


def _wrong(message: str) -> Reply:
    return json_reply({"error": {"message": message}}, 400)
