"""`pipe-flood`: a gigabyte of output without newlines. Midwatch's memory and disk stay bounded, the
agent is not held up, and the flood is told."""

from __future__ import annotations

from pathlib import Path

from midwatch.drills.drill import AGENT, Drill
from midwatch.drills.instance import Instance

HELD_UP_S = 60.0
"""A gigabyte through a pipe takes about a second; a machine under load may need many."""

MEMORY_BYTES = 20 * 1024 * 1024
"""How much larger the supervisor may be after the flood than an idle one, its buffers included."""

IDLE_BYTES = 75 * 1024 * 1024
"""What an idle supervisor needs at most: about 55 MiB, and room for another allocator."""

DISK_BYTES = 64 * 1024 * 1024


def _check(instance: Instance) -> str | None:
    held_up = instance.wait(lambda: instance.read_note("printed"), HELD_UP_S)
    if not isinstance(held_up, str):
        return f"the agent could not print its gigabyte within {HELD_UP_S:.0f} s: it is blocked"
    folder = instance.data / "logs" / AGENT
    size = sum(file.stat().st_size for file in folder.iterdir())
    if size > DISK_BYTES:
        return f"its log takes {size:,} bytes, allowed {DISK_BYTES:,}"
    status = Path(f"/proc/{instance.pid}/status")
    peak = _peak(status.read_text()) if status.exists() else 0
    if peak > IDLE_BYTES + MEMORY_BYTES:
        return f"the supervisor took {peak:,} bytes, allowed {IDLE_BYTES + MEMORY_BYTES:,}"
    text = (folder / "output.log").read_text("utf-8", "replace")
    if not instance.wait(lambda: "left out here: more than" in _text(folder), 15):
        return f"the log does not say that something was left out; it ends {text[-200:]!r}"
    resolved = instance.wait(
        lambda: any(
            i["kind"] == "pipe-flood" and i["state"] == "resolved" for i in instance.incidents()
        ),
        20,
    )
    return None if resolved else "the incident is not over although the flood is"


def _text(folder: Path) -> str:
    return "".join(f.read_text("utf-8", "replace") for f in sorted(folder.iterdir()))


def _peak(status: str) -> int:
    line = next((one for one in status.splitlines() if one.startswith("VmHWM:")), "VmHWM: 0 kB")
    return int(line.split()[1]) * 1024


DRILL = Drill(
    name="pipe-flood",
    about="an agent prints a gigabyte of log without newlines",
    program="pipe_flood.py",
    limit_s=5.0,
    settings={"limits": {"stop_grace": "1s"}},
    says=(r"floods its output", r"left out"),
    state="running",
    check=_check,
)
