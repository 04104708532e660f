"""What the hub counts: a table of counters, and the numbers.

Loss is a value: whatever is dropped, refused, clipped or retried is counted here by reason, shown
on `/metrics` and on the page. The set of names is closed; label values are bounded, because they
may come from outside.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Final, NamedTuple

MAX_LABELS = 200
"""Distinct label values of one counter; what comes after is counted as `other`."""


class Counter(NamedTuple):
    """One counter: the sentence for `/metrics` and docs, and its label, if it has one."""

    about: str
    label: str = ""
    loss: bool = False
    """True when counting means that something was lost, refused or shortened."""


COUNTERS: Final[dict[str, Counter]] = {
    "accepted": Counter("items committed", "kind"),
    "duplicates": Counter("items that were already stored; answered as accepted", "kind"),
    "rejected": Counter("items refused by ingest", "reason", loss=True),
    "clipped": Counter("text fields shortened to the limit", "field", loss=True),
    "redacted": Counter("secrets taken out of telemetry before it was stored", "reason"),
    "not_looked": Counter(
        "characters of tools' results that were not looked at for what speaks to the model: in the middle of a long text, or beyond a request's budget",
        "reason",
        loss=True,
    ),
    "refused_requests": Counter("requests refused before they were read", "reason", loss=True),
    "commits": Counter("group commits, by store", "store"),
    "commit_failures": Counter("group commits that failed", "store", loss=True),
    "watch_failures": Counter(
        "items whose detectors failed; the items are stored", "kind", loss=True
    ),
    "spans_lost": Counter("open spans that were closed because their run was over before them"),
    "uncounted": Counter(
        "earlier spans that were left out when usage was counted once", "reason", loss=True
    ),
    "values_folded": Counter(
        "values of models, providers and tags that are summed as `other`: an agent's day had 200 of their kind",
        "by",
    ),
    "watch_slow": Counter("groups for which the answer did not wait for the detectors"),
    "sampled": Counter("spans that sampling let go; their sums stay", "kind"),
    "expired": Counter("rows that retention let go", "kind"),
    "keeping_failures": Counter(
        "what failed of sealing, expiring, and of looking at disk and clock; it is tried again",
        "reason",
    ),
    "sample_failures": Counter(
        "traces that a sampling condition could not judge; they are kept", "rule"
    ),
    "forwarded": Counter("spans, points and log records that another back-end took", "target"),
    "forward_retries": Counter(
        "requests to another back-end that were or will be repeated", "target"
    ),
    "forward_dropped": Counter(
        "spans, points and log records that were not forwarded: no room, refused, damaged, or nobody wants them",
        "target",
        loss=True,
    ),
    "forward_forgotten": Counter(
        "spans, points and log records that midwatch forget took out of the queue of another back-end",
        "target",
    ),
    "hub_messages_lost": Counter(
        "messages between hubs that were not told or not heard; what they are about is read anew",
        "reason",
    ),
    "pings": Counter("pings received", "kind"),
    "commands": Counter("commands to nodes", "result"),
    "stream_resyncs": Counter(
        "slow followers of the stream that were told to start over", loss=True
    ),
    "server_errors": Counter(
        "requests answered 500 because of a fault of the hub", "path", loss=True
    ),
}

BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper bounds of the append histogram, seconds."""


class Counts:
    """The numbers. Used from the event loop's thread alone, so it takes no lock."""

    def __init__(self) -> None:
        self._values: dict[str, dict[str, int]] = {name: {} for name in COUNTERS}
        self.append_buckets = [0] * (len(BUCKETS_S) + 1)
        self.append_sum_s = 0.0

    def add(self, name: str, label: str = "", n: int = 1) -> None:
        """Raise a counter of `COUNTERS` by `n`; a KeyError means a misspelt name."""
        values = self._values[name]
        if label not in values and len(values) >= MAX_LABELS:
            label = "other"
        values[label] = values.get(label, 0) + n

    def value(self, name: str, label: str = "") -> int:
        """Return one number; 0 when it was never raised."""
        return self._values[name].get(label, 0)

    def total(self, name: str) -> int:
        """Return the sum over all labels."""
        return sum(self._values[name].values())

    def each(self) -> Iterator[tuple[str, Counter, dict[str, int]]]:
        """Yield every counter with its values by label, in the table's order."""
        for name, counter in COUNTERS.items():
            yield name, counter, self._values[name]

    def lost(self) -> dict[str, int]:
        """Return what was lost since the hub started, by `counter:reason`, without zeros."""
        return {
            f"{name}:{label}" if label else name: count
            for name, counter, values in self.each()
            if counter.loss
            for label, count in values.items()
            if count
        }

    def time_append(self, seconds: float) -> None:
        """Record how long one append took, from its arrival to its commit."""
        self.append_buckets[bisect_left(BUCKETS_S, seconds)] += 1
        self.append_sum_s += seconds
