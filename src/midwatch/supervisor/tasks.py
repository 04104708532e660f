"""The one place that makes asyncio tasks: keeps a reference, reports a death."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Tasks:
    """All tasks of the supervisor."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.died = 0
        self._say = say
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._over)
        return task

    def names(self) -> set[str]:
        """Return the names of those that go on."""
        return {task.get_name() for task in self._tasks if not task.done()}

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.died += 1
            self._say(f"midwatch: the task {task.get_name()!r} died: {error!r}; please report this")

    async def cancel(self) -> None:
        """Cancel all and wait until they are over."""
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
