"""A git repository for tests, by the git of this machine and without anybody's own settings."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

_WHO = {f"GIT_{who}_{what}": "x@x" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


class Repository:
    """A user's checkout."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.git("init", "-q", "-b", "main")

    def git(self, *words: str) -> str:
        env = {**os.environ, **_WHO, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
        done = subprocess.run(
            ["git", *words], cwd=self.path, env=env, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def commit(self, **files: str) -> str:
        """Write files (`a__b` is a/b), commit them and what else was added, and return the commit."""
        for name, text in files.items():
            file = self.path / name.replace("__", "/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            self.git("add", str(file))
        self.git("commit", "-q", "-m", "x")
        return self.git("rev-parse", "HEAD")

    def everything(self) -> dict[str, bytes | str]:
        """Return all that lies in it, git's own files too."""
        return {
            str(p.relative_to(self.path)): os.readlink(p) if p.is_symlink() else p.read_bytes()
            for p in sorted(self.path.rglob("*"))
            if p.is_symlink() or p.is_file()
        }
