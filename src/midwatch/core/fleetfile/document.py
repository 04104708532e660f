"""YAML text as plain values that remember where they stood.

PyYAML's own loaders lose positions, let the second of two equal keys win, and follow aliases and
nesting without bound. This reads the parser's events instead: keys are always text as written,
duplicates are problems that name both lines, anchors and merge keys work, and the size of the
result is bounded. What is read holds dict, list, str, int, float, bool and None, nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml
from yaml.constructor import SafeConstructor
from yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from yaml.nodes import ScalarNode
from yaml.resolver import Resolver

from midwatch.core.errors import Problem
from midwatch.core.fleetfile.syntax import explain
from midwatch.core.units import shorten

Path = tuple[str | int, ...]

MAX_CHARACTERS: Final = 1_000_000
"""A fleet of 500 agents takes a tenth of it."""

MAX_DEPTH: Final = 24
"""Nesting; the deepest key of the fleet file is at 6."""

MAX_VALUES: Final = 100_000
"""Values after aliases and merge keys are followed: what stops a bomb of aliases."""

_LOADERS: Final = tuple(
    getattr(yaml, name) for name in ("CSafeLoader", "SafeLoader") if hasattr(yaml, name)
)
"""The fast one first; the one in Python says better what is wrong, and has the last word."""

_TOO_DEEP: Final = f"nested deeper than {MAX_DEPTH} levels"
_CORE: Final = "tag:yaml.org,2002:"
_TAGS: Final = frozenset(_CORE + name for name in ("str", "int", "float", "bool", "null"))
_MAX_DIGITS: Final = 40
_RESOLVER: Final[Any] = Resolver()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stood: line and column count from 1. `written` is a scalar's text in the file,
    `bare` is False when it stood in quotes."""

    line: int
    column: int
    key_line: int
    key_column: int
    written: str | None = None
    bare: bool = False


@dataclass(slots=True)
class Document:
    """What the text says. `places` has an entry for each value, by its path from the top."""

    value: Any = None
    places: dict[Path, Place] = field(default_factory=dict[Path, Place])
    problems: list[Problem] = field(default_factory=list[Problem])

    def place(self, path: Path) -> Place:
        """Return where the value stood, or what holds it when it is not in the text."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path, Place(1, 1, 1, 1))

    def complain(self, path: Path, message: str, *, at_key: bool = False) -> None:
        """Add a problem at a value, or at its key."""
        place = self.place(path)
        line, column = (place.key_line, place.key_column) if at_key else (place.line, place.column)
        self.problems.append(Problem(line, column, show_path(path), message))


def show_path(path: Path) -> str:
    """Return `agents.inbox.command[0]`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if part.isprintable() and part else repr(part))
    return text if len(text) <= 200 else text[:199] + "…"


@dataclass(slots=True)
class _Node:
    line: int
    column: int
    tag: str | None
    text: str | None = None
    bare: bool = False
    pairs: list[tuple[_Node, _Node]] | None = None
    items: list[_Node] | None = None
    complete: bool = True


