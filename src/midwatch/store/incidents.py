"""The incident book in the state database (`core.ports.IncidentBook`)."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection, RowMapping, select, tuple_

from midwatch.core.incident import Action, Incident, IncidentState
from midwatch.store.state import StateDb
from midwatch.store.tables import incidents
from midwatch.store.upsert import upsert


class IncidentStore:
    """One row per incident; actions and evidence are JSON inside it."""

    def __init__(self, db: StateDb) -> None:
        self._db = db

    async def open_incidents(self) -> list[Incident]:
        """Return all that are not resolved, oldest first."""
        query = (
            select(incidents)
            .where(incidents.c.state != IncidentState.RESOLVED.value)
            .order_by(incidents.c.opened_at, incidents.c.id)
        )
        return await self._db.read(lambda c: _all(c, query))

    async def save(self, incident: Incident) -> None:
        """Keep the incident as it is now; durable when it returns."""
        row = _row(incident)
        await self._db.write(lambda c: upsert(c, incidents, row))

    async def get(self, incident_id: str) -> Incident | None:
        """Return one, or None."""
        query = select(incidents).where(incidents.c.id == incident_id)
        found = await self._db.read(lambda c: _all(c, query))
        return found[0] if found else None

    async def page(
        self, *, state: str | None, agent: str | None, after: str | None, limit: int
    ) -> list[Incident]:
        """Return newest first; `after` is the id that the last page ended with."""
        query = select(incidents).order_by(incidents.c.opened_at.desc(), incidents.c.id.desc())
        if state is not None:
            query = query.where(incidents.c.state == state)
        if agent is not None:
            query = query.where(incidents.c.agent == agent)
        if after is not None:
            last = select(incidents.c.opened_at).where(incidents.c.id == after).scalar_subquery()
            query = query.where(tuple_(incidents.c.opened_at, incidents.c.id) < tuple_(last, after))
        return await self._db.read(lambda c: _all(c, query.limit(limit)))


def _row(incident: Incident) -> dict[str, Any]:
    return {
        "id": incident.id,
        "kind": incident.kind,
        "agent": incident.agent,
        "group": incident.group,
        "severity": incident.severity,
        "state": incident.state.value,
        "sentence": incident.sentence,
        "reason": incident.reason,
        "evidence": json.dumps(incident.evidence, default=str),
        "opened_at": incident.opened_at,
        "evidence_at": incident.evidence_at,
        "seen_at": incident.seen_at,
        "resolved_at": incident.resolved_at,
        "acked_at": incident.acked_at,
        "actions": json.dumps([action.to_json() for action in incident.actions]),
        "count": incident.count,
    }


def _incident(row: RowMapping) -> Incident:
    values: dict[str, Any] = dict(row)
    values["state"] = IncidentState(values["state"])
    values["evidence"] = json.loads(values["evidence"])
    values["actions"] = [Action(**action) for action in json.loads(values["actions"])]
    return Incident(**values)


def _all(connection: Connection, query: Any) -> list[Incident]:
    return [_incident(row) for row in connection.execute(query).mappings()]
