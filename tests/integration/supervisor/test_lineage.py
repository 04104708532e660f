"""Real processes that try to get away from their run, and what is told of where a process stands."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from midwatch.supervisor.machine import linux, mark, procfs, stacks, tree
from midwatch.supervisor.machine.linux import LinuxSystem
from midwatch.supervisor.machine.system import Exit, Launch, Process
from midwatch.wire.ids import new_id

pytestmark = pytest.mark.skipif(not linux.supported(), reason="needs Linux with pidfds")

DEADLINE_S = 40.0

DAEMON = """
import os, sys, time
told, held = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for fd in range(3): os.close(fd)
        os.execve("/bin/sleep", ["sleep", "600"], {})
    os._exit(0)
os.wait()
os.close(held)
os.read(told, 1)  # it ends when the daemon has executed its program
print("up", flush=True)
if sys.argv[1] == "live": time.sleep(600)
"""

# every process forks two, each in a session of its own and without its environment, until as many
# as allowed have been made: the file is the counter, so that a failing test cannot take the machine
BOMB = """
import os, sys
most = int(sys.argv[2])
def more():
    while True:
        with open(sys.argv[1], "ab", buffering=0) as counter:
            counter.write(b".")
            if counter.tell() > most: break
        try:
            if os.fork() == 0: os.setsid()
        except OSError: pass
os.nice(5)
more()
import time
time.sleep(600)
"""

CROWD = """
import os, sys, time
for _ in range(int(sys.argv[1])):
    if os.fork() == 0:
        time.sleep(600)
print("up", flush=True)
time.sleep(600)
"""


LEAVER = """
import os, sys, time
for _ in range(int(sys.argv[1])):
    if os.fork() == 0:
        os.setsid()
        time.sleep(600)
time.sleep(0.5)
"""


class Watch:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.system = LinuxSystem(asyncio.get_running_loop())
        self.output = bytearray()
        self.exits: list[Exit] = []
        self.processes: list[Process] = []

    def run(self, *command: str, tty: bool = False, walled: bool = False) -> Process:
        run_id = new_id()
        env = {**os.environ, "MIDWATCH_RUN_ID": run_id}
        launch = Launch(
            command=command,
            env=env,
            cwd=str(self.folder),
            run_id=run_id,
            on_output=self.output.extend,
            on_exit=self.exits.append,
            agent="tested",
            tty=tty,
            walled=walled,
        )
        process = self.system.spawn(launch)
        self.processes.append(process)
        return process

    def python(self, program: str, *words: str, tty: bool = False) -> Process:
        return self.run(sys.executable, "-c", program, *words, tty=tty)

    async def until(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline, f"still not so: {bytes(self.output)!r} {self.exits}"
            await asyncio.sleep(0.01)

    async def dead(self, process: Process) -> None:
        await self.until(lambda: self.system.kill_tree(process) == 0)


@pytest.fixture
async def watch(tmp_path: Path) -> AsyncIterator[Watch]:
    watch = Watch(tmp_path)
    yield watch
    for process in watch.processes:
        await watch.dead(process)
    await watch.until(lambda: len(watch.exits) == len(watch.processes))
    watch.system.close()


def alive(pid: int) -> bool:
    entry = procfs.stat(pid)
    return entry is not None and entry.state not in "ZX"


# -- who belongs to a run ------------------------------------------------------------------------


async def test_a_daemon_that_gave_up_all_that_names_it_is_still_of_its_run(watch: Watch) -> None:
    process = watch.python(DAEMON, "live")
    await watch.until(lambda: b"up" in watch.output)
    await watch.until(lambda: [m.name for m in watch.system.members(process)] == ["sleep 600"])
    (daemon,) = watch.system.members(process)
    assert (daemon.name, daemon.parent, daemon.run_id) == ("sleep 600", os.getpid(), "")
    assert watch.system.sample([process])[process.pid].children == 1
    await watch.dead(process)
    await watch.until(lambda: not alive(daemon.pid))


async def test_a_daemon_ends_with_its_run_and_is_told(watch: Watch) -> None:
    other = watch.run("sleep", "600")
    watch.python(DAEMON, "end")
    await watch.until(lambda: watch.exits)
    (exit_,) = watch.exits
    assert [m.name for m in exit_.left] == ["sleep 600"]
    await watch.until(lambda: not alive(exit_.left[0].pid))
    assert alive(other.pid)


async def test_a_daemon_is_found_after_the_supervisor_was_killed(tmp_path: Path) -> None:
    run_id = new_id()
    program = f"""
