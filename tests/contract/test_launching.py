"""How every implementation of the seam starts a child: its session, its limits, its terminal, its descriptors."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

import pytest

from midwatch.supervisor.machine.system import Caps, Exit, StartError

from .conftest import KINDS, Ground  # noqa: TID252  there is no tests package

real = pytest.mark.parametrize("ground", KINDS[1:], indirect=True)


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
