"""How spans with one list of keys are read: which family speaks, which attribute fills which column, what is a
content, what stays. Made once for each list, so that reading a span looks at no key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from midwatch.core.spans import contents
from midwatch.core.spans.dialect import Dialect, Slot
from midwatch.core.spans.family import Family
from midwatch.core.spans.form import ContentKind
from midwatch.core.spans.limits import MAX_ATTRIBUTES
from midwatch.core.spans.reading import SCRATCH
from midwatch.core.spans.values import Value


class Fold(NamedTuple):
    """Indexed attributes that are one content."""

    prefix: str
    kind: ContentKind
    shape: contents.Shape | None
    parts: tuple[tuple[str, int], ...]
    """The keys behind the prefix, and their places."""


@dataclass(slots=True)
class Plan:
    """How spans with one list of keys are read. Numbers are places in that list."""

    family: Dialect
    single: tuple[tuple[int, int, Callable[[Value], object]], ...]
    """Column, place, reader of each column that one key fills."""
    several: tuple[tuple[int, tuple[tuple[int, Callable[[Value], object]], ...]], ...]
    """Columns that several keys could fill: the first that can be read wins."""
    back: tuple[tuple[int, int], ...]
    """Columns that give their attribute back, if they hold its very value in the end."""
    kept: tuple[int, ...]
    held: tuple[tuple[int, ContentKind], ...]
    folds: tuple[Fold, ...]
    tags: tuple[tuple[int, str], ...]
    judged: tuple[int, ...]
    """Attributes that spell evaluations."""
    dropped: int


_SPAN_TAGS: Final = {
    "langfuse.environment": "environment",
    "langfuse.release": "version",
    "langfuse.version": "version",
    "deployment.environment.name": "environment",
    "gen_ai.agent.version": "version",
    "midwatch.task": "task",
    # lists of words, or of NAME=VALUE
    "langfuse.trace.tags": "",
    "tag.tags": "",
    "midwatch.tags": "",
    "logfire.tags": "",
}
_JUDGED: Final = ("evaluations.", "annotations.")


def make(family: Dialect, keys: tuple[str, ...]) -> Plan:
    """Return the plan for one list of keys. Of two attributes with one key the last stays."""
    slots = family.slots
    prefixes = tuple(f"{prefix}." for prefix in family.folds) if isinstance(family, Family) else ()
    tagged = family.tags if isinstance(family, Family) else ()
    columns: dict[int, list[tuple[int, Slot]]] = {}
    kept: list[int] = []
    held: list[tuple[int, ContentKind]] = []
    folds: dict[str, list[tuple[str, int]]] = {}
    tags: list[tuple[int, str]] = []
    judged: list[int] = []
    for key, place in {key: place for place, key in enumerate(keys)}.items():
        slot = slots.get(key)
        if slot is not None:
            if slot.column is not None and (slot.content is None or slot.column >= SCRATCH):
                columns.setdefault(slot.column, []).append((place, slot))
            if slot.content is not None:
                held.append((place, slot.content))
                continue
        elif key.startswith(prefixes):
            prefix = next(one for one in prefixes if key.startswith(one))
            folds.setdefault(prefix, []).append((key[len(prefix) :], place))
            continue
        if key in _SPAN_TAGS:
            tags.append((place, _SPAN_TAGS[key]))
        elif slot is None and key.startswith(tagged) and len(key) > len(max(tagged, key=len)):
            tags.append((place, next(key[len(one) :] for one in tagged if key.startswith(one))))
        if key.startswith(_JUDGED):
            judged.append(place)
        if slot is None or not slot.gives_back or slot.column is None:
            kept.append(place)
    return _planned(family, keys, columns, kept, held, folds, tags, judged)


def _planned(
    family: Dialect,
    keys: tuple[str, ...],
    columns: dict[int, list[tuple[int, Slot]]],
    kept: list[int],
    held: list[tuple[int, ContentKind]],
    folds: dict[str, list[tuple[str, int]]],
    tags: list[tuple[int, str]],
    judged: list[int],
) -> Plan:
    rank = {key: number for number, key in enumerate(family.slots)}
    single: list[tuple[int, int, Callable[[Value], object]]] = []
    several: list[tuple[int, tuple[tuple[int, Callable[[Value], object]], ...]]] = []
    back: list[tuple[int, int]] = []
    for column, found in columns.items():
        if len(found) == 1:
            ((place, slot),) = found
            single.append((column, place, slot.read))
            if slot.gives_back:
                back.append((column, place))
            continue
        found.sort(key=lambda one: rank[keys[one[0]]])
        several.append((column, tuple((place, slot.read) for place, slot in found)))
        # one column cannot tell which of them it was
        kept += [place for place, slot in found if slot.gives_back]
    kept.sort()
    known = family.folds if isinstance(family, Family) else dict[str, ContentKind]()
    return Plan(
        family,
        tuple(single),
        tuple(several),
        tuple(back),
        tuple(kept[:MAX_ATTRIBUTES]),
        tuple(held),
        tuple(_fold(prefix[:-1], known[prefix[:-1]], parts) for prefix, parts in folds.items()),
        tuple(tags),
        tuple(judged),
        max(0, len(kept) - MAX_ATTRIBUTES),
    )


def _fold(prefix: str, kind: ContentKind, parts: list[tuple[str, int]]) -> Fold:
    keys, places = [key for key, _ in parts], [place for _, place in parts]
    return Fold(prefix, kind, contents.shape(keys, places, prefix), tuple(parts))
