"""The project's own Python files, read and parsed once a session whatever rules look at them.

Trees are not kept, they would take half a gigabyte: of each file what the rules ask for is.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TOPS = ("src", "tests", "bench", "examples", "tools")


@dataclass(frozen=True, slots=True)
class Source:
    """What is known of one file."""

    lines: int
    functions: tuple[tuple[str, int], ...]
    """Names and lengths in lines, those within others too."""
    texts: frozenset[str]
    """Every text constant but the docstrings; of files under src alone."""


def files(*tops: str) -> list[Path]:
    """Return the Python files below these folders of the project, sorted."""
    return sorted(path for top in tops for path in (ROOT / top).rglob("*.py"))


@cache
def source(path: Path) -> Source:
    """Return what is known of a file."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    ours = path.is_relative_to(ROOT / "src")
    return Source(
        text.count("\n"), tuple(_functions(tree)), frozenset(_texts(tree) if ours else ())
    )


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield every node, as `ast.walk` does in twice the time."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        for name in node._fields:
            value = getattr(node, name, None)
            if isinstance(value, ast.AST):
                waiting.append(value)
            elif isinstance(value, list):
                waiting += [one for one in value if isinstance(one, ast.AST)]


def _functions(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield the functions. They are statements: no expression is looked into."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1
        for name in ("body", "orelse", "finalbody", "handlers", "cases"):
            value = getattr(node, name, None)
            if isinstance(value, list):
                waiting += value


def _texts(tree: ast.AST) -> Iterator[str]:
    loose: set[int] = set()
    found: list[ast.Constant] = []
    for node in nodes(tree):
        if isinstance(node, ast.Expr):
            loose.add(id(node.value))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node)
    for node in found:
        if id(node) not in loose:
            yield str(node.value)
