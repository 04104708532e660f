"""The mark of a run: a pair of numbers that every process of the run inherits and none can lose.

An environment can be cleared, a session and a parent can be left; resource limits go through fork,
exec, setsid and a change of parent alike. So each run's hash is written into the limits of POSIX
message queues (RLIMIT_MSGQUEUE, soft and hard), which agents do not use: a little below the
highest value allowed, so that queues still work. Reading it back costs a microsecond, a tenth of
/proc/PID/stat. Invariant: 34 bits of a hash name a run; no stranger has such limits by chance.
"""

from __future__ import annotations

import hashlib
import resource
from typing import Final

Mark = tuple[int, int]

SPAN: Final = 1 << 17
"""Values per limit: 128 KiB of 800 KiB that Linux allows by default."""

FREE: Final = 256 * 1024
"""What must remain for the queues themselves, or there is no mark."""


def ceiling() -> int:
    """Return the highest limit that we may give; 0 where there is none to give."""
    if not hasattr(resource, "RLIMIT_MSGQUEUE"):
        return 0
    hard = resource.getrlimit(resource.RLIMIT_MSGQUEUE)[1]
    return 1 << 40 if hard == resource.RLIM_INFINITY else hard


def of(run_id: str, top: int, salt: bytes) -> Mark | None:
    """Return the mark of a run as (soft, hard) under the ceiling `top`, or None below which none fits.
    `salt` is the instance's own: the same run id elsewhere has another mark."""
    if top < 2 * SPAN + FREE:
        return None
    digest = int.from_bytes(hashlib.sha256(salt + run_id.encode()).digest()[:8])
    hard = top - 1 - digest % SPAN
    return hard - 1 - digest // SPAN % SPAN, hard


def read(pid: int) -> Mark | None:
    """Return the limits of a process, or None when it is gone or not for us."""
    try:
        return resource.prlimit(pid, resource.RLIMIT_MSGQUEUE)
    except OSError:
        return None
