"""Questions to the gateway that come by way of the hub: keys, prices, health, cost, policy.

What decides about an agent (holds, runs, reloads) is not asked here: it is the supervisor's own to say, by the
orders that know of the agent's process, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from midwatch.core.errors import LinkError
from midwatch.supervisor.orders import Outcome
from midwatch.supervisor.switchboard import Switchboard, words_of

OPEN: Final = re.compile(
    r"/control/(?:state|keys|prices|health|budgets|cost|calls|audit|policy)(?:/[^/?#]{1,200}){0,2}(?:\?[^#]{0,2000})?"
)

METHODS: Final = ("GET", "POST")

PATIENCE_S: Final = 15.0
"""A sum over many calls takes its time; the hub waits longer."""


class Counter:
    """Where questions to the gateway are handed in."""

    def __init__(self, board: Switchboard) -> None:
        self._board = board

    async def carry_out(self, data: Mapping[str, Any]) -> Outcome:
        """Pass a question on; `data` of the outcome holds `status` and `body` of the gateway's answer."""
        method, path = str(data.get("method") or "GET").upper(), str(data.get("path") or "")
        if method not in METHODS or OPEN.fullmatch(path) is None or not _clean(path):
            return _no(
                422,
                f"{method[:10]} {path[:100]!r} is not asked by this way; see docs/reference/gateway.md",
            )
        try:
            status, body = await self._board.ask(method, path, data.get("body"), PATIENCE_S)
        except LinkError as error:
            return _no(503, f"the gateway does not answer: {error}")
        if path == "/control/state":
            body = {**body, "past": self._board.told_past()}
        return Outcome(
            words_of(body)[:1000] if status >= 400 else "answered",
            "answered" if status < 400 else "refused",
            {"status": status, "body": body},
        )


def _clean(path: str) -> bool:
    """Tell whether a path, which becomes a line of a request, is plain: visible characters, no way up."""
    return path.isascii() and path.isprintable() and " " not in path and ".." not in path


def _no(status: int, why: str) -> Outcome:
    return Outcome(why[:1000], "refused", {"status": status, "body": {}})
