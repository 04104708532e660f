"""Questions to a ledger's database, answered one after the other in a thread of their own.

Never more than `MAX_QUESTIONS` wait, and none longer than `READ_S`: one that goes through years of calls, or a disk
that hangs, keeps nobody waiting for ever. What is not answered in time goes on in the thread, and while it does so for
longer than that, nobody is sent to wait behind it.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from midwatch.gateway.ledger.engine import Engine, LedgerDown

READ_S: Final = 30.0
"""The longest that somebody waits for an answer."""

MAX_QUESTIONS: Final = 500
"""Questions that may wait; more are refused at once."""

T = TypeVar("T")


class Questions:
    """Of one engine, which nobody else uses. `counts`: ("unanswered", reason) → how often."""

    def __init__(self, engine: Engine, counts: Counter[tuple[str, str]]) -> None:
        self._engine = engine
        self._counts = counts
        self._waiting = 0
        self._began: float | None = None
        """When the question began that is being answered; set in the thread."""
        self._is_open = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ledger reader")

    async def ask(self, question: Callable[[], T], within_s: float = READ_S) -> T:
        """Return the answer. Raises LedgerDown."""
        began = self._began
        if began is not None and time.monotonic() - began > within_s:
            self._counts["unanswered", "stuck"] += 1
            raise LedgerDown(f"a question has kept the ledger for {within_s:g} s", "stuck")
        if self._waiting >= MAX_QUESTIONS:
            self._counts["unanswered", "crowded"] += 1
            raise LedgerDown(f"{MAX_QUESTIONS} questions wait for the ledger", "crowded")
        self._waiting += 1
        try:
            asked = self._thread.submit(self._answer, question)
        except RuntimeError:
            self._waiting -= 1
            raise LedgerDown("the ledger is closed", "closed") from None
        try:
            async with asyncio.timeout(within_s):
                return await asyncio.wrap_future(asked)
        except TimeoutError:
            self._counts["unanswered", "slow"] += 1
            raise LedgerDown(
                f"the ledger did not answer a question in {within_s:g} s", "slow"
            ) from None
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Close the engine behind what is being answered; do not wait for it."""
        self._thread.submit(self._engine.close)
        self._thread.shutdown(wait=False)

    def _answer(self, question: Callable[[], T]) -> T:
        self._began = time.monotonic()
        try:
            if not self._is_open:
                self._engine.open()
                self._is_open = True
            return question()
        except LedgerDown as error:
            if error.lost:
                self._engine.close()
                self._is_open = False
            raise
        finally:
            self._began = None
