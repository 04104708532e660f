"""Turns whatever an agent hands over into bounded, plain JSON values.

The result shares nothing with its source, so the agent may go on changing it while the
worker sends. Every walk is bounded in depth, in nodes and in characters: a cycle, a huge
list or an object whose `repr` fails costs a little and never an exception.
"""

from __future__ import annotations

from collections import deque
from itertools import islice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MAX_DEPTH = 12
"""Nesting that is kept; what lies deeper becomes its clipped text."""

MAX_NODES = 5_000
"""Values in one item; the rest is left out."""

MAX_CHARACTERS = 48_000
"""Text in one item, so that its JSON stays under the 64 KiB that the hub accepts."""

MAX_INTEGER = 2**63
"""Integers beyond are told as text: not every reader of JSON keeps them."""


class Budget:
    """What one walk may still use."""

    __slots__ = ("characters", "clipped", "nodes")

    def __init__(self) -> None:
        self.nodes = MAX_NODES
        self.characters = MAX_CHARACTERS
        self.clipped = False


def plain(value: Any) -> tuple[Any, bool]:
    """Return `value` as plain JSON, and whether something of it was clipped."""
    budget = Budget()
    return _walk(value, budget, 0), budget.clipped


def text(value: Any, limit: int) -> str:
    """Return `value` as text of at most `limit` characters, whatever its `str` does."""
    try:
        result = value if isinstance(value, str) else str(value)
    except Exception:  # noqa: BLE001  # a hostile __str__ is the agent's, not ours
        result = f"<{type(value).__name__}>"
    return _encodable(result[:limit])


def number(value: Any) -> float | None:
    """Return a finite number of 0 or more, or None for anything else."""
    if value.__class__ is int and 0 <= value < MAX_INTEGER:
        return value
    if value is None or isinstance(value, bool | str | bytes):
        return None
    try:
        result = float(value)
    except Exception:  # noqa: BLE001  # a hostile __float__, or no number at all
        return None
    return result if 0 <= result < float(MAX_INTEGER) else None


def whole(value: Any) -> int | None:
    """Return a whole number of 0 or more, or None for anything else."""
    result = number(value)
    return None if result is None else int(result)


def _walk(value: Any, budget: Budget, depth: int) -> Any:
    budget.nodes -= 1
    if budget.nodes < 0:
        budget.clipped = True
        return None
    if value is None or value is True or value is False:
        return value
    kind = value.__class__
    if kind is str:
        return _clip(value, budget)
    if kind is int:
        budget.characters -= 20
        return value if -MAX_INTEGER < value < MAX_INTEGER else _huge(value, budget)
    if kind is float:
        budget.characters -= 20
        return value if value - value == 0 else repr(value)  # NaN and infinity are not JSON
    if depth < MAX_DEPTH:
        if isinstance(value, dict):
            return _mapping(value, budget, depth)  # pyright: ignore[reportUnknownArgumentType]
        if isinstance(value, list | tuple | set | frozenset | deque):
            return _sequence(value, budget, depth)  # pyright: ignore[reportUnknownArgumentType]
    else:
        budget.clipped = True
    return _clip(_show(value), budget)


def _mapping(value: dict[Any, Any], budget: Budget, depth: int) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name in _snapshot(value):
        if budget.nodes <= 0 or budget.characters <= 0:
            budget.clipped = True
            break
        key = _clip(name if isinstance(name, str) else _show(name), budget)
        try:
            result[key] = _walk(value[name], budget, depth + 1)
        except KeyError:
            continue  # another thread took it out meanwhile
    return result


def _sequence(value: Any, budget: Budget, depth: int) -> list[Any]:
    result: list[Any] = []
    for entry in _snapshot(value):
        if budget.nodes <= 0 or budget.characters <= 0:
            budget.clipped = True
            break
        result.append(_walk(entry, budget, depth + 1))
    return result


def _snapshot(value: Any) -> list[Any]:
    for _ in range(3):
        try:
            return list(islice(value, MAX_NODES + 1))
        except RuntimeError:  # another thread changed its size meanwhile
            continue
    return []


def _clip(value: str, budget: Budget) -> str:
    if len(value) > budget.characters:
        budget.clipped = True
        value = value[: max(budget.characters, 0)]
    value = _encodable(value)
    size = _escaped_size(value)
    while size > budget.characters and value:
        budget.clipped = True
        value = value[: len(value) * max(budget.characters, 0) // size]
        size = _escaped_size(value)
    budget.characters -= size + 4
    return value


def _escaped_size(value: str) -> int:
    """Return how many characters `value` takes in JSON, where an accent takes six."""
    from json.encoder import encode_basestring_ascii  # only those who send events pay for it

    return len(encode_basestring_ascii(value)) - 2


def _encodable(value: str) -> str:
    """Replace lone surrogates, which no UTF-8 can carry."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-8", "replace").decode()
    return str(value)


def _huge(value: int, budget: Budget) -> str:
    budget.clipped = True
    return f"an integer of {value.bit_length()} bits"


def _show(value: Any) -> str:
    try:
        return repr(value)[:1000] if not isinstance(value, str) else value
    except Exception:  # noqa: BLE001  # a hostile __repr__ is the agent's, not ours
        return f"<{type(value).__name__}>"
