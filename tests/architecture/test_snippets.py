"""What a reader copies from the pages works: programs run, fleet files are right."""

from __future__ import annotations

import ast
import os
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from midwatch.core.fleetfile import load

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _blocks(language: str) -> list[tuple[str, str]]:
    """Return (page and number, text) of each code block in `language`."""
    found: list[tuple[str, str]] = []
    for page in PAGES:
        blocks = re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)
        found += [(f"{page.relative_to(ROOT)}-{i}", text) for i, text in enumerate(blocks, 1)]
    return found


@pytest.mark.parametrize(("where", "text"), _blocks("yaml"))
def test_every_fleet_file_shown_is_right(where: str, text: str) -> None:
    if "agents:" not in text:
        text += "agents: {a: {command: [true]}}\n"
    text = text.replace("command: [true]", "command: ['true']")
    fleet = load(text, file=where, root="/", env={}, read_file=lambda _: "slack://a")
    assert fleet.agents


@pytest.mark.parametrize(("where", "text"), _blocks("python"))
def test_every_program_shown_runs_without_a_complaint(
    where: str, text: str, tmp_path: Path
) -> None:
    """A program that loops must still be at it when we stop it; one that ends must end well."""
    loops = any(
        isinstance(n, ast.While) and isinstance(n.test, ast.Constant)
        for n in ast.walk(ast.parse(text))
    )
    script = tmp_path / "shown.py"
    script.write_text(text.replace("time.sleep(30)", "time.sleep(0.2)"))
    with (
        tempfile.TemporaryDirectory() as short,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as said,
    ):
        said.bind(f"{short}/s")
        said.settimeout(10)
        process = subprocess.Popen(
            [sys.executable, "-W", "error", str(script)],
            env={**os.environ, "NOTIFY_SOCKET": f"{short}/s"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            # its first beat; every program on our pages makes one
            while b"WATCHDOG=1" not in said.recv(4096):
                pass
            if loops:
                assert process.poll() is None
            else:
                assert process.wait(10) == 0
        finally:
            process.kill()
            out, err = process.communicate(timeout=10)
        assert (out, err) == ("", "")
