"""What an agent says to its supervisor over NOTIFY_SOCKET: the systemd protocol and three keys.

systemd's own: READY=1, WATCHDOG=1 (a beat), STOPPING=1 (draining), STATUS=text and
EXTEND_TIMEOUT_USEC=n (a declared long step). Ours, which systemd ignores:
X_MIDWATCH_CALL=open|done (a model call is under way), X_MIDWATCH_DONE=1 (work is complete,
the exit that follows is wanted) and X_MIDWATCH_CHILD={JSON} (a sub-agent was started, or has ended:
`run` with `agent`, `ttl_s`, `memory_bytes`, `outlive`, and `parent`, the run of the sub-agent that started
it; or `run` with `code`. With `self` the sender is the sub-agent, and `pid` its process where the kernel does not say it).
Source: sd_notify(3).
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_DATAGRAM_BYTES = 4096
"""Longer datagrams are cut by the receiver; the SDK clips STATUS to fit."""

MAX_DEPTH = 4
"""How many levels of sub-agents there may be below an agent of the fleet."""


@dataclass(frozen=True, slots=True)
class Notice:
    """One datagram, read. Unknown keys are ignored, as systemd does."""

    ready: bool = False
    beat: bool = False
    draining: bool = False
    done: bool = False
    status: str | None = None
    extend_s: float | None = None
    call: str | None = None
    child: str | None = None
    """JSON as written; hostile."""
    sender: int = 0
    """Who sent `child`, by the kernel's word: a pid; 0 where that is not told."""


def encode(notice: Notice) -> bytes:
    """Return the datagram for a notice."""
    lines: list[str] = []
    for wanted, line in (
        (notice.ready, "READY=1"),
        (notice.beat, "WATCHDOG=1"),
        (notice.draining, "STOPPING=1"),
        (notice.done, "X_MIDWATCH_DONE=1"),
    ):
        if wanted:
            lines.append(line)
    if notice.extend_s is not None:
        lines.append(f"EXTEND_TIMEOUT_USEC={round(notice.extend_s * 1_000_000)}")
    if notice.call is not None:
        lines.append(f"X_MIDWATCH_CALL={notice.call}")
    if notice.child is not None:
        lines.append(f"X_MIDWATCH_CHILD={notice.child}")
    if notice.status is not None:
        lines.append("STATUS=" + notice.status.replace("\n", " ")[:1000])
    return "\n".join(lines).encode()


def decode(datagram: bytes, sender: int = 0) -> Notice:
    """Read a datagram; what is malformed in it is ignored, the rest counts."""
    pairs = dict(
        line.split("=", 1)
        for line in datagram.decode("utf-8", "replace").split("\n")
        if "=" in line
    )
    extend = pairs.get("EXTEND_TIMEOUT_USEC", "")
    return Notice(
        ready=pairs.get("READY") == "1",
        beat=pairs.get("WATCHDOG") == "1",
        draining=pairs.get("STOPPING") == "1",
        done=pairs.get("X_MIDWATCH_DONE") == "1",
        status=pairs.get("STATUS"),
        extend_s=int(extend) / 1_000_000 if extend.isascii() and extend.isdigit() else None,
        call=pairs.get("X_MIDWATCH_CALL"),
        child=pairs.get("X_MIDWATCH_CHILD"),
        sender=sender,
    )
