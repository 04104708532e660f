"""Files stay under 500 lines and functions under 60; what is over is listed, and the list shrinks."""

from __future__ import annotations

import textwrap
from functools import cache
from pathlib import Path

import pytest
from tests.sources import ROOT, TOPS, files, source

MAX_FILE = 500
MAX_FUNCTION = 60

GIANTS: dict[str, int] = {}
"""`path` or `path::function` -> its length when it was let in. Never raise a number; an entry whose
giant has shrunk below the limit must go."""


@cache
def _measure() -> dict[str, tuple[int, int]]:
    """Return what was measured: name -> (length, limit)."""
    sizes: dict[str, tuple[int, int]] = {}
    for path in files(*TOPS):
        name, found = path.relative_to(ROOT).as_posix(), source(path)
        sizes[name] = (found.lines, MAX_FILE)
        for function, length in found.functions:
            key = f"{name}::{function}"
            sizes[key] = (max(length, sizes.get(key, (0, 0))[0]), MAX_FUNCTION)
    return sizes


def test_no_file_and_no_function_is_a_giant() -> None:
    over = {
        name: length
        for name, (length, limit) in _measure().items()
        if length > max(limit, GIANTS.get(name, 0))
    }
    assert over == {}, f"split these: {over}"


def test_functions_are_measured_wherever_they_stand(tmp_path: Path) -> None:
    places = """
        class A:
            if 1:
                def a(): "one"
            else:
                async def b():
                    "two"
        try:
            with x:
                def c(): ...
        except E:
            for y in z:
                def d(): ...
            else:
                def e(): ...
        finally:
            while 1:
                def f(): ...
        match x:
            case 1:
                def g():
                    @h
                    def i():
                        pass
    """
    file = tmp_path / "a.py"
    file.write_text(textwrap.dedent(places))
    found = dict(source(file).functions)
    assert found == {"a": 1, "b": 2, "c": 1, "d": 1, "e": 1, "f": 1, "g": 4, "i": 2}


@pytest.mark.parametrize("name", sorted(GIANTS) or [None])
def test_the_list_of_giants_only_shrinks(name: str | None) -> None:
    if name is None:
        assert GIANTS == {}
        return
    length, limit = _measure().get(name, (0, 0))
    assert length > limit, f"{name} is a giant no more: take it off the list"
    assert length == GIANTS[name], f"{name} has shrunk to {length}: write that down"
