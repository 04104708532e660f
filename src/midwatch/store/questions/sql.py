"""Read-only SQL: one SELECT of a stranger, in a process of its own that ends with it (`sandbox`).

The process reads segments itself; of what is not sealed yet it is given a file with the columns that it names. So a
query neither holds up those who look at pages nor takes memory from those who send, and whatever goes wrong in it
goes wrong there. What it reads stays as long as it runs.
"""

# ruff: noqa: S608  names of tables and columns are ours

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from midwatch.core.errors import StoreError
from midwatch.core.spans.facts import CALL
from midwatch.core.spans.form import TABLES, Role, Signal
from midwatch.core.spans.questions import BadQuestion, SqlLimits, Table
from midwatch.store.exporting import published
from midwatch.store.questions import sandbox
from midwatch.store.questions.judged import latest
from midwatch.store.spans import sums
from midwatch.store.spans.embedded import EmbeddedSpans
from midwatch.store.spans.engine import View, read_parquet
from midwatch.store.spans.known import VERDICTS
from midwatch.store.spans.segments import RESOURCES, quoted
from midwatch.store.spans.shape import COLUMNS, TIME
from midwatch.store.spans.sources import Pins

AT_ONCE: Final = 2
"""Queries that run at the same time; more wait, in their own time."""

MAX_WAITING: Final = 16
"""Queries that wait or run; a further one is refused, so that nobody's waits for an hour behind another's."""

MAX_TEXT: Final = 64 * 1024
"""Characters of a query."""

_STARTING_S: Final = 20.0
"""How long the process may take to begin; not of the query's time, and a busy machine is slow."""

_LINE: Final = 1024 * 1024

_KEYS: Final = frozenset({"agent", "trace_id", "span_id"})
_COUNTED: Final = _KEYS | {"rank", "role", "status", "scope", "cost_nusd", "cost_from", "input_tokens", "output_tokens"}  # fmt: skip
"""What a verdict by default is read from."""

DERIVED: Final[Mapping[str, tuple[str, str]]] = {
    "calls": ("spans", f"SELECT * FROM spans WHERE counts & {CALL} <> 0"),
    "tools": ("spans", f"SELECT * FROM spans WHERE role = '{Role.TOOL.name.lower()}'"),
    "cycles": ("beats", "SELECT * FROM beats"),
    "sessions": (
        "spans",
        "SELECT session, min(time) AS time, list_sort(list(DISTINCT agent)) AS agents,"
        ' arg_max("user", start_ns) FILTER ("user" IS NOT NULL) AS "user",'
        " max(start_ns + coalesce(duration_ns, 0)) - min(start_ns) AS duration_ns,"
        " count(DISTINCT trace_id) AS traces, count(DISTINCT turn) AS turns, count(*) AS spans,"
        " count(*) FILTER (status = 'error') AS errors, count(*) FILTER (counts & 1 <> 0) AS calls,"
        " coalesce(sum(input_tokens) FILTER (counts & 2 <> 0), 0)::BIGINT AS input_tokens,"
        " coalesce(sum(output_tokens) FILTER (counts & 2 <> 0), 0)::BIGINT AS output_tokens,"
        " coalesce(sum(cost_nusd) FILTER (counts & 4 <> 0), 0)::BIGINT AS cost_nusd,"
        " arg_max(outcome, start_ns) FILTER (outcome IS NOT NULL) AS outcome"
        " FROM spans WHERE session IS NOT NULL GROUP BY session",
    ),
}
"""Tables that are made of others: of which, and how."""

_SESSIONS: Final = _COUNTED | {
    "session",
    "user",
    "start_ns",
    "duration_ns",
    "turn",
    "outcome",
    "counts",
}


@dataclass(frozen=True, slots=True)
class Recorded:
    """A table from elsewhere: `write` puts its rows into a Parquet file."""

    write: Callable[[Path], Awaitable[None]]


