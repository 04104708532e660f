"""Delivery to one destination: order kept, losses counted, patience bounded.

A lane sends what is fresh at once. When the destination is away, what is fresh goes behind
the spool, and the spool is tried again after a back-off with full jitter, or when
Retry-After says so. Items that the hub refuses are counted and never sent again. Beats and
spans have a lane each, so that a dead trace collector does not hold up beats.
Back-off: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

from __future__ import annotations

import json
import random
import threading
import time
from itertools import groupby

from midwatch.sdk.post import ANSWER_TIMEOUT_S, Answer, Away, Poster
from midwatch.sdk.shield import complain, kept
from midwatch.sdk.spool import Spool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from midwatch.sdk.spool import Entry

BATCH_ITEMS = 500
"""Items of one POST."""

BATCH_BYTES = 1024 * 1024
"""Bytes of one POST; a single larger item goes alone."""

PASS_BATCHES = 8
"""Batches from the spool before the worker looks at its queue again."""

BACKOFF_FIRST_S = 0.5
BACKOFF_LAST_S = 10.0
"""The longest wait between two tries: a hub on the same machine is worth asking often."""

RETRY_AFTER_MOST_S = 300.0
"""No server can silence an agent for longer than this."""

COMPLAIN_AFTER_S = 5.0
"""A hub that starts beside the agent, or restarts, is away for a moment: no word about that."""

_AGAIN = frozenset({401, 408, 425, 429})
"""Refusals that may end: a token can be mended while the items wait."""


class Counts:
    """Losses and refusals by reason. Any thread may count."""

    def __init__(self) -> None:
        # reentrant: a signal handler may count while its own thread is counting
        self._lock = threading.RLock()
        self._by_reason: dict[str, int] = {}

    def add(self, reason: str, count: int = 1) -> None:
        """Count `count` more under `reason`."""
        with self._lock:
            self._by_reason[reason] = self._by_reason.get(reason, 0) + count

    def snapshot(self) -> dict[str, int]:
        """Return a copy."""
        with self._lock:
            return dict(self._by_reason)

    def since(self, earlier: dict[str, int]) -> dict[str, int]:
        """Return what was counted after `earlier` was taken."""
        now = self.snapshot()
        return {
            name: count - earlier.get(name, 0)
            for name, count in now.items()
            if count > earlier.get(name, 0)
        }


def compact(value: Any) -> bytes:
    """Return a value as JSON without blanks. Raises ValueError and TypeError."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()


