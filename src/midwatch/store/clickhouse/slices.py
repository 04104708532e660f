"""Slices: what was stored from one millisecond of the server's clock to another, settled as one.

A slice begins where the one before it ends. It is committed by its row, which says with which attempt of several; what that
attempt wrote counts. Then it is applied: verdicts and traces are written, which may be repeated, and it is in force. Slices end some
seconds before now, so that every insert in them is seen, and of two hubs that were given one span at one time the same
row is seen by whoever settles.
"""

# ruff: noqa: S608  names of tables are ours, values are bound

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass
from typing import Final

from midwatch.core.spans.form import Signal
from midwatch.store.clickhouse.client import ClickHouse
from midwatch.store.clickhouse.rows import encode
from midwatch.store.clickhouse.schema import NAMES

SLICES: Final = "midwatch_slices"
APPLIED: Final = "midwatch_applied"

AT_ONCE: Final = 50_000
"""Spans of one slice, and those that were stored in the same millisecond as the last of them."""

LOOK_S: Final = 60.0
"""How long one statement of settling may take."""

_ALL: Final = NAMES[Signal.SPANS]


@dataclass(frozen=True, slots=True)
class Slice:
    """What was stored after `from_ms` and not after `upto_ms`."""

    number: int
    attempt: int
    from_ms: int
    upto_ms: int
    spans: int = 0

    @property
    def lets(self) -> bool:
        """Tell whether it is a letting (`sweeping`), which decides on traces and holds no time."""
        return self.from_ms == self.upto_ms

    @property
    def where(self) -> str:
        """The condition for its rows."""
        return f"stored_ms > {self.from_ms} AND stored_ms <= {self.upto_ms}"


def committed(client: ClickHouse) -> Slice | None:
    """Return the last slice that was committed."""
    told = client.ask(
        f"SELECT slice, attempt, from_ms, upto_ms, spans FROM {SLICES} ORDER BY slice DESC, told, attempt LIMIT 1"
    ).rows
    if not told:
        return None
    return Slice(*told[0])


def applied(client: ClickHouse) -> int:
    """Return the number of the last slice that was applied, or 0."""
    return client.ask(f"SELECT max(slice) FROM {APPLIED}").rows[0][0]


def following(client: ClickHouse, last: Slice | None, lag_ms: int) -> Slice | None:
    """Return the slice that comes next, or None when nothing was stored since."""
    from_ms = -1 if last is None else last.upto_ms
    now_ms = client.ask("SELECT toUnixTimestamp64Milli(now64(3))").rows[0][0] - lag_ms
    values = {"from": from_ms, "now": now_ms}
    where = "stored_ms > {from:Int64} AND stored_ms <= {now:Int64}"
    told = client.ask(
        f"SELECT stored_ms FROM {_ALL} WHERE {where} ORDER BY stored_ms LIMIT 1 OFFSET {AT_ONCE - 1}",
        values,
        timeout_s=LOOK_S,
    ).rows
    upto_ms = told[0][0] if told else now_ms
    spans = client.ask(
        f"SELECT count() FROM {_ALL} WHERE {where}", {"from": from_ms, "now": upto_ms}, timeout_s=LOOK_S
    ).rows[0][0]  # fmt: skip
    if not spans:
        return None
    number = 1 if last is None else last.number + 1
    return Slice(number, random.getrandbits(63), from_ms, upto_ms, spans)


def commit(client: ClickHouse, made: Slice) -> bool:
    """Make it so; tell whether it is this attempt that counts. Raises StoreError: then it may have been."""
    line = encode([made.number, made.attempt, made.from_ms, made.upto_ms, made.spans])
    names = ["slice", "attempt", "from_ms", "upto_ms", "spans"]
    client.insert(SLICES, names, [line], uuid.uuid4().hex)
    found = committed(client)
    return found is not None and (found.number, found.attempt) == (made.number, made.attempt)


def mark_applied(client: ClickHouse, done: Slice) -> None:
    """Say that what it holds is written."""
    line = encode([1, done.number, done.upto_ms])
    client.insert(APPLIED, ["one", "slice", "upto_ms"], [line], uuid.uuid4().hex)
