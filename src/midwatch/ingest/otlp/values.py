"""Attributes from their bytes, each decoded once for all spans that repeat it.

Read by hand: a parser would refuse a span for one byte that is no UTF-8 and for one value that is nested too deeply;
here the byte is replaced and what lies too deep becomes null, and both are counted. What is broken is dropped alone.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from json.encoder import encode_basestring as _quoted
from typing import Final

from midwatch.core.redact import is_secret
from midwatch.core.spans.dialect import Attribute, attribute
from midwatch.core.spans.limits import MAX_DEPTH, MAX_KEY, MAX_LABEL, MAX_TEXT
from midwatch.core.spans.values import Value, dump
from midwatch.ingest.redacting import hidden

MAX_KNOWN: Final = 20_000
"""Attributes that are remembered; one more and all are forgotten."""

MAX_KNOWN_BYTES: Final = 128
"""Encoded size of one that is remembered: longer ones seldom come twice."""

LONG_BYTES: Final = 512
"""From this encoded size on an attribute's JSON is not written ahead."""

MAX_GIVEN: Final = 4_096
"""Attributes of one span, event, link, resource or scope as they are sent; what follows is dropped. Indexed ones
are folded later, so that this is more than what is kept."""

MAX_ELEMENTS: Final = 100_000
"""Values within one attribute; what follows is dropped."""

NUL: Final = "\N{REPLACEMENT CHARACTER}"
"""What stands for a character that no store takes."""

