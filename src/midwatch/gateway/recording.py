"""Requests and answers of agents with `calls.record: true`, on this machine, with keys taken out.

One small file for each call, `gateway/recorded/AGENT/DAY/CALL.json.gz`, readable by its owner alone. Written by a
thread: a call never waits for it, and never fails by it. Bounded in each body, in what waits, in all, and by
the room on the disk; what is not kept is counted by reason. Where there is too much, the agents that keep the most
lose their own oldest: nobody's records go because another sends a lot. The day is that of the call's own id, so that a
call is found by its id alone.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import json
import logging
import os
import queue
import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import quote, unquote

from midwatch.core.redact import LONGEST, redact
from midwatch.gateway.carried import Carried
from midwatch.gateway.http.port import Headers, Outgoing

MAX_BODY_BYTES: Final = 1024 * 1024
"""Of each body; what is longer is clipped, and says so."""

MAX_WAITING_BYTES: Final = 32 * 1024 * 1024
"""Bodies that wait for the thread; more are dropped and counted. One agent's may take half of it."""

MAX_TOTAL_BYTES: Final = 2 * 1024 * 1024 * 1024
"""Of all files, packed."""

BLOCK_BYTES: Final = 4096
"""What a file takes at the least: many small ones fill a disk, too."""

MIN_FREE_BYTES: Final = 512 * 1024 * 1024
"""Room that is left on the disk: the ledger needs it more."""

SWEEP_S: Final = 60.0
"""How often what is too old, or too much, is deleted; and when a sixteenth of all was written since."""

CLOSE_S: Final = 2.0

log = logging.getLogger(__name__)

_ID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")


class Tape:
    """An `Outgoing` that remembers what it passes on, up to a bound."""

    def __init__(self, out: Outgoing) -> None:
        self.status = 0
        self.length = 0
        self.complete = False
        self._out = out
        self._pieces: list[bytes] = []

    @property
    def begun(self) -> bool:
        return self._out.begun

    @property
    def gone(self) -> asyncio.Future[None]:
        return self._out.gone

    @property
    def said(self) -> bytes:
        """What was passed on, as far as it is kept."""
        return b"".join(self._pieces)

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        self.status, self.complete = status, True
        self._keep(body)
        self._out.answer(status, headers, body)

    def begin(self, status: int, headers: Headers) -> None:
        self.status = status
        self._out.begin(status, headers)

    async def send(self, data: bytes) -> None:
        self._keep(data)
        await self._out.send(data)

    def end(self) -> None:
        self.complete = True
        self._out.end()

    def abort(self) -> None:
        self._out.abort()

    def _keep(self, data: bytes) -> None:
        room = MAX_BODY_BYTES + LONGEST - self.length
        if room > 0 and data:
            self._pieces.append(data[:room])
        self.length += len(data)


@dataclass(frozen=True, slots=True)
class _Kept:
    """What the thread makes a file of."""

    facts: dict[str, Any]
    request: bytes
    request_bytes: int
    answer: bytes
    answer_bytes: int

    @property
    def size(self) -> int:
        return len(self.request) + len(self.answer)

    @property
    def top(self) -> str:
        """The agent at the top of the tree."""
        return _top(self.facts["agent"])


