"""Sends actions to the nodes and brings back their answers, retrying until answered or needless.

An action stands in its incident as pending before it is sent; after a restart of the hub the watch
hands over what is still pending, so it may be sent twice: every action is harmless when repeated.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

from midwatch.core.errors import LinkError
from midwatch.core.ports import NodeLink

RETRY_S: Final = (1.0, 30.0)
"""First and longest delay between attempts."""

log = logging.getLogger(__name__)


class Actions:
    """One task per pending action. `done` records the node's answer in the incident."""

    def __init__(
        self,
        link: NodeLink,
        *,
        is_wanted: Callable[[str, str], bool],
        done: Callable[[str, str, str], Awaitable[None]],
    ) -> None:
        self._link = link
        self._is_wanted = is_wanted
        self._done = done
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self.answered = 0
        self.failed_attempts = 0

    def begin(self, incident_id: str, agent: str, do: str, by: str) -> None:
        """Send an action in the background, unless it is under way. `by`: who wants it, in words."""
        key = (incident_id, do)
        if key not in self._tasks:
            task = asyncio.get_running_loop().create_task(
                self._carry(incident_id, agent, do, by), name=f"{do} {agent}"
            )
            self._tasks[key] = task
            task.add_done_callback(lambda _: self._tasks.pop(key, None))

    async def stop(self) -> None:
        """Let go of what is under way; it stays pending in its incident."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _carry(self, incident_id: str, agent: str, do: str, by: str) -> None:
        wait = RETRY_S[0]
        while self._is_wanted(incident_id, do):
            try:
                reply = await self._link.send(agent, do, by=by)
            except LinkError as error:
                self.failed_attempts += 1
                log.warning("cannot %s %s yet, trying again in %g s: %s", do, agent, wait, error)
                await asyncio.sleep(wait)
                wait = min(RETRY_S[1], wait * 2)
                continue
            self.answered += 1
            await self._done(incident_id, do, reply.result)
            return