_DOUBLE: Final = struct.Struct("<d")
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class LongAttribute(Attribute):
    """One whose JSON is written only where it is asked for: most long texts are contents, which are kept as text."""

    __slots__ = ()

    @property
    def text(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return f"{_quoted(self.key)}:{_dumped(self.value)}"


class Broken(ValueError):
    """Bytes that are no message."""


class Values:
    """Decodes what repeats. One for each thread; `lost` counts what limits and broken bytes took, `hidden` the
    values of attributes with a secret's name."""

    def __init__(self) -> None:
        self.lost: Counter[str] = Counter()
        self.hidden = 0
        self._known: dict[bytes, Attribute] = {}
        self._names: dict[bytes, str] = {}

    def attributes(self, raws: Sequence[bytes]) -> list[Attribute]:
        """Return attributes in the order they came, without those that are broken or have too long a key."""
        known = self._known
        found: list[Attribute] = []
        if len(raws) > MAX_GIVEN:
            self.lost["attribute"] += len(raws) - MAX_GIVEN
            raws = raws[:MAX_GIVEN]
        for raw in raws:
            one = known.get(raw) if len(raw) <= MAX_KNOWN_BYTES else None
            if one is None:
                one = self._attribute(raw)
                if one is None:
                    continue
            found.append(one)
        return found

    def plain(self, raws: Sequence[bytes]) -> dict[str, Value]:
        """Return attributes as an object; of two with one key the last stays."""
        return {one.key: one.value for one in self.attributes(raws)}

    def name(self, raw: bytes) -> str:
        """Return a short text: a span's name, a unit, a version."""
        found = self._names.get(raw)
        if found is None:
            before = self.lost.total()
            found = self.text(raw, MAX_TEXT)
            if len(raw) <= MAX_KNOWN_BYTES and before == self.lost.total():
                if len(self._names) >= MAX_KNOWN:
                    self._names = {}
                self._names[raw] = found
        return found

    def label(self, raw: bytes) -> str | None:
        """Return what is counted by, at most MAX_LABEL characters; None for no text."""
        return self.name(raw)[:MAX_LABEL] or None

    def text(self, raw: bytes, limit: int | None = None) -> str:
        """Return text that a store can take, of at most so many characters."""
        if limit is not None and len(raw) > limit:
            text = self._utf8(raw[: 4 * limit])
            if len(text) > limit or len(raw) > 4 * limit:
                self.lost["text"] += 1
                text = text[:limit]
        else:
            text = self._utf8(raw)
        return text.replace("\0", NUL) if "\0" in text else text

    def _utf8(self, raw: bytes) -> str:
        try:
            return raw.decode()
        except UnicodeDecodeError:
            self.lost["utf8"] += 1
            return raw.decode(errors="replace")

    def _attribute(self, raw: bytes) -> Attribute | None:
        before = self.lost.total() + self.hidden
        try:
            one = self._pair(raw)
        except (Broken, IndexError, struct.error):
            self.lost["broken_attribute"] += 1
            return None
        if len(one.key) > MAX_KEY:
            self.lost["attribute_key"] += 1
            return None
        if is_secret(one.key):
            # not remembered: it would be a secret in memory, and be counted once
            return self._hide(one)
        if len(raw) <= MAX_KNOWN_BYTES and before == self.lost.total() + self.hidden:
            if len(self._known) >= MAX_KNOWN:
                self._known = {}
            self._known[raw] = one
        return one

    def _hide(self, one: Attribute) -> Attribute:
        shown = hidden(one.value)
        self.hidden += shown != one.value
        return attribute(one.key, shown)

    def _pair(self, raw: bytes) -> Attribute:
        """Read a KeyValue. The first lines are for what nearly all are: a short key, then a text."""
        size = len(raw)
        if (
            size > 4
            and raw[0] == 0x0A
            and (end := raw[1] + 2) < min(size, 0x82)
            and raw[end] == 0x12
        ):
            key = self._utf8(raw[2:end])
            length, at = varint(raw, end + 1)
            if at + length == size:
                value = self.value(raw[at:])
                if size > LONG_BYTES:
                    return LongAttribute(key, value, "")
                return Attribute(key, value, f"{_quoted(key)}:{_dumped(value)}")
        key, value = "", None
        for number, kind, inner in fields(raw):
            if kind == _BYTES and number == 1:
                key = self._utf8(inner)
            elif kind == _BYTES and number == 2:
                value = self.value(inner)
        return Attribute(key, value, f"{_quoted(key)}:{_dumped(value)}")

    def value(self, raw: bytes) -> Value:
        """Read an AnyValue. Raises Broken for what is none."""
        if not raw:
            return None
        if raw[0] == 0x0A:
            size, at = varint(raw, 1)
            if at + size == len(raw):
                return self._utf8(raw[at:])
        return self._value(raw, 0, [MAX_ELEMENTS])

    def body(self, raw: bytes) -> Value:
        """Return a log record's body; None for one that is broken, which is counted. Text is fit for a store."""
        try:
            found = self.value(raw)
        except (Broken, IndexError, struct.error):
            self.lost["broken_body"] += 1
            return None
        return found.replace("\0", NUL) if isinstance(found, str) else found

    def _value(self, raw: bytes, depth: int, left: list[int]) -> Value:
        found: Value = None
        for number, kind, inner in fields(raw):
            if kind == _BYTES:
                if number == 1:
                    found = self._utf8(inner)
                elif number == 5:
                    found = self._array(inner, depth, left)
                elif number == 6:
                    found = self._map(inner, depth, left)
                elif number == 7:
                    found = inner
            elif kind == _VARINT and number == 2:
                found = inner != b"\0"
            elif kind == _VARINT and number == 3:
                found = _signed(varint(inner, 0)[0])
            elif kind == _FIXED64 and number == 4:
                found = _DOUBLE.unpack(inner)[0]
        return found

    def _array(self, raw: bytes, depth: int, left: list[int]) -> Value:
        if depth >= MAX_DEPTH:
            self.lost["depth"] += 1
            return None
        found: list[Value] = []
        for number, kind, inner in fields(raw):
            if number == 1 and kind == _BYTES:
                if not self._may(left):
                    break
                found.append(self._value(inner, depth + 1, left))
        return found

    def _map(self, raw: bytes, depth: int, left: list[int]) -> Value:
        if depth >= MAX_DEPTH:
            self.lost["depth"] += 1
            return None
        found: dict[str, Value] = {}
        for number, kind, pair in fields(raw):
            if number != 1 or kind != _BYTES:
                continue
            if not self._may(left):
                break
            key, value = "", None
            for place, inner_kind, inner in fields(pair):
                if inner_kind == _BYTES and place == 1:
                    key = self._utf8(inner)
                elif inner_kind == _BYTES and place == 2:
                    value = self._value(inner, depth + 1, left)
            if is_secret(key[-MAX_KEY:]):
                shown = hidden(value)
                self.hidden += shown != value
                value = shown
            found[key] = value
        return found

    def _may(self, left: list[int]) -> bool:
        left[0] -= 1
        if left[0] == -1:
            self.lost["elements"] += 1
        return left[0] >= 0


def fields(raw: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield number, wire type and bytes of each field of a message. Raises Broken."""
    at, end = 0, len(raw)
    while at < end:
        tag, at = varint(raw, at)
        kind, number = tag & 7, tag >> 3
        if kind == _BYTES:
            size, at = varint(raw, at)
            after = at + size
        elif kind == _VARINT:
            _, after = varint(raw, at)
        elif kind == _FIXED64:
            after = at + 8
        elif kind == _FIXED32:
            after = at + 4
        else:
            raise Broken(f"wire type {kind}")
        if after > end or number == 0:
            raise Broken("a field beyond the end")
        yield number, kind, raw[at:after]
        at = after


def varint(raw: bytes, at: int) -> tuple[int, int]:
    """Return a number of seven bits a byte, and where it ends. Raises Broken, or IndexError beyond the end."""
    byte = raw[at]
    if byte < 0x80:
        return byte, at + 1
    number, shift = byte & 0x7F, 7
    while True:
        at += 1
        byte = raw[at]
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number & 0xFFFF_FFFF_FFFF_FFFF, at + 1
        shift += 7
        if shift > 63:
            raise Broken("a number of more than ten bytes")


def _signed(number: int) -> int:
    return number - (1 << 64) if number >= 1 << 63 else number


def _dumped(value: Value) -> str:
    """Return `values.dump`, whose detour for text that is none is not needed: it was decoded just now."""
    if type(value) is str:
        return _quoted(value)
    if type(value) is int:
        return str(value)
    return dump(value)
