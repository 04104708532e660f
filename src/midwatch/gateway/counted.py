"""News that are counted, and told to nobody: a gateway by itself, and tests."""

# ruff: noqa: ARG002  what comes is `house.Tell`'s to say

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from midwatch.core.calls.policy import Judged, Verdict
from midwatch.core.calls.route import Change
from midwatch.gateway.carried import Attempted, Carried
from midwatch.gateway.paces import Seen


@dataclass(slots=True)
class Counted:
    """A `Tell`."""

    counts: Counter[str]

    def change(self, change: Change, call: Carried) -> None:
        self.counts[f"told.{change.kind}"] += 1

    def shadow(self, call: Carried, judged: Judged) -> None:
        self.counts["told.policy.shadow"] += 1

    def policy(self, call: Carried, verdict: Verdict) -> None:
        self.counts["told.policy"] += 1

    def loop(self, call: Carried, seen: Seen, then: str | None = None) -> None:
        self.counts["told.loop"] += 1

    def failed(self, call: Carried, attempt: Attempted) -> None:
        self.counts["told.failed"] += 1

    def revoked(self, key: str, agent: str, why: str) -> None:
        self.counts["told.revoked"] += 1

    def pool(self, provider: str) -> None:
        self.counts["told.pool"] += 1

    def ended(self, call: Carried, *, cached: bool = False, saved_nusd: int = 0) -> None:
        self.counts["told.call"] += 1
