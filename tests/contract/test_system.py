"""One suite for every implementation of the supervisor's seam to the operating system."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from midwatch.supervisor.machine import linux
from midwatch.supervisor.machine.fake import FakeSystem
from midwatch.supervisor.machine.linux import LinuxSystem
from midwatch.supervisor.machine.portable import PortableSystem
from midwatch.supervisor.machine.system import Caps, Exit, Launch, Process, StartError, System
from midwatch.wire.ids import new_id

DEADLINE_S = 10.0

PROGRAM = r"""
import os, signal, subprocess, sys, time
for deed in sys.argv[1].split(";"):
    verb, _, rest = deed.strip().partition(" ")
    if verb == "print": print(rest, flush=True)
    elif verb == "ignore": signal.signal(getattr(signal, "SIG" + rest), signal.SIG_IGN)
    elif verb == "fork": subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    elif verb == "escape": subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    elif verb == "close": os.close(1); os.close(2)
    elif verb == "ask": print("read " + input("name? "), flush=True)
    elif verb == "daemon":
        # what daemon(3) does, and with nothing left that would name the run
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.execve(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)"], {})
            os._exit(0)
        os.wait()
    elif verb == "zombie":
        if os.fork() == 0: os._exit(0)
    elif verb == "open": kept = [open("/dev/null") for _ in range(int(rest))]
    elif verb == "env": print(os.environ[rest], os.getcwd(), os.getsid(0) == os.getpid(), flush=True)
    elif verb == "exit": sys.stdout.flush(); os._exit(int(rest))
