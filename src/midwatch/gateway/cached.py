"""Answers that are given again to exactly the same request: opt-in per agent, for `calls.cache` long.

The same means: every value of the body (spacing and the order of keys aside, but in very long ones), the headers that change an answer, the
dialect, the places that would be asked, and the agent. Whoever sets `calls.cache` says by that that an answer may
come twice, whatever the temperature and the tools: a request with another tool result in it is another request.

Kept are whole answers of the first place alone: no error, nothing that was cut, gone on with, refused by the model, or
made by a fallback. A stream is kept
with its pieces and given again as a stream. In memory and in a file of the data directory that nobody else may
read; what cannot be read or written is no answer, never a failed call.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
from collections import Counter, OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

from pydantic_core import from_json

from midwatch.core.calls.chain import Place
from midwatch.gateway.carried import Carried
from midwatch.gateway.dialects.answers import DECLINED
from midwatch.gateway.http.port import Headers, Outgoing

MAX_ANSWER_BYTES: Final = 2 * 1024 * 1024
"""One answer that is kept."""

MAX_MEMORY_BYTES: Final = 32 * 1024 * 1024
MAX_DISK_BYTES: Final = 256 * 1024 * 1024
"""All of them. Those that are over soonest go first."""

MAX_UNWRITTEN_BYTES: Final = 32 * 1024 * 1024
"""What may wait for a slow disk."""

READ_S: Final = 1.0
"""How long a call waits for the file; then it is asked as if nothing were kept."""

SWEEP_EVERY: Final = 64
"""Answers that are written between two looks at what is over, or too much."""

PARSED_BYTES: Final = 1024 * 1024
"""Bodies up to this are compared by their values; longer ones byte by byte: reading 28 MB takes a second."""

_KEPT_HEADERS: Final = ("content-type", "openai-version", "anthropic-version")
_ASKING_HEADERS: Final = ("anthropic-", "openai-", "x-goog-user-project", "x-stainless-helper")
"""Headers of a request that change its answer."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One answer."""

    made: float
    until: float
    """Unix seconds; then it is over."""
    status: int
    headers: tuple[tuple[str, str], ...]
    pieces: tuple[bytes, ...]
    stream: bool
    provider: str
    model: str
    cost_nusd: int
    """What it cost when it was made: what each further one saves."""

    @property
    def size(self) -> int:
        return sum(len(piece) for piece in self.pieces) + 512

    def dump(self) -> bytes:
        head: dict[str, Any] = {
            "status": self.status, "headers": self.headers, "stream": self.stream, "provider": self.provider,
            "model": self.model, "cost": self.cost_nusd, "sizes": [len(piece) for piece in self.pieces],
        }  # fmt: skip
        return json.dumps(head).encode() + b"\n" + b"".join(self.pieces)

    @staticmethod
    def load(made: float, until: float, data: bytes) -> Kept:
        """Raises ValueError, KeyError or TypeError for what is none."""
        line, _, rest = data.partition(b"\n")
        head = json.loads(line)
        pieces: list[bytes] = []
        at = 0
        for size in head["sizes"]:
            pieces.append(rest[at : at + size])
            at += size
        if at != len(rest):
            raise ValueError("an answer that was kept is not whole")
        headers = tuple((str(name), str(value)) for name, value in head["headers"])
        return Kept(
            made, until, int(head["status"]), headers, tuple(pieces), bool(head["stream"]),
            str(head["provider"]), str(head["model"]), int(head["cost"]),
        )  # fmt: skip


