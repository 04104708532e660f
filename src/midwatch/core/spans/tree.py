"""A trace as a tree: parents before children, sums of everything below, and repeats folded into one line.

A trace may have a hundred thousand spans, of which a page shows fifty. So a forest keeps of each span some numbers
in arrays, about 150 bytes, and no row. It is built from any set of spans: where a parent is missing its child stands
at the top, and a cycle of parents is opened at its earliest span, so that every span stands in exactly one place.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Final, NamedTuple

from midwatch.core.spans.facts import CALL, MONEY, TOKENS
from midwatch.core.spans.form import (
    ATTRIBUTES,
    CACHED_TOKENS,
    COST_NUSD,
    DURATION_NS,
    EVENTS,
    INPUT_TOKENS,
    LINKS,
    NAME,
    OUTPUT_TOKENS,
    PARENT_ID,
    RANK,
    ROLE,
    SPAN_ID,
    SPANS,
    START_NS,
    STATUS,
    Rank,
    Role,
    Row,
)
from midwatch.core.spans.questions import BadQuestion, Cursor, Item, Node, Sums

MIN_ALIKE: Final = 3
"""Siblings in a row that are alike before they are one line: two are shorter than what says that they are two."""

_ERROR: Final = 2
_MOST: Final = 2**63 - 1
"""No sum is shown greater: what hostile spans add up to need not fit anywhere."""

_NOT_IN_TREES: Final = frozenset({ATTRIBUTES, EVENTS, LINKS})
_SUMS: Final = len(fields(Sums))


class Stem(NamedTuple):
    """What a tree needs to know of a span: columns of these names, and the bits of its verdict."""

    span_id: bytes
    parent_id: bytes | None
    start_ns: int
    duration_ns: int | None
    rank: int
    status: int
    role: int
    name: str
    input_tokens: int | None
    cached_tokens: int | None
    output_tokens: int | None
    cost_nusd: int | None
    counts: int


def stem(row: Row, counts: int) -> Stem:
    """Return what a tree needs of a row."""
    return Stem(
        row[SPAN_ID], row[PARENT_ID], row[START_NS], row[DURATION_NS], row[RANK], row[STATUS], row[ROLE], row[NAME],
        row[INPUT_TOKENS], row[CACHED_TOKENS], row[OUTPUT_TOKENS], row[COST_NUSD], counts,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a tree, by the id of its span: what `Node` shows beside the span itself."""

    span_id: bytes
    depth: int
    children: int
    below: Sums
    end_ns: int
    alike: int
    orphan: bool

    def node(self, span: Item) -> Node:
        """Return the node with its span."""
        return Node(
            span, self.depth, self.children, self.below, self.alike, self.orphan, self.end_ns
        )


def shown(row: Sequence[object]) -> Item:
    """Return a span as trees show it: without attributes, events and links."""
    return SPANS.item([None if at in _NOT_IN_TREES else v for at, v in enumerate(row)])


