"""What was said, apart from the span that said it, so that it can be dropped, redacted or expired alone.

A content is an attribute of a span, an event or a log record that holds a message, instructions, arguments, a
result. Indexed attributes (`llm.input_messages.0.message.role`) are one content together: the tree that they spell,
under `PREFIX.*`. Everything can be put back under the key it had.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from json.encoder import encode_basestring as _quoted
from typing import Final, NamedTuple, TypeAlias, cast

from midwatch.core.spans import form
from midwatch.core.spans.dialect import Attribute, Event
from midwatch.core.spans.form import CONTENTS, ContentKind, Row
from midwatch.core.spans.limits import MAX_CONTENT, MAX_DEPTH
from midwatch.core.spans.values import Value, dump, load

FOLDED: Final = ".*"
"""Behind the prefix of indexed attributes, in a content's key."""

FLAT: Final = ".**"
"""The same, where their keys spell no tree: an object of the keys as they are, behind the prefix."""

_MESSAGES: Final = {
    "gen_ai.system.message": ContentKind.SYSTEM,
    "gen_ai.user.message": ContentKind.INPUT,
    "gen_ai.assistant.message": ContentKind.INPUT,
    "gen_ai.tool.message": ContentKind.INPUT,
    "gen_ai.choice": ContentKind.OUTPUT,
    "gen_ai.content.prompt": ContentKind.INPUT,
    "gen_ai.content.completion": ContentKind.OUTPUT,
    "tool_call_invocation": ContentKind.ARGUMENTS,
    "tool_call_response": ContentKind.RESULT,
}
"""Events that are a message each."""

_HOLDERS: Final = frozenset(
    {
        "content",
        "message",
        "tool_calls",
        "arguments",
        "result",
        "body",
        "gen_ai.prompt",
        "gen_ai.completion",
        "gen_ai.event.content",
    }
)
"""Their attributes that hold what is said."""

EVENT_KINDS: Final = {
    "gen_ai.input.messages": ContentKind.INPUT,
    "gen_ai.output.messages": ContentKind.OUTPUT,
    "gen_ai.system_instructions": ContentKind.SYSTEM,
    "gen_ai.tool.definitions": ContentKind.TOOLS,
    "gen_ai.tool.call.arguments": ContentKind.ARGUMENTS,
    "gen_ai.tool.call.result": ContentKind.RESULT,
    "gen_ai.prompt": ContentKind.INPUT,
    "gen_ai.completion": ContentKind.OUTPUT,
    "gen_ai.evaluation.explanation": ContentKind.OTHER,
}
"""Attributes that hold a content in whatever event they stand (`gen_ai.client.inference.operation.details`)."""

_AS_TOOL: Final = {
    ContentKind.INPUT: ContentKind.ARGUMENTS.value,
    ContentKind.OUTPUT: ContentKind.RESULT.value,
}
_AS_RETRIEVAL: Final = {ContentKind.OUTPUT: ContentKind.DOCUMENTS.value}
_NONE: Final[dict[ContentKind, int]] = {}


def kinds_of(role: int) -> Mapping[ContentKind, int]:
    """Return what a content of a general kind is in a span of this role: a tool's input is its arguments."""
    if role == form.Role.TOOL:
        return _AS_TOOL
    return _AS_RETRIEVAL if role == form.Role.RETRIEVAL else _NONE


def in_event(name: str, key: str) -> ContentKind | None:
    """Return what an event's attribute is as a content, or None when it is none."""
    kind = EVENT_KINDS.get(key)
    if kind is not None:
        return kind
    return _MESSAGES.get(name) if key in _HOLDERS else None


def in_body(event: str | None) -> ContentKind | None:
    """Return what a log record's body is as a content: conventions up to 1.36 sent messages like this."""
    return _MESSAGES.get(event) if event else None


def digest(text: str) -> bytes:
    """Return the 8 bytes by which equal contents are known."""
    return sha256(text.encode(errors="replace")).digest()[:8]


class Said(NamedTuple):
    """A content on its way into a row."""

    kind: ContentKind
    key: str
    text: str
    is_json: bool
    event: str = ""
    """The event that it came in."""


def said(kind: ContentKind, key: str, value: Value, event: str = "") -> Said:
    """Return what an attribute said: text as it came, anything else as JSON."""
    if isinstance(value, str):
        return Said(kind, key, value, False, event)
    return Said(kind, key, dump(value), True, event)


def row(span: Row, place: int, kind: int, one: Said) -> tuple[Row, bool]:
    """Return the content as a row, and whether it had to be clipped."""
    _, key, text, is_json, _ = one
    if not text.isascii():
        text = text.encode(errors="replace").decode()
    if "\0" in text:
        text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    characters, mark = len(text), digest(text)
    clipped = characters > MAX_CONTENT
    if clipped:
        # what is left of JSON is none
        text, is_json = text[:MAX_CONTENT], False
    made: Row = [
        span[form.AGENT], span[form.TRACE_ID], span[form.SPAN_ID], place, span[form.START_NS], kind, key, text,
        is_json, characters, mark,
    ]  # fmt: skip
    return made, clipped


def event_key(number: int, attribute: str) -> str:
    """Return the key of a content that a span's event held."""
    return f"event/{number}/{attribute}"


