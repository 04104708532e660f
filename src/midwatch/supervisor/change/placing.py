"""Where a rolled-back agent's code is had from: looked up and checked out in a worker thread, told in the loop's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from midwatch.core.versions import Revision, code_change
from midwatch.supervisor.change import checkout
from midwatch.supervisor.change.good import Back
from midwatch.supervisor.change.worktree import Placed, Unavailable, Worktrees
from midwatch.supervisor.tasks import Tasks


@dataclass(frozen=True, slots=True)
class Supply:
    """What is known of an agent's code before a start of what was good."""

    failed: Revision | None
    """What is checked out in its directory; None: no git any more."""
    placed: Placed | None = None
    """Where the good code lies; None: in its directory, or nowhere."""
    why: str = ""
    """Why it cannot be had."""
    tried: bool = True
    """What is there is what failed; False: somebody has changed it since."""


CheckOut = Callable[[str, Revision, Back, str, Callable[[Supply], None]], None]
"""(directory, the good revision, what was taken back, why not, done): `done` is called once, later. `why not`
is why the good code cannot be had, where that is known: then it is only looked whether it changed."""


class Placing:
    """Answers for one instance."""

    def __init__(self, worktrees: Worktrees, tasks: Tasks) -> None:
        self._worktrees = worktrees
        self._tasks = tasks

    def ask(
        self,
        directory: str,
        wanted: Revision,
        back: Back,
        why_not: str,
        done: Callable[[Supply], None],
    ) -> None:
        """Look what is there now, and check out the good revision where that is another."""

        def look() -> Supply:
            there = checkout.revision(Path(directory), dirty=True)
            if not back.tried(there):
                return Supply(there, tried=False)
            if there is not None and not code_change(wanted, there):
                return Supply(there)
            if why_not:
                return Supply(there, why=why_not)
            try:
                placed = self._worktrees.place(directory, wanted, there.commit if there else None)
            except Unavailable as error:
                return Supply(there, why=str(error))
            return Supply(there, placed)

        async def work() -> None:
            done(await asyncio.to_thread(look))

        self._tasks.spawn(work(), "worktree")
