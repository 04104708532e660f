"""`/readyz`: can the hub write and query, really? Both stores are asked, at most once a second."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from midwatch.core.errors import StoreError

CACHE_S: Final = 1.0
"""An answer is given again for this long, so that probes cannot load the stores."""

TIMEOUT_S: Final = 3.0
"""A store that does not answer within this time is not ready."""


class Health:
    """`checks` are coroutines by name; each raises StoreError that says why not."""

    def __init__(self, checks: dict[str, Callable[[], Awaitable[None]]]) -> None:
        self._checks = checks
        self._known: dict[str, str] = {}
        self._known_at = float("-inf")
        self._lock = asyncio.Lock()

    async def ready(self) -> dict[str, str]:
        """Return `ok` or the reason why not, by check."""
        async with self._lock:
            if time.monotonic() - self._known_at >= CACHE_S:
                names = list(self._checks)
                results = await asyncio.gather(*(self._ask(name) for name in names))
                self._known = dict(zip(names, results, strict=True))
                self._known_at = time.monotonic()
            return self._known

    async def _ask(self, name: str) -> str:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self._checks[name]()
        except StoreError as error:
            return str(error)
        except TimeoutError:
            return f"no answer within {TIMEOUT_S:.0f} s"
        return "ok"
