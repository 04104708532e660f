"""Attribute values as JSON text, and back, so that what came in over OTLP can go out again unchanged.

JSON has no bytes and no NaN: they stand as `{"$bytes": "base64"}` and `{"$double": "NaN"}`. An object of the
sender's that looks like one of these has a further `$` before its key. `1.0` stays a float, `1` a whole number.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias, cast

Value: TypeAlias = "str | bool | int | float | bytes | list[Value] | dict[str, Value] | None"
"""What OTLP calls AnyValue."""

_MARK: Final = "$"
_NOT_FINITE: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

_encode: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode


def dump(value: Value) -> str:
    """Return the value as JSON text. Lone surrogates, which no store takes, become `?`."""
    if isinstance(value, str):
        # the commonest by far; a value that is not text cannot be without its detour below
        return _text(value)
    return _encode(_plain(value))


def dump_all(attributes: Mapping[str, Value]) -> str | None:
    """Return attributes as a JSON object, or None when there are none. Keys are the sender's own: no `$` is added."""
    if not attributes:
        return None
    return "{" + ",".join(f"{_text(k)}:{dump(v)}" for k, v in attributes.items()) + "}"


def load(text: str) -> Value:
    """Return the value of what `dump` wrote. Raises ValueError for any other text."""
    return _value(json.loads(text))


def load_all(text: str | None) -> dict[str, Value]:
    """Return the attributes of what `dump_all` wrote. Raises ValueError for any other text."""
    if text is None:
        return {}
    read = json.loads(text)
    if not isinstance(read, dict):
        raise ValueError(f"expected attributes as a JSON object, got {text[:60]!r}")
    return {key: _value(inner) for key, inner in cast("dict[str, Any]", read).items()}


def _text(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        value = value.encode(errors="replace").decode()
    return _encode(value)


def _plain(value: Value) -> Any:
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, float) and not math.isfinite(value):
        name = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        return {"$double": name}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, dict):
        marked = len(value) == 1 and next(iter(value)).startswith(_MARK)
        prefix = _MARK if marked else ""
        return {_plain(prefix + key): _plain(inner) for key, inner in value.items()}
    return value


def _value(read: Any) -> Value:
    if isinstance(read, list):
        return [_value(inner) for inner in cast("Sequence[Any]", read)]
    if not isinstance(read, dict):
        return cast("Value", read)
    inner = cast("dict[str, Any]", read)
    if len(inner) == 1:
        ((key, only),) = inner.items()
        if key.startswith(_MARK * 2):
            return {key[1:]: _value(only)}
        if key == "$bytes" and isinstance(only, str):
            try:
                return base64.b64decode(only, validate=True)
            except binascii.Error as error:
                raise ValueError(f"expected base64 under '$bytes', got {only[:40]!r}") from error
        if key == "$double" and only in _NOT_FINITE:
            return _NOT_FINITE[cast("str", only)]
    return {key: _value(one) for key, one in inner.items()}
