"""The wheel is what we say: no dependencies, imports alone, and a command that says what is missing.

Not part of `make check`: it builds and installs.
"""

from __future__ import annotations

import email.parser
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVER_LIMIT_BYTES = 350 * 1024 * 1024
"""What an installed `server` may take on disk."""


def _run(command: list[str], **more: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **more}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=100, check=False, cwd=ROOT, env=env
    )


@pytest.fixture(scope="module", name="wheel")
def _wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    done = _run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)])
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("midwatch-*.whl")
    return wheel


@pytest.fixture(scope="module", name="venv")
def _venv(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an environment with the wheel and nothing else; no index is asked."""
    venv = tmp_path_factory.mktemp("clean") / "venv"
    uv = str(ROOT / "tools/uv")
    made = _run([uv, "venv", "--quiet", str(venv)])
    assert made.returncode == 0, made.stderr
    done = _run(
        [
            uv,
            "pip",
            "install",
            "--quiet",
            "--offline",
            "--no-index",
            "--python",
            str(venv),
            str(wheel),
        ]
    )
    assert done.returncode == 0, done.stderr
    return venv


def test_the_wheel_requires_nothing_without_an_extra(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith(".dist-info/METADATA")]
        metadata = email.parser.Parser().parsestr(archive.read(name).decode())
    bare = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert bare == []
    assert metadata["License-Expression"] == "Apache-2.0"
    assert set(metadata.get_all("Provides-Extra", [])) == {"server", "cluster", "examples"}


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {n for n in archive.namelist() if not n.split("/")[0].endswith(".dist-info")}
    source = ROOT / "src"
    there = {
        p.relative_to(source).as_posix()
        for p in (source / "midwatch").rglob("*")
        if p.is_file() and "__pycache__" not in p.parts
    }
    assert held == there


def test_the_sdk_works_where_nothing_else_is_installed(venv: Path) -> None:
    program = (
        "import midwatch as mw; mw.init()\nwith mw.cycle() as c: c.done(items=1)\nmw.beat(tokens=1)"
    )
    done = _run([str(venv / "bin/python"), "-I", "-W", "error", "-c", program])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("arguments", [[], ["up"], ["--help"]])
def test_the_command_without_the_server_says_how_to_get_it(
    venv: Path, arguments: list[str]
) -> None:
    done = _run([str(venv / "bin/midwatch"), *arguments])
    assert done.returncode == 2, done.stderr
    assert 'pip install "midwatch[server]"' in done.stderr
    assert "Traceback" not in done.stderr


def _requirement_closure(start: set[str]) -> set[str]:
    """Return the distributions that `start` needs here, by their installed metadata."""
    from importlib.metadata import PackageNotFoundError, distribution

    seen: set[str] = set()
    queue = list(start)
    while queue:
        name = re.sub(r"[-_.]+", "-", queue.pop()).lower()
        if name in seen:
            continue
        try:
            found = distribution(name)
        except PackageNotFoundError:
            continue  # for another platform
        seen.add(name)
        queue += [
            re.split(r"[<>=!~\[; (]", line, maxsplit=1)[0]
            for line in found.requires or []
            if "extra ==" not in line
        ]
    return seen


def test_what_the_server_installs_stays_small() -> None:
    from importlib.metadata import distribution

    requires = distribution("midwatch").requires or []
    direct = {
        re.split(r"[<>=!~\[; (]", line, maxsplit=1)[0] for line in requires if "server" in line
    }
    assert len(direct) > 10
    total = 0
    for name in _requirement_closure(direct):
        for file in distribution(name).files or []:
            path = Path(str(file.locate()))
            total += path.stat().st_size if path.is_file() else 0
    assert 50 * 1024 * 1024 < total < SERVER_LIMIT_BYTES, f"{total / 1024**2:.0f} MiB"
