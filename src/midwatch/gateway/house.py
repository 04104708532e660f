"""What all calls of one gateway share. Made once; `settings` and `health` are replaced at reload."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from midwatch.core.calls.policy import Judged, Verdict
from midwatch.core.calls.route import Change, Health
from midwatch.gateway.cached import Cache
from midwatch.gateway.carried import Attempted, Carried
from midwatch.gateway.ledger.port import Ledger
from midwatch.gateway.lines import Purse
from midwatch.gateway.paces import Seen
from midwatch.gateway.recording import Records
from midwatch.gateway.settings import Settings
from midwatch.gateway.upstream.port import Upstream


class Tell(Protocol):
    """Where the gateway's news goes."""

    def change(self, change: Change, call: Carried) -> None:
        """A breaker or a key changed because of a call."""
        ...

    def shadow(self, call: Carried, judged: Judged) -> None:
        """A rule in shadow would have acted."""
        ...

    def policy(self, call: Carried, verdict: Verdict) -> None:
        """A rule denied or moved the call."""
        ...

    def loop(self, call: Carried, seen: Seen, then: str | None = None) -> None:
        """An agent's pace, or what it repeats, is out of the usual. `then`: its calls are refused from now on, and
        what is to follow (`suspend`, `restart`, `stop`); None: it is only told."""
        ...

    def failed(self, call: Carried, attempt: Attempted) -> None:
        """An attempt failed before anything of it reached the client; the call may go on for long."""
        ...

    def revoked(self, key: str, agent: str, why: str) -> None:
        """Somebody shows a key that was revoked. `key`: its name; `agent` is empty for a person's or a team's."""
        ...

    def pool(self, provider: str) -> None:
        """What the keys of a provider have spent was looked at anew."""
        ...

    def ended(self, call: Carried, *, cached: bool = False, saved_nusd: int = 0) -> None:
        """A call is over. `cached`: answered without asking anybody, which saved so much."""
        ...


MAX_COUNTS: Final = 300
"""Different things that are counted; /metrics has no more series of them."""


@dataclass(slots=True)
class House:
    """Services of a gateway, and its clocks."""

    settings: Settings
    health: Health
    ledger: Ledger
    upstream: Upstream
    tell: Tell
    name: str = "gateway"
    """Of this process, in the ledger."""
    rehearsed: bool = False
    """The providers are the rehearsal model: it may see by which agent it is asked."""
    now: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    chance: Callable[[], float] = random.random
    answers: Cache | None = None
    """Answers that may be given again; None: nothing is kept."""
    records: Records | None = None
    """Where calls of agents that are recorded are kept; None: nowhere."""
    purse: Purse = field(default_factory=Purse)
    counts: Counter[str] = field(default_factory=Counter[str])
    """What happened, by reason: for /metrics."""

    def count(self, what: str, reason: str) -> None:
        """Count something whose reason is a client's word: there are no more reasons than `MAX_COUNTS`."""
        name = f"{what}.{reason}"
        self.counts[
            name if name in self.counts or len(self.counts) < MAX_COUNTS else f"{what}.other"
        ] += 1
