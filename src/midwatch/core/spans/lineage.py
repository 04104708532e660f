"""Who is whose parent in a set of spans: always a forest, whatever was sent.

A span whose parent is not there is a root until it comes. A cycle is opened at its earliest span. A parent is
looked for among the spans of the same trace: first the span's own agent's, then another's, since a trace may go
through several agents. The forest follows from the set alone, never from the order in which the spans came.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

NONE: Final = -1
"""Stands for the parent of a root."""


class Kin(Protocol):
    """What a span says of where it belongs."""

    @property
    def agent(self) -> str: ...
    @property
    def trace_id(self) -> bytes: ...
    @property
    def span_id(self) -> bytes: ...
    @property
    def parent_id(self) -> bytes | None: ...
    @property
    def start_ns(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Lineage:
    """A forest over places in a sequence of spans."""

    parents: Sequence[int]
    """The place of each one's parent, or NONE."""
    order: Sequence[int]
    """All places, each parent before its children."""


def lineage(spans: Sequence[Kin]) -> Lineage:
    """Return the forest of spans that differ in agent, trace id and span id. Linear in their number.

    1. parents by their ids;
    2. from the roots downwards, which leaves out what hangs on a cycle;
    3. of each cycle the earliest span becomes a root, and then downwards from there.
    """
    parents = _parents(spans)
    children: list[list[int] | None] = [None] * len(spans)
    order: list[int] = []
    for place, parent in enumerate(parents):
        if parent == NONE:
            order.append(place)
        elif (siblings := children[parent]) is None:
            children[parent] = [place]
        else:
            siblings.append(place)
    _descend(order, 0, children)
    if (reached := len(order)) < len(spans):
        opened = _openings(spans, parents, order)
        for root in opened:
            parents[root] = NONE
        order += opened
        _descend(order, reached, children, frozenset(opened))
    return Lineage(parents, order)


def _parents(spans: Sequence[Kin]) -> list[int]:
    own = {(s.trace_id, s.span_id, s.agent): place for place, s in enumerate(spans)}
    anyones: dict[tuple[bytes, bytes], int] = {}
    for place, span in enumerate(spans):
        ids = (span.trace_id, span.span_id)
        there = anyones.setdefault(ids, place)
        if there != place and span.agent < spans[there].agent:
            anyones[ids] = place
    parents: list[int] = []
    for span in spans:
        if span.parent_id is None:
            parents.append(NONE)
            continue
        found = own.get((span.trace_id, span.parent_id, span.agent))
        if found is None:
            found = anyones.get((span.trace_id, span.parent_id), NONE)
        parents.append(found)
    return parents


def _descend(
    order: list[int],
    reached: int,
    children: Sequence[list[int] | None],
    roots: frozenset[int] = frozenset(),
) -> None:
    while reached < len(order):
        mine = children[order[reached]]
        if mine is not None:
            # what was opened still stands among its parent's children
            order += [place for place in mine if place not in roots] if roots else mine
        reached += 1


def _openings(spans: Sequence[Kin], parents: Sequence[int], order: Sequence[int]) -> list[int]:
    """Return the earliest span of each cycle."""
    walked = [0] * len(spans)
    """0: not yet; otherwise the number of the walk that came by. -1: hangs on a root."""
    for place in order:
        walked[place] = -1
    openings: list[int] = []
    for number, start in enumerate(range(len(spans)), 1):
        place = start
        while walked[place] == 0:
            walked[place] = number
            place = parents[place]
        if walked[place] != number:
            continue
        cycle = [place]
        while (after := parents[cycle[-1]]) != place:
            cycle.append(after)
        openings.append(min(cycle, key=lambda p: _age(spans[p])))
    return openings


def _age(span: Kin) -> tuple[int, bytes, str]:
    return span.start_ns, span.span_id, span.agent
