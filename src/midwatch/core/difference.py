"""What changed in an agent's state between turns, and where a value came from.

An agent reports parts of its state by name (`memory`, `scratchpad`, `context`); a part that a report does not name is
as it was. A state is JSON; a place in it is a path (`memory.contact.name`, `notes[2]`). Of a value the difference
keeps an excerpt, its length and a hash: equal values have equal hashes, also when nobody may read them any more.

`follow` finds a value in states and in what was said (results of tools, prompts, answers), so that a wrong fact leads
to the turn and to the span in which it entered. All of it is bounded: agents may report anything.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from hashlib import blake2b
from typing import Any, Final, Literal, NamedTuple, cast

from midwatch.core.plain import clean
from midwatch.core.redact import redact

MAX_CHANGES: Final = 500
"""Changes of one report; more are counted."""

MAX_LEAVES: Final = 10_000
"""Values of one state that are looked at; what lies behind is counted as more."""

MAX_EXCERPT: Final = 200
"""Characters of a value that are shown."""

MAX_DEPTH: Final = 32
"""Nesting that is followed; what lies deeper is one value."""

MAX_ALIGNED: Final = 200
"""Members of a list that changed, up to which what was put in or taken out is found; longer ones go by place."""

MAX_SIGHTS: Final = 500
"""Places at which a value is found; more are counted."""

State = Mapping[str, Any]
"""Parts by name, each any JSON."""

How = Literal["added", "removed", "changed"]


class Mark(NamedTuple):
    """A value at a place: one printable line of it without secrets, its length as JSON, and its hash."""

    text: str
    characters: int
    hash: bytes

    def to_json(self) -> dict[str, Any]:
        return {"text": self.text, "characters": self.characters, "hash": self.hash.hex()}


class Change(NamedTuple):
    """One place that is not as it was. `removed` paths are those of the state before."""

    path: str
    how: How
    before: Mark | None
    after: Mark | None

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {"path": self.path, "how": self.how}
        for name, mark in (("before", self.before), ("after", self.after)):
            if mark is not None:
                found[name] = mark.to_json()
        return found


class Difference(NamedTuple):
    """Changes in the order of the state, and how many more there are."""

    changes: Sequence[Change]
    more: int = 0


def overlay(before: State, report: State) -> dict[str, Any]:
    """Return the whole state after a report: the parts that it names are as it says, the others as they were.

    A part that it reports as None is gone.
    """
    found = {name: part for name, part in before.items() if name not in report}
    return {**found, **{name: part for name, part in report.items() if part is not None}}


def difference(before: State, after: State) -> Difference:
    """Return what changed from one whole state to another. Both are plain JSON; neither is changed."""
    changes: list[Change] = []
    more = 0
    for looked, change in enumerate(_compare("", dict(before), dict(after), 0)):
        if len(changes) < MAX_CHANGES and looked < MAX_LEAVES:
            changes.append(change)
        else:
            more += 1
            if looked >= MAX_LEAVES:
                break
    return Difference(changes, more)


def mark(value: Any) -> Mark:
    """Return what is kept of a value."""
    text = value if isinstance(value, str) else _canonical(value)
    digest = blake2b(_canonical(value).encode(errors="replace"), digest_size=8).digest()
    # a secret may begin before the end of the excerpt and end behind it
    shown = redact(text[: MAX_EXCERPT * 8].encode(errors="replace"))[0].decode(errors="replace")
    return Mark(clean(shown, MAX_EXCERPT), len(text), digest)


def leaves(state: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Yield the values of a state with their paths; an empty object or list is a value."""
    if depth < MAX_DEPTH:
        if isinstance(state, Mapping) and state:
            for name, inner in cast("Mapping[Any, Any]", state).items():
                yield from leaves(inner, _below(path, str(name)), depth + 1)
            return
        if isinstance(state, list) and state:
            for place, inner in enumerate(cast("list[Any]", state)):
                yield from leaves(inner, f"{path}[{place}]", depth + 1)
            return
    yield path, state


# -- following a value -----------------------------------------------------------------------------


