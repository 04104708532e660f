"""Directories that belong to one agent, and what they weigh."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

from midwatch.core.fleet import Agent, Fleet
from midwatch.supervisor.machine.weighing import Scales, allocated, own_directories, owned

MIB = 1024 * 1024


def test_a_directory_weighs_what_is_allocated_not_what_is_promised(tmp_path: Path) -> None:
    (tmp_path / "full").write_bytes(os.urandom(2 * MIB))
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(5 * 10**9)
    before = allocated(tmp_path.as_posix())
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
    found = allocated(inside.as_posix())
    assert found is not None
    assert MIB <= found < 2 * MIB


def test_too_many_entries_are_no_measurement(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / str(number)).touch()
    assert allocated(tmp_path.as_posix(), most=19) is None
    assert allocated(tmp_path.as_posix(), most=20) is not None
    assert allocated((tmp_path / "gone").as_posix()) is None


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


def test_weighing_happens_aside_and_is_told_in_the_loop(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(os.urandom(MIB))
    told = threading.Event()
    calls: list[Callable[[], None]] = []
    found: list[int | None] = []

    def soon(act: Callable[[], None]) -> None:
        calls.append(act)
        told.set()

    scales = Scales(lambda: {"a": str(tmp_path)}, soon)
    scales.weigh("a", found.append)
    scales.weigh("nobody", found.append)
    assert told.wait(10)
    scales.close()
    assert found == []
    calls[0]()
    assert len(calls) == len(found) == 1
    assert found[0] is not None
    assert found[0] >= MIB