time.sleep(600)
"""


class Ground:
    """A system and what is needed to drive it, real or not."""

    def __init__(self, system: System, folder: Path) -> None:
        self.system = system
        self.folder = folder
        self.output = bytearray()
        self.exits: list[Exit] = []
        self.started: list[Process] = []

    def launch(self, deeds: str, **changes: Any) -> Process:
        run_id = f"run-{len(self.started)}-{os.getpid()}-{id(self)}"
        if isinstance(self.system, FakeSystem):
            command = [deeds]
            if deeds:
                self.system.programs[deeds] = [
                    (0.01 * n, d.strip())
                    for n, d in enumerate(deeds.split(";"))
                    if d.strip() not in ("live", "close")
                ]
        else:
            command = [sys.executable, "-c", PROGRAM, deeds]
        launch = Launch(
            command=changes.get("command", command),
            env={
                **os.environ,
                "MIDWATCH_RUN_ID": run_id,
                "MIDWATCH_SPOOL": str(self.folder / "spool" / "x"),
            },
            cwd=changes.get("cwd", str(self.folder)),
            run_id=run_id,
            on_output=self.output.extend,
            on_exit=self.exits.append,
            caps=changes.get("caps", Caps()),
            agent=changes.get("agent", ""),
            tty=changes.get("tty", False),
            walled=changes.get("walled", False),
            keep_fds=changes.get("keep_fds", ()),
        )
        process = self.system.spawn(launch)
        self.started.append(process)
        return process

    async def until(self, condition: Callable[[], bool]) -> None:
        if isinstance(self.system, FakeSystem):
            for _ in range(1000):
                if condition():
                    return
                self.system.advance(0.01)
        else:
            deadline = asyncio.get_running_loop().time() + DEADLINE_S
            while asyncio.get_running_loop().time() < deadline:
                if condition():
                    return
                await asyncio.sleep(0.01)
        pytest.fail(f"still not so: output {bytes(self.output)!r}, exits {self.exits}")


KINDS = ["fake", "portable", *(["linux"] if linux.supported() else [])]


@pytest.fixture(params=KINDS)
async def ground(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Ground]:
    loop = asyncio.get_running_loop()
    made: dict[str, Callable[[], System]] = {
        "fake": FakeSystem,
        "portable": lambda: PortableSystem(loop),
        "linux": lambda: LinuxSystem(loop),
    }
    ground = Ground(made[request.param](), tmp_path)
    yield ground
    for process in ground.started:
        while ground.system.kill_tree(process):
            await asyncio.sleep(0.01)
    if request.param != "fake":
        await ground.until(lambda: len(ground.exits) == len(ground.started))
    ground.system.close()


async def test_turns_at_the_processor_are_told_of_the_living_or_not_at_all(ground: Ground) -> None:
    process = ground.launch("live")
    own = ground.system.turns()
    assert own is None or (own.ran_s > 0 and own.waited_s >= 0)
    assert ground.system.turns(process) is None or own is not None
    ground.system.kill_tree(process)
    await ground.until(lambda: len(ground.exits) == 1)
    assert ground.system.turns(process) is None


async def test_without_agents_there_is_nobody_to_give_way(ground: Ground) -> None:
    ground.launch("live")
    assert not ground.system.give_way(600.0)


async def test_an_exit_is_told_once_with_its_code_after_all_output(ground: Ground) -> None:
    ground.launch("print first; print last; exit 3")
    await ground.until(lambda: bool(ground.exits))
    assert ground.exits == [Exit(3, None)]
    assert bytes(ground.output) == b"first\nlast\n"


async def test_a_signal_reaches_the_group_and_is_told(ground: Ground) -> None:
    process = ground.launch("print up; live")
    await ground.until(lambda: b"up" in ground.output)
    assert ground.system.signal(process, signal.SIGTERM)
    await ground.until(lambda: bool(ground.exits))
    assert ground.exits == [Exit(None, signal.SIGTERM)]
    assert not ground.system.signal(process, signal.SIGTERM)
    assert not ground.system.signal_one(process, signal.SIGTERM)


async def test_who_ignores_a_signal_dies_with_its_tree(ground: Ground) -> None:
    process = ground.launch("ignore TERM; fork; print up; live")
    await ground.until(lambda: b"up" in ground.output)
    ground.system.signal_one(process, signal.SIGTERM)
    assert ground.exits == []
    assert ground.system.kill_tree(process) == 2
    await ground.until(lambda: bool(ground.exits))
    assert ground.exits == [Exit(None, signal.SIGKILL)]
    await ground.until(lambda: ground.system.kill_tree(process) == 0)


async def test_a_program_that_does_not_exist_is_an_error_with_errno(ground: Ground) -> None:
    with pytest.raises(StartError, match="not found on PATH") as caught:
        ground.launch("", command=["no-such-program-anywhere"])
    assert caught.value.number == 2
    assert sum(ground.system.counters.by_errno.values()) == 1


async def test_a_sample_counts_the_tree_and_only_the_living(ground: Ground) -> None:
    process = ground.launch("fork; print up; live")
    await ground.until(lambda: b"up" in ground.output)
    sample = ground.system.sample([process])[process.pid]
    assert (sample.children, sample.threads >= 2, sample.rss_bytes > 1_000_000) == (1, True, True)
    assert sample.cpu_s >= sample.children_cpu_s >= 0
    ground.system.kill_tree(process)
    await ground.until(lambda: bool(ground.exits))
    assert ground.system.sample([process]) == {}


async def test_timers_come_in_time_and_can_be_cancelled(ground: Ground) -> None:
    called: list[str] = []
    now = ground.system.now()
    ground.system.call_at(now + 0.02, lambda: called.append("second"))
    ground.system.call_at(now - 5, lambda: called.append("first"))
    ground.system.call_at(now + 0.01, lambda: called.append("never")).cancel()
    await ground.until(lambda: len(called) == 2)
    assert called == ["first", "second"]


async def test_a_member_of_a_run_is_told_and_can_be_killed_alone(ground: Ground) -> None:
    process = ground.launch("fork; print up; live")
    await ground.until(lambda: b"up" in ground.output)
    (member,) = ground.system.members(process)
    assert (member.parent, member.state in "RSD", member.rss_bytes > 0) == (process.pid, True, True)
    assert 0 <= member.age_s < DEADLINE_S
    stranger = replace(member, started=member.started + 1)
    assert not ground.system.kill_member(stranger)  # the number is another's now
    assert ground.system.kill_member(member)
    await ground.until(lambda: [m for m in ground.system.members(process) if m.state != "Z"] == [])
    assert not ground.system.kill_member(member)
    assert ground.exits == []


async def test_a_sub_agent_that_may_outlive_its_run_is_spared(ground: Ground) -> None:
    process = ground.launch("fork; print up; live")
    await ground.until(lambda: b"up" in ground.output)
    sub = new_id()
    if isinstance(ground.system, FakeSystem):
        kept = ground.system.add_member(process, "sub", session=1, run_id=sub).pid
    else:
        env = {**os.environ, "MIDWATCH_RUN_ID": sub}
        sub_agent = subprocess.Popen(["sleep", "600"], env=env, start_new_session=True)
        kept = sub_agent.pid
    ground.system.belongs(process, sub, outlive=True)
    try:
        ground.system.kill_tree(process)
        await ground.until(lambda: bool(ground.exits))
        await ground.until(lambda: ground.system.kill_tree(process) == 0)
        if not isinstance(ground.system, FakeSystem):
            assert carriers(sub) == [kept]
        else:
            assert [m.pid for m in ground.system.members(process)] == [kept]
    finally:
        if not isinstance(ground.system, FakeSystem):
            sub_agent.kill()
            sub_agent.wait()


@pytest.mark.parametrize("parted", [False, True], ids=["lives", "has parted"])
async def test_a_sub_agent_is_of_the_run_until_it_has_parted(ground: Ground, parted: bool) -> None:
    process = ground.launch("print up; live")
    await ground.until(lambda: b"up" in ground.output)
    sub = new_id()
    ground.system.belongs(process, sub, outlive=False)
    if parted:
        ground.system.parts(process, sub)
    if isinstance(ground.system, FakeSystem):
        assert (sub in ground.system.belonging) is not parted
        return
    env = {**os.environ, "MIDWATCH_RUN_ID": sub}
    # as one that gave up its parents does: a child of ours that we did not start
    with subprocess.Popen(["sleep", "600"], env=env, start_new_session=True) as stray:
        try:
            await ground.until(lambda: carriers(sub) == [stray.pid])
            found = {member.pid for member in ground.system.members(process)}
            assert (stray.pid in found) is not parted
        finally:
            stray.kill()


async def test_only_a_terminal_takes_input(ground: Ground) -> None:
    process = ground.launch("print up; live")
    await ground.until(lambda: b"up" in ground.output)
    assert not ground.system.write(process, b"yes\n")
    asked = ground.launch("print second; live", tty=True)
    await ground.until(lambda: b"second" in ground.output)
    assert ground.system.write(asked, b"yes\n")
    ground.system.kill_tree(asked)
    await ground.until(lambda: bool(ground.exits))
    assert not ground.system.write(asked, b"yes\n")


async def test_a_light_sample_is_cheap_and_repeats_what_was_known(ground: Ground) -> None:
    process = ground.launch("print up; live")
    await ground.until(lambda: b"up" in ground.output)
    full = ground.system.sample([process])[process.pid]
    light = ground.system.sample([process], light=True)[process.pid]
    assert (light.open_files, light.pss_bytes) == (full.open_files, full.pss_bytes)
    assert light.threads == full.threads


async def test_what_holds_a_limit_is_told_for_each(ground: Ground) -> None:
    held = ground.system.enforcement()
    assert set(held) == {"memory", "processes", "cpu_weight", "open_files", "disk"}
    words = {word.partition(":")[0] for word in held.values()}
    assert words <= {"cgroup", "rlimit", "nice", "sampling", "nothing"}
    assert ground.system.delegation()


async def test_the_machine_tells_no_data_as_none(ground: Ground) -> None:
    host = ground.system.host(str(ground.folder))
    if isinstance(ground.system, FakeSystem):
        assert set(asdict(host).values()) == {None}
        return
    assert host.memory_free_bytes is not None
    assert host.memory_bytes is not None
    assert 0 < host.memory_free_bytes <= host.memory_bytes
    assert host.disk_free_bytes is not None
    assert host.disk_bytes is not None
    assert 0 <= host.disk_free_bytes <= host.disk_bytes
    assert (host.load_1m or 0.0) >= 0.0
    assert (ground.system.processes() or 0) > 1


real = pytest.mark.parametrize("ground", KINDS[1:], indirect=True)


@real
async def test_what_the_group_left_behind_is_gone_when_the_exit_is_told(ground: Ground) -> None:
    process = ground.launch("fork; escape; print up; exit 0")
    await ground.until(lambda: bool(ground.exits))
    await ground.until(lambda: ground.system.kill_tree(process) == 0)
    assert carriers(process.run_id) == []


@real
async def test_what_an_earlier_supervisor_left_is_swept_by_run_and_by_spool(ground: Ground) -> None:
    # ids of this test alone: the same test of another system may run beside it
    known, unknown, stranger = new_id(), new_id(), new_id()
    spool = ground.folder / "spool"

    def sleep(run_id: str, where: Path) -> subprocess.Popen[bytes]:
        env = {**os.environ, "MIDWATCH_RUN_ID": run_id, "MIDWATCH_SPOOL": str(where)}
        return subprocess.Popen(["sleep", "600"], env=env, start_new_session=True)

    processes = [
        sleep(known, Path("/elsewhere/spool/x")),
        sleep(unknown, spool / "x"),
        sleep(stranger, Path("/elsewhere/spool/x")),
    ]
    try:
        await ground.until(lambda: all(carriers(run) for run in (known, unknown, stranger)))
        found = ground.system.sweep([known], str(spool))
        found |= ground.system.sweep([known], str(spool))  # who still dies is no second one
        assert sorted(pid for pid, _ in found) == sorted(p.pid for p in processes[:2])
        await ground.until(lambda: carriers(known) == carriers(unknown) == [])
        assert ground.system.sweep([known], str(spool)) == set()
        assert len(carriers(stranger)) == 1
    finally:
        for process in processes:
            process.kill()
            process.wait()


@real
async def test_a_child_has_a_session_its_directory_and_its_environment(ground: Ground) -> None:
    process = ground.launch("env MIDWATCH_RUN_ID; exit 0")
    await ground.until(lambda: bool(ground.exits))
    assert ground.output.decode() == f"{process.run_id} {ground.folder} True\n"


@real
async def test_limits_are_set_before_the_program_begins(ground: Ground) -> None:
    show = "import resource as r; print(r.getrlimit(r.RLIMIT_NOFILE)[0], r.getrlimit(r.RLIMIT_CORE)[0])"
    ground.launch("", command=[sys.executable, "-c", show], caps=Caps(open_files=123))
    await ground.until(lambda: bool(ground.exits))
    assert ground.output == b"123 0\n"


@real
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda folder: (folder / "plain").write_text("x"),
            "permission denied; make it executable",
        ),
        (
            lambda folder: ((folder / "plain").write_text("x"), (folder / "plain").chmod(0o755)),
            "not a program",
        ),
        (lambda folder: None, "no such file"),
    ],
    ids=["not executable", "not a program", "missing"],
)
async def test_a_file_that_cannot_be_executed_says_what_to_do(
    ground: Ground, make: Any, words: str
) -> None:
    make(ground.folder)
    with pytest.raises(StartError, match=words):
        ground.launch("", command=["./plain"])


@real
async def test_a_directory_that_does_not_exist_is_named(ground: Ground) -> None:
    with pytest.raises(StartError, match="directory '/no/such/place' cannot be entered"):
        ground.launch("live", cwd="/no/such/place")


@real
async def test_a_child_that_closes_its_output_lives_on(ground: Ground) -> None:
    process = ground.launch("print up; close; live")
    await ground.until(lambda: b"up" in ground.output)
    await asyncio.sleep(0.1)
    assert ground.exits == []
    assert process.pid in ground.system.sample([process])


@real
async def test_many_starts_leak_no_descriptor_and_no_zombie(ground: Ground) -> None:
    async def round_(count: int) -> None:
        before = len(ground.exits)
        for _ in range(count):
            ground.launch("", command=["true"])
        await ground.until(lambda: len(ground.exits) == before + count)

    await round_(5)
    held = len(os.listdir("/proc/self/fd"))
    await round_(30)
    assert len(os.listdir("/proc/self/fd")) == held
    assert ground.exits == [Exit(0, None)] * 35


@real
async def test_a_run_with_a_terminal_has_it_for_all_three_and_controls_it(ground: Ground) -> None:
    show = """
