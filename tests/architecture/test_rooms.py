"""Rooms import what stands below them, the agent's side only the standard library, core decides."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from tests.sources import nodes

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src"


def _modules(*rooms: str) -> list[str]:
    return [
        ".".join(path.relative_to(SRC).with_suffix("").parts).removesuffix(".__init__")
        for room in rooms
        for path in sorted((SRC / "midwatch" / room).rglob("*.py"))
        if path.name != "__main__.py"
    ]


def test_the_import_contracts_hold() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    assert " 0 broken" in done.stdout


def test_the_agents_side_imports_with_nothing_but_the_standard_library() -> None:
    """-S leaves site-packages away, -I the environment: what imports here imports anywhere."""
    names = ["midwatch", *_modules("sdk", "wire")]
    if (SRC / "midwatch/testing.py").exists() or (SRC / "midwatch/testing").exists():
        names.append("midwatch.testing")
    script = (
        f"import sys; sys.path.insert(0, {str(SRC)!r})\n"
        "import importlib\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
        "ours = [m for m in sys.modules if m.startswith('midwatch.')]\n"
        "strangers = [m for m in ours if m.split('.')[1] not in ('sdk', 'wire', 'testing')]\n"
        "assert not strangers, strangers\n"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-I", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


IMPURE = {
    "open": "reads or writes a file",
    "input": "waits for a person",
    "print": "writes",
    "time.time": "has a clock of its own; take `now`",
    "time.monotonic": "has a clock of its own; take `now`",
    "datetime.now": "has a clock of its own; take `now`",
    "datetime.today": "has a clock of its own; take `now`",
    "date.today": "has a clock of its own; take `now`",
    "random.random": "throws dice; take the number",
    "os.environ": "reads the environment",
    "os.getenv": "reads the environment",
}
READS_FILES = {"read_text", "read_bytes", "write_text", "write_bytes", "mkdir", "unlink", "iterdir"}


def _dotted(node: ast.expr) -> str:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if isinstance(node, ast.Name):
        parts.append(node.id)
    return ".".join(reversed(parts))


def _impurities(path: Path) -> list[str]:
    found: list[str] = []
    for node in nodes(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and _dotted(node) == "os.environ":
            name, why = "os.environ", IMPURE["os.environ"]
        elif isinstance(node, ast.Call):
            name = ".".join(_dotted(node.func).split(".")[-2:])
            method = name.rpartition(".")[2]
            why = IMPURE.get(name, "touches files" if method in READS_FILES else "")
            name = method if method in READS_FILES else name
        else:
            continue
        if why:
            found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {name} {why}")
    return found


def test_core_has_no_clock_no_dice_and_no_files() -> None:
    found = [
        line for path in sorted((SRC / "midwatch/core").rglob("*.py")) for line in _impurities(path)
    ]
    assert found == []


def test_the_purity_check_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    bad = tmp_path / "bad.py"
    bad.write_text("import time, os\nx = time.time()\ny = os.environ['A']\nz = open('f')\n")
    assert [line.split(": ")[1].split()[0] for line in sorted(_impurities(bad))] == [
        "time.time",
        "os.environ",
        "open",
    ]