@dataclass(slots=True)
class _Given:
    """What the process is given: views, the files that they read, and what keeps these there."""

    views: dict[str, str] = field(default_factory=dict[str, str])
    files: list[str] = field(default_factory=list[str])
    pins: list[Pins] = field(default_factory=list[Pins])


class Sql:
    """Asks one store. `also` are tables from elsewhere, by name. What is not in segments is written below `scratch`
    (the system's folder when None) for as long as the query runs."""

    def __init__(
        self, spans: EmbeddedSpans, also: Mapping[str, Recorded], scratch: Path | None = None
    ) -> None:
        self._scratch = scratch
        self._spans = spans
        self._also = also
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._asked = 0
        own = [*(signal.value for signal in Signal), RESOURCES, *also]
        self.tables = sorted({*own, *(name for name, (of, _) in DERIVED.items() if of in own)})

    async def ask(self, text: str, limits: SqlLimits) -> Table:
        """Return the rows of one SELECT. Raises BadQuestion, or StoreError when it takes too long."""
        if len(text) > MAX_TEXT:
            raise BadQuestion(f"the query has {len(text)} characters; {MAX_TEXT} are answered")
        if self._asked >= MAX_WAITING:
            raise StoreError(f"{MAX_WAITING} queries wait already; ask again in a minute")
        self._asked += 1
        try:
            async with self._turns:
                return await self._answer(text, limits)
        finally:
            self._asked -= 1

    async def _answer(self, text: str, limits: SqlLimits) -> Table:
        given = _Given()
        folder = Path(tempfile.mkdtemp(prefix="midwatch-sql-", dir=self._scratch))
        try:
            return await self._run(text, limits, folder, given)
        finally:
            for each in given.pins:
                each.unpin()
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _run(self, text: str, limits: SqlLimits, folder: Path, given: _Given) -> Table:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-B", str(sandbox.__file__),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
            env={}, cwd=folder, limit=_LINE + limits.result_bytes,
        )  # fmt: skip
        try:
            child = _Child(process)
            bounds = {"timeout_s": limits.timeout_s, "rows": limits.rows, "result_bytes": limits.result_bytes,
                      "memory_bytes": limits.memory_bytes}  # fmt: skip
            child.tell({"text": text, "tables": self.tables, "limits": bounds})
            async with asyncio.timeout(_STARTING_S):
                reads = (await child.hear())["reads"]
            async with asyncio.timeout(limits.timeout_s):
                await self._prepare(reads, folder, given)
                child.tell({"views": given.views, "files": given.files})
                return await child.table()
        except TimeoutError:
            raise StoreError(f"the query took longer than {limits.timeout_s:g} s; ask for less") from None  # fmt: skip
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _prepare(self, reads: Mapping[str, Any], folder: Path, given: _Given) -> None:
        tables: set[str] = set(reads["tables"])
        names: set[str] = set(reads["names"])
        wanted = {DERIVED[name][0] if name in DERIVED else name for name in tables}
        if "sessions" in tables:
            names |= _SESSIONS
        if reads["star"]:
            names |= {column.name for table in TABLES.values() for column in table.row} | {"counts"}
        if "calls" in tables:
            names.add("counts")
        if "tools" in tables:
            names.add("role")
        for name in wanted & set(self._also):
            path = folder / f"{name}.parquet"
            await self._also[name].write(path)
            given.files.append(str(path))
            given.views[name] = f"SELECT * FROM read_parquet('{quoted(path)}')"
        own = [signal for signal in Signal if signal.value in wanted]
        if own or RESOURCES in wanted:
            await self._spans.read(lambda view: _lay_out(view, own, names, folder, given))
        for name in DERIVED:
            if name in tables:
                given.views[name] = DERIVED[name][1]