class _Refused(Exception):
    """The text as a whole cannot be used."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def _refused(line: int, column: int, message: str) -> _Refused:
    return _Refused(Problem(line, column, "", message))


def parse(text: str) -> Document:
    """Return what the text says; `problems` holds all that is wrong with it as YAML.

    `value` is None for a text without content, and when the text is not YAML at all.
    """
    document = Document()
    try:
        root = _Composer(_events(text)).compose()
        if root is not None:
            _Reader(document).read(root)
        # an aliased value is read once per alias
        document.problems = list({p.render(""): p for p in document.problems}.values())
    except _Refused as refused:
        document.value = None
        document.problems.append(refused.problem)
    return document


def _events(text: str) -> list[Any]:
    if len(text) > MAX_CHARACTERS:
        raise _refused(1, 1, f"too long: {len(text)} characters, at most {MAX_CHARACTERS}")
    for loader in _LOADERS:
        last = loader is _LOADERS[-1]
        try:
            return list(_bounded(yaml.parse(text, Loader=loader)))
        except yaml.YAMLError as error:
            if last:
                raise _Refused(explain(error, text)) from None
        except (ValueError, OverflowError) as error:  # \U00110000 and lone surrogates
            if last:
                raise _refused(1, 1, f"not valid YAML: {error}") from None
    raise AssertionError("no YAML loader")


def _bounded(events: Iterator[Any]) -> Iterator[Any]:
    depth = 0
    for count, event in enumerate(events):
        if isinstance(event, MappingStartEvent | SequenceStartEvent):
            depth += 1
        elif isinstance(event, MappingEndEvent | SequenceEndEvent):
            depth -= 1
        if depth > MAX_DEPTH or count > 4 * MAX_VALUES:
            mark: Any = event.start_mark
            reason = _TOO_DEEP if depth > MAX_DEPTH else f"more than {MAX_VALUES} values"
            raise _refused(mark.line + 1, mark.column + 1, reason)
        yield event


class _Composer:
    """Builds nodes from events; an alias is the node itself, shared."""

    def __init__(self, events: list[Any]) -> None:
        self._events = iter(events)
        self._anchors: dict[str, _Node] = {}

    def compose(self) -> _Node | None:
        root: _Node | None = None
        for event in self._events:
            if isinstance(event, DocumentStartEvent):
                if root is not None:
                    mark: Any = event.start_mark
                    raise _refused(
                        mark.line + 1,
                        1,
                        "a second document begins here; a fleet file is one document, remove the ---",
                    )
                root = self._node(next(self._events))
        return root

    def _node(self, event: Any) -> _Node:
        mark = event.start_mark
        line, column = mark.line + 1, mark.column + 1
        if isinstance(event, AliasEvent):
            return self._alias(str(event.anchor), line, column)
        node = _Node(line, column, event.tag)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        if isinstance(event, ScalarEvent):
            node.text = event.value
            node.bare = not event.style  # None, or "" from the fast parser
            if event.tag is None:
                node.tag = str(_RESOLVER.resolve(ScalarNode, event.value, event.implicit))
            return node
        node.complete = False
        if isinstance(event, SequenceStartEvent):
            node.items = [self._node(e) for e in self._until(SequenceEndEvent)]
        else:
            node.pairs = [
                (self._node(e), self._node(next(self._events)))
                for e in self._until(MappingEndEvent)
            ]
        node.complete = True
        return node

    def _until(self, end: type[Any]) -> Iterator[Any]:
        while not isinstance(event := next(self._events), end):
            yield event

    def _alias(self, anchor: str, line: int, column: int) -> _Node:
        node = self._anchors.get(anchor)
        if node is None:
            raise _refused(
                line,
                column,
                f"*{anchor} refers to an anchor &{anchor} that does not exist; "
                "text that begins with * needs quotes",
            )
        if not node.complete:
            raise _refused(line, column, f"*{anchor} contains itself")
        return node


class _Reader:
    """Turns nodes into values, and notes their places."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._count = 0

    def read(self, root: _Node) -> None:
        self._document.value = self._value(root, (), root)

    def _value(self, node: _Node, path: Path, key: _Node) -> Any:
        self._step(node, len(path))
        self._document.places[path] = Place(
            node.line, node.column, key.line, key.column, node.text, node.bare
        )
        if node.pairs is not None:
            return self._mapping(node, path)
        if node.items is not None:
            self._check_tag(node, path, _CORE + "seq")
            return [self._value(item, (*path, i), item) for i, item in enumerate(node.items)]
        return self._scalar(node, path)

    def _step(self, node: _Node, depth: int) -> None:
        self._count += 1
        if self._count > MAX_VALUES:
            raise _refused(
                node.line,
                node.column,
                f"more than {MAX_VALUES} values once its aliases are followed; write less of *alias",
            )
        if depth > MAX_DEPTH:
            raise _refused(node.line, node.column, _TOO_DEEP)

    def _check_tag(self, node: _Node, path: Path, *accepted: str) -> None:
        if node.tag not in (None, "!", *accepted):
            tag = str(node.tag).replace(_CORE, "!!")
            self._document.complain(
                path, f"the YAML tag {shorten(tag)} has no meaning here; put the text in quotes"
            )

    def _mapping(self, node: _Node, path: Path) -> dict[str, Any]:
        self._check_tag(node, path, _CORE + "map")
        own: dict[str, tuple[_Node, _Node]] = {}
        merged: dict[str, tuple[_Node, _Node]] = {}
        for key, value in node.pairs or []:
            name = self._key(key, path)
            if name is None:
                continue
            if name == "<<" and key.bare:
                self._merge(value, merged, path, 0)
            elif name in own:
                first = own[name][0]
                self._document.problems.append(
                    Problem(
                        key.line,
                        key.column,
                        show_path((*path, name)),
                        f"stands here a second time, first on line {first.line}; rename or remove one",
                    )
                )
            else:
                own[name] = (key, value)
        together = {**merged, **own}
        return {
            name: self._value(value, (*path, name), key) for name, (key, value) in together.items()
        }

    def _key(self, key: _Node, path: Path) -> str | None:
        if key.text:
            if _unusable(key.text) is None:
                return key.text
            message = f"the key {shorten(key.text)} {_unusable(key.text)}"
        elif key.text is None:
            message = "a key must be plain text; if a value begins with { or [, put it in quotes"
        else:
            message = "there is a ':' without a key before it"
        self._document.problems.append(Problem(key.line, key.column, show_path(path), message))
        return None

    def _merge(
        self, node: _Node, into: dict[str, tuple[_Node, _Node]], path: Path, depth: int
    ) -> None:
        """Lay the pairs of `<<: *anchor` under those that are there: the first one wins."""
        self._step(node, depth)
        for source in [node] if node.items is None else node.items:
            if source.pairs is None:
                self._document.problems.append(
                    Problem(
                        source.line,
                        source.column,
                        show_path((*path, "<<")),
                        "expected an alias of key: value lines, such as <<: *base",
                    )
                )
                continue
            later: list[_Node] = []
            for key, value in source.pairs:
                self._step(key, depth)
                if key.text == "<<" and key.bare:
                    later.append(value)
                elif key.text and _unusable(key.text) is None:
                    into.setdefault(key.text, (key, value))
            for value in later:
                self._merge(value, into, path, depth + 1)

    def _scalar(self, node: _Node, path: Path) -> Any:
        text = node.text or ""
        self._check_tag(node, path, *_TAGS, _CORE + "timestamp", _CORE + "value", _CORE + "merge")
        if (reason := _unusable(text)) is not None:
            self._document.complain(path, f"{shorten(text)} {reason}")
            return ""
        return _plain(str(node.tag).removeprefix(_CORE), text)


def _plain(kind: str, text: str) -> Any:
    """Return the value of a scalar; what JSON has no form for (dates, infinity) stays text."""
    if kind == "null":
        return None
    if kind == "bool":
        return SafeConstructor.bool_values.get(text.lower(), text)
    if kind in ("int", "float") and len(text) <= _MAX_DIGITS:
        node = ScalarNode(_CORE + kind, text)
        try:
            number = getattr(SafeConstructor(), f"construct_yaml_{kind}")(node)
        except (ValueError, IndexError):
            return text
        return number if abs(number) < 1e300 else text
    return text


_UNUSABLE: Final = re.compile("[\x00\ud800-\udfff]")


def _unusable(text: str) -> str | None:
    """Return why a text can be neither an argument, nor a variable, nor JSON."""
    match = _UNUSABLE.search(text)
    if match is None:
        return None
    return (
        "holds a NUL character, which no program can be given"
        if match[0] == "\x00"
        else "is not valid Unicode text"
    )
