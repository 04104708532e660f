"""What was said, apart from the span that said it, so that it can be dropped, redacted or expired alone.

A content is an attribute of a span, an event or a log record that holds a message, instructions, arguments, a
result. Indexed attributes (`llm.input_messages.0.message.role`) are one content together: the tree that they spell,
under `PREFIX.*`. Everything can be put back under the key it had.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final, cast

from midwatch.core.spans import form
from midwatch.core.spans.dialect import Attribute, Event
from midwatch.core.spans.form import CONTENTS, ContentKind, Row
from midwatch.core.spans.limits import MAX_CONTENT, MAX_DEPTH
from midwatch.core.spans.reading import label
from midwatch.core.spans.values import Value, dump, load

FOLDED: Final = ".*"
"""Behind the prefix of indexed attributes, in a content's key."""

FROM_LOGS: Final = 1024
"""Places from here on belong to what log records say of a span: two senders, one span, no collision."""

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
    return blake2b(text.encode(errors="replace"), digest_size=8).digest()


def row(span: Row, place: int, kind: int, key: str, value: Value) -> tuple[Row, bool]:
    """Return the content as a row, and whether it had to be clipped."""
    if isinstance(value, str):
        is_json, text = False, value
        if not text.isascii():
            text = text.encode(errors="replace").decode()
    else:
        is_json, text = True, dump(value)
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


def event_key(event: str, number: int, attribute: str) -> str:
    """Return the key of a content that an event held."""
    return f"{event}/{number}/{attribute}"


def fold(parts: Iterable[tuple[str, Value]]) -> Value:
    """Return the tree that indexed attributes spell, from their keys behind the prefix and its dot.

    What numbers from 0 on without a gap is a list, all else an object. Where the tree could not be taken apart
    again into the same keys, the keys stay as they are.
    """
    flat = dict(parts)
    if any(isinstance(value, list | dict) for value in flat.values()):
        return cast("Value", flat)
    root: dict[str, Any] = {}
    for key, value in flat.items():
        path = key.split(".")
        if len(path) > MAX_DEPTH or not all(path):
            return cast("Value", flat)
        at = root
        for step in path[:-1]:
            inner = at.setdefault(step, {})
            if not isinstance(inner, dict):
                return cast("Value", flat)
            at = cast("dict[str, Any]", inner)
        if path[-1] in at:
            return cast("Value", flat)
        at[path[-1]] = value
    return _listed(root)


def _listed(tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    inner = {key: _listed(value) for key, value in cast("dict[str, Any]", tree).items()}
    if inner and all(str(place) in inner for place in range(len(inner))):
        return [inner[str(place)] for place in range(len(inner))]
    return inner


def unfold(tree: Value, prefix: str) -> Iterator[tuple[str, Value]]:
    """Yield the attributes that were folded, with their whole keys."""
    if isinstance(tree, list):
        for place, inner in enumerate(tree):
            yield from unfold(inner, f"{prefix}.{place}")
    elif isinstance(tree, dict):
        for key, inner in tree.items():
            # keys that stayed as they were have dots; what they hold is a value, whatever its shape
            if "." in key:
                yield f"{prefix}.{key}", inner
            else:
                yield from unfold(inner, f"{prefix}.{key}")
    else:
        yield prefix, tree


def value(content: Row) -> Value:
    """Return what a content's attribute held."""
    text = cast("str", content[_TEXT])
    return load(text) if content[_IS_JSON] else text


def attributes(contents: Iterable[Row]) -> dict[str, Value]:
    """Return the span's attributes that these contents were, those of its events left out."""
    found: dict[str, Value] = {}
    for content in contents:
        key = cast("str", content[_KEY])
        if "/" in key:
            continue
        if key.endswith(FOLDED):
            found.update(unfold(value(content), key[: -len(FOLDED)]))
        else:
            found[key] = value(content)
    return found


def events(contents: Iterable[Row]) -> dict[int, dict[str, Value]]:
    """Return what belongs to each of a span's events again, by their numbers."""
    found: dict[int, dict[str, Value]] = {}
    for content in contents:
        name, _, attribute = cast("str", content[_KEY]).rpartition("/")
        _, slash, number = name.rpartition("/")
        if slash and number.isdigit():
            found.setdefault(int(number), {})[attribute] = value(content)
    return found


_KEY, _TEXT, _IS_JSON = (CONTENTS.at[name] for name in ("key", "text", "is_json"))


def parted(events: Sequence[Event]) -> tuple[list[Event], list[tuple[ContentKind, str, Value]]]:
    """Return events without what was said in them, and that: kind, key and value of each."""
    rest: list[Event] = []
    said: list[tuple[ContentKind, str, Value]] = []
    for number, event in enumerate(events):
        kept: list[Attribute] = []
        for one in event.attributes:
            kind = in_event(event.name, one.key)
            if kind is None or one.value is None or one.value == "":
                kept.append(one)
            else:
                said.append((kind, event_key(label(event.name) or "", number, one.key), one.value))
        rest.append(
            event if len(kept) == len(event.attributes) else event._replace(attributes=kept)
        )
    return rest, said