class _Child:
    """What is said to the process and heard from it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._in, self._out = process.stdin, process.stdout

    def tell(self, what: Mapping[str, Any]) -> None:
        with contextlib.suppress(ConnectionError):  # what became of it is heard next
            self._in.write(json.dumps(what).encode() + b"\n")

    async def hear(self) -> Any:
        """Return the next line. Raises BadQuestion for a refusal, or when the process is gone."""
        line = await self._out.readline()
        if not line.endswith(b"\n"):
            raise BadQuestion("the query needs more memory or time than there is for one; ask for less")  # fmt: skip
        said: Any = json.loads(line)
        if isinstance(said, dict) and "refused" in said:
            raise BadQuestion(f"the query cannot be answered: {said['refused']}")
        return said  # pyright: ignore[reportUnknownVariableType]

    async def table(self) -> Table:
        columns: list[str] = (await self.hear())["columns"]
        rows: list[list[Any]] = []
        said = await self.hear()
        while isinstance(said, list):
            rows.append(cast("list[Any]", said))
            said = await self.hear()
        return Table(columns, rows, truncated=said["end"] == "truncated")


def _lay_out(view: View, signals: Collection[Signal], names: Collection[str], folder: Path, given: _Given) -> None:  # fmt: skip
    """Give what a view shows of these tables. In a reading thread."""
    for signal in signals:
        path = folder / f"fresh-{signal.value}.parquet"
        _write(view, _fresh(view, signal, names), path)
        files = [*_held(view, signal.value, given), path]
        rows = f"SELECT {COLUMNS[signal]} FROM {read_parquet(files)}"
        given.files.append(str(path))
        more = ""
        if signal is Signal.SPANS:
            rows = _without_hidden(view, rows, folder, given)
            if "counts" in names:
                rows = f"SELECT * FROM {_counted(view, f'({rows})', given)}"
                more = ", counts"
        given.views[signal.value] = f"SELECT {published(signal)}{more} FROM ({rows}) AS r"
    path = folder / "resources.parquet"
    _write(view, f"SELECT DISTINCT lower(hex(resource_id)) AS resource_id, text AS resource FROM {view.resources()}", path)  # fmt: skip
    given.files.append(str(path))
    given.views[RESOURCES] = f"SELECT * FROM read_parquet('{quoted(path)}')"


def _fresh(view: View, signal: Signal, names: Collection[str]) -> str:
    """Return the query of what is not sealed; columns that nobody names are left empty."""
    needed = {TIME[signal], *names}
    if signal is Signal.SPANS:
        needed |= _KEYS | {"rank"} | (_COUNTED if "counts" in names else set())
    chosen = ", ".join(f'"{c.name}"' for c in TABLES[signal].row if c.name in needed)
    empty = f"SELECT * FROM {view.layout.hot.name}.{signal.value} LIMIT 0"
    return f"(({empty}) UNION ALL BY NAME SELECT {chosen} FROM {view.unsealed(signal)} AS u)"


def _held(view: View, kind: str, given: _Given) -> list[Path]:
    files, pins = view.hold(kind)
    given.pins += pins
    given.files += map(str, files)
    return files


def _without_hidden(view: View, rows: str, folder: Path, given: _Given) -> str:
    hidden = view.lost_and_found()
    if hidden is None:
        return rows
    path = folder / "hidden.parquet"
    _write(view, hidden, path)
    given.files.append(str(path))
    return (
        f"SELECT * FROM ({rows}) AS r WHERE NOT (rank = 1 AND EXISTS (SELECT 1 FROM read_parquet('{quoted(path)}') AS h"
        " WHERE h.trace_id = r.trace_id AND h.span_id = r.span_id AND h.agent = r.agent))"
    )


def _counted(view: View, rows: str, given: _Given) -> str:
    files = _held(view, VERDICTS, given)
    if not files:
        return sums.counted(rows)
    return sums.counted(rows, latest(read_parquet(files)))


def _write(view: View, rows: str, path: Path) -> None:
    view.cursor.execute(f"COPY {rows if rows.startswith('(') else f'({rows})'} TO '{quoted(path)}' (FORMAT parquet, COMPRESSION snappy)")  # fmt: skip
    os.chmod(path, 0o600)  # noqa: PTH101
