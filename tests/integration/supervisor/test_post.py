"""Hub and gateway are kept without a limit; the gateway stands for both."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from midwatch.core.fleet import Fleet
from midwatch.core.starving import Turns
from midwatch.supervisor import http
from midwatch.supervisor.address import Address, reserve
from midwatch.supervisor.journal import Journal
from midwatch.supervisor.machine.linux import LinuxSystem, supported
from midwatch.supervisor.machine.portable import PortableSystem
from midwatch.supervisor.machine.system import Process, System
from midwatch.supervisor.output.capture import Capture, Writer
from midwatch.supervisor.post import CHECK_EVERY_S, CHECK_TIMEOUT_S, PATIENCE_S, Gap, Plan, Post

DEADLINE_S = 40.0


async def until(condition: Callable[[], bool]) -> None:
    deadline = asyncio.get_running_loop().time() + DEADLINE_S
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "still not so"
        await asyncio.sleep(0.01)


class Kept:
    def __init__(
        self, folder: Path, command: tuple[str, ...], url: str, system: System | None = None
    ) -> None:
        loop = asyncio.get_running_loop()
        self.system: System = system or (
            LinuxSystem(loop, adopt=False) if supported() else PortableSystem(loop)
        )
        self.said: list[str] = []
        self.gaps: list[Gap] = []
        self.rises: list[int] = []
        """How many gaps were known each time that it began to answer."""
        self.writer = Writer()
        self.journal = Journal(folder / "journal")
        plan = Plan("gateway", command, url, dict(os.environ), str(folder))
        self.post = Post(
            plan,
            self.system,
            Capture(self.writer, folder),
            self.journal,
            self.said.append,
            self.gaps.append,
            lambda: self.rises.append(len(self.gaps)),
        )
        self.task = loop.create_task(self.post.keep())

    async def close(self) -> None:
        await self.post.stop()
        await asyncio.wait_for(asyncio.gather(self.task, return_exceptions=True), DEADLINE_S)
        self.system.close()
        self.writer.close()
        self.journal.close()


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Kept]:
    (tmp_path / "secret").write_bytes(bytes(32))
    (tmp_path / "fleet.json").write_text(Fleet(agents={}).model_dump_json())
    address = reserve(Address("127.0.0.1", 0), "gateway.listen")
    command = (
        sys.executable,
        "-m",
        "midwatch.gateway",
        "--data",
        str(tmp_path),
        "--listen",
        str(address),
    )
    one = Kept(tmp_path, command, address.url)
    yield one
    await one.close()


async def test_a_killed_post_is_back_and_the_gap_is_told(kept: Kept) -> None:
    await until(kept.post.ready.is_set)
    assert kept.post.process is not None
    os.kill(kept.post.process.pid, signal.SIGKILL)
    await until(lambda: len(kept.gaps) == 1 and kept.post.ready.is_set())
    (gap,) = kept.gaps
    assert kept.rises == [0, 0]  # told when it first answered, and when it was back
    assert (gap.reason, gap.ended > gap.began, kept.post.starts) == ("ended by SIGKILL", True, 2)
    assert any("agents go on" in line for line in kept.said)


async def test_a_post_that_no_longer_answers_is_killed(kept: Kept) -> None:
    assert CHECK_EVERY_S + CHECK_TIMEOUT_S + PATIENCE_S <= 5.0
    await until(kept.post.ready.is_set)
    assert kept.post.process is not None
    pid = kept.post.process.pid
    os.kill(pid, signal.SIGSTOP)
    await until(lambda: kept.post.hangs == 1)
    await until(lambda: len(kept.gaps) == 1)
    assert kept.gaps[0].reason.startswith("did not answer for")
    # the gap counts from its last answer, not from our verdict
    assert kept.gaps[0].ended - kept.gaps[0].began > PATIENCE_S
    assert kept.post.process is not None
    assert kept.post.process.pid != pid


async def test_a_post_that_refuses_its_set_up_is_told_once_and_not_repeated(tmp_path: Path) -> None:
    code = "import sys; print('hub: the database is newer than this version; update midwatch'); sys.exit(2)"
    one = Kept(tmp_path, (sys.executable, "-c", code), "http://127.0.0.1:9")
    await until(one.post.refused.is_set)
    assert one.post.problem == "hub: the database is newer than this version; update midwatch"
    assert one.post.starts == 1
    await one.close()


async def test_a_post_that_refuses_once_agents_run_is_told_and_tried_again(tmp_path: Path) -> None:
    one = Kept(tmp_path, (sys.executable, "-c", "print('no'); exit(2)"), "http://127.0.0.1:9")
    one.post.may_refuse = False
    await until(lambda: one.post.starts >= 2)
    assert not one.post.refused.is_set()
    assert one.said[0] == "gateway: ended with code 2 (no); starting it again, agents go on"
    await one.close()


async def test_a_post_that_hangs_while_it_starts_is_killed_and_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("midwatch.supervisor.post.START_PATIENCE_S", 0.3)
    command = (sys.executable, "-c", "import time; time.sleep(600)")
    one = Kept(tmp_path, command, "http://127.0.0.1:9")
    await until(lambda: one.post.hangs == 1 and one.post.starts == 2)
    assert one.said[0].startswith("gateway: does not answer for")
    assert one.gaps == []  # it never was there: nothing was interrupted
    await one.close()


async def test_a_post_that_fails_is_tried_again_and_again(tmp_path: Path) -> None:
    one = Kept(tmp_path, (sys.executable, "-c", "raise SystemExit(1)"), "http://127.0.0.1:9")
    await until(lambda: one.post.starts >= 3)
    assert not one.task.done()
    await one.close()


async def test_a_post_stopped_while_it_waits_for_its_next_start_is_not_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("midwatch.supervisor.post.PAUSES_S", (0.0, 0.5))
    one = Kept(tmp_path, (sys.executable, "-c", "raise SystemExit(1)"), "http://127.0.0.1:9")
    await until(lambda: one.post.starts == 1 and one.post.process is None)
    await one.post.stop()
    await asyncio.wait_for(one.task, DEADLINE_S)
    assert (one.post.starts, one.post.process) == (1, None)
    await one.close()


async def test_the_gateway_refuses_who_shows_no_key_in_each_dialect(kept: Kept) -> None:
    await until(kept.post.ready.is_set)
    url = kept.post.plan.url
    openai = await http.request(
        "POST", f"{url}/v1/chat/completions", body=b"x" * 300_000, timeout_s=5
    )
    anthropic = await http.request("POST", f"{url}/v1/messages", body=b"{}", timeout_s=5)
    ready = await http.request("GET", f"{url}/readyz", timeout_s=5)
    assert (openai.status, anthropic.status, ready.status) == (401, 401, 200)
    assert json.loads(openai.body)["error"]["code"] == "midwatch_key"
    said: dict[str, Any] = json.loads(anthropic.body)
    assert (said["type"], "no key" in said["error"]["message"]) == ("error", True)


async def test_a_gateway_without_a_fleet_says_so_and_is_not_repeated(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "midwatch.gateway", "--data", str(tmp_path))
    one = Kept(tmp_path, command, "http://127.0.0.1:9")
    await until(one.post.refused.is_set)
    assert one.post.problem.endswith("the gateway is started by midwatch up")
    assert one.post.starts == 1
    await one.close()


def test_the_fleet_default_of_the_gateway_is_an_address() -> None:
    assert Fleet(agents={}).gateway.listen == "127.0.0.1:8701"


BUSY = """
import http.server, sys, time
class Once(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header("content-length", "2"); self.end_headers()
        self.wfile.write(b"{}"); self.wfile.flush(); self.close_connection = True
    def log_message(self, *_): pass
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Once)
server.handle_request()
while True: pass
"""


async def test_a_post_that_works_without_answering_is_given_more_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a storm of agents leaves a hub little of the processor: to kill it would cost it the rest
    monkeypatch.setattr("midwatch.supervisor.post.PATIENCE_S", 0.5)
    monkeypatch.setattr("midwatch.supervisor.post.STARVED_PATIENCE_S", 5.0)
    address = reserve(Address("127.0.0.1", 0), "gateway.listen")
    one = Kept(tmp_path, (sys.executable, "-c", BUSY, str(address.port)), address.url)
    await until(one.post.ready.is_set)
    began = asyncio.get_running_loop().time()
    await until(lambda: one.post.hangs == 1)
    assert asyncio.get_running_loop().time() - began > 4.0
    await one.close()


class Crowded(LinuxSystem):
    """A machine on which everybody waits for the processor, or nobody."""

    crowd = True

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop, adopt=False)
        self.asked = 0
        self.given: list[float] = []

    def turns(self, process: Process | None = None) -> Turns | None:
        self.asked += 1
        return Turns(0.01 * self.asked, 0.5 * self.asked if self.crowd else 0.0)

    def give_way(self, seconds: float) -> bool:
        self.given.append(seconds)
        return True


@pytest.mark.skipif(not supported(), reason="a Linux system stands for the crowded machine")
@pytest.mark.parametrize("crowd", [True, False])
async def test_agents_give_way_to_a_post_that_waits_for_the_processor_and_to_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crowd: bool
) -> None:
    monkeypatch.setattr("midwatch.supervisor.precedence.LOOK_S", 0.0)
    monkeypatch.setattr(Crowded, "crowd", crowd)
    sleeper = (sys.executable, "-c", "import time; time.sleep(600)")
    one = Kept(tmp_path, sleeper, "http://127.0.0.1:9", Crowded(asyncio.get_running_loop()))
    assert isinstance(one.system, Crowded)
    system = one.system
    await until(lambda: system.asked > 3)
    assert [bool(system.given), len(one.said)] == [crowd, int(crowd)]  # told once
    assert not crowd or one.said[0].startswith("gateway: the agents leave it too little")
    await one.close()