import os
print([os.isatty(n) for n in range(3)], os.get_terminal_size(), os.environ["TERM"], os.ttyname(0))
with open("/dev/tty", "w") as own: print("mine", file=own)
print(os.tcgetpgrp(0) == os.getpgrp() == os.getsid(0) == os.getpid())
"""
    ground.launch("", command=[sys.executable, "-u", "-c", show], tty=True)
    await ground.until(lambda: bool(ground.exits))
    text = ground.output.decode()
    assert ground.exits == [Exit(0, None)], text
    assert "[True, True, True]" in text
    assert "columns=220, lines=50" in text
    assert "mine" in text
    assert text.rstrip().endswith("True")


@real
async def test_what_is_written_to_the_terminal_is_read_as_a_line(ground: Ground) -> None:
    process = ground.launch("ask; exit 0", tty=True)
    await ground.until(lambda: b"name? " in ground.output)
    assert ground.system.write(process, b"Ada\n")
    await ground.until(lambda: bool(ground.exits))
    assert b"read Ada" in ground.output
    assert ground.exits == [Exit(0, None)]


@real
async def test_without_a_terminal_input_is_at_its_end(ground: Ground) -> None:
    show = "import sys, os; print(repr(sys.stdin.read()), os.isatty(1))"
    ground.launch("", command=[sys.executable, "-c", show])
    await ground.until(lambda: bool(ground.exits))
    assert ground.output == b"'' False\n"


@real
async def test_descriptors_are_handed_over_and_no_other(ground: Ground) -> None:
    reading, writing = os.pipe()
    show = (
        f"import os; os.write({writing}, b'here'); print(sorted(map(int, os.listdir('/dev/fd'))))"
    )
    ground.launch("", command=[sys.executable, "-c", show], keep_fds=(writing,))
    await ground.until(lambda: bool(ground.exits))
    assert (os.read(reading, 10), os.read(reading, 10)) == (b"here", b"")  # we have closed it, too
    os.close(reading)
    own = 3  # of the listing itself
    assert json.loads(ground.output) == sorted({0, 1, 2, own, writing})
    reading, writing = os.pipe()
    with pytest.raises(StartError):
        ground.launch("", command=["no-such-program-anywhere"], keep_fds=(writing,))
    assert os.read(reading, 1) == b""  # nobody has the other end any more
    os.close(reading)


@real
async def test_a_file_may_not_grow_past_its_limit(ground: Ground) -> None:
    script = "head -c 3000 /dev/zero > big; echo survived $(stat -c %s big)"
    command = ["sh", "-c", script]
    ground.launch("", command=command, caps=Caps(file_bytes=1024))
    await ground.until(lambda: bool(ground.exits))
    assert (ground.folder / "big").stat().st_size == 1024


@real
async def test_a_small_weight_makes_it_nice(ground: Ground) -> None:
    show = "import os; print(os.getpriority(os.PRIO_PROCESS, 0) - int(os.environ['OURS']))"
    os.environ["OURS"] = str(os.getpriority(os.PRIO_PROCESS, 0))
    ground.launch("", command=[sys.executable, "-c", show], caps=Caps(cpu_weight=10))
    await ground.until(lambda: bool(ground.exits))
    assert ground.output == b"10\n"


@real
async def test_the_open_files_of_the_worst_process_count(ground: Ground) -> None:
    process = ground.launch("open 40; fork; print up; live")
    await ground.until(lambda: b"up" in ground.output)
    assert ground.system.sample([process])[process.pid].open_files >= 43


@real
async def test_zombies_are_counted_apart_from_children(ground: Ground) -> None:
    process = ground.launch("fork; zombie; zombie; print up; live")
    await ground.until(lambda: b"up" in ground.output)
    await ground.until(lambda: ground.system.sample([process])[process.pid].zombies == 2)
    assert ground.system.sample([process])[process.pid].children == 1


def carriers(run_id: str) -> list[int]:
    """Return the living processes that carry a run id."""
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            env = Path(f"/proc/{name}/environ").read_bytes()
            state = Path(f"/proc/{name}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            continue
        if f"MIDWATCH_RUN_ID={run_id}".encode() in env.split(b"\0") and state != "Z":
            found.append(int(name))
    return found