class Records:
    """All records of a data directory. `keep_for` says for how many seconds an agent's are kept."""

    def __init__(
        self,
        folder: Path,
        keep_for: Callable[[str], float],
        counts: Counter[str] | None = None,
        *,
        wall: Callable[[], float] = time.time,
        free: Callable[[Path], int] = lambda path: shutil.disk_usage(path).free,
        total_bytes: int = MAX_TOTAL_BYTES,
    ) -> None:
        self.counts = Counter[str]() if counts is None else counts
        """`record.kept`, and what was not kept or is kept no more, by reason. Each name has one writer."""
        self._folder = folder
        self._keep_for = keep_for
        self._wall = wall
        self._free = free
        self._total_limit = total_bytes
        self._queue: queue.SimpleQueue[_Kept | None] = queue.SimpleQueue()
        self._waiting = Counter[str]()
        """Bytes, by the top of the agent's tree."""
        self._written = 0
        """Since the last sweep."""
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    # -- in the event loop -------------------------------------------------------------------------

    def tape(self, call: Carried, out: Outgoing) -> Outgoing:
        """Return the way back to the client, with a tape in it when this call is to be recorded."""
        return Tape(out) if call.calls.record and not self._closed else out

    def keep(self, call: Carried, out: Outgoing) -> None:
        """Record a call that is over. Never waits, never raises."""
        if not isinstance(out, Tape) or self._closed:
            return
        kept = _Kept(
            _facts(call, out), call.body[: MAX_BODY_BYTES + LONGEST], len(call.body), out.said, out.length
        )  # fmt: skip
        with self._lock:
            of_all, its_own = self._waiting.total(), self._waiting[kept.top]
            if (
                of_all + kept.size > MAX_WAITING_BYTES
                or its_own + kept.size > MAX_WAITING_BYTES // 2
            ):
                self.counts["record.crowded"] += 1
                return
            self._waiting[kept.top] += kept.size
        self._queue.put(kept)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="recording", daemon=True)
            self._thread.start()

    def close(self, within_s: float = CLOSE_S) -> None:
        """Write what waits, and end. Blocking; what is not written in time is lost."""
        self._closed = True
        thread = self._thread
        if thread is None:
            return
        self._queue.put(None)
        thread.join(within_s)

    # -- in the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        swept = float("-inf")
        while True:
            much = self._written >= self._total_limit // 16
            if much or time.monotonic() - swept >= SWEEP_S:
                swept = time.monotonic()
                self._guarded(self.sweep)
            try:
                kept = self._queue.get(timeout=SWEEP_S)
            except queue.Empty:
                continue
            if kept is None:
                return
            self._guarded(partial(self._write, kept))
            with self._lock:
                self._waiting[kept.top] -= kept.size
                if self._waiting[kept.top] <= 0:
                    del self._waiting[kept.top]

    def _guarded(self, do: Callable[[], object]) -> None:
        try:
            do()
        except OSError as error:
            self.counts["record.disk"] += 1
            log.warning("a record could not be kept: %s", error)
        except Exception:  # the thread lives as long as the gateway; the fault is counted
            self.counts["record.fault"] += 1
            log.exception("a record could not be kept")

    def _write(self, kept: _Kept) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self._free(self._folder) < MIN_FREE_BYTES:
            self.counts["record.disk_full"] += 1
            return
        call = kept.facts["call"]
        place = self._folder / folder_of(kept.facts["agent"]) / day_of(call)
        place.mkdir(parents=True, exist_ok=True, mode=0o700)
        request, taken = _shown(kept.request, kept.request_bytes)
        answer, more = _shown(kept.answer, kept.answer_bytes)
        record = {**kept.facts, "request": request, "answer": answer, "redacted": taken + more}
        data = gzip.compress(json.dumps(record, ensure_ascii=False).encode("utf-8", "replace"), 5)
        path = place / f"{call}.json.gz"
        beside = path.with_suffix(".part")
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            beside.rename(path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        self.counts["record.kept"] += 1
        self._written += max(len(data), BLOCK_BYTES)

    def sweep(self) -> None:
        """Delete what is too old; then the oldest of those agents that keep more than their share."""
        today, self._written = self._wall(), 0
        days: dict[str, list[tuple[str, int, Path]]] = {}
        for place in self._days():
            agent = unquote(place.parent.name)
            ended = datetime.fromisoformat(place.name).replace(tzinfo=UTC).timestamp() + 86_400.0
            if today - ended > self._keep_for(agent):
                self._delete(place)
            else:
                # the largest of a day first: sub-agents' names are their client's to choose
                days.setdefault(_top(agent), []).append((place.name, -_size(place), place))
        sizes = {top: -sum(size for _, size, _ in kept) for top, kept in days.items()}
        share = fair_share(sizes.values(), self._total_limit)
        for top, kept in days.items():
            excess = sizes[top] - share
            for _, _, place in sorted(kept):
                if excess <= 0:
                    break
                excess -= self._thin(place, excess)

    def _delete(self, place: Path) -> None:
        self.counts["record.expired"] += sum(1 for _ in place.glob("*.json.gz"))
        shutil.rmtree(place)

    def _thin(self, place: Path, excess: int) -> int:
        """Delete the oldest records of a day until so many bytes are free; return how many are."""
        freed = 0
        for path in sorted(place.iterdir()):
            if freed >= excess:
                return freed
            freed += _weight(path)
            path.unlink(missing_ok=True)
            self.counts["record.too_much"] += 1
        with contextlib.suppress(OSError):  # another process writes there
            place.rmdir()
        return freed

    def _days(self) -> Iterator[Path]:
        if not self._folder.is_dir():
            return
        for agent in self._folder.iterdir():
            if agent.is_dir() and not agent.is_symlink():
                yield from (p for p in agent.iterdir() if _DAY.fullmatch(p.name) and p.is_dir())


def read(folder: Path, call_id: str) -> dict[str, Any] | None:
    """Return a record: `call`, `agent`, `at`, `model`, `status`, `request` and `answer` (`text` or `base64`, `bytes`,
    `clipped`), `redacted` (how many secrets were taken out); None when there is none. Blocking.
    """
    if _ID.fullmatch(call_id) is None:
        return None
    for path in folder.glob(f"*/{day_of(call_id)}/{call_id}.json.gz"):
        try:
            found = json.loads(gzip.decompress(path.read_bytes()))
        except (OSError, EOFError, ValueError):
            continue  # being deleted, or damaged
        return cast("dict[str, Any]", found) if isinstance(found, dict) else None
    return None


def day_of(call_id: str) -> str:
    """Return the UTC day of a call, from its id (UUIDv7)."""
    seconds = int(call_id.replace("-", "")[:12], 16) / 1000
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d}"


