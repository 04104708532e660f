"""Conditions of the fleet file: CEL expressions over a documented set of names.

Compiled once. CEL is imported with the first real condition, because its package takes half a second
to import and most fleets have none.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Final

ALWAYS: Final = "true"


class BadCondition(ValueError):
    """A condition that cannot be compiled, or does not give true or false."""


class Condition:
    """One compiled condition."""

    def __init__(self, source: str) -> None:
        """Compile `source`. Raises BadCondition that says where it is wrong."""
        self.source = source
        self._program: Any = None
        if source.strip() == ALWAYS:
            return
        # a package without stubs for what it re-exports, and slow to import: see the module's docstring
        cel: Any = importlib.import_module("cel")
        try:
            self._program = cel.compile(source)
        except ValueError as error:
            raise BadCondition(
                f"{source!r} is not a CEL expression: {_first_line(error)}"
            ) from None

    def holds(self, names: Mapping[str, Any]) -> bool:
        """Return whether the condition is true. Raises BadCondition for an unknown name or another type."""
        if self._program is None:
            return True
        try:
            value: Any = self._program.execute(dict(names))
        except KeyError as error:  # `tags.customer` where no such tag is given
            raise BadCondition(
                f"{self.source!r} cannot be decided: there is no {error}; ask has(…) first"
            ) from None
        except (ValueError, RuntimeError, TypeError, ArithmeticError) as error:
            raise BadCondition(f"{self.source!r} cannot be decided: {_first_line(error)}") from None
        if not isinstance(value, bool):
            raise BadCondition(f"{self.source!r} gives {value!r}; it must give true or false")
        return value


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]
