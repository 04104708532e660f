"""Takes orders from the hub by a long poll, and sends back what came of them.

The hub may be away for any time: the poll is tried again with a capped back-off, and no agent
notices.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, Final, cast
from urllib.parse import quote

from midwatch.core.errors import LinkError
from midwatch.supervisor import http
from midwatch.supervisor.orders import Orders
from midwatch.supervisor.tasks import Tasks

WAIT_S: Final = 25
"""How long the hub holds the poll open."""

PAUSE_S: Final = (0.1, 2.0)
"""First and longest pause after a failed poll."""


class Link:
    """The line to one hub."""

    def __init__(self, url: str, node: str, token: str, orders: Orders, tasks: Tasks) -> None:
        self.polls = 0
        self.failures = 0
        self.commands = 0
        self.replies_lost = 0
        self._base = f"{url}/api/nodes/{quote(node, safe='')}"
        self._headers = {"Authorization": f"Bearer {token}"}
        self._orders = orders
        self._tasks = tasks

    async def follow(self) -> None:
        """Poll until cancelled."""
        pause = PAUSE_S[0]
        while True:
            try:
                commands = await self._poll()
                pause = PAUSE_S[0]
            except LinkError:
                self.failures += 1
                await asyncio.sleep(pause)
                pause = min(PAUSE_S[1], pause * 2)
                continue
            for command in commands:
                self.commands += 1
                self._tasks.spawn(self._carry_out(command), "order")

    async def _poll(self) -> list[dict[str, Any]]:
        self.polls += 1
        answer = await http.request(
            "GET",
            f"{self._base}/commands?wait={WAIT_S}",
            headers=self._headers,
            timeout_s=WAIT_S + 10.0,
        )
        if answer.status == 204:
            return []
        if answer.status != 200:
            raise LinkError(f"the hub answered {answer.status} to the poll for orders")
        try:
            found = json.loads(answer.body)
        except ValueError as error:
            raise LinkError("the hub's answer to the poll is not JSON") from error
        if not isinstance(found, list):
            raise LinkError("the hub's answer to the poll is not a list")
        items: list[Any] = found  # pyright: ignore[reportUnknownVariableType]
        return [item for item in items if isinstance(item, dict)]

    async def _carry_out(self, command: dict[str, Any]) -> None:
        agent, do = str(command.get("agent")), str(command.get("do"))
        given: object = command.get("data")
        data = cast("dict[str, Any]", given) if isinstance(given, dict) else {}
        outcome = await self._orders.obey(agent, do, str(command.get("by") or "a person"), data)
        said = {"id": command.get("id"), "result": outcome.result, "state": outcome.state}
        if outcome.data:
            said["data"] = outcome.data
        reply = json.dumps([said]).encode()
        try:
            answer = await http.request(
                "POST", f"{self._base}/replies", headers=self._headers, body=reply, timeout_s=5.0
            )
            self.replies_lost += answer.status >= 400
        except LinkError:
            self.replies_lost += 1  # the hub sends an action again that it got no reply for