def log_key(record: bytes, attribute: str) -> str:
    """Return the key of a content that a log record held."""
    return f"log/{record.hex()}/{attribute}"


class Piece(NamedTuple):
    """A part of a folded content's text: what stands before a value, where the value is, where its JSON begins."""

    before: str
    place: int
    offset: int
    """Characters of the attribute's text before its value."""


class Shape(NamedTuple):
    """The tree that the keys of indexed attributes spell, as text with gaps for their values."""

    pieces: tuple[Piece, ...]
    after: str

    def filled(self, attributes: Sequence[Attribute]) -> str | None:
        """Return the tree as JSON, or None when a value is a tree itself: it could not be told from the keys'."""
        text: list[str] = []
        for before, place, offset in self.pieces:
            one = attributes[place]
            if isinstance(one.value, list | dict):
                return None
            text.append(before)
            text.append(one.text[offset:])
        text.append(self.after)
        return "".join(text)


_Tree: TypeAlias = "dict[str, _Tree | tuple[int, int]]"


def shape(keys: Sequence[str], places: Sequence[int], prefix: str) -> Shape | None:
    """Return the shape of the attributes with these keys behind the prefix and its dot, at these places.

    What numbers from 0 on without a gap is a list, all else an object. None where the tree could not be taken apart
    again into the same keys.
    """
    root: _Tree = {}
    before_key = len(prefix) + 4  # quotes, dot and colon
    for key, place in zip(keys, places, strict=True):
        *way, last = key.split(".")
        if len(way) >= MAX_DEPTH or ".." in f".{key}." or ".$" in f".{key}":
            return None
        at = root
        for step in way:
            inner = at.get(step)
            if inner is None:
                inner = at[step] = {}
            elif not isinstance(inner, dict):
                return None
            at = inner
        if last in at:
            return None
        at[last] = (place, before_key + len(_quoted(key)) - 2)
    pieces: list[Piece] = []
    after = _written(root, "", pieces)
    return Shape(tuple(pieces), after)


def _written(tree: _Tree, before: str, pieces: list[Piece]) -> str:
    """Write a tree's text into the pieces. Return what stands behind the last of them."""
    if "0" in tree and all(str(place) in tree for place in range(len(tree))):
        inner = [tree[str(place)] for place in range(len(tree))]
        starts, opening, closing = [""] * len(tree), "[", "]"
    else:
        inner = tree.values()
        starts, opening, closing = [f"{_quoted(key)}:" for key in tree], "{", "}"
    for value, start in zip(inner, starts, strict=True):
        before = f"{before}{opening}{start}"
        if isinstance(value, tuple):
            pieces.append(Piece(before, *value))
            before = ""
        else:
            before = _written(value, before, pieces)
        opening = ","
    return before + closing


def unfold(tree: Value, prefix: str) -> Iterator[tuple[str, Value]]:
    """Yield the attributes that were folded, with their whole keys."""
    if isinstance(tree, list):
        for place, inner in enumerate(tree):
            yield from unfold(inner, f"{prefix}.{place}")
    elif isinstance(tree, dict):
        for key, inner in tree.items():
            yield from unfold(inner, f"{prefix}.{key}")
    else:
        yield prefix, tree


def value(content: Row) -> Value:
    """Return what a content's attribute held."""
    text = cast("str", content[TEXT])
    return load(text) if content[IS_JSON] else text


def attributes(contents: Iterable[Row]) -> dict[str, Value]:
    """Return the span's attributes that these contents were, those of its events left out."""
    found: dict[str, Value] = {}
    for content in contents:
        key = cast("str", content[KEY])
        if "/" in key:
            continue
        if key.endswith(FLAT) and content[IS_JSON]:
            prefix = key[: -len(FLAT)]
            flat = cast("dict[str, Value]", value(content))
            found.update({f"{prefix}.{end}": inner for end, inner in flat.items()})
        elif key.endswith((FOLDED, FLAT)):
            # one that was clipped is no tree any more: its text stands under the prefix
            key = key.replace(FLAT, FOLDED)
            found.update(unfold(value(content), key[: -len(FOLDED)]))
        else:
            found[key] = value(content)
    return found


def events(contents: Iterable[Row]) -> dict[int, dict[str, Value]]:
    """Return what belongs to each of a span's events again, by their numbers."""
    found: dict[int, dict[str, Value]] = {}
    for content in contents:
        held, _, attribute = cast("str", content[KEY]).rpartition("/")
        event, _, number = held.partition("/")
        if event == "event":
            found.setdefault(int(number), {})[attribute] = value(content)
    return found


KEY, TEXT, IS_JSON = (CONTENTS.at[name] for name in ("key", "text", "is_json"))


def parted(events: Sequence[Event]) -> tuple[list[Event], list[Said]]:
    """Return events without what was said in them, and that: kind, key and value of each."""
    rest: list[Event] = []
    found: list[Said] = []
    for number, event in enumerate(events):
        kept: list[Attribute] = []
        for one in event.attributes:
            kind = in_event(event.name, one.key)
            if kind is None or one.value is None or one.value == "":
                kept.append(one)
            else:
                key = event_key(number, one.key)
                found.append(said(kind, key, one.value, event.name))
        rest.append(
            event if len(kept) == len(event.attributes) else event._replace(attributes=kept)
        )
    return rest, found
