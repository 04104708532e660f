"""Where a page of a list ended, as text that goes out and comes back: the order of its last item, in JSON, in hex.

It is of strangers by the time it comes back: it must have exactly the kinds of values that the list is ordered by.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, cast

from midwatch.core.spans.questions import BadQuestion, Cursor

MAX_CURSOR: Final = 4_096
"""Characters: session names are the longest part of any."""

_MAX_INT: Final = 2**63 - 1


def cursor_of(place: Sequence[int | str | bytes]) -> Cursor:
    """Return the cursor of an item's place in its order."""
    plain = [one.hex() if isinstance(one, bytes) else one for one in place]
    text = json.dumps(plain, separators=(",", ":"), ensure_ascii=False)
    return text.encode(errors="surrogatepass").hex()


def place_of(after: Cursor, kinds: Sequence[type]) -> list[Any]:
    """Return the place of a cursor, of these kinds: int, str or bytes. Raises BadQuestion for what no page gave."""
    try:
        return _read(after[: MAX_CURSOR + 1], kinds)
    except (ValueError, TypeError, RecursionError):
        raise BadQuestion(f"the cursor {after[:40]!r} is of no page of this list; begin without one") from None  # fmt: skip


def _read(after: Cursor, kinds: Sequence[type]) -> list[Any]:
    read = json.loads(bytes.fromhex(after))
    if not isinstance(read, list):
        raise TypeError
    values = cast("list[object]", read)
    return [_value(one, kind) for one, kind in zip(values, kinds, strict=True)]


def _value(one: object, kind: type) -> Any:
    if kind is bytes and isinstance(one, str):
        return bytes.fromhex(one)
    if type(one) is not kind or (isinstance(one, int) and not -_MAX_INT <= one <= _MAX_INT):
        raise TypeError
    return one


def id_of(text: str) -> bytes:
    """Return an id as bytes. Raises BadQuestion for what is none."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise BadQuestion(f"{text[:40]!r} is no id; expected hex digits") from None
