"""Sub-agents as real processes: they say who they are, are held to their own limits, and end with their parent."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from midwatch.core.fleet import Agent
from midwatch.supervisor.duties import family
from midwatch.supervisor.environment import Identity, build
from midwatch.supervisor.journal import Journal
from midwatch.supervisor.keeper import Keeper
from midwatch.supervisor.machine import linux, procfs
from midwatch.supervisor.machine.linux import LinuxSystem
from midwatch.supervisor.notices import Notices
from midwatch.supervisor.output.capture import Capture, Writer
from midwatch.supervisor.reporter import Recorder, Reports
from midwatch.supervisor.surroundings import Surroundings

pytestmark = pytest.mark.skipif(not linux.supported(), reason="needs Linux with pidfds")

DEADLINE_S = 60.0

HEAD = """
import os, signal, subprocess, sys, time
def start(*command, name=None, wait=False, **env):
    given = {**os.environ, **env} if name is None else {**os.environ, **env, "MIDWATCH_AGENT": name}
    return subprocess.Popen(command, env=given, start_new_session=True)
def python(code, **how):
    return start(sys.executable, "-c", code, **how)
"""

REST = "\ntime.sleep(600)\n"


class House:
    """Agents under a real system, and what is told of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        loop = asyncio.get_running_loop()
        self.system = LinuxSystem(loop)
        self.notices = Notices(folder / "sockets", loop)
        self.recorder = Recorder()
        self.said: list[str] = []
        self.writer = Writer()
        self.journal = Journal(folder / "journal")
        self.keepers: dict[str, Keeper] = {}
        self.around = Surroundings(
            system=self.system,
            journal=self.journal,
            reports=Reports(self.recorder, "here"),
            say=self.said.append,
            environment=self._environment,
            directory=lambda _: str(folder),
            fingerprint=lambda entry: str(entry.command),
            hear_now=lambda name: self.notices.drain(name),
            random=lambda: 0.0,
        )

    def _environment(self, name: str, entry: Agent, run_id: str) -> dict[str, str]:
        path = self.notices.listen(name, lambda n, sender: self.keepers[name].hear(n, sender))
        spool = str(self.folder / "spool" / name)
        identity = Identity(name, run_id, "token", "http://127.0.0.1:9", spool, path)
        return build(entry, identity, dict(os.environ), {})

    def start(self, code: str, name: str = "inbox") -> Keeper:
        program = HEAD + textwrap.dedent(code) + REST
        agent = Agent.model_validate(
            {
                "command": [sys.executable, "-c", program],
                "restart": {"when": "never"},
                "limits": {"stop_grace": 1.0},
            }
        )
        keeper = Keeper(name, agent, self.around, Capture(self.writer, self.folder / name))
        self.keepers[name] = keeper
        keeper.begin(resumed=False)
        return keeper

    def look(self) -> None:
        """Take the regular sample, which comes every ten seconds otherwise."""
        runs = {name: k.run for name, k in self.keepers.items() if k.run is not None}
        found = self.system.sample([run.process for run in runs.values()])
        for name, run in runs.items():
            self.keepers[name].sampled(found.get(run.process.pid))

    async def until(self, condition: Callable[[], Any], what: str) -> Any:
        deadline = time.monotonic() + DEADLINE_S
        looked = 0.0
        while not (found := condition()):
            told = [i.get("kind") for _, i in self.recorder.items if i["agent"] != "inbox"]
            assert time.monotonic() < deadline, f"not so in time: {what}; {self.said} {told}"
            if time.monotonic() - looked > 0.2:
                looked = time.monotonic()
                self.look()
            await asyncio.sleep(0.01)
        return found

    def events(self, kind: str, agent: str) -> list[dict[str, Any]]:
        return self.recorder.events(kind, agent)

    async def born(self, agent: str) -> dict[str, Any]:
        return (await self.until(lambda: self.events("run.started", agent), f"{agent} is born"))[0]

    async def over(self, agent: str) -> dict[str, Any]:
        return (await self.until(lambda: self.events("run.ended", agent), f"{agent} is over"))[0]

    async def pid(self, agent: str) -> int:
        def found() -> list[int]:
            samples = [i for k, i in self.recorder.items if k.value == "sample"]
            return [i["pid"] for i in samples if i["agent"] == agent and "pid" in i]

        return (await self.until(found, f"{agent} is measured"))[-1]

    def withheld(self) -> dict[str, int]:
        return {str(why): n for why, n in self.around.reports.withheld.items() if n}

    async def close(self) -> None:
        for keeper in self.keepers.values():
            if keeper.run is not None:
                process = keeper.run.process
                keeper.shut_down()
                keeper.kill()
                await self.until(lambda p=process: self.system.kill_tree(p) == 0, "the end")
        await self.until(lambda: all(k.run is None for k in self.keepers.values()), "all ends")
        self.system.close()
        self.notices.close()
        self.writer.close()


