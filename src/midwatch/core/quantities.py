"""Quantities and texts of the fleet file as types: how each is read, refused, and shown in the schema.

Plain numbers inside (seconds, bytes, nano-dollars, a share of one): text with a unit is what people
write, and what `reading()` insists on; the snapshot that travels as JSON carries the numbers.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import CoreSchema

from midwatch.core import units
from midwatch.core.cron import check_zone
from midwatch.core.described import under_keys

READING: Final = {"units": "required"}
"""Validation context while a fleet file is read: a bare number has no unit and is refused.
Without it (a JSON snapshot) plain numbers are what is expected."""


def _quantity(
    parse: Callable[[str], Any], what: str, pattern: str, examples: list[str], likely: str = ""
) -> Any:
    """Return the annotation of a quantity: how it is read, and how the schema shows it.

    `likely` is what a number without a unit was probably meant to be: `{}s`.
    """
    example = " or ".join(examples[:2])

    def read(value: object, info: ValidationInfo) -> object:
        if isinstance(value, str):
            return parse(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            if info.context == READING:
                hint = f"did you mean {likely.format(value)}?" if likely else None
                raise units.Unexpected(f"{what} with its unit, such as {example}", value, hint)
            return value
        raise units.Unexpected(f"{what} such as {example}", value)

    shown = {"type": "string", "pattern": pattern, "examples": examples, "title": what}
    return BeforeValidator(read), WithJsonSchema(shown)


_DURATION = _quantity(
    units.parse_duration,
    "a duration",
    r"^([0-9.]+ *(ms|s|m|h|d|w) *)+$",
    ["90s", "5m", "1h30m"],
    "{}s",
)
_SIZE = _quantity(
    units.parse_size, "a size", r"^[0-9.]+ *(B|[kK]B|[MGT]B|[KMGT]iB)$", ["512MiB", "1GiB"]
)
_RATE = _quantity(
    units.parse_rate, "a rate", r"^[0-9.]+ *(B|[kK]B|[MGT]B|[KMGT]iB)/s$", ["1MiB/s", "64KiB/s"]
)
_MONEY = _quantity(
    units.parse_money, "money", r"^\$ *[0-9]+(\.[0-9]{1,9})?$", ["$1.50", "$0.002"], "${}"
)
_RATIO = _quantity(units.parse_ratio, "a ratio", r"^[0-9.]+ *(%|x)$", ["80%", "10x"], "{}%")


def _range(value: object, info: ValidationInfo) -> object:
    """Read `5s..5m`, or one duration for both ends."""
    if isinstance(value, str):
        low, dots, high = value.partition("..")
        first = units.parse_duration(low)
        last = units.parse_duration(high) if dots else first
        if first > last:
            raise units.Unexpected("the smaller delay first, such as 5s..5m", value)
        return (first, last)
    if info.context == READING:
        raise units.Unexpected("one or two durations such as 5s..5m", value)
    return value


def split_listen(value: str) -> tuple[str, int]:
    """Return host and port of `127.0.0.1:8700` or `[::1]:8700`. Raises Unexpected."""
    match = _LISTEN.fullmatch(value)
    if match is None or int(match["port"]) > 65_535:
        bare = re.fullmatch(r":?([0-9]{1,5})", value)
        hint = f"did you mean 127.0.0.1:{bare[1]}?" if bare else None
        raise units.Unexpected("an address and a port such as 127.0.0.1:8700", value, hint)
    return match["six"] or match["host"], int(match["port"])


_LISTEN: Final = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.]{2,45})\]|(?P<host>[A-Za-z0-9.-]{1,253})):(?P<port>[0-9]{1,5})"
)


def _listen(value: object) -> object:
    if isinstance(value, str | int):
        split_listen(str(value))
    return value


def _variables(value: dict[str, str]) -> dict[str, str]:
    for name in value:
        if not name or "=" in name:
            raise units.Unexpected("names of variables without '='", name)
    return value


def _target(value: str) -> str:
    if "://" not in value and not value.startswith("file:"):
        raise units.Unexpected("an apprise URL such as slack://… or mailto://…", value)
    return value


Duration = Annotated[float, *_DURATION, Field(ge=0)]
Size = Annotated[int, *_SIZE, Field(ge=1)]
Rate = Annotated[int, *_RATE, Field(ge=1)]
"""Bytes per second."""
Money = Annotated[int, *_MONEY, Field(ge=0)]
Ratio = Annotated[float, *_RATIO, Field(ge=0)]
Range = Annotated[
    tuple[float, float],
    BeforeValidator(_range),
    WithJsonSchema({"type": "string", "title": "a range", "examples": ["5s..5m", "10s"]}),
]

Zone = Annotated[str, AfterValidator(check_zone)]
Listen = Annotated[
    str,
    BeforeValidator(_listen),
    WithJsonSchema({"type": "string", "title": "host:port", "examples": ["127.0.0.1:8700"]}),
]
Word = Annotated[str, WithJsonSchema({"type": ["string", "number", "boolean"], "title": "text"})]
"""Text that a process is given: in the fleet file also a bare number or `yes`, kept as written."""
Target = Annotated[str, AfterValidator(_target)]

Variables = Annotated[dict[str, Word], AfterValidator(_variables)]

Liveness = Literal["heartbeat", "activity", "output", "process", "none"]


class Model(BaseModel):
    """A part of the fleet file. The docstring under a key is what its schema says of it."""

    # made once, with the whole of which it is a part
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        shape = handler(core_schema)
        keys: dict[str, dict[str, Any]] = handler.resolve_ref_schema(shape)["properties"]
        described = under_keys(cls)
        for name, field in cls.model_fields.items():
            if name in described:
                keys[field.alias or name].setdefault("description", described[name])
        return shape
