"""A private Midwatch in a temporary directory: started, asked, broken and stopped by a drill."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from midwatch.core.errors import SetupError
from midwatch.drills.provided import KEYS, Provided

T = TypeVar("T")

PROGRAMS = Path(__file__).parent / "programs"
START_TIMEOUT_S = 60.0
"""A cold start takes about two seconds; a machine under load may take its time."""
STOP_TIMEOUT_S = 30.0
ANSWER_TIMEOUT_S = 20.0
"""A hub that answers nothing for so long counts as one that cannot be reached."""
CONSOLE_LINES = 2_000
POLL_S = 0.02
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""A proxy of the surroundings has no business with our own loopback."""
READY = "ready"
"""Made in the work directory when the hub answers; the programs wait for it."""


def free_port() -> int:
    """Return a port on loopback that nothing listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Instance:
    """`midwatch up` on a fleet of its own. Use as a context manager."""

    def __init__(
        self,
        directory: Path,
        agents: Mapping[str, Mapping[str, Any]],
        *,
        given_up: threading.Event | None = None,
        provided: Provided | None = None,
        **fleet: Any,
    ) -> None:
        """`given_up`, once set, ends every wait: what remains is to stop. `provided`: who plays the providers
        behind the gateway."""
        self.directory = directory
        self.data = directory / "data"
        self.work = directory / "work"
        self.work.mkdir(parents=True, exist_ok=True)
        self.console: list[tuple[float, str]] = []
        self._given_up = given_up or threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._reader: threading.Thread | None = None
        self._port = free_port()
        self._gateway_port = free_port()
        self._provided = provided
        if provided is not None:
            fleet["models"] = {**fleet.get("models", {}), "providers": provided.providers()}
        self.file = directory / "midwatch.yaml"
        document = {
            "fleet": "drill",
            **fleet,
            "agents": {name: dict(agent) for name, agent in agents.items()},
            "hub": {"listen": f"127.0.0.1:{self._port}", **fleet.get("hub", {})},
            "gateway": {
                "listen": f"127.0.0.1:{self._gateway_port}",
                **fleet.get("gateway", {}),
            },
        }
        self.file.write_text(yaml.safe_dump(document, sort_keys=False))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def gateway_url(self) -> str:
        return f"http://127.0.0.1:{self._gateway_port}"

    @property
    def provided(self) -> Provided:
        """Who plays the providers."""
        if self._provided is None:
            raise SetupError("nobody plays providers here; the drill must say provided=True")
        return self._provided

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        if self._process is None:
            raise SetupError("the private instance is not running; call start() first")
        return self._process.pid

    def __enter__(self) -> Instance:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def environment(self) -> dict[str, str]:
        """Return what whoever works on this instance finds: nothing of ours but its own directories."""
        foreign = ("MIDWATCH_", "OTEL_", "NOTIFY_", "WATCHDOG_")
        foreign += ("OPENAI_", "ANTHROPIC_", "GEMINI_", "GOOGLE_")
        own = {
            "DRILL_DIR": str(self.work),
            "MIDWATCH_LEASES": str(self.directory / "leases"),
            **KEYS,
        }
        inherited = {n: v for n, v in os.environ.items() if not n.startswith(foreign)}
        return inherited | own

    def start(self) -> None:
        """Start `midwatch up` and wait until the hub answers. Raises SetupError with its last words."""
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "midwatch.cli",
                "up",
                "-f",
                str(self.file),
                "--data",
                str(self.data),
            ],
            cwd=self.directory,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._reader = threading.Thread(
            target=self._read_console, args=(self._process,), daemon=True
        )
        self._reader.start()
        try:
            ready = self.wait(self._is_ready, START_TIMEOUT_S)
        except SetupError:
            self.stop()
            raise
        if not ready:
            self.stop()
            raise SetupError(
                "the private instance did not become ready; it said:\n" + self.last_words()
            )
        (self.work / READY).touch()

    def stop(self) -> None:
        """Stop it as Ctrl-C would; kill it when that takes too long."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()
        if self._reader is not None:
            self._reader.join(5)
        self._process = None

    def kill(self) -> None:
        """Kill the supervisor as the kernel would: no warning, no clean-up."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def last_words(self, lines: int = 15) -> str:
        return "\n".join(line for _, line in self.console[-lines:])

    def get(self, path: str) -> Any:
        """Return the JSON that the hub answers. Raises OSError while it cannot be reached or breaks off."""
        return self._ask("GET", path)

    def post(self, path: str, body: Any = None) -> Any:
        return self._ask("POST", path, body)

    def gateway(self, path: str, body: Any = None) -> Any:
        """Ask the gateway's `/control` by way of the hub, as an operator does; with a body it is an order."""
        method = "GET" if body is None else "POST"
        question: dict[str, Any] = {
            "method": method,
            "path": f"/control/{path}",
            "body": body or {},
        }
        return self.post("/api/gateway", question)

    def counted(self, name: str) -> float:
        """Return the sum of a metric of the gateway over its labels; part of them may be in `name`."""
        with _DIRECT.open(f"{self.gateway_url}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        found = [line for line in lines if line.startswith(f"midwatch_gateway_{name}")]
        return sum(float(line.rpartition(" ")[2]) for line in found)

    def incidents(self) -> list[dict[str, Any]]:
        """Return all incidents, or an empty list while the hub cannot be reached."""
        try:
            return list(self.get("/api/incidents?limit=200")["items"])
        except OSError:
            return []

    def agent(self, name: str) -> dict[str, Any] | None:
        """Return the agent as the API shows it, or None while the hub cannot be reached."""
        try:
            return dict(self.get(f"/api/agents/{name}"))
        except OSError:
            return None

    def children(self) -> dict[str, int]:
        """Return the process ids of hub and gateway, by the module that they run."""
        found: dict[str, int] = {}
        listing = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        for pid in listing:
            command: list[bytes] = []
            with contextlib.suppress(OSError):  # it has ended meanwhile
                command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            for part in command:
                if part in (b"midwatch.hub", b"midwatch.gateway"):
                    found[part.decode().rpartition(".")[2]] = int(pid)
        return found

    def wait(self, condition: Callable[[], T | bool | None], timeout_s: float) -> T | bool | None:
        """Poll until the condition is true; return its value, or None after the timeout.

        Raises SetupError when the drill was given up.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self._given_up.is_set():
                raise SetupError("interrupted")
            value = condition()
            if value:
                return value
            time.sleep(POLL_S)
        return None

    def said(self, word: str, since: float) -> float | None:
        """Return when the console first said something with this word after `since`, or None."""
        return next((at for at, line in self.console if at >= since and word in line.lower()), None)

    def read_note(self, name: str) -> str | None:
        """Return what the program wrote into its work directory under this name."""
        path = self.work / name
        return path.read_text() if path.exists() else None

    def told(self, name: str, timeout_s: float = 20.0) -> Any:
        """Return what the program wrote into a note as JSON, once it is there. Raises SetupError."""
        note = self.wait(lambda: self.read_note(name), timeout_s)
        if not isinstance(note, str):
            raise SetupError(f"the program did not write {name!r}; it said:\n" + self.last_words(5))
        return json.loads(note)

    def _is_ready(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise SetupError("the private instance ended at once; it said:\n" + self.last_words())
        try:
            self._ask("GET", "/readyz")
            self.get("/api/fleet")
            # what was told before the hub listened is told again after a pause, and would count as Midwatch's
            return self._provided is None or self.counted("hub_in_contact") > 0
        except OSError:
            return False

    def carries(self) -> bool:
        """Tell whether the gateway takes calls."""
        try:
            with _DIRECT.open(f"{self.gateway_url}/readyz", timeout=5):
                return True
        except OSError:
            return False

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        token = (self.data / "token").read_text().strip()
        request = urllib.request.Request(  # noqa: S310 (always http, to our own port)
            self.url + path,
            method=method,
            data=json.dumps(body).encode()
            if body is not None
            else b""
            if method == "POST"
            else None,
            headers={"authorization": f"Bearer {token}", "content-type": "application/json"},
        )
        try:
            with _DIRECT.open(request, timeout=ANSWER_TIMEOUT_S) as answer:
                content = answer.read()
        except http.client.HTTPException as error:  # it ended in the midst of its answer
            raise ConnectionError(f"the hub broke off its answer: {error!r}") from error
        try:
            return json.loads(content)
        except ValueError:
            return content.decode()

    def _read_console(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.console.append((time.time(), line.decode("utf-8", "replace").rstrip()))
            del self.console[:-CONSOLE_LINES]
        process.stdout.close()