class Report(NamedTuple):
    """One report of an agent: parts of its state, at a time, in a turn."""

    turn: str
    at_ns: int
    span: str
    """Its span's id."""
    state: State


class Saying(NamedTuple):
    """What a span was told or said: a result of a tool, a prompt, an answer."""

    turn: str
    at_ns: int
    span: str
    kind: str
    """The content's kind: input, output, arguments, result, documents, …"""
    name: str
    """The tool's, or the model's."""
    text: str


class Sight(NamedTuple):
    """One place at which the value is. `where` is a content's kind, or `state`; then `name` is the path."""

    at_ns: int
    turn: str
    span: str
    where: str
    name: str
    how: Literal["entered", "left"]
    excerpt: str

    def to_json(self) -> dict[str, Any]:
        return {**self._asdict(), "at": self.at_ns / 1e9}


@dataclass(frozen=True, slots=True)
class Trail:
    """Where a value was, in the order of time."""

    sights: Sequence[Sight]
    more: int = 0

    @property
    def stored(self) -> Sight | None:
        """Where it became a part of the state first."""
        return next((one for one in self.sights if one.where == "state"), None)

    @property
    def entered(self) -> Sight | None:
        """Where it came from: of what came from outside before it was stored, the first that holds it.

        Where nothing from outside held it, it is the first sight of all: a model's answer, or the state itself.
        """
        stored = self.stored
        outside = (
            one
            for one in self.sights
            if one.where in FROM_OUTSIDE and (stored is None or one.at_ns <= stored.at_ns)
        )
        return next(outside, self.sights[0] if self.sights else None)


FROM_OUTSIDE: Final = frozenset({"result", "documents", "input", "system"})
"""Kinds of content that an agent did not make itself."""


def follow(value: str, reports: Iterable[Report], sayings: Iterable[Saying] = ()) -> Trail:
    """Return where a value was said and stored. Raises ValueError for an empty one.

    It is found whatever its case and spaces, and as a whole: `42` is not in `420`, `Ann` not in `Annual`.
    """
    needle = _needle(value)
    found: list[Sight] = [
        Sight(
            one.at_ns,
            one.turn,
            one.span,
            one.kind,
            one.name,
            "entered",
            around(one.text, *hit.span()),
        )
        for one in sayings
        if (hit := needle.search(one.text)) is not None
    ]
    state: dict[str, Any] = {}
    held: set[str] = set()
    for report in sorted(reports, key=lambda one: (one.at_ns, one.span)):
        state = overlay(state, report.state)
        here = _holding(state, needle)
        found += [
            _sight(report, path, "entered", here[path]) for path in sorted(here.keys() - held)
        ]
        found += [_sight(report, path, "left", "") for path in sorted(held - here.keys())]
        held = set(here)
    # what was said at the same instant was there before it was stored
    found.sort(key=lambda one: (one.at_ns, one.where == "state", one.span, one.name))
    return Trail(found[:MAX_SIGHTS], max(0, len(found) - MAX_SIGHTS))


def around(text: str, begin: int, end: int) -> str:
    """Return one printable line of what stands around a place, without secrets."""
    half = MAX_EXCERPT // 2
    shown = redact(text[max(0, begin - half) : end + half].encode(errors="replace"))[0]
    return clean(shown.decode(errors="replace"), MAX_EXCERPT)


def _sight(report: Report, path: str, how: Literal["entered", "left"], excerpt: str) -> Sight:
    return Sight(report.at_ns, report.turn, report.span, "state", path, how, excerpt)


def _holding(state: State, needle: re.Pattern[str]) -> dict[str, str]:
    """Return the paths whose value holds what is looked for, with an excerpt."""
    found: dict[str, str] = {}
    for looked, (path, value) in enumerate(leaves(state)):
        if looked >= MAX_LEAVES:
            break
        text = value if isinstance(value, str) else _canonical(value)
        hit = needle.search(text)
        if hit is not None:
            found[path] = around(text, *hit.span())
    return found


