"""Is a database still the file at its path? One that was removed goes on taking writes, for nobody."""

from __future__ import annotations

from pathlib import Path

from midwatch.core.errors import StoreError

Identity = tuple[int, int]
"""Device and inode."""


def identity_of(path: Path) -> Identity | None:
    """Return what tells a file from any other, or None when nothing is there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def check(path: Path, known: Identity | None) -> None:
    """Raise StoreError when the path no longer leads to the file that was opened."""
    if identity_of(path) != known:
        raise StoreError(
            f"{path} was removed or replaced under the hub: what is written now is lost; "
            "put it back or restart Midwatch"
        )
