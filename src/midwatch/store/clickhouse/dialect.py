"""ClickHouse's words for the questions' texts (`store.questions.dialect`). Ids are hex there, so they are bound as it."""

from __future__ import annotations

from typing import Any


class ClickHouseWords:
    """See `dialect.Dialect`."""

    def bound(self, name: str, value: Any) -> str:
        if isinstance(value, list):
            return f"{{{name}:Array(String)}}"
        if isinstance(value, float):
            return f"{{{name}:Float64}}"
        return f"{{{name}:{'Int64' if isinstance(value, int) else 'String'}}}"

    def among(self, column: str, several: str) -> str:
        return f"ifNull({column} IN {several}, 0)"

    def any_among(self, column: str, several: str) -> str:
        return f"hasAny({column}, {several})"

    def some(self, several: str, holds: str) -> str:
        return f"arrayExists(x -> {holds}, {several})"

    def holds(self, text: str, sought: str) -> str:
        return f"position(lowerUTF8(ifNull({text}, '')), {sought}) > 0"

    def around(self, text: str, sought: str, before: int, length: int) -> str:
        said = f"ifNull({text}, '')"
        begin = f"toInt64(positionUTF8(lowerUTF8({said}), {sought})) - {before}"
        return f"substringUTF8({said}, greatest(1, {begin}), {length})"

    def tag(self, column: str, name: str) -> str:
        said = f"ifNull({column}, '')"
        return (
            f"multiIf(JSONType({said}, {name}) = 'String', JSONExtractString({said}, {name}),"
            f" JSONHas({said}, {name}), JSONExtractRaw({said}, {name}), NULL)"
        )

    def has(self, bits: str, bit: int) -> str:
        return f"bitAnd({bits}, {bit}) <> 0"

    def whole(self, number: str, by: int) -> str:
        return f"intDiv({number}, {by})"
