"""Takes items from any thread without waiting, and brings them to the hub.

`submit` appends to a bounded queue and rings a bell; one daemon thread, started on first
use, does the rest. Order is kept per path. What the hub cannot take now waits in the spool;
what must be dropped is counted by reason and told to the hub as `sdk.lost`. A transport
knows nothing of the process around it, so the supervisor reports through one of its own.
After a fork the child begins with an empty queue and a worker of its own.

The bells are bare locks and not Events: `submit` may run in a signal handler while the
same thread is inside `submit`, and must not deadlock on itself.
"""

from __future__ import annotations

import _thread
import functools
import os
import threading
import time
import weakref
from collections import deque

from midwatch.sdk.shield import kept, log_complaints

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from midwatch.sdk.announce import Announcer
    from midwatch.sdk.lane import Lane
    from midwatch.sdk.spool import Entry

    Item = dict[str, Any]
    Payload = Item | Callable[[], Item]

QUEUE_ITEMS = 10_000
"""Items that wait for the worker. Ten seconds at 1,000 a second: longer than any one POST."""

BATCH_WAIT_S = 0.1
"""How long the worker lets beats and spans gather. Events and runs are not made to wait."""

IDLE_WAIT_S = 60.0
"""The worker looks around this often when nobody rings."""

LOSS_REPORT_INTERVAL_S = 10.0
"""Losses are told at most this often."""

IMPORTS_WAIT_S = 2.0
"""The longest that a fork waits for the worker's imports."""

TRACES_PATH = "/v1/traces"

_PATIENT = frozenset({"beat", "sample", TRACES_PATH})
_FAR = float("inf")


