"""The fleets that the coming-from pages translate run: started for real, with stubs of their programs."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Generator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from pages import TOOLS, fleets, furnish, translated

DEADLINE_S = 30.0

RUN = """
import sys
from pathlib import Path
from midwatch.cli.source import read_fleet
from midwatch.supervisor.main import run
sys.exit(run(read_fleet(Path(sys.argv[1])).fleet, Path(sys.argv[2]), hub=False))
"""


class Started:
    """A supervisor with the fleet of one page; what it would tell systemd is heard here."""

    def __init__(self, tool: str, root: Path, socket_path: str) -> None:
        page, self.entries = translated(tool)
        root.mkdir()
        file = furnish(root, fleets(page)[0])
        self.console = root / "console"
        self.told = ""
        self._ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._ear.bind(socket_path)
        self._ear.setblocking(False)
        path = f"{root / 'bin'}:{os.environ['PATH']}"
        with self.console.open("wb") as console:
            self.process = subprocess.Popen(
                [sys.executable, "-c", RUN, str(file), str(root / "data")],
                env={**os.environ, "PATH": path, "NOTIFY_SOCKET": socket_path},
                stdout=console,
                stderr=console,
            )

    @property
    def wanted(self) -> Counter[str]:
        """Return how many agents are to be in which state."""
        states: Counter[str] = Counter()
        for entry in self.entries.values():
            held = "running" if entry.get("enabled", True) else "stopped"
            states["scheduled" if "schedule" in entry else held] += entry.get("instances", 1)
        return states

    def states(self) -> Counter[str]:
        """Return the states last told: `4 agents: 3 running, 1 scheduled`."""
        with contextlib.suppress(BlockingIOError):
            while True:
                said = self._ear.recv(4096).decode()
                found = re.search(r"^STATUS=\d+ agents: (.*)$", said, re.MULTILINE)
                self.told = found[1] if found else self.told
        return Counter({s: int(n) for n, s in re.findall(r"(\d+) ([\w-]+)", self.told)})

    def close(self) -> None:
        self._ear.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def _all(folder: Path) -> Generator[list[Started]]:
    with tempfile.TemporaryDirectory() as short:  # the name of a socket has at most 107 bytes
        started: list[Started] = []
        try:
            # one by one, so that those before a failure are ended too
            started.extend(Started(tool, folder / tool, f"{short}/{tool}") for tool in TOOLS)
            yield started
        finally:
            for one in started:
                one.close()


def test_every_translated_fleet_gets_up_and_ends_in_good_order(tmp_path: Path) -> None:
    with _all(tmp_path) as started:
        deadline = time.monotonic() + DEADLINE_S
        while any(one.states() != one.wanted for one in started):
            for one in started:
                late = f"{one.told!r}, wanted {one.wanted}\n{one.console.read_text()}"
                assert one.process.poll() is None, late
                assert time.monotonic() < deadline or one.states() == one.wanted, late
            time.sleep(0.02)
        for one in started:
            one.process.send_signal(signal.SIGTERM)
        for one in started:
            assert one.process.wait(DEADLINE_S) == 0, one.console.read_text()
            assert "nothing is left running" in one.console.read_text()
