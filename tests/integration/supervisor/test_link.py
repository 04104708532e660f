"""Orders from a hub by the long poll, and the replies, over real HTTP with a stub of the hub."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from midwatch.core.fleet import Agent
from midwatch.core.states import State
from midwatch.supervisor.journal import Journal
from midwatch.supervisor.keeper import Keeper
from midwatch.supervisor.link import Link
from midwatch.supervisor.machine.fake import FakeSystem
from midwatch.supervisor.orders import Orders
from midwatch.supervisor.output.capture import Capture, Writer
from midwatch.supervisor.reporter import Recorder, Reports
from midwatch.supervisor.surroundings import Surroundings
from midwatch.supervisor.tasks import Tasks

DEADLINE_S = 30.0


class StubHub:
    """Answers polls with what is queued, and keeps replies. Can be made to misbehave."""

    def __init__(self) -> None:
        self.queue: list[dict[str, Any]] = []
        self.replies: dict[str, dict[str, Any]] = {}
        self.tokens: set[str] = set()
        self.fail: list[bytes] = []
        self.open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            await self.answer(reader, writer)
        finally:
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)
            self.open -= 1

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        fields = {k.lower(): v for k, _, v in (x.partition(": ") for x in head.split("\r\n")[1:])}
        self.tokens.add(fields["authorization"])
        if self.fail:
            writer.write(self.fail.pop(0))
        elif head.startswith("GET /api/nodes/here/commands?wait="):
            for _ in range(20):
                if self.queue:
                    break
                await asyncio.sleep(0.01)
            body, self.queue = json.dumps(self.queue).encode(), []
            # chunked, as a streaming server may answer
            writer.write(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"
                % (len(body), body)
            )
        else:
            for reply in json.loads(await reader.readexactly(int(fields["content-length"]))):
                self.replies[reply["id"]] = reply
            writer.write(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n")
        await asyncio.gather(writer.drain(), return_exceptions=True)


class Node:
    def __init__(self, folder: Path, hub: StubHub) -> None:
        self.hub = hub
        self.system = FakeSystem()
        self.system.programs["agent"] = ()
        self.writer = Writer()
        self.keepers: dict[str, Keeper] = {}
        around = Surroundings(
            system=self.system,
            journal=Journal(folder / "journal"),
            reports=Reports(Recorder(), "here"),
            say=lambda _: None,
            environment=lambda _name, _agent, run_id: {"MIDWATCH_RUN_ID": run_id},
            directory=lambda _: "/",
            fingerprint=lambda _: "",
            hear_now=lambda _: None,
            random=lambda: 0.0,
        )
        for name in ("inbox", "web.1", "web.2"):
            self.keepers[name] = Keeper(
                name, Agent(command=["agent"]), around, Capture(self.writer, folder)
            )
            self.keepers[name].begin(resumed=False)
        self.orders = Orders(self.keepers)

    async def ask(self, agent: str, do: str) -> tuple[str, str]:
        number = f"{agent}-{do}-{len(self.hub.replies)}"
        self.hub.queue.append({"id": number, "agent": agent, "do": do})
        deadline = asyncio.get_running_loop().time() + DEADLINE_S
        while number not in self.hub.replies:
            assert asyncio.get_running_loop().time() < deadline, f"no reply to {do}"
            self.system.advance(0.01)
            await asyncio.sleep(0.005)
        reply = self.hub.replies[number]
        return reply["result"], reply["state"]


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    hub = StubHub()
    server = await asyncio.start_server(hub.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    one = Node(tmp_path, hub)
    died: list[str] = []
    tasks = Tasks(died.append)
    link = Link(f"http://127.0.0.1:{port}", "here", "mwn_token", one.orders, tasks)
    tasks.spawn(link.follow(), "link")
    yield one
    await tasks.cancel()
    server.close()
    while hub.open:
        await asyncio.sleep(0.01)
    one.writer.close()
    assert died == []


async def test_each_order_is_carried_out_and_answered(node: Node) -> None:
    assert await node.ask("inbox", "start") == ("already starting", "starting")
    assert await node.ask("inbox", "seen") == ("seen", "running")
    assert await node.ask("inbox", "suspend") == ("suspended", "suspended")
    assert await node.ask("inbox", "suspend") == ("already suspended", "suspended")
    assert await node.ask("inbox", "start") == ("it is suspended; resume it instead", "suspended")
    assert await node.ask("inbox", "resume") == ("resumed", "starting")
    assert (await node.ask("inbox", "resume"))[0].startswith("not suspended")
    assert await node.ask("inbox", "restart") == ("restarted", "starting")
    assert await node.ask("inbox", "stop") == ("stopped", "stopped")
    assert await node.ask("inbox", "stop") == ("already stopped", "stopped")
    assert await node.ask("inbox", "restart") == ("started", "starting")
    result, state = await node.ask("inbox", "kill")
    assert (result.startswith("killed: pid "), state) == (True, "stopped")
    assert node.hub.tokens == {"Bearer mwn_token"}


async def test_an_unknown_agent_and_an_unknown_order_are_told(node: Node) -> None:
    assert await node.ask("nobody", "stop") == ("no agent 'nobody' on this node", "")
    assert (await node.ask("inbox", "dance"))[0].startswith(
        "unknown order 'dance': one of start, stop"
    )
    assert node.keepers["inbox"].run is not None


async def test_the_name_of_an_entry_reaches_all_its_instances(node: Node) -> None:
    assert await node.ask("web", "stop") == ("stopped", "stopped")
    assert {k.state for n, k in node.keepers.items() if n.startswith("web")} == {State.STOPPED}
    assert node.keepers["inbox"].run is not None


async def test_a_hub_that_misbehaves_is_asked_again(node: Node) -> None:
    node.hub.fail = [
        b"",
        b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}{",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
    ]
    assert (await node.ask("inbox", "stop"))[0] == "stopped"
