"""How many names an agent may bring into the ledger: its sub-agents, sessions and values of tags are its own words,
and each is an account for which balances are kept.

Per key's owner and day so many are told apart; what comes beyond is charged to the one name `~other` of its kind,
so that the sums above it stay whole, and is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from midwatch.core.calls.account import Payer
from midwatch.core.walltime import DAY_S

OTHER: Final = "~other"

MAX_NEW: Final = {"sub-agent": 500, "session": 5_000, "tag": 50, "value": 1_000}
"""Names of one kind, of one owner, on one day (UTC); of tags their names, and their values in all."""


class Names:
    """Names that were brought today, by owner and kind."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts
        self._day = -1
        self._known: dict[tuple[str, str], set[int]] = {}

    def bound(self, payer: Payer, at: float) -> Payer:
        """Return the payer with the names that it may have at `at` (Unix seconds)."""
        if payer.session is None and not payer.tags and ":" not in payer.agent:
            return payer
        day = int(at // DAY_S)
        if day != self._day:
            self._day = day
            self._known.clear()
        top, colon, below = payer.agent.partition(":")
        owner = payer.entry or top or f"key {payer.key}"
        agent, session, tags = payer.agent, payer.session, payer.tags
        if colon and not self._tells(owner, "sub-agent", below):
            agent = f"{top}:{OTHER}"
        if session is not None and not self._tells(owner, "session", session):
            session = OTHER
        if tags:
            tags = self._tags(owner, tags)
        if agent == payer.agent and session == payer.session and tags == payer.tags:
            return payer
        return replace(payer, agent=agent, session=session, tags=tags)

    def _tags(self, owner: str, tags: Mapping[str, str]) -> dict[str, str]:
        kept: dict[str, str] = {}
        for name, value in tags.items():
            if not self._tells(owner, "tag", name):
                kept[OTHER] = OTHER
            elif self._tells(owner, "value", f"{name}={value}"):
                kept[name] = value
            else:
                kept[name] = OTHER
        return kept

    def _tells(self, owner: str, kind: str, name: str) -> bool:
        known = self._known.setdefault((owner, kind), set())
        digest = hash(name)
        if digest in known:
            return True
        if len(known) < MAX_NEW[kind]:
            known.add(digest)
            return True
        self._counts[f"names.{kind}_other"] += 1
        return False
