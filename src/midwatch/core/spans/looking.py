"""Looks at what tools brought in while it is understood: flags for spans, each result once, within a budget.

A result enters where it is first told: in its tool's span, else in the call whose messages hold it. Later calls repeat
it and are not flagged for it. `Entered` remembers where flagged results entered, for as long as the hub runs and up to
MAX_ENTERED of them; a result that was forgotten is flagged where it is met again.

A look costs characters, not time, so that the same request is always looked at in the same way: MAX_STEPS a request.
What is beyond is counted as `not_looked`.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Final

from midwatch.core.contamination import Kind, is_suspect, kinds_of
from midwatch.core.spans.contents import Said
from midwatch.core.spans.form import (
    AGENT,
    SESSION,
    SPAN_ID,
    TOOL_CALL_ID,
    TRACE_ID,
    ContentKind,
    Row,
)
from midwatch.core.spans.told import Told, may_tell, results_in, texts_of

MAX_STEPS: Final = 40_000
"""Characters of one request that are gone through word by word, at up to 0.4 µs each: 20 ms at most. A first look
takes an eighth of a step for each."""

LARGE_BYTES: Final = 160 * 1024
MAX_STEPS_LARGE: Final = 4 * MAX_STEPS
"""The same of a larger request, which is not read in the loop."""

MAX_TEXT: Final = 24_000
"""Characters of one text that are looked at: two thirds at its head, one at its tail, where what was put in stands."""

WHOLE: Final = 64_000
"""Characters of a content that is looked at as it is written before anything in it is read."""

LEAST: Final = 500
"""Steps that are worth a look."""

MAX_ENTERED: Final = 50_000
"""Marks of flagged results that are remembered; of results told before, half as many at least."""

_FIRST: Final = 8
_ENTITY: Final = 8

_FROM_OUTSIDE: Final = frozenset({ContentKind.RESULT.value, ContentKind.DOCUMENTS.value})
"""Contents that an agent takes into its context without having made them."""

_INPUT: Final = ContentKind.INPUT.value
_OUTPUT: Final = ContentKind.OUTPUT.value
_TOOL_MESSAGE: Final = "gen_ai.tool.message"
"""The event by which conventions up to 1.36 tell a call a tool's result."""

Place = tuple[bytes, bytes]
"""A span: its trace and its own id."""


class Entered:
    """Where flagged results entered, and flags that wait for their span. Shared by all who look."""

    def __init__(self, limit: int = MAX_ENTERED) -> None:
        self._limit = limit
        self._now: dict[tuple[object, ...], Place] = {}
        self._before: dict[tuple[object, ...], Place] = {}
        self._waiting: dict[tuple[str, Place], dict[Kind, None]] = {}

    def where(self, mark: tuple[object, ...]) -> Place | None:
        """Return the span in which a result with this mark entered."""
        return self._now.get(mark) or self._before.get(mark)

    def enter(self, mark: tuple[object, ...], place: Place) -> None:
        """Remember it; of two the first stays."""
        if self.where(mark) is None:
            if len(self._now) >= self._limit // 2:
                self._before, self._now = self._now, {}
            self._now[mark] = place

    def wait(self, agent: str, place: Place, kinds: Iterable[Kind]) -> None:
        """Keep flags that a log record raised until its span comes."""
        if len(self._waiting) >= self._limit // 10:
            self._waiting = {}
        self._waiting.setdefault((agent, place), {}).update(dict.fromkeys(kinds))

    def waiting(self, agent: str, place: Place) -> Iterable[Kind]:
        """Return the flags that wait for a span. They stay: it may come open, and again when it ends."""
        return tuple(self._waiting.get((agent, place), ()))

    @property
    def waits(self) -> bool:
        """Tell whether any flag waits: nearly always none does."""
        return bool(self._waiting)