@pytest.fixture
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    monkeypatch.setattr(family, "LOOK_S", 0.2)
    monkeypatch.setattr(family, "MISSING_S", 0.4)
    one = House(tmp_path)
    yield one
    await one.close()


def alive(pid: int) -> bool:
    entry = procfs.stat(pid)
    return entry is not None and entry.state not in "ZX"


# -- said in the environment ---------------------------------------------------------------------


async def test_a_child_whose_environment_names_it_is_a_sub_agent_with_limits_of_its_own(
    house: House,
) -> None:
    keeper = house.start(
        """
        start("sleep", "600")
        start("sh", "-c", "sleep 600 & wait", name="inbox:search", MIDWATCH_TTL="1s")
        """
    )
    born = await house.born("inbox:search")
    assert keeper.run is not None
    assert (born["parent"], born["parent_run_id"]) == ("inbox", keeper.run.run_id)
    assert (born["ttl_s"], born.get("rss_limit_bytes"), born["outlive"]) == (1.0, None, False)
    assert born["run_id"].startswith(f"{keeper.run.run_id}.search.")
    pid = await house.pid("inbox:search")
    entry = procfs.stat(pid)
    assert entry is None or entry.name == b"sh"
    ended = await house.over("inbox:search")
    assert (ended["end"], ended["parent"]) == ("wall-clock", "inbox")
    run = keeper.run

    def left() -> list[str]:
        return [m.name for m in house.system.members(run.process) if m.state != "Z"]

    await house.until(lambda: left() == ["sleep 600"], "only the plain child is left")
    assert keeper.run is run
    assert house.withheld() == {}


async def test_a_sub_agent_over_its_memory_is_killed_and_its_parent_lives(house: House) -> None:
    keeper = house.start(
        """
        grow = "import time; kept = b'x' * (200 << 20); time.sleep(600)"
        python(grow, name="inbox:grow", MIDWATCH_MEMORY="60MiB")
        python("import time; time.sleep(600)", name="inbox:calm", MIDWATCH_MEMORY="512MiB")
        """
    )
    run = keeper.run
    ended = await house.over("inbox:grow")
    assert ended["end"] == "out-of-memory"
    assert ended["rss_limit_bytes"] == 60 << 20
    assert alive(await house.pid("inbox:calm"))
    assert keeper.run is run is not None


async def test_sub_agents_end_with_their_parent_but_for_those_that_outlive_it(house: House) -> None:
    keeper = house.start(
        """
        start("sleep", "600", name="inbox:brief")
        start("sleep", "600", name="inbox:long", MIDWATCH_OUTLIVE="1")
        """
    )
    brief, long = await house.pid("inbox:brief"), await house.pid("inbox:long")
    run = keeper.run
    assert run is not None
    keeper.shut_down()
    await house.until(lambda: keeper.run is None, "the end of its parent")
    ended = await house.over("inbox:brief")
    assert (ended["end"], ended["reason"]) == ("operator", "ended with its parent")
    await house.until(lambda: not alive(brief), "the brief one's end")
    assert alive(long)
    assert house.events("run.ended", "inbox:long") == []
    os.kill(long, 9)
    await house.over("inbox:long")


async def test_a_daemon_of_a_sub_agent_is_still_of_it(house: House) -> None:
    house.start(
        """
        code = '''
        import os, time
        time.sleep(float(os.environ["PAUSE"]))
        if os.fork() == 0:
            os.setsid()
            if os.fork():
                os._exit(0)
        time.sleep(600)
        '''
        import textwrap
        python(textwrap.dedent(code), name="inbox:demon", PAUSE="0.5")
        """
    )
    await house.born("inbox:demon")
    run = house.keepers["inbox"].run
    assert run is not None

    def escaped() -> list[int]:
        return [m.pid for m in house.system.members(run.process) if m.parent == os.getpid()]

    (demon,) = await house.until(escaped, "its daemon")
    os.kill(await house.pid("inbox:demon"), 9)

    def of_it() -> set[int]:
        return {pid for kin in run.kin.values() for pid, _ in kin.known}

    await house.until(lambda: of_it() == {demon}, "only the daemon is left of it")
    assert alive(demon)
    assert len(house.events("run.started", "inbox:demon")) == 1
    assert house.events("run.ended", "inbox:demon") == []
    os.kill(demon, 9)
    await house.over("inbox:demon")


# -- said by the program -------------------------------------------------------------------------


