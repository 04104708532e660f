"""The how-to pages as tests read them: their code blocks, and a place in which their fleet files are right."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).resolve().parents[1] / "docs/how-to"
PAGES = sorted(FOLDER.glob("*.md"))
TOOLS = ("supervisord", "pm2", "systemd", "cron")


def blocks(page: Path, *languages: str) -> list[str]:
    """Return the code blocks of a page, those within a list too."""
    found = re.findall(r"^ *```(\w+)\n(.*?)^ *```$", page.read_text(), re.DOTALL | re.MULTILINE)
    return [text for language, text in found if language in languages]


def fleets(page: Path) -> list[str]:
    return [text for text in blocks(page, "yaml") if "agents:" in text]


def entries(text: str) -> dict[str, dict[str, Any]]:
    return yaml.safe_load(text)["agents"]


def translated(tool: str) -> tuple[Path, dict[str, dict[str, Any]]]:
    page = FOLDER / f"coming-from-{tool}.md"
    return page, entries(fleets(page)[0])


def furnish(root: Path, text: str) -> Path:
    """Make what a fleet file names: directories, env files, secrets, and stubs of its programs."""
    fleet: dict[str, Any] = yaml.safe_load(text)
    shown: list[dict[str, Any]] = [fleet.get("defaults") or {}, *fleet["agents"].values()]
    programs = root / "bin"
    programs.mkdir()
    for name in re.findall(r"file:([\w.-]+)", text):
        (root / name).write_text("json://127.0.0.1/\n")
    for entry in shown:
        cwd = root / entry.get("cwd", ".")
        cwd.mkdir(parents=True, exist_ok=True)
        if "env_file" in entry:
            (root / entry["env_file"]).write_text("A=1\n")
        program, *arguments = map(str, entry.get("command") or ["true"])
        stub = cwd / program if "/" in program else programs / program
        stub.parent.mkdir(parents=True, exist_ok=True)
        stub.write_text("#!/bin/sh\nexec sleep 600\n")
        stub.chmod(0o755)
        for word in arguments:
            if re.fullmatch(r"[\w./-]+\.(?:py|js|mjs|sh)", word):
                (cwd / word).parent.mkdir(parents=True, exist_ok=True)
                (cwd / word).touch()
    file = root / "midwatch.yaml"
    file.write_text(text)
    return file
