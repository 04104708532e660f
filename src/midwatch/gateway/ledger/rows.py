"""Statements of the ledger, and rows as they are written and read. One text for every engine."""

# ruff: noqa: S608  statements are put together from names in this room alone; values are bound

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import fields
from functools import lru_cache
from typing import Any, Final

from pydantic_core import to_json

from midwatch.core.calls.account import clean
from midwatch.core.calls.charge import Call, CallState, Charge, Reservation
from midwatch.core.calls.period import Periods

MAX_JSON: Final = 16_384
"""Characters of a call's usage or attempts; more is left out, and the row says so."""

MAX_MODEL: Final = 200

_OPENING: Final = (
    "id, state, gateway, agent, in_group, run, session, key_name, task, tags, accounts, model_asked,"
    " day, slot, reserved_at, deadline_at, reserved_nusd, provider, model, sent_key"
)

_ENDING: Final = [
    "state",
    "settled_at",
    "cost_nusd",
    "saved_nusd",
    "model",
    "provider",
    "usage",
    "input_tokens",
    "output_tokens",
    "price_version",
    "costs",
    "disputed",
    "estimated",
    "attempts",
    "outcome",
]

_EMPTY: Final = {"model": "''", "provider": "''", "attempts": "'[]'"}
"""What the end of a call that never came, or an exact figure, does not know: then what was known stays."""


def _set(column: str, number: int) -> str:
    told, empty = f"ended.column{number}", _EMPTY.get(column)
    kept = f"CASE WHEN {told} = {empty} THEN calls.{column} ELSE {told} END" if empty else told
    return f"{column} = {kept}"


_BALANCE: Final = "id, state, accounts, day, slot, reserved_nusd, cost_nusd, estimated"

SQL: Final[dict[str, str]] = {
    "open": f"INSERT INTO calls ({_OPENING}) VALUES {{rows}}",
    "end": (
        f"UPDATE calls SET {', '.join(_set(c, n) for n, c in enumerate(_ENDING, 1))}"
        f" FROM (VALUES {{rows}}) AS ended WHERE calls.id = ended.column{len(_ENDING) + 1}"
    ),
    "charge": (
        "INSERT INTO balances (account, period, spent_nusd, reserved_nusd, touched) VALUES {rows}"
        " ON CONFLICT (account, period) DO UPDATE SET"
        " spent_nusd = balances.spent_nusd + excluded.spent_nusd,"
        " reserved_nusd = balances.reserved_nusd + excluded.reserved_nusd,"
        " touched = CASE WHEN excluded.touched > balances.touched"
        " THEN excluded.touched ELSE balances.touched END"
    ),
    "note": (
        "UPDATE calls SET response = noted.column2 FROM (VALUES {rows}) AS noted"
        " WHERE calls.id = noted.column1"
    ),
    "correct": (
        "INSERT INTO corrections (call, at, by_whom, was_nusd, cost_nusd) VALUES {rows}"
        " ON CONFLICT (call, at, was_nusd, cost_nusd) DO NOTHING"
    ),
    "tell": (
        "INSERT INTO told (account, period, kind, limit_nusd, at) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (account, period, kind, limit_nusd) DO NOTHING"
    ),
    "find": f"SELECT {_BALANCE} FROM calls WHERE id IN {{many}}",
    "overdue": (
        f"SELECT {_BALANCE} FROM calls WHERE state = 'open' AND deadline_at <= ?"
        " ORDER BY deadline_at LIMIT ?"
    ),
    # two searches by the key's beginning: an account has hundreds of old days
    "load": (
        "SELECT account, period, spent_nusd, reserved_nusd FROM balances"
        " WHERE account IN {many} AND period IN ('t', ?, ?)"
        " UNION ALL SELECT account, period, spent_nusd, reserved_nusd FROM balances"
        " WHERE account IN {many} AND period >= ? AND period < 'i'"
    ),
}

_COLUMN: Final = {"call_id": "id", "group": "in_group", "key": "key_name"}
"""Where a column's name is not the field's."""

_FIELDS: Final = tuple(field.name for field in fields(Call))

SELECT_CALLS: Final = f"SELECT {', '.join(_COLUMN.get(f, f) for f in _FIELDS)} FROM calls"


def pack(value: object) -> str:
    """Return JSON text that every engine takes; what is too long or no JSON is replaced by a note of that."""
    if not value:
        return "[]" if isinstance(value, list | tuple) else "{}"
    try:
        text = to_json(value).decode()
        if len(text) <= MAX_JSON and "\\u0000" not in text:
            return text
        note: dict[str, Any] = {"left_out": len(text)}
    except (TypeError, ValueError, RecursionError) as error:
        note = {"left_out": type(error).__name__}
    return json.dumps([note] if isinstance(value, list | tuple) else note)


@lru_cache(4096)
def _accounts_out(accounts: tuple[str, ...]) -> str:
    return to_json(accounts).decode()


@lru_cache(4096)
def accounts_in(text: str) -> tuple[str, ...]:
    """Return the accounts of a row."""
    return tuple(json.loads(text))


def _name(text: str | None) -> str | None:
    return None if text is None else clean(text)


def opening(asked: Reservation, accounts: tuple[str, ...], periods: Periods) -> tuple[Any, ...]:
    """Return the values of a new row, for `open`."""
    payer = asked.payer
    tags = {clean(name): clean(value) for name, value in payer.tags.items()}
    return (
        asked.call_id,
        "open",
        asked.gateway,
        clean(payer.agent),
        _name(payer.group),
        _name(payer.run),
        _name(payer.session),
        _name(payer.key),
        _name(asked.task),
        pack(tags),
        _accounts_out(accounts),
        clean(asked.model_asked, MAX_MODEL),
        periods.day[1:],
        periods.slot,
        asked.at,
        asked.deadline_at,
        asked.worst_nusd,
        clean(asked.provider),
        clean(asked.model, MAX_MODEL),
        clean(asked.sent_key),
    )


def ending(call_id: str, state: CallState, charge: Charge) -> tuple[Any, ...]:
    """Return the values of a call's end, for `end`."""
    return (
        state.value,
        charge.at,
        charge.cost_nusd,
        charge.saved_nusd,
        clean(charge.model, MAX_MODEL),
        clean(charge.provider),
        pack(charge.usage),
        charge.input_tokens,
        charge.output_tokens,
        clean(charge.price_version),
        pack(charge.costs),
        int(charge.disputed),
        int(charge.estimated),
        pack(charge.attempts),
        clean(charge.outcome),
        call_id,
    )


def call(row: Sequence[Any]) -> Call:
    """Return a row of `SELECT_CALLS` as a call."""
    found: dict[str, Any] = dict(zip(_FIELDS, row, strict=True))
    for name in ("tags", "usage", "costs", "attempts"):
        found[name] = json.loads(found[name])
    found["state"] = CallState(found["state"])
    found["accounts"] = accounts_in(found["accounts"])
    found["attempts"] = tuple(found["attempts"])
    found["disputed"], found["estimated"] = bool(found["disputed"]), bool(found["estimated"])
    return Call(**found)