import asyncio, os, time
from midwatch.supervisor.machine.linux import LinuxSystem
from midwatch.supervisor.machine.system import Launch
async def main():
    system = LinuxSystem(asyncio.get_running_loop(), salt=b"one instance")
    env = {{**os.environ, "MIDWATCH_RUN_ID": {run_id!r}}}
    system.spawn(Launch([{sys.executable!r}, "-c", {DAEMON!r}, "live"], env, "/", {run_id!r}, lambda data: print(data, flush=True), print))
    await asyncio.sleep(600)
asyncio.run(main())
"""
    supervisor = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert supervisor.stdout is not None
    assert b"up" in supervisor.stdout.readline()
    supervisor.kill()
    supervisor.wait()
    supervisor.stdout.close()
    expected = mark.of(run_id, mark.ceiling(), b"one instance")

    def marked() -> list[int]:
        return [pid for pid in procfs.pids() if mark.read(pid) == expected and alive(pid)]

    # until it has executed its program it still carries the environment of who forked it
    deadline = time.monotonic() + DEADLINE_S
    while not any(procfs.run_of(pid) is None for pid in marked()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    found = marked()
    stranger = LinuxSystem(asyncio.get_running_loop(), adopt=False, salt=b"another instance")
    stranger.sweep([run_id], str(tmp_path))  # finds who carries the run id, and no more
    later = LinuxSystem(asyncio.get_running_loop(), adopt=False, salt=b"one instance")
    later.sweep([new_id()], str(tmp_path))
    assert [pid for pid in found if procfs.run_of(pid) is None and alive(pid)] != []
    deadline = time.monotonic() + DEADLINE_S
    while later.sweep([run_id], str(tmp_path)):
        assert time.monotonic() < deadline
    assert not any(alive(pid) for pid in found)


async def test_who_was_seen_below_a_run_is_remembered_without_mark_and_environment(
    watch: Watch,
) -> None:
    program = """
import os, resource, sys, time
if os.fork() == 0:
    os.setsid()
    os.execve(sys.executable, [sys.executable, "-c", '''
import resource, time
resource.setrlimit(resource.RLIMIT_MSGQUEUE, (0, 0))
print("up", flush=True)
time.sleep(600)'''], {})
sys.stdin.readline()
"""
    process = watch.python(program, tty=True)
    await watch.until(lambda: b"up" in watch.output)
    assert watch.system.sample([process])[process.pid].children == 1
    (child,) = watch.system.members(process)
    watch.system.write(process, b"\n")
    await watch.until(lambda: watch.exits)
    assert [m.pid for m in watch.exits[0].left] == [child.pid]
    await watch.until(lambda: not alive(child.pid))


async def test_a_number_that_is_anothers_now_is_never_killed(watch: Watch) -> None:
    stranger = watch.run("sleep", "600")
    entry = procfs.stat(stranger.pid)
    assert entry is not None
    earlier = entry._replace(started=entry.started - 1)
    kin = tree.Kin(b"")
    kin.remember("old-run", [earlier])
    assert list(kin.remembered("old-run")) == []
    assert tree.Hunt(kin, "old-run").step([earlier]) == (0, True)
    assert not tree.kill(earlier.pid, earlier.started)
    assert alive(stranger.pid)
    state = procfs.stat(stranger.pid)
    assert state is not None
    assert state.state != "T"


def test_marks_name_runs_and_no_stranger() -> None:
    top = mark.ceiling()
    marks = {mark.of(new_id(), top, b"") for _ in range(2000)}
    assert len(marks) == 2000
    assert None not in marks
    assert mark.read(os.getpid()) not in marks
    assert all(m is not None and top - 2 * mark.SPAN < m[0] < m[1] < top for m in marks)
    assert mark.of("run", mark.FREE, b"") is None


async def test_a_fork_bomb_that_hides_is_stopped_and_killed_in_short_steps(watch: Watch) -> None:
    counter = watch.folder / "counter"
    process = watch.python(BOMB, str(counter), "1200")
    neighbour = watch.run("sleep", "600")
    await watch.until(lambda: counter.exists() and counter.stat().st_size > 100)
    longest = 0.0
    deadline = time.monotonic() + DEADLINE_S
    while True:
        began = time.thread_time()
        found = watch.system.kill_tree(process)
        longest = max(longest, time.thread_time() - began)
        if not found:
            break
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    assert longest < 0.5  # the steps themselves are of 30 ms
    assert alive(neighbour.pid)
    await watch.until(lambda: len(watch.exits) == 1)
    await watch.dead(process)  # a step that ran out of its 30 ms says 1, too


async def test_a_crowd_that_a_run_leaves_behind_is_told_in_part_and_ended_in_steps(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    took: list[float] = []
    ended = LinuxSystem._ended  # pyright: ignore[reportPrivateUsage]

    def timed(system: LinuxSystem, process: linux.LinuxProcess) -> None:
        began = time.thread_time()
        ended(system, process)
        took.append(time.thread_time() - began)

    monkeypatch.setattr(LinuxSystem, "_ended", timed)
    neighbour = watch.run("sleep", "600")
    process = watch.python(LEAVER, "700")
    await watch.until(lambda: watch.exits)
    (exit_,) = watch.exits
    assert 1 < len(exit_.left) <= linux.LEFT_TOLD
    assert max(took) < 0.5  # two steps of 30 ms each
    await watch.until(lambda: watch.system.counters.leftovers_killed >= 700)
    await watch.dead(process)
    assert alive(neighbour.pid)


async def test_a_crowd_of_children_is_counted_to_the_last(watch: Watch) -> None:
    process = watch.python(CROWD, "900")
    await watch.until(lambda: b"up" in watch.output)
    # the kernel tells some 700 children per read
    assert watch.system.sample([process])[process.pid].children == 900
    await watch.dead(process)


async def test_a_child_that_a_thread_of_ours_waits_for_is_not_reaped(watch: Watch) -> None:
    lineage = watch.system._lineage  # pyright: ignore[reportPrivateUsage]
    with subprocess.Popen(["sh", "-c", "exit 3"]) as asked:
        stacks.WAITED.add(asked.pid)
        os.waitid(os.P_PID, asked.pid, os.WEXITED | os.WNOWAIT)
        lineage.reap()
        stacks.WAITED.discard(asked.pid)
        assert asked.wait(30) == 3
    with stacks.STARTING:
        assert lineage.reap() == 0


async def test_what_has_ended_is_not_remembered(watch: Watch) -> None:
    process = watch.run("sleep", "600")
    watch.system.sample([process])
    kin = watch.system._lineage.kin  # pyright: ignore[reportPrivateUsage]
    before = kin.size
    ended = procfs.Stat(2**22, b"ended", "S", process.pid, 1, 1, 0, 0.0, 0.0, 1, 1, 4096, 4096)
    for number in range(1, 500):
        kin.remember(process.run_id, [ended._replace(started=number, pid=ended.pid + number)])
        kin.remember(f"run {number}", [ended._replace(started=number)])
        kin.enrol(f"run {number}")
        kin.alias(f"part of run {number}", f"run {number}")
    assert kin.size > before + 1500
    watch.system.sample([process], light=True)
    watch.system.sample([process])
    assert kin.size == before
    assert kin.mark_of(process.run_id) is not None


# -- where a process stands ----------------------------------------------------------------------


async def test_threads_are_told_with_what_they_wait_in(watch: Watch) -> None:
    program = """