class Looker:
    """Looks through the contents of one request after the other. One for each thread."""

    def __init__(self, entered: Entered | None = None) -> None:
        self.entered = Entered() if entered is None else entered
        self.not_looked: Counter[str] = Counter()
        """Characters of results that were not looked at: in the middle of a `long` text, or beyond the `budget`."""
        self._left = MAX_STEPS
        self._known: dict[bytes, Sequence[Kind]] = {}

    def begin(self, size: int) -> None:
        """Begin with a request of so many bytes."""
        self._left = MAX_STEPS if size <= LARGE_BYTES else MAX_STEPS_LARGE
        self._known = {}

    def contents(self, row: Row, said: Iterable[tuple[int, Said]]) -> dict[Kind, None]:
        """Return why a span is flagged for what it said and was told: its contents, each with its kind there. It is
        said at once, so that it is known and can be asked for also when the content has expired."""
        found: dict[Kind, None] = {}
        for kind, one in said:
            if kind in _FROM_OUTSIDE or one.event == _TOOL_MESSAGE:
                found.update(dict.fromkeys(self.result(row, one.text)))
            elif kind in (_INPUT, _OUTPUT):
                found.update(dict.fromkeys(self.messages(row, one.text, answer=kind == _OUTPUT)))
        return found

    def record(self, owner: Row, said: Iterable[tuple[int, Said]]) -> None:
        """The same of a log record, whose flags wait for the span that it speaks of. `owner` is that span's row."""
        found = self.contents(owner, said)
        if found:
            self.entered.wait(owner[AGENT], (owner[TRACE_ID], owner[SPAN_ID]), found)

    def waiting(self, row: Row) -> Iterable[Kind]:
        """Return the flags that log records raised for a span before it came."""
        return self.entered.waiting(row[AGENT], (row[TRACE_ID], row[SPAN_ID]))

    def result(self, row: Row, text: str, call_id: str | None = None) -> list[Kind]:
        """Return the flags of a result that this span brought in."""
        texts = (text,)
        if len(text) <= WHOLE:
            if not self._may_be(text):
                return []
            texts = texts_of(text)
        return self._flags(row, Told(call_id or row[TOOL_CALL_ID], texts, fresh=True))

    def messages(self, row: Row, text: str, *, answer: bool = False) -> list[Kind]:
        """Return the flags of the results among messages that a call was told, or an agent gave as its answer."""
        if not may_tell(text) or (len(text) <= WHOLE and not self._may_be(text)):
            return []
        found: dict[Kind, None] = {}
        # what is new first: it is not to wait behind a history that takes the whole budget
        for one in sorted(results_in(text), key=lambda one: not one.fresh):
            found.update(dict.fromkeys(self._flags(row, one._replace(fresh=one.fresh or answer))))
        return list(found)

    # -- one result --------------------------------------------------------------------------

    def _flags(self, row: Row, one: Told) -> list[Kind]:
        """Return the flags of a result, none if it entered elsewhere."""
        found: dict[Kind, None] = {}
        marks: list[bytes] = []
        for text in one.texts:
            mark, kinds = self._kinds(text)
            if kinds:
                found.update(dict.fromkeys(kinds))
                marks.append(mark)
        if not found:
            return []
        return list(found) if self._enters(row, one, marks) else []

    def _enters(self, row: Row, one: Told, marks: Sequence[bytes]) -> bool:
        """Tell whether a flagged result enters with this span, and remember it."""
        agent, place = row[AGENT], (row[TRACE_ID], row[SPAN_ID])
        scopes: list[tuple[object, ...]] = [(agent, row[TRACE_ID])]
        if row[SESSION] is not None:
            scopes.append((agent, row[SESSION]))
        names: list[bytes | str] = [*marks] if one.call_id is None else [*marks, one.call_id]
        keys = [(*scope, name) for scope in scopes for name in names]
        ever = [(agent, mark) for mark in marks]
        asked = keys if one.fresh else [*keys, *ever]
        known = next(
            (where for key in asked if (where := self.entered.where(key)) is not None), None
        )
        for key in (*keys, *ever):
            self.entered.enter(key, place)
        return known is None or known == place

    def _kinds(self, text: str) -> tuple[bytes, Sequence[Kind]]:
        """Return a text's mark and why it is flagged, as far as the budget goes: of long texts by their heads and tails."""
        text = self._clipped(text, MAX_TEXT, "long")
        if not self._spend(len(text) // _FIRST + _dear(text), len(text)) or not is_suspect(text):
            return b"", ()
        mark = _mark(text)
        kinds = self._known.get(mark)
        if kinds is None:
            looked = text
            if self._left < len(text):
                if self._left < LEAST:
                    self.not_looked["budget"] += len(text)
                    return mark, ()
                looked = self._clipped(text, self._left, "budget")
            self._left -= len(looked)
            kinds = self._known[mark] = kinds_of(looked)
        return mark, kinds

    def _may_be(self, text: str) -> bool:
        """Tell whether a content is worth reading as JSON: as it is written, most of them say nothing."""
        if not self._spend(len(text) // _FIRST + _dear(text), len(text)):
            return False
        return "\\u" in text or is_suspect(text)

    def _spend(self, steps: int, characters: int) -> bool:
        if self._left < steps:
            self.not_looked["budget"] += characters
            return False
        self._left -= steps
        return True

    def _clipped(self, text: str, limit: int, why: str) -> str:
        if len(text) <= limit:
            return text
        self.not_looked[why] += len(text) - limit
        tail = limit // 3
        return f"{text[: limit - tail]}\n{text[-tail:]}"


def _dear(text: str) -> int:
    """Return the further steps that entities take, and letters that stand for others."""
    steps = _ENTITY * text.count("&") if "&" in text else 0
    if not text.isascii():
        steps += len(text) // 4 if unicodedata.is_normalized("NFKC", text) else len(text)
    return steps


def _mark(text: str) -> bytes:
    """Return the 12 bytes by which a text is known, however its spaces are."""
    return blake2b(" ".join(text.split()).encode(errors="replace"), digest_size=12).digest()