def folder_of(agent: str) -> str:
    """Return an agent's folder: its name, with nothing in it that a file system could misread."""
    return quote(agent, safe="").replace(".", "%2E")[:200] or "_"


def _facts(call: Carried, tape: Tape) -> dict[str, Any]:
    return {
        "v": 1,
        "call": call.id,
        "at": call.at,
        "agent": call.payer.agent,
        "run": call.payer.run,
        "session": call.payer.session,
        "task": call.ask.task,
        "tags": dict(call.payer.tags),
        "dialect": call.ask.dialect.value,
        "model": call.ask.model,
        "stream": call.ask.stream,
        "served": call.attempts[-1].place.name if call.attempts else None,
        "status": tape.status,
        "complete": tape.complete,
        "refused": call.refused or None,
        "cost_nusd": call.cost_nusd,
    }


def _shown(data: bytes, length: int) -> tuple[dict[str, Any], int]:
    """Return a body as it is kept, and how many secrets were taken out. Redacted before it is clipped: no key is
    cut in two by that."""
    clean, count = redact(data)
    kept = clean[:MAX_BODY_BYTES]
    shown: dict[str, Any] = {"bytes": length, "clipped": length > MAX_BODY_BYTES}
    try:
        shown["text"] = kept.decode("utf-8", "replace" if shown["clipped"] else "strict")
    except UnicodeDecodeError:
        shown["base64"] = base64.b64encode(kept).decode()
    return shown, count


def fair_share(sizes: Collection[int], limit: int) -> int:
    """Return what each may keep at the most, so that all together keep no more than `limit`, and nobody loses
    anything who keeps less."""
    left = limit
    for number, size in enumerate(sorted(sizes)):
        share = left // (len(sizes) - number)
        if size > share:
            return share
        left -= size
    return max(sizes, default=0)


def _top(agent: str) -> str:
    return agent.partition(":")[0]


def _size(place: Path) -> int:
    return sum(_weight(path) for path in place.iterdir())


def _weight(path: Path) -> int:
    try:
        return max(path.stat().st_size, BLOCK_BYTES)
    except OSError:
        return 0  # deleted meanwhile
