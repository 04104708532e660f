"""Files stay under 500 lines and functions under 60; what is over is listed, and the list shrinks."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAX_FILE = 500
MAX_FUNCTION = 60

GIANTS: dict[str, int] = {}
"""`path` or `path::function` -> its length when it was let in. Never raise a number; an entry whose
giant has shrunk below the limit must go."""


def _files() -> list[Path]:
    return sorted(
        p
        for top in ("src", "tests", "bench", "examples", "tools")
        for p in (ROOT / top).rglob("*.py")
    )


def _measure() -> dict[str, tuple[int, int]]:
    """Return what was measured: name -> (length, limit)."""
    sizes: dict[str, tuple[int, int]] = {}
    for path in _files():
        name = path.relative_to(ROOT).as_posix()
        text = path.read_text(encoding="utf-8")
        sizes[name] = (text.count("\n"), MAX_FILE)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                length = node.end_lineno - node.lineno + 1
                key = f"{name}::{node.name}"
                sizes[key] = (max(length, sizes.get(key, (0, 0))[0]), MAX_FUNCTION)
    return sizes


def test_no_file_and_no_function_is_a_giant() -> None:
    over = {
        name: length
        for name, (length, limit) in _measure().items()
        if length > max(limit, GIANTS.get(name, 0))
    }
    assert over == {}, f"split these: {over}"


@pytest.mark.parametrize("name", sorted(GIANTS) or [None])
def test_the_list_of_giants_only_shrinks(name: str | None) -> None:
    if name is None:
        assert GIANTS == {}
        return
    length, limit = _measure().get(name, (0, 0))
    assert length > limit, f"{name} is a giant no more: take it off the list"
    assert length == GIANTS[name], f"{name} has shrunk to {length}: write that down"