async def test_a_program_that_begins_under_another_name_is_a_sub_agent(house: House) -> None:
    keeper = house.start(
        """
        import midwatch as mw
        mw.init()
        code = '''
        import midwatch as mw, time
        mw.init(agent="search", ttl_s=1)
        while True:
            mw.beat()
            time.sleep(0.05)
        '''
        import textwrap
        python(textwrap.dedent(code))
        if os.fork() == 0:
            mw.init(agent="fetch")
            time.sleep(600)
        """
    )
    search, fetch = await house.born("inbox:search"), await house.born("inbox:fetch")
    assert (search["parent"], search["ttl_s"], fetch.get("ttl_s")) == ("inbox", 1.0, None)
    ended = await house.over("inbox:search")
    assert ended["end"] == "wall-clock"
    assert keeper.run is not None
    assert keeper.run.evidence.beat is None  # those of its child were never its own
    assert alive(await house.pid("inbox:fetch"))
    assert house.withheld() == {}


async def test_an_agent_is_itself_whatever_its_program_calls_it(house: House) -> None:
    keeper = house.start(
        """
        import midwatch as mw
        mw.init(agent="researcher")
        mw.beat()
        """
    )
    run = keeper.run
    assert run is not None
    await house.until(lambda: run.evidence.beat is not None, "its beat")
    assert run.kin == {}


# -- below sub-agents ----------------------------------------------------------------------------


async def test_a_sub_agent_may_start_sub_agents_which_end_with_it(house: House) -> None:
    keeper = house.start(
        """
        import midwatch as mw
        mw.init()
        code = '''
        import midwatch as mw, os, sys, time
        mw.init()
        mw.spawn(["sleep", "600"], name="fetch", ttl_s=600)
        mw.spawn(["sleep", "600"], name="keep", outlive=True)
        time.sleep(600)
        '''
        import textwrap
        mw.spawn([sys.executable, "-c", textwrap.dedent(code)], name="search")
        start("sleep", "600")
        """
    )
    search, fetch = await house.born("inbox:search"), await house.born("inbox:search:fetch")
    assert (fetch["parent"], fetch["parent_run_id"]) == ("inbox:search", search["run_id"])
    assert fetch["ttl_s"] == 600.0
    above = await house.pid("inbox:search")
    below, kept = await house.pid("inbox:search:fetch"), await house.pid("inbox:search:keep")
    run = keeper.run
    assert run is not None
    os.kill(above, 9)
    ended = await house.over("inbox:search:fetch")
    assert (ended["reason"], ended["parent"]) == ("ended with its parent", "inbox:search")
    await house.until(lambda: not alive(below), "its end")
    assert alive(kept)
    assert keeper.run is run
    assert house.withheld() == {}


async def test_a_child_of_a_sub_agent_that_says_so_itself_is_below_it(house: House) -> None:
    house.start(
        """
        code = '''
        import midwatch as mw, os, subprocess, sys, time
        mw.init()
        mw.spawn(["sleep", "600"], name="spawned")
        subprocess.Popen(["sleep", "600"], env={**os.environ, "MIDWATCH_AGENT": "inbox:a:named"})
        subprocess.Popen([sys.executable, "-c",
            "import midwatch as mw, time; mw.init(agent='begun'); time.sleep(600)"])
        time.sleep(600)
        '''
        import textwrap
        python(textwrap.dedent(code), name="inbox:a")
        """
    )
    top = await house.born("inbox:a")
    for name in ("spawned", "named", "begun"):
        born = await house.born(f"inbox:a:{name}")
        assert (born["parent"], born["parent_run_id"]) == ("inbox:a", top["run_id"]), name
    assert len(house.events("run.started", "inbox:a")) == 1
    assert house.withheld() == {}


# -- what is not believed ------------------------------------------------------------------------


async def test_nobody_is_made_a_sub_agent_who_is_no_descendant(house: House) -> None:
    victim = house.start("", name="billing")
    keeper = house.start(
        "start('sleep', '600', name='billing:x')\nstart('sleep', '600', name='billing')"
    )
    assert keeper.run is not None
    assert victim.run is not None
    path = str(house.folder / "sockets" / "inbox.sock")

    def say(**told: Any) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"X_MIDWATCH_CHILD=" + json.dumps(told).encode(), path)

    # we are no process below it; nor is the victim, whatever pid is named
    say(self=True, run="r1", agent="inbox:stranger", pid=victim.run.process.pid, ttl_s=0.01)
    # the victim's run, and the agent's own, are not its sub-agents'
    say(run=victim.run.run_id, agent="inbox:thief", ttl_s=0.01)
    say(run=keeper.run.run_id, agent="inbox:self", ttl_s=0.01)
    say(run="r2", agent="billing:search")
    await house.until(
        lambda: house.withheld().get("sub_agents_malformed", 0) >= 4 + 2, "all are refused"
    )
    assert house.withheld() == {"sub_agents_malformed": 6}
    assert keeper.run.kin == {}
    assert victim.run.kin == {}
    assert alive(victim.run.process.pid)
    agents = {item["agent"] for _, item in house.recorder.items}
    assert agents == {"inbox", "billing"}