def key_of(call: Carried, places: Sequence[Place]) -> str:
    """Return what is the same for the same request."""
    asking = sorted(pair for pair in call.headers if pair[0].startswith(_ASKING_HEADERS))
    whose = call.payer.entry or call.payer.agent.partition(":")[0] or f"key {call.payer.key}"
    told = [
        call.ask.dialect.value, call.ask.model, call.route.stream, call.route.array, call.route.version,
        call.query if "key=" not in call.query else "", whose, [place.name for place in places], asking,
    ]  # fmt: skip
    digest = blake2b(json.dumps(told).encode("utf-8", "surrogatepass"), digest_size=24)
    if len(call.body) > PARSED_BYTES:
        digest.update(call.body)
    else:
        body = json.dumps(from_json(call.body), sort_keys=True, separators=(",", ":"))
        digest.update(body.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def wishes(call: Carried) -> tuple[bool, bool]:
    """Return whether an answer that was kept may be given, and whether this one may be kept: by the fleet file
    and the client's `cache-control`."""
    if call.calls.cache is None or not call.metered:
        return False, False
    said = next((value.lower() for name, value in call.headers if name == "cache-control"), "")
    return not ("no-cache" in said or "no-store" in said), "no-store" not in said


class Listening:
    """An `Outgoing` that keeps what passes."""

    def __init__(self, out: Outgoing) -> None:
        self.status = 0
        self.headers: Headers = ()
        self.pieces: list[bytes] | None = []
        """None: too much to keep."""
        self.stream = False
        self.ended = False
        self._out = out
        self._size = 0

    @property
    def begun(self) -> bool:
        return self._out.begun

    @property
    def gone(self) -> asyncio.Future[None]:
        return self._out.gone

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        self.status, self.headers = status, headers
        self._keep(body)
        self.ended = True
        self._out.answer(status, headers, body)

    def begin(self, status: int, headers: Headers) -> None:
        self.status, self.headers, self.stream = status, headers, True
        self._out.begin(status, headers)

    async def send(self, data: bytes) -> None:
        self._keep(data)
        await self._out.send(data)

    def end(self) -> None:
        self.ended = True
        self._out.end()

    def abort(self) -> None:
        self._out.abort()

    def _keep(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > MAX_ANSWER_BYTES:
            self.pieces = None
        elif self.pieces is not None:
            self.pieces.append(data)

    def kept(self, call: Carried, first: Place, at: float) -> Kept | None:
        """Return the answer when it may be given again. `first`: the place that was to answer; `at`: now, Unix
        seconds."""
        if not self.ended or self.status != 200 or self.pieces is None or call.refused:
            return None
        if not call.attempts or any(a.mended for a in call.attempts):
            return None
        last = call.attempts[-1]
        declined = last.declined or last.finish in DECLINED
        if last.place != first or call.moved:
            return None
        if last.outcome != "ok" or declined or last.charge is None:
            return None
        headers = tuple(pair for pair in self.headers if pair[0] in _KEPT_HEADERS)
        return Kept(
            at, at + (call.calls.cache or 0.0), self.status, headers, tuple(self.pieces), self.stream,
            last.place.provider, last.place.model, last.cost_nusd,
        )  # fmt: skip


class Cache:
    """All answers that are kept. Used from the event loop; the file is read and written by a thread."""

    def __init__(self, path: Path | None, counts: Counter[str]) -> None:
        """`path` None: in memory alone."""
        self._path = path
        self._counts = counts
        self._memory: OrderedDict[str, Kept] = OrderedDict()
        self._size = 0
        self._db: sqlite3.Connection | None = None
        self._written = 0
        self._unwritten = 0
        """Bytes that wait for the disk."""
        self._thread = ThreadPoolExecutor(1, "answers") if path is not None else None

    async def get(self, key: str, at: float) -> Kept | None:
        """Return an answer that is not over at `at` (Unix seconds)."""
        kept = self._memory.get(key)
        if kept is not None:
            if kept.until > at:
                self._memory.move_to_end(key)
                return kept
            self._drop(key)
            return None
        if self._thread is None:
            return None
        try:
            async with asyncio.timeout(READ_S):
                reading = asyncio.get_running_loop().run_in_executor(
                    self._thread, self._read, key, at
                )
                kept = await reading
        except TimeoutError:
            self._counts["cache.read_slow"] += 1  # the provider is quicker than this disk
            return None
        if kept is not None:
            self._remember(key, kept)
        return kept

    def put(self, key: str, kept: Kept) -> None:
        """Keep an answer; in memory alone while the disk does not keep up."""
        self._remember(key, kept)
        if self._thread is None:
            return
        if self._unwritten + kept.size > MAX_UNWRITTEN_BYTES:
            self._counts["cache.write_crowded"] += 1
            return
        self._unwritten += kept.size
        writing = asyncio.get_running_loop().run_in_executor(self._thread, self._write, key, kept)
        writing.add_done_callback(lambda _: self._wrote(kept.size))

    def _wrote(self, size: int) -> None:
        self._unwritten -= size

    async def close(self) -> None:
        """Write what waits."""
        if self._thread is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
            self._thread.shutdown()
            self._thread = None

    def _remember(self, key: str, kept: Kept) -> None:
        self._drop(key)
        self._memory[key] = kept
        self._size += kept.size
        while self._size > MAX_MEMORY_BYTES:
            self._drop(next(iter(self._memory)))

    def _drop(self, key: str) -> None:
        kept = self._memory.pop(key, None)
        if kept is not None:
            self._size -= kept.size

    # -- in the thread -----------------------------------------------------------------------------

    def _open(self) -> sqlite3.Connection:
        assert self._path is not None
        if self._db is None:
            with contextlib.suppress(FileExistsError):
                os.close(
                    os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                )
            db = sqlite3.connect(
                self._path, isolation_level=None, check_same_thread=False, timeout=1
            )
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            db.execute("PRAGMA auto_vacuum=INCREMENTAL")
            db.execute(
                "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, until REAL NOT NULL,"
                " size INTEGER NOT NULL, data BLOB NOT NULL) WITHOUT ROWID"
            )
            db.execute("CREATE INDEX IF NOT EXISTS answers_until ON answers (until, size)")
            self._db = db
        return self._db

    def _read(self, key: str, at: float) -> Kept | None:
        try:
            row = self._open().execute("SELECT until, data FROM answers WHERE key = ? AND until > ?", (key, at)).fetchone()  # fmt: skip
            return None if row is None else Kept.load(at, row[0], row[1])
        except (sqlite3.Error, OSError, ValueError, KeyError, TypeError) as error:
            self._failed("read", error)
            return None

    def _write(self, key: str, kept: Kept) -> None:
        try:
            db = self._open()
            db.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)", (key, kept.until, kept.size, kept.dump()))  # fmt: skip
            self._written += 1
            if self._written % SWEEP_EVERY == 1:
                self._sweep(db, kept)
        except (sqlite3.Error, OSError) as error:
            self._failed("write", error)

    def _sweep(self, db: sqlite3.Connection, newest: Kept) -> None:
        """Delete what is over, and of the rest what is over soonest while there is too much."""
        db.execute("DELETE FROM answers WHERE until <= ?", (newest.made,))
        (size,) = db.execute("SELECT COALESCE(SUM(size), 0) FROM answers").fetchone()
        while size > MAX_DISK_BYTES:
            rows = db.execute("SELECT key, size FROM answers ORDER BY until LIMIT 64").fetchall()
            db.executemany("DELETE FROM answers WHERE key = ?", [(key,) for key, _ in rows])
            size -= sum(freed for _, freed in rows)
        db.execute("PRAGMA incremental_vacuum(256)")

    def _failed(self, what: str, error: Exception) -> None:
        self._counts[f"cache.{what}_failed"] += 1
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(
            error, sqlite3.OperationalError
        ):
            # no database, or a broken one: it holds nothing that cannot be had again
            self._close()
            assert self._path is not None
            for end in ("", "-wal", "-shm"):
                Path(f"{self._path}{end}").unlink(missing_ok=True)

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None
