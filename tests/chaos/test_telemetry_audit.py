"""The hub under load is killed, its disk is full, slow, or stands still, its clock jumps, in any order.

What must hold after it: every span that was acknowledged is there, once. The senders' journals say what was. The seed
is printed; MIDWATCH_CHAOS_SEED repeats a run.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from midwatch.sdk import otlp

HUB = Path(__file__).with_name("jumping_hub.py")
TOKEN = "mwt_the-admin-token-of-the-tests"
SPANS = 20
SENDERS = 3
LONG_S = 300.0
START_S = 60.0


class Hub:
    """A hub's process and what can be done to it."""

    def __init__(self, folder: Path) -> None:
        self.data, self.offset = folder / "data", folder / "offset"
        self.data.mkdir()
        (self.data / "secret").write_bytes(os.urandom(32))
        (self.data / "token").write_text(TOKEN + "\n")
        (self.data / "fleet.json").write_text(json.dumps({"fleet": "chaos", "agents": {"inbox": {"command": ["true"]}}}))  # fmt: skip
        self.port = 0
        self.jump(0.0)
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [sys.executable, str(HUB), str(self.offset), "--data", str(self.data)]
        # the same address after a death, as a supervisor would: senders go on
        command += ["--listen", f"127.0.0.1:{self.port}"]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
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
            for _ in process.stdout:
                pass

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    def jump(self, seconds: float) -> None:
        part = self.offset.with_suffix(".part")
        part.write_text(str(seconds))
        part.replace(self.offset)

    def fill(self, full: bool) -> None:
        """Let every write beyond the 4th kilobyte of a file fail, as on a full disk; or let it be."""
        soft = 4_096 if full else resource.RLIM_INFINITY
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


class Sender(threading.Thread):
    """Sends traces, each until it is acknowledged, and keeps a journal."""

    def __init__(self, hub: Hub, seed: int) -> None:
        super().__init__(daemon=True)
        self.hub, self.dice = hub, random.Random(seed)
        self.journal: list[str] = []
        self.again = 0
        self.strange: list[Any] = []
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.is_set():
            trace = self.dice.randbytes(16).hex()
            body = json.dumps(otlp.wrap(self._spans(trace), {"service.name": "inbox"}, "chaos")).encode()  # fmt: skip
            while True:
                status, said = self.hub.ask("POST", "/v1/traces", body)
                if status == 200:
                    # what is refused in part was not acknowledged whole; nothing here should be
                    (self.strange if said else self.journal).append(said or trace)
                    break
                if status not in (0, 503):
                    self.strange.append((status, said))
                    break
                self.again += 1
                if self.over.wait(0.1):
                    break
            self.over.wait(0.01)

    def _spans(self, trace: str) -> list[dict[str, Any]]:
        now = time.time_ns()
        return [
            {
                "traceId": trace,
                "spanId": f"{at + 1:016x}",
                "name": f"step {at}",
                "startTimeUnixNano": str(now - 10**9 + at),
                "endTimeUnixNano": str(now),
                "attributes": otlp.attributes({"note": self.dice.randbytes(40).hex()}),
            }
            for at in range(SPANS)
        ]


def _kill(hub: Hub, dice: random.Random) -> None:
    del dice
    hub.kill()
    hub.start()


def _full(hub: Hub, dice: random.Random) -> None:
    hub.fill(True)
    time.sleep(dice.uniform(0.3, 1.5))
    hub.fill(False)


def _stall(hub: Hub, dice: random.Random) -> None:
    os.kill(hub.pid, signal.SIGSTOP)
    time.sleep(dice.uniform(0.2, 1.0))
    os.kill(hub.pid, signal.SIGCONT)


def _slow(hub: Hub, dice: random.Random) -> None:
    """Let somebody else keep the disk busy: each commit waits for its turn."""
    file = hub.data.parent / "busy"
    until = time.monotonic() + dice.uniform(0.3, 1.0)
    while time.monotonic() < until:
        with file.open("wb") as busy:
            busy.write(bytes(8 * 1024 * 1024))
            os.fsync(busy.fileno())
    file.unlink()


def _jump(hub: Hub, dice: random.Random) -> None:
    # forward by days, back by less than what may lie ahead of a clock
    hub.jump(dice.choice([-500.0, -5.0, 3_600.0, 86_400.0, 10 * 86_400.0]))


HARM: dict[str, Callable[[Hub, random.Random], None]] = {
    "kill": _kill,
    "full disk": _full,
    "standstill": _stall,
    "slow disk": _slow,
    "clock jump": _jump,
}


def _stored(hub: Hub) -> dict[str, int]:
    found: dict[str, int] = {}
    after = ""
    while True:
        status, page = hub.ask("GET", f"/api/traces?limit=500{after}")
        assert status == 200, page
        found |= {item["trace_id"]: item["spans"] for item in page["items"]}
        if not page["next"]:
            return found
        after = f"&after={page['next']}"


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    made = Hub(tmp_path)
    yield made
    made.kill()


def audit(hub: Hub, lasts_s: float | None) -> None:
    """Do every harm once, in any order; with `lasts_s` go on with it so long. Then compare journals and store."""
    seed = int(os.environ.get("MIDWATCH_CHAOS_SEED", random.randrange(2**32)))
    print(f"MIDWATCH_CHAOS_SEED={seed}")
    dice = random.Random(seed)
    hub.start()
    senders = [Sender(hub, seed + number) for number in range(SENDERS)]
    for sender in senders:
        sender.start()
    until = time.monotonic() + (lasts_s or 0.0)
    done: list[str] = []
    while not done or time.monotonic() < until:
        for harm in dice.sample(sorted(HARM), len(HARM)):
            _wait_for_more(senders)
            HARM[harm](hub, dice)
            done.append(harm)
    hub.jump(0.0)
    _wait_for_more(senders)
    for sender in senders:
        sender.over.set()
    for sender in senders:
        sender.join(60)
        assert not sender.is_alive()
    hub.kill()
    hub.start()
    _compare(hub, senders, done)


def _wait_for_more(senders: list[Sender]) -> None:
    """Wait until something more was acknowledged: harm to an idle hub shows nothing."""
    before, deadline = sum(len(s.journal) for s in senders), time.monotonic() + START_S
    while sum(len(s.journal) for s in senders) < before + 5:
        assert time.monotonic() < deadline, (
            f"nothing is taken any more; strange: {[s.strange[:3] for s in senders]}"
        )
        time.sleep(0.01)


def _compare(hub: Hub, senders: list[Sender], done: list[str]) -> None:
    acknowledged = [trace for sender in senders for trace in sender.journal]
    assert [sender.strange for sender in senders] == [[] for _ in senders]
    stored = _stored(hub)
    wrong = {trace: stored.get(trace, 0) for trace in acknowledged if stored.get(trace) != SPANS}
    assert wrong == {}, f"{len(wrong)} of {len(acknowledged)} after {done}"
    # what was sent and not acknowledged may be there, but whole, and once
    assert set(stored.values()) == {SPANS}
    print(
        f"{len(acknowledged)} traces acknowledged, {sum(s.again for s in senders)} requests repeated, after {done}"
    )


def test_every_acknowledged_span_is_there_once_after_all_kinds_of_harm(hub: Hub) -> None:
    audit(hub, None)


@pytest.mark.long
@pytest.mark.timeout(LONG_S * 3)
def test_every_acknowledged_span_is_there_once_after_minutes_of_harm(hub: Hub) -> None:
    audit(hub, LONG_S)