import socket, threading, time
server = socket.create_server(("127.0.0.1", 0))
a, b = socket.socketpair()
lock = threading.Lock(); lock.acquire()
threading.Thread(target=lock.acquire, daemon=True).start()
near = socket.create_connection(server.getsockname())
print(server.getsockname()[1], flush=True)
time.sleep(600)
"""
    process = watch.python(program)
    await watch.until(lambda: b"\n" in watch.output)
    port = int(watch.output)

    def settled() -> bool:
        first, *others = watch.system.standing(process).threads
        return ("sleep" in first or "select" in first) and "futex" in " ".join(others)

    await watch.until(settled)
    standing = watch.system.standing(process)
    assert standing.state == "S"
    assert standing.waits_in
    assert len(standing.threads) == 2
    assert "nanosleep" in standing.threads[0] or "select" in standing.threads[0]
    assert f"tcp 127.0.0.1:{port} LISTEN" in standing.sockets
    assert any(s.endswith(f"→ 127.0.0.1:{port} ESTABLISHED") for s in standing.sockets)
    assert "unix" in standing.sockets
    assert not watch.system.reads_terminal(process)


READS = {
    "input": "input('name? ')",
    "readline": "import readline; input('name? ')",
    "a child at /dev/tty": (
        "import subprocess; subprocess.run(['sh', '-c', 'printf name?; read x < /dev/tty'],"
        " stdin=subprocess.DEVNULL)"
    ),
    "select": "import select, sys; print('name?', flush=True); select.select([sys.stdin], [], [])",
    "poll": (
        "import select; p = select.poll(); p.register(0, select.POLLIN);"
        " print('name?', flush=True); p.poll()"
    ),
    "epoll": (
        "import os, select, socket; a, b = socket.socketpair(); e = select.epoll();"
        " e.register(0, select.EPOLLIN); e.register(a, select.EPOLLIN);"
        " print('name?', flush=True); e.poll()"
    ),
    "a thread": (
        "import threading, time; threading.Thread(target=input, args=('name? ',), daemon=True).start();"
        " time.sleep(600)"
    ),
}

WORKS = {
    "sleep": "import time; print('name?', flush=True); time.sleep(600)",
    "a server on pipes": (
        "import subprocess; print('name?', flush=True); subprocess.run(['cat'],"
        " stdin=subprocess.Popen(['sleep', '600'], stdout=subprocess.PIPE).stdout)"
    ),
    "a shell behind its own terminal": (
        "import os, pty, time\nprint('name?', flush=True)\npid, fd = pty.fork()\n"
        "if pid == 0: os.execvp('cat', ['cat'])\ntime.sleep(600)"
    ),
    "the network beside the keyboard": (
        "import select, socket; s = socket.create_server(('127.0.0.1', 0)); e = select.epoll();"
        " e.register(0, select.EPOLLIN); e.register(s, select.EPOLLIN);"
        " print('name?', flush=True); e.poll()"
    ),
    "writing is possible": (
        "import select, socket; a, b = socket.socketpair(); p = select.poll();"
        " p.register(0, select.POLLPRI); p.register(a, select.POLLIN);"
        " print('name?', flush=True); p.poll()"
    ),
}


@pytest.mark.parametrize("program", READS.values(), ids=READS)
async def test_whoever_waits_for_the_keyboard_is_seen(watch: Watch, program: str) -> None:
    process = watch.python(program, tty=True)
    await watch.until(lambda: b"name?" in watch.output)
    await watch.until(lambda: watch.system.reads_terminal(process))


@pytest.mark.parametrize("program", WORKS.values(), ids=WORKS)
async def test_whoever_works_is_not_taken_for_waiting(watch: Watch, program: str) -> None:
    process = watch.python(program, tty=True)
    await watch.until(lambda: b"name?" in watch.output)
    until = time.monotonic() + 0.4
    while time.monotonic() < until:
        assert not watch.system.reads_terminal(process)
        await asyncio.sleep(0.05)


# -- behind walls --------------------------------------------------------------------------------


def _walls() -> list[str] | None:
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        return None
    walls = [bwrap, "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--unshare-pid"]
    tried = subprocess.run([*walls, "true"], capture_output=True, check=False)
    return walls if tried.returncode == 0 else None


WALLS = _walls()
walled = pytest.mark.skipif(WALLS is None, reason="bubblewrap does not work here")

INSIDE = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (print("asked", flush=True), sys.exit(7)))
print("up", flush=True)
time.sleep(600)
"""


