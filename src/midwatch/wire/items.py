"""The four kinds of item that processes send to the hub: beat, event, run, sample.

An item is a JSON object. `read` checks one against its table of fields, clips what may be
clipped, refuses what may not stand, fills in `id` and `at`, and keeps unknown fields under
their own names. After `read` every known field has its exact type: times are Unix seconds
as float, money is integer nano-dollars beside the dollars that came in.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, TypeGuard

from midwatch.wire import limits
from midwatch.wire.ids import new_id

Item = dict[str, Any]


class Kind(StrEnum):
    BEAT = "beat"
    EVENT = "event"
    RUN = "run"
    SAMPLE = "sample"


PATHS: Final[dict[Kind, str]] = {
    Kind.BEAT: "/api/beats",
    Kind.EVENT: "/api/events",
    Kind.RUN: "/api/runs",
    Kind.SAMPLE: "/api/samples",
}


class BadItem(ValueError):
    """An item that is refused. `path` is the field, `reason` a short name that is counted."""

    def __init__(self, path: str, reason: str, message: str) -> None:
        super().__init__(message)
        self.path = path
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Field:
    """One known field: how it is read, and one sentence for the reference page."""

    read: Callable[[str, Any, float], Any]
    about: str
    required: bool = False


@dataclass(slots=True)
class Clips:
    """Counts of what was shortened while reading, by field."""

    by_field: dict[str, int] = field(default_factory=dict[str, int])


def _name(path: str, value: Any, _now: float) -> str:
    if not isinstance(value, str) or not value or len(value) > limits.MAX_NAME:
        raise BadItem(
            path,
            "name",
            f"{path}: expected a name of 1 to {limits.MAX_NAME} characters, got {_show(value)}",
        )
    if not value.isprintable():
        raise BadItem(path, "name", f"{path}: unprintable characters in {_show(value)}")
    return value


def _text(path: str, value: Any, _now: float) -> str:
    if not isinstance(value, str):
        raise BadItem(path, "type", f"{path}: expected text, got {_show(value)}")
    return value[: limits.MAX_TEXT]


def _is_finite(value: Any) -> TypeGuard[int | float]:
    """Tell whether it is a number that can be reckoned with; an int may be too large for a float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _count(path: str, value: Any, _now: float) -> int:
    if not _is_finite(value):
        raise BadItem(path, "type", f"{path}: expected a number, got {_show(value)}")
    if value < 0 or value > limits.MAX_NUMBER or int(value) != value:
        raise BadItem(
            path, "range", f"{path}: expected a whole number from 0 up, got {_show(value)}"
        )
    return int(value)


def _number(path: str, value: Any, _now: float) -> float:
    if not _is_finite(value):
        raise BadItem(path, "type", f"{path}: expected a finite number, got {_show(value)}")
    if abs(value) > limits.MAX_NUMBER:
        raise BadItem(path, "range", f"{path}: {_show(value)} is out of range")
    return float(value)


def _amount(path: str, value: Any, now: float) -> float:
    number = _number(path, value, now)
    if number < 0:
        raise BadItem(path, "range", f"{path}: expected 0 or more, got {_show(value)}")
    return number


def _dollars(path: str, value: Any, now: float) -> float:
    amount = _amount(path, value, now)
    if amount > limits.MAX_COST_USD:
        raise BadItem(
            path,
            "range",
            f"{path}: expected at most {limits.MAX_COST_USD:.0f} dollars, got {_show(value)}",
        )
    return amount


def _flag(path: str, value: Any, _now: float) -> bool:
    if not isinstance(value, bool):
        raise BadItem(path, "type", f"{path}: expected true or false, got {_show(value)}")
    return value


def _object(path: str, value: Any, _now: float) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadItem(path, "type", f"{path}: expected an object, got {_show(value)}")
    return value  # pyright: ignore[reportUnknownVariableType]


def _signed(path: str, value: Any, _now: float) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > limits.MAX_NUMBER:
        raise BadItem(path, "type", f"{path}: expected a whole number, got {_show(value)}")
    return value


