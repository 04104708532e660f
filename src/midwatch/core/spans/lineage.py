"""Who is whose parent in a set of spans: always a forest, whatever was sent.

A span whose parent is not there is a root until it comes. A cycle is opened at its earliest span. A parent is
looked for among the spans of the same trace: first the span's own agent's, then another's, since a trace may go
through several agents. The forest follows from the set alone, never from the order in which the spans came.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

NONE: Final = -1
"""Stands for the parent of a root."""

_NEW, _ON_PATH, _DONE = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Lineage:
    """A forest over places in a sequence of spans."""

    parents: Sequence[int]
    """The place of each one's parent, or NONE."""
    order: Sequence[int]
    """All places, each parent before its children."""


def lineage(
    keys: Sequence[tuple[str, bytes]],
    parent_ids: Sequence[bytes | None],
    starts_ns: Sequence[int],
) -> Lineage:
    """Return the forest of spans with different keys (`form.key`). Linear in their number.

    From each span the way up is walked to one that is known. A way that meets itself has found a cycle: it is
    opened, and ordered from there.
    """
    parents = _parents(keys, parent_ids)
    state = bytearray(len(keys))
    order: list[int] = []
    for start in range(len(keys)):
        if state[start] == _DONE:
            continue
        path: list[int] = []
        place = start
        while place != NONE and state[place] == _NEW:
            state[place] = _ON_PATH
            path.append(place)
            place = parents[place]
        if place != NONE and state[place] == _ON_PATH:
            begin = path.index(place)
            cycle, path = path[begin:], path[:begin]
            opening = min(cycle, key=lambda p: (starts_ns[p], keys[p]))
            parents[opening] = NONE
            turn = cycle.index(opening)
            order += cycle[turn::-1]
            order += cycle[:turn:-1]
            for one in cycle:
                state[one] = _DONE
        path.reverse()
        order += path
        for one in path:
            state[one] = _DONE
    return Lineage(parents, order)


def _parents(keys: Sequence[tuple[str, bytes]], parent_ids: Sequence[bytes | None]) -> list[int]:
    places = {ids: place for place, (_, ids) in enumerate(keys)}
    own: dict[tuple[str, bytes], int] = {}
    if len(places) < len(keys):
        # the same ids of several agents: each one's children look at their own agent's first
        own = {key: place for place, key in enumerate(keys)}
        for place, (agent, ids) in enumerate(keys):
            if agent < keys[places[ids]][0]:
                places[ids] = place
    parents: list[int] = []
    for (agent, ids), parent_id in zip(keys, parent_ids, strict=True):
        if parent_id is None:
            parents.append(NONE)
            continue
        wanted = ids[:16] + parent_id
        found = places.get(wanted, NONE)
        if own and found != NONE:
            found = own.get((agent, wanted), found)
        parents.append(found)
    return parents
