"""Whether this machine is going down, as systemd announces it: two small files, read when a run ends.

`shutdown` and `systemctl --when` leave the time in /run/systemd/shutdown/scheduled; when the machine
then stops, systemd writes /run/nologin with its own words. An administrator may write that file too,
to keep users out, and means no shutdown by it; a shutdown in an hour is none now.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Final

NEAR_S: Final = 60.0
"""A shutdown that is so near, or so lately due, is happening."""

SCHEDULED: Final = "run/systemd/shutdown/scheduled"
NOLOGIN: Final = "run/nologin"

_MODES: Final = {"poweroff": "powers off", "reboot": "reboots", "halt": "halts", "kexec": "reboots"}


def look(root: str = "/", now: float | None = None) -> str:
    """Return why the machine goes down within moments, as `it reboots`; empty when it does not."""
    wall = time.time() if now is None else now
    return going_down(_read(root, SCHEDULED), _read(root, NOLOGIN), wall)


def going_down(scheduled: str, nologin: str, now: float) -> str:
    """Judge the content of the two files; empty for a file that is not there."""
    fields = dict(re.findall(r"^([A-Z_]{1,40})=(.{0,100})$", scheduled, re.MULTILINE))
    due = fields.get("USEC", "")
    if due.isdigit() and len(due) <= 18 and abs(int(due) / 1e6 - now) <= NEAR_S:
        return f"it {_MODES.get(fields.get('MODE', ''), 'goes down')}"
    return "it goes down" if "System is going down" in nologin else ""


def _read(root: str, name: str) -> str:
    try:
        with Path(root, name).open("rb") as file:
            return file.read(4096).decode("utf-8", "replace")
    except OSError:
        return ""