def _time(path: str, value: Any, now: float) -> float:
    """Read Unix seconds, or RFC 3339 text with an offset. Returns Unix seconds."""
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise BadItem(
                path, "time", f"{path}: expected RFC 3339 or Unix seconds, got {_show(value)}"
            ) from None
        if moment.tzinfo is None:
            raise BadItem(path, "time", f"{path}: {_show(value)} has no offset; end it with Z")
        seconds = moment.timestamp()
    else:
        seconds = _number(path, value, now)
    if seconds > now + limits.MAX_FUTURE_S:
        raise BadItem(
            path,
            "future",
            f"{path}: {_show(value)} is more than {limits.MAX_FUTURE_S:.0f} s ahead; check the clock",
        )
    if seconds < now - limits.MAX_PAST_S:
        raise BadItem(path, "past", f"{path}: {_show(value)} is more than 45 days back")
    return seconds


def _show(value: Any) -> str:
    """Return what stands there, in a few words: `repr` of all of it may be long, or too deep."""
    if isinstance(value, dict):
        return f"an object of {len(value)} keys"  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, list):
        return f"a list of {len(value)}"  # pyright: ignore[reportUnknownArgumentType]
    text = repr(value[:80] if isinstance(value, str) else value)
    return text if len(text) <= 80 else text[:77] + "..."


_COMMON: Final[dict[str, Field]] = {
    "id": Field(_name, "UUIDv7 of the item; the same id is stored once"),
    "agent": Field(_name, "the agent's name in the fleet file", required=True),
    "run_id": Field(_name, "the run that it belongs to"),
    "at": Field(_time, "when it happened: RFC 3339 or Unix seconds; default: now"),
}

_USAGE: Final[dict[str, Field]] = {
    "tokens": Field(_count, "tokens used, input and output together"),
    "input_tokens": Field(_count, "tokens sent to the model"),
    "output_tokens": Field(_count, "tokens received"),
    "cached_tokens": Field(_count, "input tokens served from the provider's cache"),
    "cost_usd": Field(_dollars, "dollars spent"),
    "cost_nusd": Field(_count, "the same as whole nano-dollars; cost_usd wins when both are given"),
    "model_calls": Field(_count, "model calls made"),
    "tool_calls": Field(_count, "tool calls made"),
}

FIELDS: Final[dict[Kind, dict[str, Field]]] = {
    Kind.BEAT: {
        **_COMMON,
        **_USAGE,
        "duration_s": Field(_amount, "how long the cycle took, seconds"),
        "items": Field(_count, "pieces of work completed in the cycle"),
        "unit": Field(_name, "what an item is, in the plural: mails, pages"),
        "result": Field(_name, "ok, failed, or a word of the agent's own"),
        "error": Field(_text, "what went wrong, when the cycle failed"),
        "draining": Field(_flag, "true after mw.draining(): clean-up, not a loop"),
    },
    Kind.EVENT: {
        **_COMMON,
        "kind": Field(_name, "what happened, for example decision or run.hung", required=True),
        "data": Field(_object, "anything else about it"),
    },
    Kind.RUN: {
        **_COMMON,
        **_USAGE,
        "run_id": Field(_name, "the run; reports of one run are merged", required=True),
        "state": Field(_name, "started or ended"),
        "started_at": Field(_time, "when the process started"),
        "ended_at": Field(_time, "when it ended"),
        "duration_s": Field(_amount, "how long it ran, seconds"),
        "pid": Field(_count, "process id"),
        "node": Field(_name, "the machine"),
        "exit_code": Field(_signed, "exit status, when it exited by itself"),
        "signal": Field(_count, "signal number, when a signal ended it"),
        "end": Field(_name, "why it ended: a value of core.exits.End"),
        "reason": Field(_text, "the same in words"),
        "status": Field(_name, "success, failed, or unknown, as the agent says"),
        "iterations": Field(_count, "passes of the work loop"),
    },
    Kind.SAMPLE: {
        **_COMMON,
        "state": Field(_name, "the agent's state at the time"),
        "pid": Field(_count, "process id of the agent"),
        "rss_bytes": Field(_count, "resident memory of the whole tree"),
        "cpu_s": Field(_amount, "CPU seconds used by the tree since the run began"),
        "pss_bytes": Field(_count, "the same with shared pages counted once"),
        "open_files": Field(_count, "open files of the process of the tree that has most"),
        "children": Field(_count, "living processes below the agent"),
        "threads": Field(_count, "threads of the whole tree"),
        "zombies": Field(_count, "processes below the agent that ended and were not waited for"),
        "host_memory_free_bytes": Field(
            _count, "the machine's memory that can be had (agent `midwatch`)"
        ),
        "host_memory_bytes": Field(_count, "all memory of the machine"),
        "host_load_1m": Field(_amount, "processes that ran or wanted to, over a minute"),
        "host_processes": Field(_count, "processes and threads of the machine"),
        "host_processes_max": Field(_count, "how many it may have"),
        "host_open_files": Field(_count, "open files of the machine"),
        "host_open_files_max": Field(_count, "how many it may have"),
        "host_disk_free_bytes": Field(
            _count, "space left on the file system of the data directory"
        ),
        "host_disk_bytes": Field(_count, "size of that file system"),
    },
}