def _needle(value: str) -> re.Pattern[str]:
    words = value.split()
    if not words:
        raise ValueError("there is nothing to follow; give a value")
    pattern = r"\s+".join(map(re.escape, words))
    # a whole word or number, where it begins or ends as one
    front = r"(?<!\w)" if words[0][0].isalnum() else ""
    back = r"(?!\w)" if words[-1][-1].isalnum() else ""
    return re.compile(front + pattern + back, re.IGNORECASE)


# -- comparing -------------------------------------------------------------------------------------


def _compare(path: str, before: Any, after: Any, depth: int) -> Iterator[Change]:
    if depth < MAX_DEPTH:
        if (
            isinstance(before, dict)
            and isinstance(after, dict)
            and (path == "" or (before and after))
        ):
            yield from _compare_objects(path, before, after, depth)  # pyright: ignore[reportUnknownArgumentType]
            return
        if isinstance(before, list) and isinstance(after, list) and before and after:
            yield from _compare_lists(path, before, after, depth)  # pyright: ignore[reportUnknownArgumentType]
            return
    if _canonical(before) == _canonical(after):
        return
    if _branches(before, depth) or _branches(after, depth):
        yield from _gone(path, before, depth)
        yield from _come(path, after, depth)
        return
    yield Change(path, "changed", mark(before), mark(after))


def _compare_objects(
    path: str, before: dict[str, Any], after: dict[str, Any], depth: int
) -> Iterator[Change]:
    for name, value in after.items():
        below = _below(path, str(name))
        if name in before:
            yield from _compare(below, before[name], value, depth + 1)
        else:
            yield from _come(below, value, depth + 1)
    for name, value in before.items():
        if name not in after:
            yield from _gone(_below(path, str(name)), value, depth + 1)


def _compare_lists(path: str, before: list[Any], after: list[Any], depth: int) -> Iterator[Change]:
    """Compare lists such that a note that was put in front does not change all notes behind it."""
    was, now = [_canonical(one) for one in before], [_canonical(one) for one in after]
    begin = 0
    while begin < min(len(was), len(now)) and was[begin] == now[begin]:
        begin += 1
    end = 0
    while end < min(len(was), len(now)) - begin and was[-1 - end] == now[-1 - end]:
        end += 1
    was, now = was[begin : len(was) - end], now[begin : len(now) - end]
    blocks: Sequence[tuple[str, int, int, int, int]] = (("replace", 0, len(was), 0, len(now)),)
    if len(was) != len(now) and max(len(was), len(now)) <= MAX_ALIGNED:
        blocks = SequenceMatcher(None, was, now, autojunk=False).get_opcodes()
    for what, old, old_end, new, new_end in blocks:
        if what == "equal":
            continue
        both = min(old_end - old, new_end - new)
        for step in range(both):
            place, other = begin + new + step, begin + old + step
            yield from _compare(f"{path}[{place}]", before[other], after[place], depth + 1)
        for place in range(begin + new + both, begin + new_end):
            yield from _come(f"{path}[{place}]", after[place], depth + 1)
        for place in range(begin + old + both, begin + old_end):
            yield from _gone(f"{path}[{place}]", before[place], depth + 1)


def _branches(value: Any, depth: int) -> bool:
    return depth < MAX_DEPTH and isinstance(value, dict | list) and bool(value)  # pyright: ignore[reportUnknownArgumentType]


def _come(path: str, value: Any, depth: int) -> Iterator[Change]:
    for below, leaf in leaves(value, path, depth):
        yield Change(below, "added", None, mark(leaf))


def _gone(path: str, value: Any, depth: int) -> Iterator[Change]:
    for below, leaf in leaves(value, path, depth):
        yield Change(below, "removed", mark(leaf), None)


_PLAIN: Final = re.compile(r"[^\s.\[\]\"']{1,80}")


def _below(path: str, name: str) -> str:
    """Return the path of a member; a name that would be read as a path itself is quoted."""
    if _PLAIN.fullmatch(name) is None:
        return f"{path}[{json.dumps(name[:80])}]"
    return f"{path}.{name}" if path else name


def _canonical(value: Any) -> str:
    """Return a value as JSON that is equal for equal values. Objects of any key order are equal."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=str)
