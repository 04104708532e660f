"""What a database must do for the ledger: one transaction at a time, alone among all gateways.

Statements are one text for every engine: `?` marks a value, `{many}` a list of texts to look among, `{rows}` rows of
values, and what differs is a word of the engine's (`Engine.words`). One row, `ledger`, is updated first in each transaction: where
the database locks rows that is the lock, so that there is one order and no deadlock; and its version tells whether
somebody else has written since.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, LiteralString, Protocol

from midwatch.core.errors import MidwatchError

Row = tuple[Any, ...]

LOCK: Final[LiteralString] = (
    "UPDATE ledger SET version = version + 1 WHERE one = 1 RETURNING version"
)


class LedgerDown(MidwatchError):
    """The database did not take it. `lost` is True when the connection must be opened anew."""

    permanent = False

    def __init__(self, message: str, reason: str, *, lost: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        """In a word, for counting: locked, full, read-only, corrupt, away, slow, …"""
        self.lost = lost
        self.unsure = False
        """True when a commit failed: it may have been done all the same."""


class LedgerUnusable(MidwatchError):
    """The database cannot be this version's ledger: newer schema, or no ledger at all."""


class BadRow(MidwatchError):
    """One value cannot be stored, whatever the state of the database; the rest of its batch can."""


class Engine(Protocol):
    """One connection, used by one thread at a time. Every method raises LedgerDown or BadRow."""

    words: Mapping[str, str]
    """What differs between engines, by name: put into statements with `say`."""

    def open(self) -> None:
        """Connect, and bring the schema forward. Raises LedgerUnusable."""
        ...

    def close(self) -> None: ...

    def begin(self) -> int:
        """Begin a transaction that no other gateway runs beside, and return its version."""
        ...

    def commit(self) -> None: ...

    def rollback(self) -> None:
        """Undo the transaction, if there is one. Raises nothing."""
        ...

    def rows(self, sql: str, values: Sequence[Any] = ()) -> list[Row]: ...

    def run(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Run one statement, and return how many rows it changed."""
        ...

    def run_many(self, sql: str, many: Sequence[Sequence[Any]]) -> None:
        """Run a statement with `{rows}` in it for many rows of values, all of one width."""
        ...

    def tidy(self) -> None:
        """Give back a little of the space that deleted rows took. Outside a transaction."""
        ...

    def listed(self, texts: Sequence[str]) -> Any:
        """Return the value that stands for `{many}`."""
        ...


class Background(Protocol):
    """What an engine does behind its commits, in a thread of its own."""

    def start(self) -> None: ...

    def wrote(self) -> None:
        """Hear that a transaction was committed. Any thread."""
        ...

    def stop(self) -> None: ...


ROWS_AT_ONCE: Final = (64, 16, 4, 1)
"""Rows of one statement. Python's lock is given up and fought for once per statement: with a statement per row a
transaction took five times as long while the event loop was busy."""

EXACTLY: Final = 32
"""Where statements are cheap to keep, one has as many rows as there are, up to this: what one call changes."""


def widened(
    sql: str, many: Sequence[Sequence[Any]], *, exactly: int = 0
) -> Iterator[tuple[str, list[Any]]]:
    """Yield statements for many rows, and their values, from one with `{rows}` in it. So many rows, or fewer, are one
    statement if there are `exactly`, or fewer."""
    done, sizes = 0, (len(many),) if 0 < len(many) <= exactly else ROWS_AT_ONCE
    for size in sizes:
        while len(many) - done >= size:
            rows = many[done : done + size]
            yield _widened(sql, len(rows[0]), size), [value for row in rows for value in row]
            done += size


@lru_cache(256)
def _widened(sql: str, width: int, rows: int) -> str:
    row = f"({', '.join('?' * width)})"
    return sql.replace("{rows}", ", ".join([row] * rows))


def say(sql: str, words: Mapping[str, str]) -> str:
    """Return a statement in an engine's words."""
    for name, word in words.items():
        sql = sql.replace(f"{{{name}}}", word)
    return sql
