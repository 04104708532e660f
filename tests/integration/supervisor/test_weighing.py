"""Directories that belong to one agent, and what they weigh."""

from __future__ import annotations

import asyncio
import errno
import os
import time
from collections.abc import Callable, Generator
from pathlib import Path
from threading import get_ident
from typing import Any

import pytest

from midwatch.core.fleet import Agent, Fleet
from midwatch.supervisor.machine import weighing
from midwatch.supervisor.machine.system import Counters
from midwatch.supervisor.machine.weighing import Scales, allocated, own_directories, owned

MIB = 1024 * 1024


def weigh(steps: Generator[None, None, int | None]) -> int | None:
    """Go through all steps at once."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def test_a_directory_weighs_what_is_allocated_not_what_is_promised(tmp_path: Path) -> None:
    (tmp_path / "full").write_bytes(os.urandom(2 * MIB))
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(5 * 10**9)
    before = weigh(allocated(tmp_path.as_posix()))
    assert before is not None
    assert 2 * MIB <= before < 3 * MIB


def test_hard_links_count_once_and_links_out_of_it_not_at_all(tmp_path: Path) -> None:
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    (outside / "large").write_bytes(os.urandom(4 * MIB))
    (inside / "small").write_bytes(os.urandom(MIB))
    (inside / "again").hardlink_to(inside / "small")
    (inside / "way-out").symlink_to(outside)
    (inside / "loop").symlink_to(inside)
    found = weigh(allocated(inside.as_posix()))
    assert found is not None
    assert MIB <= found < 2 * MIB


def test_every_file_counts_however_many_and_however_deep(tmp_path: Path) -> None:
    """There was a bound of entries once, above which the limit was silently not enforced."""
    deep = tmp_path
    for _ in range(3 * weighing.MAX_OPEN):
        deep = deep / "d"
        for side in "abc":
            (deep / side).mkdir(parents=True)
            (deep / side / "file").write_bytes(b"x" * 10_000)
    expected = sum(
        os.lstat(os.path.join(folder, name)).st_blocks * 512
        for folder, folders, files in os.walk(tmp_path)
        for name in (*folders, *files)
    )
    steps = allocated(tmp_path.as_posix())
    assert next(steps) is None  # others may have their turn in the middle
    assert weigh(steps) == expected
    assert weigh(allocated((tmp_path / "gone").as_posix())) is None


def test_no_descriptor_left_is_no_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(b"x" * 10_000)
    scan = os.scandir

    def refuse(path: str) -> Any:
        if path != tmp_path.as_posix():
            raise OSError(errno.EMFILE, "Too many open files")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert weigh(allocated(tmp_path.as_posix())) is None


def test_of_more_names_than_are_remembered_each_counts_for_its_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weighing, "MAX_LINKED", 0)
    (tmp_path / "file").write_bytes(os.urandom(4 * MIB))
    for number in range(3):
        (tmp_path / f"name-{number}").hardlink_to(tmp_path / "file")
    found = weigh(allocated(tmp_path.as_posix()))
    assert found is not None
    assert 4 * MIB - 4096 <= found <= 4 * MIB + 8192


def test_only_a_directory_of_its_own_is_an_agents(tmp_path: Path) -> None:
    places = {"own": "a", "shared": "b", "sharing": "b", "outer": "c", "inner": "c/d", "all": "."}
    for place in places.values():
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
    whole = {name: str(tmp_path / place) for name, place in places.items() if name != "all"}
    assert owned(whole, [str(tmp_path)]) == {"own": str(tmp_path / "a")}
    # an agent that works in the fleet's directory works where all the others are
    assert owned({"all": str(tmp_path)}, [str(tmp_path)]) == {}
    assert owned({"own": str(tmp_path / "a")}, [str(tmp_path / "a" / "data")]) == {}


def test_an_agent_without_a_directory_in_the_file_has_none(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    agents = {"a": Agent(command=["x"]), "b": Agent(command=["x"], cwd="work")}
    fleet = Fleet(agents=agents, root=str(tmp_path))
    assert own_directories(fleet, str(tmp_path / "data")) == {"b": str(tmp_path / "work")}


def test_whose_directory_is_whose_is_found_out_quickly_for_a_large_fleet(tmp_path: Path) -> None:
    places = {f"a{n}": f"{tmp_path}/work-{n}" for n in range(1500)} | {"in": f"{tmp_path}/work-7/x"}
    began = time.process_time()
    found = owned(places, [])
    assert time.process_time() - began < 5.0
    assert set(places) - set(found) == {"a7", "in"}


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


def scales_of(root: Path, *agents: str) -> Scales:
    fleet = Fleet(agents={name: Agent(command=["x"], cwd=name) for name in agents}, root=str(root))
    return Scales(asyncio.get_running_loop(), lambda: fleet, str(root / "data"), Counters())


async def test_weighing_happens_aside_and_is_told_in_the_loop(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(os.urandom(MIB))
    scales = scales_of(tmp_path, "a")
    found: dict[str, tuple[int | None, int]] = {}
    for name in ("a", "nobody"):
        scales.weigh(name, lambda used, name=name: found.update({name: (used, get_ident())}))
    assert found == {}
    await until(lambda: len(found) == 2)
    scales.close()
    used, thread = found["a"]
    assert thread == get_ident()
    assert used is not None
    assert used >= MIB
    assert found["nobody"] == (None, get_ident())


async def test_more_directories_than_are_measured_at_a_time_are_all_measured(
    tmp_path: Path,
) -> None:
    names = [f"agent-{number}" for number in range(3 * weighing.MAX_WALKS)]
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"x" * 10_000)
    scales = scales_of(tmp_path, *names)
    found: list[int | None] = []
    for name in names:
        scales.weigh(name, found.append)
    await until(lambda: len(found) == len(names))
    scales.close()
    assert len(set(found)) == 1
    assert found[0]


async def test_a_large_directory_keeps_no_small_one_waiting_nor_the_end(tmp_path: Path) -> None:
    """The large one has no end at all here: it grows while it is measured."""
    for name in ("large", "small"):
        (tmp_path / name).mkdir()
        for number in range(2_000 if name == "large" else 3):
            (tmp_path / name / str(number)).touch()
    scales = scales_of(tmp_path, "large", "small")
    found: list[str] = []

    def again(_used: int | None) -> None:
        scales.weigh("large", again)

    for _ in range(weighing.MAX_WALKS - 1):
        scales.weigh("large", again)
    scales.weigh("small", lambda _: found.append("small"))
    await until(lambda: found)
    scales.close()