class Lane:
    """One destination. Only the worker thread uses it, except for `interrupt`."""

    def __init__(
        self,
        poster: Poster,
        spool: Spool,
        lost: Counts,
        wrap: Callable[[Sequence[dict[str, Any]]], Any],
        *,
        gather: bool = False,
        encode: Callable[[Any], bytes] = compact,
    ) -> None:
        """`gather`: what goes to one path travels together, past what goes to others; for a sender whose
        kinds of items alternate, so that it does not make a request of each. `encode` writes JSON."""
        self._gather = gather
        self._encode = encode
        self.poster = poster
        self.spool = spool
        self._lost = lost
        self._wrap = wrap
        self._failures = 0
        self._asked = False
        self._away_since: float | None = None
        self.retry_at = float("-inf")
        self.delivered = 0
        self.attempts = 0
        self.in_contact = False

    def work(self, fresh: list[Entry], until: float) -> None:
        """Deliver what waits, or else `fresh`. What is left goes to the spool.

        No wait goes beyond `until` (monotonic). A large backlog takes several calls.
        """
        if self.spool or time.monotonic() < self.retry_at:
            self.spool.append(fresh)
            fresh = []
        for _ in range(PASS_BATCHES):
            if not self.spool or time.monotonic() < self.retry_at or time.monotonic() >= until:
                break
            try:
                waiting = self.spool.peek(BATCH_ITEMS)
            except OSError as error:
                self._postpone(None, f"cannot read what was kept ({error}); trying again later")
                return
            if not waiting:
                continue  # what lay there was unreadable, and is counted
            settled = self._send(waiting, until)
            self.spool.commit(settled)
            if settled < len(waiting):
                return
        if fresh:
            settled = self._send(fresh, until)
            self.spool.append(fresh[settled:])

    def hasten(self) -> None:
        """Try again now, unless the server itself asked for patience."""
        if not self._asked:
            self.retry_at = float("-inf")

    def _send(self, entries: list[Entry], until: float) -> int:
        """Send entries in order and return how many are settled: accepted or refused."""
        if self._gather:
            return self._send_gathered(entries, until)
        settled = 0
        for path, run in groupby(entries, key=lambda entry: entry[0]):
            bodies = [body for _, body in run]
            count = self._send_run(path, bodies, until)
            settled += count
            if count < len(bodies):
                break
        return settled

    def _send_gathered(self, entries: list[Entry], until: float) -> int:
        """Send a stretch of entries path by path. One that fails anywhere is sent again as a whole: the hub
        knows by their ids what it has already."""
        for start in range(0, len(entries), BATCH_ITEMS):
            by_path: dict[str, list[dict[str, Any]]] = {}
            for path, body in entries[start : start + BATCH_ITEMS]:
                by_path.setdefault(path, []).append(body)
            for path, bodies in by_path.items():
                if self._send_run(path, bodies, until) < len(bodies):
                    return start
        return len(entries)

    def _send_run(self, path: str, bodies: list[dict[str, Any]], until: float) -> int:
        settled = 0
        while settled < len(bodies):
            batch = _batch(bodies, settled)
            if not self._post(path, batch, until):
                break
            settled += len(batch)
        return settled

    def _post(self, path: str, batch: Sequence[dict[str, Any]], until: float) -> bool:
        """Post one batch; return whether it is settled."""
        patience_s = min(ANSWER_TIMEOUT_S, until - time.monotonic())
        if patience_s <= 0:
            return False
        self.attempts += 1
        try:
            body = self._encode(self._wrap(batch))
        except (ValueError, TypeError, KeyError, RecursionError):
            self._lost.add("unencodable", len(batch))
            return True
        with kept("post"):
            return self._exchange(path, body, batch, patience_s, until)
        return self._postpone(None, "an answer could not be understood; trying again later")

    def _exchange(
        self,
        path: str,
        body: bytes,
        batch: Sequence[dict[str, Any]],
        patience_s: float,
        until: float,
    ) -> bool:
        try:
            answer = self.poster.post(path, body, patience_s)
        except Away as away:
            return self._postpone(None, f"{away}; what happens meanwhile is kept and sent later")
        status = answer.status
        if 200 <= status < 300:
            return self._accepted(path, answer, len(batch))
        if status == 413 and len(batch) > 1:
            half = len(batch) // 2
            return self._post(path, batch[:half], until) and self._post(path, batch[half:], until)
        if 400 <= status < 500 and status not in _AGAIN:
            self._lost.add(f"http_{status}", len(batch))
            complain(f"the hub refused {len(batch)} items with {status}: {_clip(answer.body)}")
            return True
        return self._postpone(
            answer.retry_after_s, f"the hub answered {status} to {path}; trying again later"
        )

    def _postpone(self, retry_after_s: float | None, complaint: str) -> bool:
        self.in_contact = False
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
        elif now - self._away_since >= COMPLAIN_AFTER_S:
            complain(complaint)
        ceiling_s = min(BACKOFF_LAST_S, BACKOFF_FIRST_S * 2.0 ** min(self._failures, 16))
        wait_s = random.uniform(0.05, ceiling_s)  # jitter, no secret
        self._failures += 1
        self._asked = retry_after_s is not None
        if retry_after_s is not None:
            wait_s = min(max(retry_after_s, 0.0), RETRY_AFTER_MOST_S)
        self.retry_at = now + wait_s
        return False

    def _accepted(self, path: str, answer: Answer, count: int) -> bool:
        """Count what a 2xx accepted and what it refused.

        Our hub answers with JSON; a 2xx without it comes from somebody else, who kept nothing.
        Trace collectors (their lane has no paths) may answer as they like.
        """
        refused = _refusals(answer.body)
        if refused is None and path and answer.status != 204:
            return self._postpone(
                None,
                f"{path} was answered {answer.status} without JSON:"
                " is MIDWATCH_URL the address of a midwatch hub? Trying again later",
            )
        self._failures, self._asked, self._away_since = 0, False, None
        self.retry_at, self.in_contact = float("-inf"), True
        refused = refused or {}
        for reason, number in refused.items():
            self._lost.add(f"rejected_{reason}", number)
        if refused:
            complain(f"the hub refused {sum(refused.values())} of {count} items: {refused}")
        self.delivered += max(count - sum(refused.values()), 0)
        return True


def _batch(bodies: list[dict[str, Any]], start: int) -> list[dict[str, Any]]:
    """Return the next bodies from `start` that fit into one POST; at least one."""
    size = 0
    for end in range(start, min(start + BATCH_ITEMS, len(bodies))):
        size += _rough_size(bodies[end])
        if size > BATCH_BYTES and end > start:
            return bodies[start:end]
    return bodies[start : start + BATCH_ITEMS]


def _rough_size(body: dict[str, Any]) -> int:
    """Return about the size in JSON. Only `data`, and what a span holds of a state, can be large; the rest is bounded."""
    data = body.get("data")
    size = 500 + (len(json.dumps(data)) if data else 0)
    for pair in body.get("attributes") or ():
        size += len(pair["value"].get("stringValue", ""))
    return size


def _refusals(body: bytes) -> dict[str, int] | None:
    """Read `rejected` of our hub, or `partialSuccess` of OTLP, as counts by reason.

    None for what is not JSON.
    """
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(answer, dict):
        return {}
    counts: dict[str, int] = {}
    found: dict[str, Any] = answer  # pyright: ignore[reportUnknownVariableType]
    rejected = found.get("rejected")
    if isinstance(rejected, list):
        for entry in rejected:  # pyright: ignore[reportUnknownVariableType]
            reason = entry.get("reason") if isinstance(entry, dict) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
            name = str(reason)[:40] if reason else "unnamed"  # pyright: ignore[reportUnknownArgumentType]
            counts[name] = counts.get(name, 0) + 1
    partial = found.get("partialSuccess")
    if isinstance(partial, dict):
        spans = partial.get("rejectedSpans")  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        try:
            number = int(spans or 0)  # pyright: ignore[reportUnknownArgumentType]
        except (TypeError, ValueError, OverflowError):
            number = 0
        if number > 0:
            counts["span"] = number
    return counts


def _clip(body: bytes) -> str:
    return repr(body[:200].decode("utf-8", "replace"))
