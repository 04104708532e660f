"""Secrets leave telemetry before it is stored: what looks like a key, and what stands under the name of one, be that
the name of an attribute or one within a text (JSON, a URL).

Texts are looked at one by one only when `core.redact.hints` found something in the request that they came with. What
makes a row one (ids, hashes, owner, run) stays as it came, so that what is sent twice is still known.
"""

from __future__ import annotations

from typing import Any, Final, cast

from midwatch.core.redact import HIDDEN, hints, hints_json, hints_names, is_secret, redact_counted
from midwatch.core.spans.columns import Type
from midwatch.core.spans.form import TABLES, Batch
from midwatch.core.spans.limits import MAX_KEY
from midwatch.core.spans.values import Value

_TEXTS: Final = frozenset({Type.TEXT, Type.WORD, Type.JSON})
_OURS: Final = frozenset({"agent", "run_id", "key", "dialect"})
"""Columns that rows are found by."""

_PLACES: Final = {
    table.name: [
        place
        for place, column in enumerate(table.row)
        if column.type in _TEXTS and column.name not in _OURS
    ]
    for table in TABLES.values()
}

_KEPT: Final = frozenset({"agent", "id", "run_id", "kind", "node", "group"})
"""Fields of items that they are found by."""


def redact_text(text: str) -> tuple[str, int, int]:
    """Return a text without secrets; how many there were by their look, and how many by a name within the text. JSON
    stays JSON."""
    data = text.encode("utf-8", "surrogatepass")
    if not hints(data):
        return text, 0, 0
    clean, looks, names = redact_counted(data)
    return (
        (clean.decode("utf-8", "surrogatepass"), looks, names) if looks or names else (text, 0, 0)
    )


def redact_batch(batch: Batch) -> tuple[int, int]:
    """Take secrets out of every text of a batch; return how many by their look, and how many by a name in the text."""
    by_look = by_name = 0
    for signal, places in _PLACES.items():
        for row in batch.rows(signal):
            for place in places:
                text = row[place]
                if text:
                    clean, looks, names = redact_text(text)
                    if looks or names:
                        row[place] = clean
                        by_look += looks
                        by_name += names
    for key, text in batch.resources.items():
        clean, looks, names = redact_text(text)
        if looks or names:
            batch.resources[key] = clean
            by_look += looks
            by_name += names
    return by_look, by_name


def hidden(value: Value) -> Value:
    """Return what stands for the value of an attribute with a secret's name: as many as there were. What says only
    whether there is one stays."""
    if isinstance(value, list):
        return [hidden(inner) for inner in value]
    return value if value is None or isinstance(value, bool) or value == "" else HIDDEN


def may_hold(body: bytes) -> bool:
    """Tell whether the JSON of an item may hold a secret at all."""
    return hints_json(body) or hints_names(body)


def redact_item(item: dict[str, Any]) -> tuple[int, int]:
    """Take secrets out of a beat, event, run or sample; return how many by their look, and how many by their name."""
    found = [0, 0]
    for name, value in item.items():
        if name not in _KEPT:
            item[name] = _cleaned(name, value, found)
    return found[0], found[1]


def _cleaned_names(inner: dict[str, Any], found: list[int]) -> dict[str, Any]:
    """Return an object without secrets in its values and in its names; of names that become one the first stays."""
    made: dict[str, Any] = {}
    for name, value in inner.items():
        clean, looks, names = redact_text(name)
        found[0] += looks
        found[1] += names
        made.setdefault(clean, _cleaned(name, value, found))
    return made


def _cleaned(name: str, value: Any, found: list[int]) -> Any:
    # names are remembered there, and one may be as long as the item
    if is_secret(name[-MAX_KEY:]):
        shown = hidden(value)
        found[1] += shown != value
        return shown
    if isinstance(value, str):
        clean, looks, names = redact_text(value)
        found[0] += looks
        found[1] += names
        return clean
    if isinstance(value, dict):
        return _cleaned_names(cast("dict[str, Any]", value), found)
    if isinstance(value, list):
        return [_cleaned("", one, found) for one in cast("list[Any]", value)]
    return value
