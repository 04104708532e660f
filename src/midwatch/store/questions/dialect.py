"""Where DuckDB and ClickHouse say the same differently: what the texts of `choosing` and `asking` are made with.

A text is written once, with these words for what differs; values are never part of it, they are bound by name. Every
method takes and returns SQL.
"""

from __future__ import annotations

from typing import Any, Protocol


class Dialect(Protocol):
    """What a database calls it."""

    def bound(self, name: str, value: Any) -> str:
        """Return where a bound value stands. `value` is a str, an int, a float, bytes, or a list of str."""
        ...

    def among(self, column: str, several: str) -> str:
        """Tell whether a text is one of several (a bound list)."""
        ...

    def any_among(self, column: str, several: str) -> str:
        """Tell whether any of a column's texts is one of several (a bound list)."""
        ...

    def some(self, several: str, holds: str) -> str:
        """Return the condition that holds when `holds`, in which it is `x`, holds of a value of a list."""
        ...

    def holds(self, text: str, sought: str) -> str:
        """Tell whether a text holds another (a bound one, in lower case), whatever its case."""
        ...

    def around(self, text: str, sought: str, before: int, length: int) -> str:
        """Return the piece of a text that begins some characters before what is sought."""
        ...

    def tag(self, column: str, name: str) -> str:
        """Return a tag's value (its name is bound) out of a JSON object, as text; null when it is not there."""
        ...

    def has(self, bits: str, bit: int) -> str:
        """Tell whether one bit is set of a column of them."""
        ...

    def whole(self, number: str, by: int) -> str:
        """Return a whole number divided by another, without its rest."""
        ...


class Values:
    """Values on their way into one statement."""

    def __init__(self, dialect: Dialect) -> None:
        self.given: dict[str, Any] = {}
        self._dialect = dialect

    def __call__(self, value: Any) -> str:
        """Bind a value; return where it stands."""
        name = f"v{len(self.given)}"
        self.given[name] = value
        return self._dialect.bound(name, value)


class DuckDb:
    """DuckDB's words."""

    def bound(self, name: str, value: Any) -> str:
        return f"${name}::VARCHAR[]" if isinstance(value, list) else f"${name}"

    def among(self, column: str, several: str) -> str:
        return f"list_contains({several}, {column})"

    def any_among(self, column: str, several: str) -> str:
        # most lists have one value, for which this takes half the time
        return (
            f"(CASE WHEN len({column}) = 1 THEN list_contains({several}, {column}[1])"
            f" ELSE list_has_any({column}, {several}) END)"
        )

    def some(self, several: str, holds: str) -> str:
        return f"coalesce(len(list_filter({several}, lambda x: {holds})), 0) > 0"

    def holds(self, text: str, sought: str) -> str:
        return f"contains(lower({text}), {sought})"

    def around(self, text: str, sought: str, before: int, length: int) -> str:
        return f"substr({text}, greatest(1, instr(lower({text}), {sought}) - {before}), {length})"

    def tag(self, column: str, name: str) -> str:
        # by a list of keys, not by a path: a name may have any characters
        return (
            f"json_extract_string({column}, '/' || replace(replace({name}, '~', '~0'), '/', '~1'))"
        )

    def has(self, bits: str, bit: int) -> str:
        return f"{bits} & {bit} <> 0"

    def whole(self, number: str, by: int) -> str:
        return f"{number} // {by}"
