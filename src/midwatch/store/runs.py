"""Runs in the state database: reports of one run are merged by its id, in group commits.

A later report wins field by field. Fields that the hub does not know are kept. A report that names
another agent than the run's own is refused: run ids are not a way into a neighbour's history.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select, tuple_

from midwatch.core.counts import Counts
from midwatch.core.errors import StoreError
from midwatch.store.group import GroupCommit
from midwatch.store.state import StateDb
from midwatch.store.tables import runs
from midwatch.store.upsert import upsert
from midwatch.wire.items import Item


@dataclass(frozen=True, slots=True)
class Merged:
    """What became of one batch of reports."""

    items: list[Item]
    foreign: list[int]
    """Indexes of reports whose run belongs to another agent."""


class RunStore:
    """The owner of the table `runs`."""

    def __init__(self, db: StateDb, counts: Counts) -> None:
        self._db = db
        self._group = GroupCommit[Sequence[Item], Merged](
            "state store", self._write, db.writing, counts
        )

    def start(
        self, after: Callable[[list[Merged]], Coroutine[Any, Any, None]] | None = None
    ) -> None:
        """Begin to take reports; call inside the running loop."""
        self._group.after = after
        self._group.start()

    async def stop(self) -> None:
        """Write what waits."""
        await self._group.stop()

    async def merge(self, items: Sequence[Item], size: int = 0) -> Merged:
        """Commit the reports and return which were taken. Raises StoreError."""
        return await self._group.submit(items, len(items), size)

    async def get(self, run_id: str) -> dict[str, Any] | None:
        """Return one run, or None."""
        query = select(runs.c.fields).where(runs.c.run_id == run_id)
        text = await self._db.read(lambda c: c.execute(query).scalar())
        return None if text is None else json.loads(text)

    async def page(
        self, *, agent: str | None, after: str | None, limit: int
    ) -> list[dict[str, Any]]:
        """Return newest first by start; `after` is the run id that the last page ended with."""
        query = select(runs.c.fields).order_by(runs.c.started_at.desc(), runs.c.run_id.desc())
        if agent is not None:
            query = query.where(runs.c.agent == agent)
        if after is not None:
            last = select(runs.c.started_at).where(runs.c.run_id == after).scalar_subquery()
            query = query.where(tuple_(runs.c.started_at, runs.c.run_id) < tuple_(last, after))
        texts = await self._db.read(lambda c: list(c.execute(query.limit(limit)).scalars()))
        return [json.loads(text) for text in texts]

    def _write(self, group: list[Sequence[Item]]) -> list[Merged | StoreError]:
        return self._db.write_now(lambda c: [_merge(c, items) for items in group])


def _merge(connection: Connection, items: Sequence[Item]) -> Merged:
    taken: list[Item] = []
    foreign: list[int] = []
    for index, item in enumerate(items):
        query = select(runs.c.agent, runs.c.fields).where(runs.c.run_id == item["run_id"])
        known = connection.execute(query).first()
        fields: dict[str, Any] = json.loads(known.fields) if known is not None else {}
        if known is not None and known.agent != item["agent"]:
            foreign.append(index)
            continue
        # the item's own id and time belong to the report, not to the run
        fields.update({k: v for k, v in item.items() if k not in ("id", "at")})
        # a page is ordered by start, so a run without one starts when it was first reported
        fields.setdefault("started_at", item["at"])
        values = {
            "run_id": item["run_id"],
            "agent": item["agent"],
            "state": fields.get("state"),
            "started_at": fields["started_at"],
            "ended_at": fields.get("ended_at"),
            "seen_at": item["at"],
            "fields": json.dumps(fields),
        }
        upsert(connection, runs, values)
        taken.append(item)
    return Merged(taken, foreign)
