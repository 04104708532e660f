"""A trace as a tree: parents before children, sums of everything below, and repeats folded into one line.

A trace may have a hundred thousand spans, of which a page shows fifty. So a forest keeps of each span some numbers
in arrays, about 100 bytes, and no row. It is built from any set of spans: where a parent is missing its child stands
at the top, and a cycle of parents is opened at its earliest span, so that every span stands in exactly one place.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate
from operator import gt
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

ID_BYTES: Final = 8
"""Of a span's id."""

_ERROR: Final = 2
_MOST: Final = 2**63 - 1
"""No sum is shown greater: what hostile spans add up to need not fit anywhere."""

_NOT_IN_TREES: Final = frozenset({ATTRIBUTES, EVENTS, LINKS})
_SUMS: Final = len(fields(Sums))
_ERRORS: Final = [one.name for one in fields(Sums)].index("errors") - 1


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


class Columns(NamedTuple):
    """What a tree needs to know of the spans of a trace, column by column; they come by their start, each id once."""

    ids: bytes
    """Their ids, one behind the other."""
    above: array[int]
    """By place in these columns where the parent of each stands, -1 where it is not among them."""
    named: bytearray
    """1 where a parent is named."""
    likes: Sequence[int]
    """Equal numbers are alike: one role, name, rank and status."""
    ends: array[int]
    """When each ended, of an open one when it began."""
    sums: Sequence[Sequence[int]]
    """Of each field of `Sums` but the first what each span itself adds to it."""
    first_ns: int | None


def columns_of(stems: Iterable[Stem]) -> Columns:
    """Return rows, by their start, as columns; of two with one id the first stands for both."""
    at: dict[bytes, int] = {}
    parents: list[bytes | None] = []
    likes, ends = array("q"), array("q")
    sums = [array("q") for _ in range(_SUMS - 1)]
    numbers: dict[str, int] = {}
    first_ns: int | None = None
    for span_id, parent, start_ns, duration_ns, rank, status, role, name, given, cached, made, cost, counts in stems:  # fmt: skip
        first_ns = start_ns if first_ns is None else min(first_ns, start_ns)
        if span_id in at:
            continue
        at[span_id] = len(at)
        parents.append(parent)
        failed = status == _ERROR
        likes.append(like(numbers.setdefault(name, len(numbers)), role, rank, failed))
        ends.append(min(start_ns + (duration_ns or 0), _MOST))
        told = counts & TOKENS
        values = (
            failed, rank == Rank.OPEN, bool(counts & CALL), role == Role.TOOL,
            (given or 0) if told else 0, (cached or 0) if told else 0, (made or 0) if told else 0,
            (cost or 0) if counts & MONEY else 0,
        )  # fmt: skip
        for column, value in zip(sums, values, strict=True):
            column.append(value)
    above = array("i", [-1 if one is None else at.get(one, -1) for one in parents])
    named = bytearray(one is not None for one in parents)
    return Columns(b"".join(at), above, named, likes, ends, sums, first_ns)


def like(name: int, role: int, rank: int, failed: int) -> int:
    """Return what siblings are alike by as one number. `name` is a number for the name."""
    return ((name * 32 + role) * 4 + rank) * 2 + failed


class Forest:
    """The spans of one trace, by their start.

    They are put in the order in which a tree is drawn, parents before children. Everything below a span then stands
    right behind it, so that any sum of it is the difference of two running sums, made only for lines that are shown.
    What it is given is its own from then on; once made it does not change.
    """

    def __init__(self, spans: Columns) -> None:
        self.first_ns = spans.first_ns
        self._ids = spans.ids
        self._like = spans.likes
        self._orphans = spans.named
        self._above = spans.above
        self._end = spans.ends
        if not all(map(gt, range(len(self._above)), self._above)):
            self._open_cycles()
        self._bind()
        order = self._draw()
        self._running = [_running(map(column.__getitem__, order)) for column in spans.sums]

    def __len__(self) -> int:
        return len(self._above)

    @property
    def last_ns(self) -> int | None:
        """The last end that is known; of an open span its start."""
        return max((self._end[top] for top in self._tops), default=None)

    # -- building ----------------------------------------------------------------------------

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
        child, following = self._child, self._next
        tops: list[int] = []
        for at, parent in zip(range(count - 1, -1, -1), reversed(self._above), strict=True):
            if parent < 0:
                tops.append(at)
            else:
                following[at] = child[parent]
                child[parent] = at
        tops.reverse()
        self._tops = tops

    def _draw(self) -> array[int]:
        """Return the spans in the order in which they are drawn; note the place of each, how many stand below it with
        itself, and the last end of all of them."""
        child, following, above, end = self._child, self._next, self._above, self._end
        order = array("i")
        take = order.append
        for top in self._tops:
            at = top
            while True:
                take(at)
                if child[at] >= 0:
                    at = child[at]
                    continue
                while at != top and following[at] < 0:
                    at = above[at]
                if at == top:
                    break
                at = following[at]
        place = self._place = array("i", [0]) * len(order)
        size = self._size = array("i", [1]) * len(order)
        for number in range(len(order) - 1, -1, -1):
            at = order[number]
            place[at] = number
            parent = above[at]
            if parent >= 0:
                size[parent] += size[at]
                if end[at] > end[parent]:
                    end[parent] = end[at]
        return order

    def _below(self, column: int, at: int) -> int:
        """Return one sum of a span and everything below it."""
        running = self._running[column]
        begin = self._place[at]
        return 0 if running is None else running[begin + self._size[at]] - running[begin]

    # -- looking -----------------------------------------------------------------------------

    def page(
        self, below: bytes | None, after: Cursor | None, limit: int, *, fold: bool = True
    ) -> tuple[list[Line], Cursor | None] | None:
        """Return some lines and where the next ones begin; None when there is no such span, or nothing at all.

        `below` shows one span and what is below it. Without `fold` each span has a line of its own.
        """
        begin = offset_of(after)
        mine = None if below is None else self._place_of(below)
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

    def _place_of(self, span_id: bytes) -> int | None:
        at = self._ids.find(span_id) if len(span_id) == ID_BYTES else -1
        while at >= 0 and at % ID_BYTES:  # the end of one id and the beginning of the next
            at = self._ids.find(span_id, at + 1)
        return at // ID_BYTES if at >= 0 else None

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
            like = self._like[one], self._below(_ERRORS, one) > 0
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
        sums = Sums(
            sum(self._size[one] for one in group),
            *(min(sum(self._below(column, one) for one in group), _MOST) for column in range(_SUMS - 1)),
        )  # fmt: skip
        return Line(
            self._ids[first * ID_BYTES : (first + 1) * ID_BYTES],
            depth,
            sum(len(self._children(one)) for one in group),
            sums,
            max(self._end[one] for one in group),
            len(group),
            orphan=depth == 0 and bool(self._orphans[first]),
        )


def _running(values: Iterable[int]) -> Sequence[int] | None:
    """Return the sums of the first none, one, two … values; None where all are 0."""
    column = array("q", values)
    if not any(column):
        return None
    try:
        return array("q", accumulate(column, initial=0))
    except OverflowError:
        return list(accumulate(column, initial=0))


def offset_of(after: Cursor | None) -> int:
    """Return how many lines a cursor of a tree leaves out. Raises BadQuestion for any other text."""
    if after is None:
        return 0
    if not (after.isascii() and after.isdecimal()) or len(after) > 12:
        raise BadQuestion(f"the cursor {after[:40]!r} is of no page of this list; begin without one")  # fmt: skip
    return int(after)