DERIVED: Final = frozenset({"cost_nusd"})
"""Names that `read` computes; what a sender writes there is not believed."""


def read(kind: Kind, raw: Any, now: float, *, agent: str | None = None, path: str = "") -> Item:
    """Check one item and return it complete. `now` is Unix seconds.

    `agent` stands in when the item names none (a run token knows its agent).
    Raises BadItem with the field's path for what cannot be accepted.
    """
    if not isinstance(raw, dict):
        raise BadItem(path or "$", "type", f"expected an object, got {_show(raw)}")
    source: dict[str, Any] = raw  # pyright: ignore[reportUnknownVariableType]
    if len(source) > limits.MAX_FIELDS:
        raise BadItem(
            path or "$",
            "size",
            f"{path or '$'}: {len(source)} fields, at most {limits.MAX_FIELDS}; put lists of things into data",
        )
    table = FIELDS[kind]
    item: Item = {}
    unknown: dict[str, Any] = {}
    for name, value in source.items():
        spec = table.get(name)
        if name in DERIVED:
            continue
        if spec is None:
            unknown[str(name)[: limits.MAX_NAME]] = value
        elif value is not None:
            item[name] = spec.read(f"{path}{name}", value, now)
    if agent is not None:
        item.setdefault("agent", agent)
    for name, spec in table.items():
        if spec.required and name not in item:
            raise BadItem(f"{path}{name}", "missing", f"{path}{name} is missing: {spec.about}")
    _bound(path, item.get("data"), unknown)
    item.update(unknown)
    if "id" not in item:  # a new id costs a system call
        item["id"] = new_id()
    item.setdefault("at", now)
    # only where it was read as a number: elsewhere the field is the sender's own, of any type
    if "cost_usd" in table and "cost_usd" in item:
        item["cost_nusd"] = round(item["cost_usd"] * limits.NUSD_PER_USD)
    if (
        kind is Kind.BEAT
        and "tokens" not in item
        and ("input_tokens" in item or "output_tokens" in item)
    ):
        item["tokens"] = item.get("input_tokens", 0) + item.get("output_tokens", 0)
    return item


def _bound(path: str, data: Any, unknown: dict[str, Any]) -> None:
    if not data and not unknown:
        return
    try:
        size = len(json.dumps([data, unknown], allow_nan=False))
    except (ValueError, TypeError, RecursionError):
        raise BadItem(
            f"{path}data", "type", f"{path}data: not plain JSON (NaN, or nested too deep)"
        ) from None
    if size > limits.MAX_DATA_BYTES:
        raise BadItem(
            f"{path}data",
            "size",
            f"{path}data: {size} bytes, at most {limits.MAX_DATA_BYTES}; send less, or a reference",
        )
