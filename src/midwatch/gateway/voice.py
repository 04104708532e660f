"""The gateway's word to the hub while it lives: one transport with a spool of its own, one `Telling`."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final, cast

from midwatch.core import access
from midwatch.core.calls.charge import Call, CallQuery, CallState
from midwatch.gateway.app import App, Options, secret_of
from midwatch.gateway.ledger.engine import LedgerDown
from midwatch.gateway.sending import transport
from midwatch.gateway.telling import Telling

MAX_FOUND: Final = 10_000
"""Calls of an earlier life that are looked at."""

CLOSE_S: Final = 2.0
"""How long the last news may take; what remains waits in the spool."""


class Voice:
    """Made before the app, begun after it. Raises SetupError without a secret to sign by."""

    def __init__(self, options: Options) -> None:
        token = access.mint_node(secret_of(options.data), options.node)
        spool = options.data / "spool" / "gateway"
        self._transport = transport(options.hub_url or "", token, str(spool), options.name)
        self.telling = Telling(self._transport)
        self._keeping: asyncio.Task[None] | None = None

    async def begin(self, app: App) -> None:
        """Tell of a gateway that is ready, and go on telling."""
        self.telling.join(app.house)
        app.untold = self.untold
        app.in_contact = lambda: bool(self._transport.statistics()["in_contact"])
        self._transport.start()
        found = await _left_open(app)
        self.telling.ready(
            app.house.settings.problems, len(found), sum(c.reserved_nusd for c in found)
        )
        self._keeping = asyncio.get_running_loop().create_task(self.telling.keep())

    async def end(self) -> None:
        """Tell what waits, for at most `CLOSE_S`."""
        if self._keeping is not None:
            self._keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeping
        self.telling.close()
        await asyncio.to_thread(self._transport.close, CLOSE_S)

    def untold(self) -> Mapping[str, int]:
        """Return what was lost on the way to the hub, by reason."""
        lost = cast("Mapping[str, Any]", self._transport.statistics()["lost"])
        return Counter(self.telling.counts) + Counter({k: int(v) for k, v in lost.items()})


async def _left_open(app: App) -> list[Call]:
    """Return the calls that this gateway, by its name, had in flight when it ended before its time."""
    try:
        found = await app.ledger.calls(CallQuery(state=CallState.OPEN, limit=MAX_FOUND))
    except LedgerDown:
        return []  # they count all the same; a ledger that is away says so itself
    return [call for call in found if call.gateway == app.house.name]
