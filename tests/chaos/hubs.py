"""A hub as a process of its own, on a small disk that may be slow, with clocks that can be set."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import resource
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.chaos.disks import SlowDisk, SmallDisk, Unavailable

HUB = Path(__file__).with_name("jumping_hub.py")
TOKEN = "mwt_the-admin-token-of-the-tests"
AGENT = "inbox"
DISK_BYTES = 512 * 1024 * 1024


class Hub:
    """A hub's process and what can be done to it. What this machine does not allow is in `missing`, with the reason."""

    def __init__(self, folder: Path, keep: dict[str, Any] | None = None) -> None:
        self.missing: dict[str, str] = {}
        self.data, self._clocks = folder / "data", folder / "clocks"
        self.disk = self._small_disk()
        self.files = self.data if self.disk is None else self.disk.path
        """Where we see its data directory."""
        (self.files / "secret").write_bytes(os.urandom(32))
        (self.files / "token").write_text(TOKEN + "\n")
        # the guard would refuse before the disk is full
        hub = {"keep": {"free": 1, **(keep or {})}}
        fleet = {"fleet": "chaos", "agents": {AGENT: {"command": ["true"]}}, "hub": hub}
        (self.files / "fleet.json").write_text(json.dumps(fleet))
        self.port = 0
        self.latency_s = (0.0, 0.0)
        """How long each fsync takes at the least and at the most, beside what it takes."""
        self._synced_late = 0
        self.last_words: list[str] = []
        self._dice = random.Random(0)
        self._slow: SlowDisk | None = None
        self._process: subprocess.Popen[str] | None = None
        self.set_clocks()

    def _small_disk(self) -> SmallDisk | None:
        try:
            return SmallDisk(self.data, DISK_BYTES)
        except Unavailable as reason:
            self.missing["full disk"] = str(reason)
            self.data.mkdir(exist_ok=True)
            return None

    def start(self) -> None:
        """Start it, and wait until it listens."""
        ours, theirs = socket.socketpair()
        command = [] if self.disk is None else [*self.disk.inside]
        command += [sys.executable, str(HUB), str(self._clocks), str(theirs.fileno())]
        # the same address after a death, as a supervisor would: senders go on
        command += ["--data", str(self.data), "--listen", f"127.0.0.1:{self.port}"]
        with ours, theirs:
            self._process = subprocess.Popen(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                pass_fds=[theirs.fileno()],
            )
            theirs.close()
            try:
                self._slow = SlowDisk(ours, lambda: self._dice.uniform(*self.latency_s))
            except Unavailable as reason:
                self.missing["slow disk"] = str(reason)
        assert self._process.stdout is not None
        said: list[str] = []
        for line in self._process.stdout:
            said.append(line)
            if "listening on" in line:
                self.port = urlsplit(line.split()[-1]).port or 0
                threading.Thread(target=self._drain, args=(self._process,), daemon=True).start()
                return
        raise AssertionError("the hub did not start: " + "".join(said))

    def _drain(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with contextlib.suppress(ValueError):
            for line in process.stdout:
                self.last_words = [*self.last_words[-20:], line]

    @property
    def synced_late(self) -> int:
        """How many fsyncs were made to wait."""
        return self._synced_late + (self._slow.waited if self._slow is not None else 0)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """Kill it as the kernel would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None
        if self._slow is not None:
            self._slow.join()
            self._synced_late += self._slow.waited
            self._slow = None

    def remove(self) -> None:
        """Kill it, and let its disk go."""
        self.kill()
        if self.disk is not None:
            self.disk.remove()

    def set_clocks(self, wall_s: float = 0.0, gone_by_s: float = 0.0) -> None:
        """Set its wall clock so far ahead, and let so much time have gone by, beside what does."""
        part = self._clocks.with_suffix(".part")
        part.write_text(f"{wall_s} {gone_by_s}")
        part.replace(self._clocks)

    def limit_files(self, limited: bool) -> None:
        """Let every write beyond the 4th kilobyte of a file fail; or let it be."""
        soft = 4_096 if limited else resource.RLIM_INFINITY
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (soft, resource.RLIM_INFINITY))

    def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, Any]:
        """Return status and JSON; (0, None) when there is no answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"null")
        except (OSError, http.client.HTTPException, ValueError):
            return 0, None
        finally:
            connection.close()
