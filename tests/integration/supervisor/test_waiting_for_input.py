"""Real programs on a real terminal: who waits is found, by read, by select, by a child; who works is not."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from midwatch.core import waiting
from midwatch.core.fleet import Agent
from midwatch.core.states import State
from midwatch.supervisor import keeper
from midwatch.supervisor.duties import prompt
from midwatch.supervisor.journal import Journal
from midwatch.supervisor.keeper import Keeper
from midwatch.supervisor.machine import linux
from midwatch.supervisor.output.capture import Capture, Writer
from midwatch.supervisor.reporter import Recorder, Reports
from midwatch.supervisor.surroundings import Surroundings
from midwatch.supervisor.terminal import carry_out

pytestmark = pytest.mark.skipif(not linux.supported(), reason="reads /proc")

DEADLINE_S = 30.0
QUIET_S = 0.3
"""Instead of eight seconds."""
WATCHED_S = 4.0
"""How long a control is watched: it would be found twice."""


@dataclass
class House:
    keeper: Keeper
    recorder: Recorder

    @property
    def told(self) -> list[dict[str, Any]]:
        return self.recorder.events("run.waiting")

    async def until(self, condition: Callable[[], Any]) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + DEADLINE_S
        while not condition():
            assert loop.time() < deadline, (self.keeper.state, self.keeper.capture.tail())
            await asyncio.sleep(0.02)

    async def send(self, text: str) -> None:
        _, data = await carry_out(self.keeper, "input", {"text": text}, "ada")
        assert "why" not in data

    async def lines(self) -> list[str]:
        return (await carry_out(self.keeper, "screen", {}, "ada"))[1]["lines"]


Start = Callable[..., House]


@pytest.fixture
async def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Start]:
    monkeypatch.setattr(waiting, "QUIET_S", QUIET_S)
    monkeypatch.setattr(waiting, "CONFIRM_S", QUIET_S)
    monkeypatch.setattr(prompt, "FIRST_LOOK_S", QUIET_S)
    monkeypatch.setattr(keeper, "UP_AFTER_S", 0.1)
    system = linux.LinuxSystem(asyncio.get_running_loop())
    writer = Writer()
    keepers: list[Keeper] = []

    def begin(program: str, *, python: bool = True, **entry: Any) -> House:
        recorder = Recorder()
        around = Surroundings(
            system=system,
            journal=Journal(tmp_path / f"journal{len(keepers)}"),
            reports=Reports(recorder, "here"),
            say=lambda _: None,
            environment=lambda _name, _entry, run_id: {
                "MIDWATCH_RUN_ID": run_id, "PATH": "/usr/bin:/bin", "HOME": str(tmp_path),
            },
            directory=lambda _: str(tmp_path),
            fingerprint=lambda entry: str(entry.command),
            hear_now=lambda _: None,
            random=lambda: 0.0,
        )  # fmt: skip
        command = [sys.executable, "-u", "-c", program] if python else ["/bin/sh", "-c", program]
        agent = Agent.model_validate({"tty": True, **entry, "command": command})
        one = Keeper("inbox", agent, around, Capture(writer, tmp_path / "logs"))
        keepers.append(one)
        one.begin(resumed=False)
        return House(one, recorder)

    yield begin
    for one in keepers:
        one.shut_down()
        one.kill()
    while any(one.run is not None for one in keepers):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.15)
    system.close()
    writer.close()


ASKS = {
    "a read": "input('Go on? (y/N) ')",
    "getpass": "import getpass; getpass.getpass('Password: ')",
    "select": "import select, sys; print('Go on?'); select.select([0], [], [])",
    "epoll": (
        "import selectors, sys; print('Go on?')\n"
        "s = selectors.DefaultSelector(); s.register(0, 1); s.select()"
    ),
    "a raw dialog": (
        "import sys, tty; tty.setraw(0)\n"
        "print('\\x1b[2J\\x1b[3;3H\\x1b[1mDo you trust this folder?\\x1b[0m\\x1b[5;3H> 1. Yes', end='')\n"
        "sys.stdin.read(1)"
    ),
    "a child": "import subprocess; subprocess.run(['sh', '-c', 'printf \"Go on? \"; read answer'])",
    "a child on /dev/tty": (
        "import subprocess\n"
        "subprocess.run(['sh', '-c', 'printf \"Password: \" >/dev/tty; read answer </dev/tty'],"
        " stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)"
    ),
}


@pytest.mark.parametrize("how", ASKS)
async def test_who_waits_for_a_person_is_found(start: Start, how: str) -> None:
    house = start(ASKS[how])
    await house.until(lambda: house.told)
    assert house.keeper.state is State.WAITING
    assert house.told[0]["question"].rstrip(" >").endswith(("?", "(y/N)", "Password:", "1. Yes"))


async def test_an_answer_reaches_it_and_it_goes_on(start: Start) -> None:
    house = start(
        "print('you said', input('Go on? (y/N) '), flush=True)\nimport time; time.sleep(60)"
    )
    await house.until(lambda: house.told)
    assert await house.lines() == ["Go on? (y/N)"]
    await house.send("yes")
    await house.until(lambda: house.keeper.state is State.RUNNING)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + DEADLINE_S
    while "you said yes" not in await house.lines() and loop.time() < deadline:
        await asyncio.sleep(0.02)
    assert "you said yes" in await house.lines()


WORKS = {
    "prints and reads in turns": (
        "import select, time\n"
        "while True: print('done?', end=' ', flush=True); select.select([0], [], [], 0.1)"
    ),
    "sleeps": "print('Go on?'); import time; time.sleep(60)",
    "computes": "print('Go on?')\nwhile True: pass",
    "waits for a network": (
        "import socket; print('Go on?')\n"
        "s = socket.create_server(('127.0.0.1', 0)); c = socket.create_connection(s.getsockname()); c.recv(1)"
    ),
    "listens to both, and waits for a model": (
        "import select, socket; print('thinking')\n"
        "s = socket.create_server(('127.0.0.1', 0)); c = socket.create_connection(s.getsockname())\n"
        "select.select([0, c], [], [])"
    ),
    "keeps a server that reads its pipe": (
        "import subprocess, time\n"
        "p = subprocess.Popen(['cat'], stdin=subprocess.PIPE); time.sleep(60)"
    ),
    "keeps a shell on a terminal of its own": (
        "import os, pty, subprocess, time\n"
        "a, b = pty.openpty()\n"
        "p = subprocess.Popen(['sh', '-c', 'read x'], stdin=b, stdout=b, stderr=b, start_new_session=True)\n"
        "time.sleep(60)"
    ),
}


async def test_who_works_is_not_reported(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    # a busy machine lets who prints ten times a second print nothing for half a second
    monkeypatch.setattr(waiting, "QUIET_S", 1.0)
    monkeypatch.setattr(waiting, "CONFIRM_S", 1.0)
    houses = {how: start(program) for how, program in WORKS.items()}
    for house in houses.values():
        await house.until(lambda house=house: house.keeper.state is State.RUNNING)
    await asyncio.sleep(WATCHED_S)
    found = {how: (h.told, h.keeper.state) for how, h in houses.items()}
    assert found == dict.fromkeys(WORKS, ([], State.RUNNING))


async def test_without_a_terminal_a_read_finds_the_end_of_input(start: Start) -> None:
    house = start(
        "import sys, time; print(repr(sys.stdin.read()), flush=True); time.sleep(60)", tty=False
    )
    await house.until(lambda: house.keeper.capture.tail() == ["''"])
    assert house.told == []


async def test_the_terminal_is_gone_with_the_run_and_the_next_one_has_its_own(start: Start) -> None:
    house = start("input('Go on? '); raise SystemExit(3)", restart={"backoff": "10ms..20ms"})
    await house.until(lambda: house.told)
    first = house.keeper.run
    await house.send("y")
    await house.until(lambda: house.keeper.run not in (first, None))
    await house.until(lambda: len(house.told) == 2)
    assert await house.lines() == ["Go on?"]
