"""Processes that hold secrets: they keep their memory to themselves, and are handed secrets only after that.

Linux shows the environment and the memory of a process to every other process of its user; of one that is not
dumpable (prctl(2)) to root alone. What that hides, it hides from the call on: an environment can be read before. So
a process that needs its parent's secrets is given one end of a socket instead, seals itself, asks, and is told.
Sealing lasts until the process executes another program: agents, which are executed, stay open to debuggers.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import socket
import sys
from collections.abc import Mapping
from typing import Any, Final, cast

ASK_S: Final = 30.0
"""How long the answer of the parent may take: it may start a hundred agents meanwhile."""

_ASKED: Final = b"?"
_PR_SET_DUMPABLE: Final = 4


def seal() -> bool:
    """Hide this process's environment, memory and open files from others of its user; False where that cannot be.

    Core dumps and debuggers of ordinary users end with it, too; /proc/self goes on to work, but for files that only
    the owner of a process may open (`environ`, `io`, `oom_score_adj` for writing).
    """
    if sys.platform != "linux":
        return False
    return ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0


def ask(fd: int) -> dict[str, str]:
    """Return the variables that the parent hands over on this socket, which is closed. Blocking.

    Raises OSError when nothing comes (also TimeoutError), ValueError for what is no such answer.
    """
    with socket.socket(fileno=fd) as line:
        line.settimeout(ASK_S)
        line.sendall(_ASKED)
        parts: list[bytes] = []
        while part := line.recv(1 << 16):
            parts.append(part)
    found: object = json.loads(b"".join(parts) or b"null")
    if not isinstance(found, dict):
        raise ValueError("the supervisor ended before it said anything")
    return {str(name): str(value) for name, value in cast("dict[Any, Any]", found).items()}


async def tell(line: socket.socket, variables: Mapping[str, str], patience_s: float) -> bool:
    """Wait until the child asks, and tell it the variables; False when it ended before, or did not ask in time.

    Closes the socket. `patience_s` bounds both steps together.
    """
    loop = asyncio.get_running_loop()
    line.setblocking(False)
    with line:
        try:
            async with asyncio.timeout(patience_s):
                if await loop.sock_recv(line, 1) != _ASKED:
                    return False
                await loop.sock_sendall(line, json.dumps(dict(variables)).encode())
        except OSError:  # also TimeoutError
            return False
    return True
