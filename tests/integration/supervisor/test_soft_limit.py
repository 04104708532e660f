"""The soft limit, with a real agent that holds its files open: restarted between cycles, then left alone."""

from __future__ import annotations

import sys
from typing import Any

AGENT = """
import os, socket, time
held = [open(os.devnull) for _ in range(60)]
hub = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
hub.connect(os.environ["NOTIFY_SOCKET"])
while True:
    hub.send(b"WATCHDOG=1")
    time.sleep(0.1)
"""


def test_who_opens_as_much_in_each_life_is_restarted_twice_and_then_told_why_not_again(
    instances: Any,
) -> None:
    """70 files are allowed, and it holds more than 85 % of them from its first moment on."""
    one = instances()
    one.write({
        "inbox": {
            "command": [sys.executable, "-I", "-S", "-c", AGENT],
            "limits": {"open_files": 70, "restart_at": "85%", "restart_after": "2s", "leak_after": "1s"},
            "restart": {"cooldown": "0s", "stable_after": "1h"},
        }
    })  # fmt: skip
    one.up()
    one.says("planned restarts did not change that: limits.open_files is below what it needs")
    console = one.console
    assert console.count("inbox: started, pid") == 3
    assert "over its soft limit for" in console
    assert "parked" not in console
    assert one.end() == 0
