"""What tests and people ask of the rehearsal model at run time: its calls, and its misbehaviour.

GET    /rehearsal/calls?after=N&limit=M&model=NAME     what was asked, oldest first
DELETE /rehearsal/calls                                forget it
GET    /rehearsal/behave                               what is in force, and how often it applied
POST   /rehearsal/behave                               one behaviour, or a list; newest first in force
DELETE /rehearsal/behave[?id=N]                        lift one, or all
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any, cast

from midwatch.drills.rehearsal import behave
from midwatch.drills.rehearsal.calls import Calls
from midwatch.drills.rehearsal.http import Reply, Request, json_reply


class Control:
    """The routes under /rehearsal."""

    def __init__(self, calls: Calls, orders: behave.Orders) -> None:
        self._calls = calls
        self._orders = orders
        self.routes: dict[tuple[str, str], Callable[[Request], Awaitable[Reply]]] = {
            ("GET", "/rehearsal/calls"): self._list_calls,
            ("DELETE", "/rehearsal/calls"): self._clear_calls,
            ("GET", "/rehearsal/behave"): self._list_orders,
            ("POST", "/rehearsal/behave"): self._add_orders,
            ("DELETE", "/rehearsal/behave"): self._clear_orders,
        }

    async def _list_calls(self, request: Request) -> Reply:
        after, limit = request.query.get("after", "0"), request.query.get("limit", "1000")
        if not (_is_number(after) and _is_number(limit)):
            return _wrong(f"after and limit: expected numbers, got {after!r} and {limit!r}")
        return json_reply(self._calls.page(int(after), int(limit), request.query.get("model")))

    async def _clear_calls(self, _request: Request) -> Reply:
        return json_reply({"cleared": self._calls.clear()})

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


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 16


def _wrong(message: str) -> Reply:
    return json_reply({"error": {"message": message}}, 400)
