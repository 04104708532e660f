"""What stands under a key as its docstring, read from the source: for the published schema, and only when one is wanted.

Reading it as each class is made (pydantic's `use_attribute_docstrings`) takes every process that knows the fleet file
longer than reading the file does.
"""

from __future__ import annotations

import ast
import inspect
import sys
from functools import cache
from typing import Final

_NOTHING: Final[dict[str, str]] = {}


def under_keys(cls: type) -> dict[str, str]:
    """Return what the docstrings under a class's keys say, inherited ones included; none where the source is not there."""
    found: dict[str, str] = {}
    for each in reversed(cls.__mro__):
        if each.__module__.startswith("midwatch."):
            found |= _classes(each.__module__).get(each.__qualname__, _NOTHING)
    return found


@cache
def _classes(module: str) -> dict[str, dict[str, str]]:
    """Return the same of each class at the top of a module."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[module]))
    except (OSError, TypeError):
        return {}
    return {one.name: _keys(one) for one in tree.body if isinstance(one, ast.ClassDef)}


def _keys(body: ast.ClassDef) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, after in zip(body.body, body.body[1:], strict=False):
        if not isinstance(key, ast.AnnAssign) or not isinstance(key.target, ast.Name):
            continue
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            text = after.value.value
            if isinstance(text, str):
                found[key.target.id] = inspect.cleandoc(text)
    return found