class Bell:
    """Wakes one waiting thread. Ringing twice wakes once. Safe in a signal handler."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._lock.acquire()

    def ring(self) -> None:
        try:
            self._lock.release()
        except RuntimeError:
            return  # it rings already

    def wait(self, timeout_s: float) -> bool:
        return self._lock.acquire(timeout=timeout_s)


class Transport:
    """The way from this process to one hub. See the module for its promises."""

    def __init__(
        self,
        url: str,
        token: str | None,
        spool_dir: str | os.PathLike[str] | None,
        agent: str | None = None,
        *,
        run_id: str | None = None,
        traces_url: str | None = None,
        traces_headers: Mapping[str, str] | None = None,
        resource: Mapping[str, str] | None = None,
        gather: bool = False,
        scope: str = "midwatch.sdk",
        spool_bytes: tuple[int, int] | None = None,
        encode: Callable[[Any], bytes] | None = None,
    ) -> None:
        """`url` is the hub's base address; `spool_dir` None keeps unsent items in memory only.

        `agent` and `run_id` stand in where an item names none. `traces_url` is the full
        address of an OTLP/HTTP endpoint, by default the hub's own. `resource` are OTLP
        resource attributes. `gather`: see `Lane`. `scope` names who makes the spans. `spool_bytes`: what
        items and spans may take on disk. `encode` writes spans as JSON, where somebody does
        it faster than `json`. Raises ValueError for an address that cannot be used.
        """
        # here and not in the worker: it takes part in forks from the moment it is imported
        __import__("logging")
        from midwatch.sdk.post import Poster

        self.agent = agent
        self.run_id = run_id
        self._gather = gather
        self._scope = scope
        self._spool_bytes = spool_bytes
        self._encode = encode
        self.announcer: Announcer | None = None  # knows the spans that are open
        self._spool_dir = None if spool_dir is None else os.fspath(spool_dir)
        self._resource = dict(resource or {})
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._addresses: tuple[tuple[str, Mapping[str, str]], ...] = (
            (url.rstrip("/"), headers),
            (traces_url, traces_headers or {})
            if traces_url
            else (url.rstrip("/") + TRACES_PATH, headers),
        )
        for address, its_headers in self._addresses:
            Poster(address, its_headers)  # complains now, in the thread that can hear it
        self._begin()
        _transports.add(self)

    def _begin(self) -> None:
        from midwatch.sdk.lane import Counts

        self._queue: deque[tuple[str, Payload]] = deque()
        self._warm = threading.Event()
        self._wake = Bell()
        self._hurry = Bell()
        self._idle = False
        self._closed = False
        self._deadline = _FAR
        self._thread: threading.Thread | None = None
        self._starting = _thread.allocate_lock()
        self._passed = threading.Condition()
        self._busy = False
        self._hasten = False
        self._lanes: tuple[Lane, ...] = ()
        self._lost = Counts()
        self._told: dict[str, int] = {}
        self._told_at = float("-inf")
        self._submitted = 0

    def submit(self, kind: str, item: Payload) -> bool:
        """Take an item for delivery; return False when it was not taken. Never waits.

        `kind` is `beat`, `event`, `run`, `sample`, or a path below the hub's address. The
        item belongs to the transport from now on. It may be a function that returns the
        item, called by the worker.
        """
        if self._closed:
            self._lost.add("closed")
            return False
        if not callable(item):
            item.setdefault("at", time.time())
        queue = self._queue
        if len(queue) >= QUEUE_ITEMS:
            self._make_room()
        queue.append((kind, item))
        self._submitted += 1
        if self._idle:
            self._wake.ring()
        if kind not in _PATIENT:
            self._hurry.ring()
        if self._thread is None:
            self.start()
        return True

    def start(self) -> None:
        """Start the worker, if it does not run yet: it delivers what earlier runs left."""
        if self._closed or not self._starting.acquire(blocking=False):
            return
        try:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="midwatch-sdk", daemon=True)
                thread.start()
                self._thread = thread
        finally:
            self._starting.release()

    def awake(self) -> None:
        """Let the worker look again how long it may sleep: see `announcer`."""
        if self._idle:
            self._wake.ring()
        if self._thread is None:
            self.start()

    def hasten(self) -> None:
        """Try again now: whoever calls knows that the hub is back."""
        self._hasten = True
        self._wake.ring()
        self._hurry.ring()

    def flush(self, timeout_s: float) -> bool:
        """Wait at most `timeout_s` until all is delivered; return whether it is."""
        if self._thread is None and not self._queue:
            return True
        deadline = time.monotonic() + timeout_s
        self._hasten = True
        with self._passed:
            while not self._clear():
                self._wake.ring()
                self._hurry.ring()
                left_s = deadline - time.monotonic()
                if left_s <= 0 or self._closed:
                    return False
                self._passed.wait(min(left_s, BATCH_WAIT_S))
        return True

    def close(self, timeout_s: float) -> None:
        """Deliver what can be delivered in `timeout_s`, leave the rest in the spool, and end."""
        if self._closed:
            return
        self._closed = True
        self._deadline = time.monotonic() + timeout_s
        self._wake.ring()
        self._hurry.ring()
        thread = self._thread
        if thread is None or not thread.is_alive():
            if self._queue or self._lanes:
                self._last_pass()
        elif thread is not threading.current_thread():
            thread.join(timeout_s)
            if thread.is_alive():
                for lane in self._lanes:
                    lane.poster.interrupt()
                thread.join(0.5)
        _transports.discard(self)

    def statistics(self) -> dict[str, Any]:
        """Return counts: `submitted`, `delivered`, `queued`, `spooled`, `lost` by reason, …"""
        lanes = self._lanes
        return {
            "submitted": self._submitted,
            "delivered": sum(lane.delivered for lane in lanes),
            "queued": len(self._queue),
            "spooled": sum(lane.spool.written for lane in lanes),
            "spool_bytes": sum(lane.spool.total_bytes for lane in lanes),
            "held": sum(lane.spool.held for lane in lanes),
            "posts": sum(lane.attempts for lane in lanes),
            "in_contact": any(lane.in_contact for lane in lanes),
            "lost": self._lost.snapshot(),
        }

    def lose(self, reason: str, count: int = 1) -> None:
        """Count something that will not arrive."""
        self._lost.add(reason, count)

    def settle_imports(self) -> None:
        """Wait until the worker has imported what it needs: see `_before_fork`."""
        if self._thread is not None and self._thread.is_alive():
            self._warm.wait(IMPORTS_WAIT_S)

    def forget(self) -> None:
        """Begin anew in a forked child: what was queued is the parent's to send."""
        for lane in self._lanes:
            lane.poster.forget()
            lane.spool.forget()
        if self.announcer is not None:
            self.announcer.forget()
        self._begin()

    # What follows runs in the worker.

    def _run(self) -> None:
        with kept("warm_up"):
            _import_all()
        self._warm.set()
        while not self._closed:
            with kept("worker") as guard:
                self._wait()
                self._pass(_FAR)
            if guard.failed:
                time.sleep(BATCH_WAIT_S)  # a fault that stays must not burn the machine
        with kept("worker"):
            self._last_pass()

    def _wait(self) -> None:
        now = time.monotonic()
        due_s = IDLE_WAIT_S
        for lane in self._lanes:
            if lane.spool:
                due_s = min(due_s, max(lane.retry_at - now, 0.0))
        self._idle = True
        if self.announcer is not None:
            due_s = min(due_s, self.announcer.due_s())
        # looked at after `_idle` is set, so that no item slips between look and sleep
        if not self._queue and not self._closed and due_s > 0 and self._lanes:
            self._wake.wait(due_s)
        self._idle = False
        self._wake.wait(0)
        if self._queue and not self._closed:
            self._hurry.wait(BATCH_WAIT_S)

    def _pass(self, until: float) -> None:
        self._busy = True
        try:
            if not self._lanes:
                self._open_lanes()
            if self._hasten:
                self._hasten = False
                for lane in self._lanes:
                    lane.hasten()
            self._tell_losses()
            self._announce()
            for lane, entries in zip(self._lanes, self._take(), strict=True):
                lane.work(entries, min(until, self._deadline))
            log_complaints()
        finally:
            self._busy = False
            with self._passed:
                self._passed.notify_all()

    def _announce(self) -> None:
        """Put the spans that have been open for a while into the queue. It may pass its bound by MAX_YOUNG."""
        if self.announcer is not None and not self._closed:
            for span in self.announcer.take():
                self._queue.append((TRACES_PATH, functools.partial(span.render, self.run_id)))

    def _last_pass(self) -> None:
        self._pass(self._deadline)
        while any(lane.spool and lane.in_contact for lane in self._lanes):
            if time.monotonic() >= self._deadline:
                break
            self._pass(self._deadline)
        self._told_at = float("-inf")
        self._pass(self._deadline)  # with what was lost until now
        for lane in self._lanes:
            lane.spool.close()
            lane.poster.close()

    def _open_lanes(self) -> None:
        from midwatch.sdk.lane import Lane, compact
        from midwatch.sdk.post import Poster
        from midwatch.sdk.spool import CAP_BYTES, Spool

        (url, headers), (traces_url, traces_headers) = self._addresses
        items_bytes, traces_bytes = self._spool_bytes or (CAP_BYTES * 3 // 4, CAP_BYTES // 4)
        items = Lane(
            Poster(url, headers),
            Spool(self._spool_dir, "items", self._lost.add, items_bytes),
            self._lost,
            list,
            gather=self._gather,
        )
        traces = Lane(
            Poster(traces_url, traces_headers),
            Spool(self._spool_dir, "traces", self._lost.add, traces_bytes),
            self._lost,
            self._wrap_spans,
            encode=self._encode or compact,
        )
        for lane in (items, traces):
            lane.spool.adopt()
        self._lanes = (items, traces)

    def _take(self) -> tuple[list[Entry], list[Entry]]:
        """Empty the queue: complete entries for the hub, events first, and for the traces."""
        from midwatch.wire.items import PATHS, Kind

        paths: dict[str, str] = {kind.value: path for kind, path in PATHS.items()}
        items: list[Entry] = []
        spans: list[Entry] = []
        queue = self._queue
        for _ in range(len(queue)):
            try:
                kind, payload = queue.popleft()
            except IndexError:
                break  # a caller made room meanwhile
            path = paths.get(kind, kind)
            body = self._complete(payload, path)
            if body is None:
                continue
            if path == TRACES_PATH:
                spans.append(("", body))
            else:
                items.append((path, body))
        rank = {PATHS[Kind.EVENT]: 0, PATHS[Kind.RUN]: 1, PATHS[Kind.BEAT]: 3}
        items.sort(key=lambda entry: (rank.get(entry[0], 2), entry[0]))
        return items, spans

    def _complete(self, payload: Payload, path: str) -> Item | None:
        """Return the item with all it needs to travel, or None when it cannot."""
        import json

        from midwatch.sdk.plain import plain
        from midwatch.wire.ids import new_id

        with kept("complete"):
            item: Item = payload() if callable(payload) else payload
            if path == TRACES_PATH:
                return item
            if "agent" not in item and self.agent is not None:
                item["agent"] = self.agent
            if "run_id" not in item and self.run_id is not None:
                item["run_id"] = self.run_id
            at: Any = item.setdefault("at", time.time())
            if "id" not in item:
                item["id"] = new_id(int(at * 1000) if isinstance(at, float) else None)
            try:
                json.dumps(item, allow_nan=False)
            except (ValueError, TypeError, RecursionError):
                item, clipped = plain(item)
                if clipped:
                    self._lost.add("clipped")
            return item
        self._lost.add("unencodable")
        return None

    def _wrap_spans(self, spans: Sequence[Item]) -> Item:
        from midwatch.sdk.otlp import wrap

        return wrap(spans, self._resource, self._scope)

    def _tell_losses(self) -> None:
        """Put `sdk.lost` into the queue when there is news and somebody to hear it."""
        now = time.monotonic()
        if now - self._told_at < LOSS_REPORT_INTERVAL_S:
            return
        if not self._closed and not self._lanes[0].in_contact:
            return
        news = self._lost.since(self._told)
        if news:
            self._told = self._lost.snapshot()
            self._told_at = now
            self._queue.append(
                (
                    "event",
                    {
                        "agent": self.agent or "midwatch",
                        "kind": "sdk.lost",
                        "data": {"counts": news},
                        "at": time.time(),
                    },
                )
            )

    def _clear(self) -> bool:
        if self._queue or self._busy or not self._lanes:
            return False
        return not any(lane.spool for lane in self._lanes)

    def _make_room(self) -> None:
        try:
            self._queue.popleft()
        except IndexError:
            return
        self._lost.add("queue_full")


def _import_all() -> None:
    """Import what the worker will need, all at once: see `_before_fork`."""
    for name in _MODULES:
        __import__(name)


_MODULES = (
    "encodings.idna",  # the first look-up of a host's name wants it
    "http.client",
    "json",
    "midwatch.sdk.lane",
    "midwatch.sdk.otlp",
    "midwatch.sdk.spool",
    "midwatch.wire.items",
    "midwatch.wire.journal",
)

_transports: weakref.WeakSet[Transport] = weakref.WeakSet()


def _before_fork() -> None:
    """A child must not be born in the middle of our worker's imports.

    It would inherit half a module that nobody there completes. The imports are the worker's
    first act and take some 30 ms; only a fork in that time waits.
    """
    for transport in list(_transports):
        with kept("fork"):
            transport.settle_imports()


def _after_fork() -> None:
    for transport in list(_transports):
        with kept("fork"):
            transport.forget()


os.register_at_fork(before=_before_fork, after_in_child=_after_fork)
