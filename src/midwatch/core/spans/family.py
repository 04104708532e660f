"""What most dialects are: a table of keys, a few prefixes, and how to tell them.

Order is meaning: of two keys for one column the one that stands first in `slots` wins, and the other stays an
attribute.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from midwatch.core.spans.dialect import Slot
from midwatch.core.spans.form import ContentKind, Row


def _nothing(row: Row) -> None:  # pyright: ignore[reportUnusedParameter]
    """For families whose columns say everything."""


@dataclass(slots=True)
class Family:
    """A dialect, as a table. See `Dialect` for what it must do."""

    name: str
    slots: Mapping[str, Slot]
    scopes: tuple[str, ...] = ()
    """Beginnings of the names of its instrumentations: they speak it whatever their keys are."""
    marks: frozenset[str] = frozenset()
    """Keys that nobody else uses: one of them is enough."""
    folds: Mapping[str, ContentKind] = field(default_factory=dict[str, ContentKind])
    """Prefixes of indexed attributes (`PREFIX.0.role`) that together are one content."""
    tags: tuple[str, ...] = ()
    """Prefixes of attributes that are tags: what follows is the tag's name."""
    complete: Callable[[Row], None] = _nothing

    def claims(self, scope: str, version: str, keys: Collection[str]) -> bool:  # noqa: ARG002  the port
        """Tell whether spans of this instrumentation, or with these keys, speak it."""
        return scope.startswith(self.scopes) or not self.marks.isdisjoint(keys)

    def finish(self, row: Row) -> None:
        """Set what needs two columns at once."""
        self.complete(row)


def column(place: int, read: Callable[..., object], *, gives_back: bool = False) -> Slot:
    """Return the slot of a key that fills a column."""
    return Slot(place, read, None, gives_back)


def content(
    kind: ContentKind, place: int | None = None, read: Callable[..., object] = bool
) -> Slot:
    """Return the slot of a key that holds a content, and of which a scratch place may keep the text as well."""
    return Slot(place, read, kind)


def over(
    own: Mapping[str, Slot], base: Mapping[str, Slot], worked_out: Collection[int] = ()
) -> dict[str, Slot]:
    """Return a family's own names in front of those that it shares with others.

    A column is given back under one key at most, a family's own; none that is `worked_out` from something else.
    """
    taken = {slot.column for slot in own.values() if slot.gives_back} | set(worked_out)
    merged = dict(own)
    for key, slot in base.items():
        if key not in merged:
            shut = slot.gives_back and slot.column in taken
            merged[key] = Slot(slot.column, slot.read, slot.content) if shut else slot
    return merged
