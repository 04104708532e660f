"""One suite for every implementation of the supervisor's seam to the operating system."""

from __future__ import annotations

import os
import signal
import subprocess
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from midwatch.core.family import Claim
from midwatch.supervisor.machine.fake import FakeSystem
from midwatch.supervisor.machine.system import Exit, StartError
from midwatch.wire.ids import new_id

from .conftest import DEADLINE_S, KINDS, Ground  # noqa: TID252  there is no tests package


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
    # a process that is just made, or just executes another program, has no memory for a moment
    await ground.until(lambda: [m.rss_bytes > 0 for m in ground.system.members(process)] == [True])
    (member,) = ground.system.members(process)
    (seen,) = ground.system.members(process, certain=False)
    assert (seen.pid, seen.started, seen.claim) == (member.pid, member.started, member.claim)
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


async def test_a_sub_agent_that_outlives_its_run_may_be_known_by_its_name(ground: Ground) -> None:
    process = ground.launch("fork; print up; live")
    await ground.until(lambda: b"up" in ground.output)
    name = f"inbox:{new_id()}"
    if isinstance(ground.system, FakeSystem):
        assert ground.system.belongs(process, name, outlive=True)
        assert ground.system.outliving[process.run_id] == {name}
        return
    env = {**os.environ, "MIDWATCH_RUN_ID": process.run_id, "MIDWATCH_AGENT": name}
    with subprocess.Popen(["sleep", "600"], env=env, start_new_session=True) as kept:
        try:
            await ground.until(lambda: kept.pid in carriers(process.run_id))
            assert ground.system.belongs(process, name, outlive=True)
            ground.system.kill_tree(process)
            await ground.until(lambda: bool(ground.exits))
            await ground.until(lambda: ground.system.kill_tree(process) == 0)
            assert carriers(process.run_id) == [kept.pid]
        finally:
            kept.kill()


async def test_a_run_is_nobodys_sub_agent(ground: Ground) -> None:
    one, other = ground.launch("live"), ground.launch("live")
    sub = new_id()
    assert ground.system.belongs(one, sub, outlive=False)
    assert ground.system.belongs(one, sub, outlive=True)  # said again
    for mark, of in ((sub, other), (one.run_id, other), (one.run_id, one)):
        assert not ground.system.belongs(of, mark, outlive=False)


async def test_a_sample_tells_who_says_that_it_is_another_agent(ground: Ground) -> None:
    if isinstance(ground.system, FakeSystem):
        process = ground.launch("live")
        ground.system.add_member(process, claim=Claim("inbox:search"))
    else:
        process = ground.launch("name inbox:search; live")

    def named() -> set[str]:
        sample = ground.system.sample([process]).get(process.pid)
        return {name for _, _, name in sample.named} if sample else set()

    await ground.until(lambda: named() == {"inbox:search"})
    (member,) = [m for m in ground.system.members(process) if m.claim.agent]
    assert member.claim == Claim("inbox:search")


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
