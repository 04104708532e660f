"""What must not stand in the project: paths of somebody's machine, unfinished work."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOPS = ("src", "tests", "bench", "examples", "docs", "tools", ".ci")
SUFFIXES = {".py", ".md", ".toml", ".yaml", ".yml", ".html", ".css", ".js", ".sql", ".sh", ""}

# put together here so that this file does not find itself
MACHINE = re.compile(
    r"(?<![\w.-])/(?:" + "|".join(("wo" + "rk", "ro" + "ot", "fa" + "rm", "Us" + "ers")) + r")/"
)
UNFINISHED = re.compile(r"\b(?:" + "|".join(("TO" + "DO", "FIX" + "ME", "X" + "XX")) + r")\b")


def _texts() -> list[Path]:
    files = [p for p in ROOT.iterdir() if p.is_file() and p.name != "uv.lock"]
    for top in TOPS:
        files += [p for p in (ROOT / top).rglob("*") if p.is_file()]
    return [
        p
        for p in sorted(files)
        if p.suffix in SUFFIXES and "__pycache__" not in p.parts and "out" not in p.parts
    ]


@pytest.mark.parametrize(
    ("pattern", "what"), [(MACHINE, "a machine's path"), (UNFINISHED, "unfinished work")]
)
def test_no_file_holds(pattern: re.Pattern[str], what: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
        for path in _texts()
        for number, line in enumerate(
            path.read_text(encoding="utf-8", errors="replace").splitlines(), 1
        )
        if pattern.search(line)
    ]
    assert found == [], what


def test_the_search_sees_the_whole_project() -> None:
    seen = {p.relative_to(ROOT).parts[0] for p in _texts()}
    assert {"src", "tests", "docs", "README.md", "Makefile", "tools"} <= seen
