"""Which database a ledger lives in: a file of the data directory, or PostgreSQL by its address."""

from __future__ import annotations

from pathlib import Path

from midwatch.core.calls.period import Calendar
from midwatch.core.errors import SetupError
from midwatch.gateway.ledger.apart import ApartLedger
from midwatch.gateway.ledger.durable import DurableLedger
from midwatch.gateway.ledger.keeper import Beside
from midwatch.gateway.ledger.sqlite import Disk, SqliteEngine

SCHEMES = ("postgresql://", "postgres://")


def ledger_at(place: str | Path, calendar: Calendar, beside: Beside | None = None) -> DurableLedger:
    """Return the ledger, not yet started, of a file's path or an address `postgresql://…`. `beside`: the process that
    keeps the books of a file; a thread of this one does without it.

    Raises SetupError when PostgreSQL is asked for and its driver is not installed.
    """
    if isinstance(place, str) and place.startswith(SCHEMES):
        if beside is not None:
            beside.dismiss()
        try:
            from midwatch.gateway.ledger.postgres import PostgresEngine
        except ImportError:
            raise SetupError(
                'a ledger on PostgreSQL needs its driver: pip install "midwatch[server,cluster]"'
            ) from None
        return DurableLedger(PostgresEngine(place), PostgresEngine(place, read_only=True), calendar)
    path = Path(place)
    if beside is not None:
        return ApartLedger(path, calendar, beside)
    engine, reader = SqliteEngine(path), SqliteEngine(path, read_only=True)
    return DurableLedger(engine, reader, calendar, disk=Disk(path))
