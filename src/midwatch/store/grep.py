"""Finds a pattern in lines, in time that grows with their length and nothing else.

Python's own `re` backtracks: `(a+)+$` against thirty characters takes minutes, and a pattern may come
over the API. Patterns are RE2's instead, as DuckDB has it: no back-references, no look-around.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

MAX_PATTERN: Final = 1_000
"""Characters of a pattern."""

MAX_LINE: Final = 16 * 1024
"""Characters of a line that are looked at."""

_PLAIN: Final = re.compile(r"[^\\.^$*+?()\[\]{}|]+")


class Grep:
    """One pattern. Raises ValueError when it is none."""

    def __init__(self, pattern: str) -> None:
        if len(pattern) > MAX_PATTERN:
            raise ValueError(
                f"a pattern has at most {MAX_PATTERN:,} characters, got {len(pattern):,}"
            )
        self._literal = pattern if _PLAIN.fullmatch(pattern) else None
        self._pattern = pattern
        self._connection: Any = None
        if self._literal is None and pattern:
            self._connect()

    def keep(self, lines: Sequence[str]) -> list[bool]:
        """Tell for each line whether the pattern is somewhere in it."""
        if not self._pattern:
            return [True] * len(lines)
        if self._literal is not None:
            return [self._literal in line for line in lines]
        if not lines:
            return []
        # what has no UTF-8 form cannot be told to DuckDB
        texts = [line[:MAX_LINE].encode("utf-8", "replace").decode() for line in lines]
        found = self._connection.execute(
            "select list_transform($1::varchar[], lambda line: regexp_matches(line, $2))",
            [texts, self._pattern],
        ).fetchone()
        return [bool(one) for one in found[0]]

    def _connect(self) -> None:
        import duckdb

        # its own little database: nothing of it is kept
        self._connection = duckdb.connect(":memory:", config={"threads": 1})
        try:
            self._connection.execute("select regexp_matches('', $1)", [self._pattern]).fetchone()
        except duckdb.Error as error:
            why = str(error).removeprefix("Invalid Input Error: ")
            raise ValueError(f"{self._pattern!r} is no pattern (RE2): {why}") from None