@walled
@pytest.mark.parametrize("extra", [(), ("--die-with-parent", "--new-session")], ids=["", "session"])
async def test_who_is_behind_walls_is_asked_and_the_walls_are_not(
    watch: Watch, extra: tuple[str, ...]
) -> None:
    assert WALLS is not None
    process = watch.run(*WALLS, *extra, sys.executable, "-c", INSIDE, walled=True)
    await watch.until(lambda: b"up" in watch.output)
    sample = watch.system.sample([process])[process.pid]
    assert (sample.children, sample.threads) == (0, 1)
    assert watch.system.members(process) == []
    assert watch.system.standing(process).threads[0].startswith("python")
    assert watch.system.signal(process, signal.SIGTERM)
    await watch.until(lambda: watch.exits)
    assert b"asked" in watch.output
    assert watch.exits == [Exit(7, None)]


@walled
async def test_a_signal_behind_walls_is_told_as_a_signal(watch: Watch) -> None:
    assert WALLS is not None
    process = watch.run(*WALLS, "sh", "-c", "echo up; sleep 600; true", walled=True)
    await watch.until(lambda: b"up" in watch.output)
    await watch.until(lambda: watch.system.sample([process])[process.pid].children == 1)
    assert watch.system.signal_one(process, signal.SIGABRT)
    await watch.until(lambda: watch.exits)
    assert (watch.exits[0].code, watch.exits[0].signal) == (None, signal.SIGABRT)


@walled
async def test_the_walls_fall_with_all_that_is_behind_them(watch: Watch) -> None:
    assert WALLS is not None
    process = watch.run(*WALLS, sys.executable, "-c", DAEMON, "live", walled=True)
    await watch.until(lambda: b"up" in watch.output)
    inside = [m.pid for m in watch.system.members(process)]
    assert len(inside) == 1
    below = procfs.below(process.pid)
    await watch.dead(process)
    await watch.until(lambda: watch.exits)
    assert not any(alive(pid) for pid in (*inside, *below))
