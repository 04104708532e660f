"""One child of the Linux system: what holds it, and what its end says."""

from __future__ import annotations

import signal
import subprocess

from midwatch.supervisor.machine import procfs
from midwatch.supervisor.machine.cgroup import Cgroup
from midwatch.supervisor.machine.stdio import Outlet
from midwatch.supervisor.machine.system import Launch


class LinuxProcess:
    """One child: its pid, its pidfd, its output and its cgroup."""

    __slots__ = (
        "cgroup",
        "ended",
        "launch",
        "outlet",
        "pid",
        "pidfd",
        "popen",
        "run_id",
        "started",
    )

    def __init__(
        self,
        launch: Launch,
        popen: subprocess.Popen[bytes],
        pidfd: int,
        outlet: Outlet,
        cgroup: Cgroup | None,
    ) -> None:
        self.launch = launch
        self.popen = popen
        self.pid = popen.pid
        self.run_id = launch.run_id
        self.pidfd = pidfd
        self.outlet = outlet
        self.cgroup = cgroup
        self.ended = False
        entry = procfs.stat(self.pid)
        self.started = float(entry.started) if entry else 0.0


def unwrap(code: int, *, walled: bool) -> tuple[int | None, int | None]:
    """Return code and signal of an exit: bubblewrap and shells tell a signal as 128 + its number."""
    if walled and code > 128 and code - 128 in signal.valid_signals():
        return None, code - 128
    return code, None
