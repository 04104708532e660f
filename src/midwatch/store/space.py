"""How much room the disk has."""

from __future__ import annotations

import os
from pathlib import Path

from midwatch.core.errors import StoreError
from midwatch.core.ports import Room


class DiskSpace:
    """`Space` by the file system: what a user who is not root may still write."""

    def room(self, path: Path) -> Room:
        try:
            found = os.statvfs(path)
        except OSError as error:
            raise StoreError(f"cannot tell the free space of {path}: {error.strerror}") from None
        return Room(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)
