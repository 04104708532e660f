"""Where a rolled-back agent's code is had from: looked up and checked out in a worker thread, told in the loop's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from midwatch.core.versions import Revision
from midwatch.supervisor.change import checkout
from midwatch.supervisor.change.good import Back
from midwatch.supervisor.change.worktree import Placed, Unavailable, Worktrees
from midwatch.supervisor.tasks import Tasks

Answer = Placed | str | None
"""Where it is; or why it cannot be had; or None: what is there now is not what failed."""

CheckOut = Callable[[str, Revision, Back, Callable[[Answer], None]], None]
"""(directory, the good revision, what was taken back, done): `done` is called once, later."""


class Placing:
    """Answers for one instance."""

    def __init__(self, worktrees: Worktrees, tasks: Tasks) -> None:
        self._worktrees = worktrees
        self._tasks = tasks

    def ask(
        self, directory: str, wanted: Revision, back: Back, done: Callable[[Answer], None]
    ) -> None:
        """Look whether the code that failed is still there, and check out the good one."""

        def look() -> Answer:
            if not back.tried(checkout.revision(Path(directory), dirty=True)):
                return None
            try:
                return self._worktrees.place(directory, wanted, back.commit or None)
            except Unavailable as error:
                return str(error)

        async def work() -> None:
            done(await asyncio.to_thread(look))

        self._tasks.spawn(work(), "worktree")
