"""Installs the emitters and the frameworks into a folder of their own: the group `emitters` of pyproject.toml.

    python tests/emitters/install.py --home DIR [--locked] [--within SECONDS]

The newest versions, and npm's packages for Vercel's SDK where there is npm. `--locked`: those of uv.lock, and nothing
of npm's, which has no lock here; then exit 75 says that no registry gave them within the time, and nothing else.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from emitters import EMITTERS, Emitter

ROOT = Path(__file__).resolve().parents[2]
UV = str(ROOT / "tools/uv")
NPM = (
    "ai",
    "zod",
    "@ai-sdk/openai",
    "@opentelemetry/api",
    "@opentelemetry/sdk-trace-node",
    "@opentelemetry/exporter-trace-otlp-proto",
)
NO_REGISTRY = 75


class NoRegistry(Exception):
    """No package registry gave what is needed."""


def newest(home: Path) -> None:
    """Install what is newest now."""
    _environment(home)
    group = ("--group", f"{ROOT / 'pyproject.toml'}:emitters")
    _run("pip", "install", "--quiet", "--upgrade", "--python", _python(home), *group)
    for one in home.glob("older-*"):
        shutil.rmtree(one)
    _older(home, None)
    if shutil.which("npm") is not None:
        (home / "js").mkdir(exist_ok=True)
        packages = ["npm", "install", "--no-audit", "--no-fund", "--silent", *NPM]
        subprocess.run(packages, cwd=home / "js", check=True)


def locked(home: Path, within_s: float) -> None:
    """Install what uv.lock says. Raises NoRegistry."""
    _environment(home)
    wanted = str(home / "locked.txt")
    group = ("--frozen", "--only-group", "emitters", "--no-emit-project")
    _run("export", "--quiet", *group, "--output-file", wanted)
    until = time.monotonic() + within_s
    sync = ("pip", "sync", "--quiet", "--require-hashes", "--python", _python(home), wanted)
    _run(*sync, within_s=within_s)
    _older(home, until)


def _older(home: Path, until: float | None) -> None:
    """Install what some emitters need older than the rest, beside the environment."""
    for one in EMITTERS:
        folder = older(home, one)
        if one.older and not folder.exists():
            left_s = None if until is None else max(1.0, until - time.monotonic())
            command = ("pip", "install", "--quiet", "--no-deps", "--python", _python(home))
            _run(*command, "--target", str(folder), *one.older, within_s=left_s)


def older(home: Path, emitter: Emitter) -> Path:
    """Return where the packages are that an emitter needs older."""
    return home / f"older-{emitter.name}"


def _run(*words: str, within_s: float | None = None) -> None:
    """Run uv. With a time, what fails is the registry's fault: raises NoRegistry."""
    if within_s is None:
        subprocess.run([UV, *words], check=True)
        return
    try:
        done = subprocess.run(
            [UV, *words], capture_output=True, text=True, timeout=within_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise NoRegistry(f"within {within_s:.0f} s") from None
    if done.returncode:
        raise NoRegistry(done.stderr.strip().partition("\n")[0] or f"exit {done.returncode}")


def _environment(home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
    if not Path(_python(home)).exists():
        _run("venv", "--quiet", str(home / ".venv"))


def _python(home: Path) -> str:
    return str(home / ".venv/bin/python")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--locked", action="store_true")
    parser.add_argument("--within", type=float, default=600.0)
    given = parser.parse_args()
    home = given.home.absolute()
    if not given.locked:
        newest(home)
        return 0
    try:
        locked(home, given.within)
    except NoRegistry as why:
        print(f"no package registry gave the emitters: {why}", file=sys.stderr)
        return NO_REGISTRY
    return 0


if __name__ == "__main__":
    sys.exit(main())