class Forest:
    """The spans of one trace. `stems` come by their start; of two with one id the first stands for both."""

    def __init__(self, stems: Iterable[Stem]) -> None:
        self._at: dict[bytes, int] = {}
        self._names: dict[str, int] = {}
        self._like = array("q")
        """Role, name, rank and failure in one number: what siblings are alike by."""
        self._orphans = bytearray()
        """1 where a parent is named."""
        self._end = array("q")
        self._sums = [array("q") for _ in range(_SUMS)]
        self.first_ns: int | None = None
        parents: list[bytes | None] = []
        for one in stems:
            if one[0] not in self._at:
                self._at[one[0]] = len(parents)
                parents.append(one[1])
                self._take(one)
        self._ids = list(self._at)
        self._above = array("i", (self._at.get(p, -1) if p is not None else -1 for p in parents))
        del parents
        self._open_cycles()
        self._bind()
        self._add_up()

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def last_ns(self) -> int | None:
        """The last end that is known; of an open span its start."""
        return max((self._end[top] for top in self._tops), default=None)

    # -- building ----------------------------------------------------------------------------

    def _take(self, one: Stem) -> None:
        _, parent, start_ns, duration_ns, rank, status, role, name, given, cached, made, cost, counts = one  # fmt: skip
        failed = status == _ERROR
        number = self._names.setdefault(name, len(self._names))
        self._like.append(((number * 32 + role) * 4 + rank) * 2 + failed)
        self._orphans.append(parent is not None)
        self._end.append(min(start_ns + (duration_ns or 0), _MOST))
        if self.first_ns is None or start_ns < self.first_ns:
            self.first_ns = start_ns
        told = counts & TOKENS
        values = (
            1, failed, rank == Rank.OPEN, bool(counts & CALL), role == Role.TOOL,
            (given or 0) if told else 0, (cached or 0) if told else 0, (made or 0) if told else 0,
            (cost or 0) if counts & MONEY else 0,
        )  # fmt: skip
        for column, value in zip(self._sums, values, strict=True):
            column.append(value)

    def _open_cycles(self) -> None:
        """Cut each cycle above its earliest span: afterwards every span has a top."""
        above = self._above
        state = bytearray(len(above))  # 0 not seen, 1 on this path, 2 leads to a top
        for begin in range(len(above)):
            path: list[int] = []
            at = begin
            while at >= 0 and not state[at]:
                state[at] = 1
                path.append(at)
                at = above[at]
            if at >= 0 and state[at] == 1:
                above[min(path[path.index(at) :])] = -1
            for each in path:
                state[each] = 2

    def _bind(self) -> None:
        """Make lists of children by their start: the first child, and who follows whom."""
        count = len(self._above)
        self._child = array("i", [-1]) * count
        self._next = array("i", [-1]) * count
        tops: list[int] = []
        for at in range(count - 1, -1, -1):
            parent = self._above[at]
            if parent < 0:
                tops.append(at)
            else:
                self._next[at] = self._child[parent]
                self._child[parent] = at
        tops.reverse()
        self._tops = tops

    def _add_up(self) -> None:
        """Add everything to what is above it, the deepest first."""
        order = array("i")
        waiting = self._tops[::-1]
        while waiting:
            at = waiting.pop()
            order.append(at)
            waiting += self._children(at)
        above, end = self._above, self._end
        for at in reversed(order):
            parent = above[at]
            if parent >= 0:
                if end[at] > end[parent]:
                    end[parent] = end[at]
                for column in self._sums:
                    if column[at]:
                        column[parent] = min(column[parent] + column[at], _MOST)

    # -- looking -----------------------------------------------------------------------------

    def page(
        self, below: bytes | None, after: Cursor | None, limit: int, *, fold: bool = True
    ) -> tuple[list[Line], Cursor | None] | None:
        """Return some lines and where the next ones begin; None when there is no such span, or nothing at all.

        `below` shows one span and what is below it. Without `fold` each span has a line of its own.
        """
        begin = offset_of(after)
        mine = None if below is None else self._at.get(below)
        tops = self._tops if below is None else [mine] if mine is not None else []
        if not tops:
            return None
        found: list[Line] = []
        for number, (group, depth) in enumerate(self._walk(tops, fold)):
            if number >= begin + limit:
                return found, str(number)
            if number >= begin:
                found.append(self._line(group, depth))
        return found, None

    def _walk(self, tops: Sequence[int], fold: bool) -> Iterator[tuple[Sequence[int], int]]:
        """Yield groups of alike siblings, mostly of one, parents before children, and their depth."""
        waiting = [(group, 0) for group in reversed(self._groups(tops, fold))]
        while waiting:
            group, depth = waiting.pop()
            yield group, depth
            if len(group) == 1:
                children = self._children(group[0])
                waiting += [(one, depth + 1) for one in reversed(self._groups(children, fold))]

    def _groups(self, siblings: Sequence[int], fold: bool) -> list[Sequence[int]]:
        if not fold or len(siblings) < MIN_ALIKE:
            return [(one,) for one in siblings]
        runs: list[list[int]] = []
        before: tuple[int, bool] | None = None
        for one in siblings:
            # one that failed further down is not like one that did not
            like = self._like[one], self._sums[1][one] > 0
            if like == before:
                runs[-1].append(one)
            else:
                runs.append([one])
            before = like
        found: list[Sequence[int]] = []
        for run in runs:
            found += [run] if len(run) >= MIN_ALIKE else [(one,) for one in run]
        return found

    def _children(self, at: int) -> list[int]:
        found: list[int] = []
        child = self._child[at]
        while child >= 0:
            found.append(child)
            child = self._next[child]
        return found

    def _line(self, group: Sequence[int], depth: int) -> Line:
        first = group[0]
        sums = Sums(*(min(sum(column[one] for one in group), _MOST) for column in self._sums))
        return Line(
            self._ids[first],
            depth,
            sum(len(self._children(one)) for one in group),
            sums,
            max(self._end[one] for one in group),
            len(group),
            orphan=depth == 0 and bool(self._orphans[first]),
        )


def offset_of(after: Cursor | None) -> int:
    """Return how many lines a cursor of a tree leaves out. Raises BadQuestion for any other text."""
    if after is None:
        return 0
    if not (after.isascii() and after.isdecimal()) or len(after) > 12:
        raise BadQuestion(f"the cursor {after[:40]!r} is of no page of this list; begin without one")  # fmt: skip
    return int(after)
