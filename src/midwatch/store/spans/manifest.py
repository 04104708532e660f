"""The manifest: which segments there are, in the state database. What it names exists, nothing else does.

One transaction takes new segments in, old ones out, and says up to which generation everything is sealed. So a crash
leaves either the generation or its segments, never both and never neither.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    delete,
    insert,
    select,
    update,
)

from midwatch.core.errors import StoreError
from midwatch.store.spans.segments import Segment
from midwatch.store.state import StateDb

_metadata: Final = MetaData()

_segments: Final = Table(
    "segments",
    _metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", String, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("from_ns", BigInteger, nullable=False),
    Column("to_ns", BigInteger, nullable=False),
    Column("rows", BigInteger, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("checksum", BigInteger, nullable=False),
    Column("agents", Text, nullable=False),
)

_sealed: Final = Table(
    "sealed",
    _metadata,
    Column("one", Integer, primary_key=True, autoincrement=False),
    Column("generation", BigInteger, nullable=False),
    Column("number", BigInteger, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Named:
    """What the manifest says."""

    segments: Sequence[Segment]
    sealed: int
    """Every generation up to this number is in segments."""
    number: int
    """The highest number that a segment ever had."""


class Manifest(Protocol):
    """Where segments are named. Methods raise StoreError."""

    async def load(self) -> Named: ...

    async def change(self, add: Sequence[Segment], remove: Sequence[Segment], sealed: int) -> None:
        """In one transaction: name these, forget those, everything up to `sealed` is sealed. Durable when it
        returns. Raises StoreError, and changes nothing, when a segment to be removed is not there."""
        ...


class StateManifest:
    """The manifest in `state.db`."""

    def __init__(self, state: StateDb) -> None:
        self._state = state

    async def load(self) -> Named:
        await self._state.write(_create)
        return await self._state.read(_load)

    async def change(self, add: Sequence[Segment], remove: Sequence[Segment], sealed: int) -> None:
        def work(connection: Connection) -> None:
            gone = [segment.number for segment in remove]
            if gone:
                done = connection.execute(delete(_segments).where(_segments.c.number.in_(gone)))
                if done.rowcount != len(gone):
                    raise StoreError(f"{len(gone) - done.rowcount} of the segments {gone} are not in the manifest any more", permanent=True)  # fmt: skip
            if add:
                connection.execute(insert(_segments), [_row(segment) for segment in add])
            before = connection.execute(select(_sealed.c.generation, _sealed.c.number)).one()
            highest = max([before.number, *(segment.number for segment in add)])
            connection.execute(
                update(_sealed).values(generation=max(before.generation, sealed), number=highest)
            )

        await self._state.write(work)


class MemoryManifest:
    """The same in memory, for tests: whoever is given the same one finds what was named."""

    def __init__(self) -> None:
        self.named = Named((), 0, 0)
        self.broken = False

    async def load(self) -> Named:
        return self.named

    async def change(self, add: Sequence[Segment], remove: Sequence[Segment], sealed: int) -> None:
        if self.broken:
            raise StoreError("the manifest is told to be broken")
        gone = {segment.number for segment in remove}
        if not gone <= {segment.number for segment in self.named.segments}:
            raise StoreError(f"some of the segments {sorted(gone)} are not there", permanent=True)
        kept = [segment for segment in self.named.segments if segment.number not in gone]
        self.named = Named(
            (*kept, *add),
            max(self.named.sealed, sealed),
            max([self.named.number, *(segment.number for segment in add)]),
        )


def _create(connection: Connection) -> None:
    _metadata.create_all(connection)
    if connection.execute(select(_sealed.c.one)).first() is None:
        connection.execute(insert(_sealed).values(one=1, generation=0, number=0))


def _load(connection: Connection) -> Named:
    rows = connection.execute(select(_segments).order_by(_segments.c.number)).all()
    sealed = connection.execute(select(_sealed.c.generation, _sealed.c.number)).one()
    return Named([_segment(row) for row in rows], sealed.generation, sealed.number)


def _row(segment: Segment) -> dict[str, Any]:
    return {
        "number": segment.number,
        "kind": segment.kind,
        "generation": segment.generation,
        "from_ns": segment.from_ns,
        "to_ns": segment.to_ns,
        "rows": segment.rows,
        "size_bytes": segment.size_bytes,
        "checksum": segment.checksum,
        "agents": json.dumps(segment.agents),
    }


def _segment(row: Any) -> Segment:
    agents = {agent: (rows, first) for agent, (rows, first) in json.loads(row.agents).items()}
    return Segment(
        row.number, row.kind, row.generation, row.from_ns, row.to_ns, row.rows, row.size_bytes, row.checksum, agents
    )  # fmt: skip
