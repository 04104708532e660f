"""A keeper and its agent's walls: what is told and what is refused, without bubblewrap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from midwatch.core.fleet import Agent, Fleet
from midwatch.core.sandbox import Tools
from midwatch.core.states import State
from midwatch.supervisor.keeper import Keeper
from midwatch.supervisor.machine.sandbox import Walls, look

WHY = "bubblewrap is not installed; install it"


@dataclass
class Fitting:
    root: Path

    @property
    def listen(self) -> Callable[[str], str]:
        return lambda _name: "/nowhere.sock"

    def directory(self, agent: Agent) -> str:
        return str(self.root)

    def env_file(self, agent: Agent) -> Path | None:
        return None


@pytest.fixture
def begun(make: Any, tmp_path: Path) -> Callable[..., Any]:
    """Start an agent with these terms, on a machine that has these tools."""

    def begin(sandbox: dict[str, Any] | None, tools: Tools | str = WHY) -> Any:
        house = make()
        agent = house.keeper.agent.model_copy(update={"sandbox": None})
        if sandbox is not None:
            agent = Agent.model_validate({"command": agent.command, "sandbox": sandbox})
        fleet = Fleet(agents={"inbox": agent}, root=str(tmp_path))
        house.asked = []

        def find(network: str, _data: Path) -> Tools | str:
            house.asked.append(network)
            return tools

        around = house.keeper._around
        around.walls = Walls(tmp_path, lambda: fleet, Fitting(tmp_path), find=find)
        house.keeper = Keeper("inbox", agent, around, house.keeper.capture)
        house.keeper.begin(resumed=False)
        return house

    return begin


def test_no_terms_no_walls_and_nobody_looks_for_tools(begun: Any) -> None:
    house = begun(None)
    assert (house.process.launch.walled, house.asked) == (False, [])
    assert "unwalled" not in house.events("run.started")[0]
    assert begun({"enabled": False, "require": True}).asked == []


def test_where_no_walls_can_be_built_it_runs_and_that_is_told_with_each_run(begun: Any) -> None:
    house = begun({})
    assert house.keeper.state is State.STARTING
    assert house.process.launch.walled is False
    (told,) = house.events("agent.unwalled")
    assert told == {"run_id": house.keeper.run.run_id, "reason": WHY}
    assert house.events("run.started")[0]["unwalled"] == WHY
    house.system.end(house.process, code=1)
    house.system.advance(60.0)
    assert len(house.events("agent.unwalled")) == len(house.system.launched) > 1
    assert [line for line in house.said if "without its sandbox" in line] == [
        f"inbox: runs without its sandbox: {WHY}"
    ]
    assert house.asked == ["on"], "the machine is looked at once"


def test_where_walls_are_required_it_is_parked_with_what_to_do(begun: Any) -> None:
    house = begun({"require": True})
    assert (house.keeper.state, house.system.launched) == (State.PARKED, [])
    assert (
        "sandbox.require: walls cannot be built, so it is not started: bubblewrap is not installed; install it"
        in house.keeper.reason
    )
    assert house.events("agent.unwalled") == []


def test_the_proxy_is_refused_also_where_no_walls_can_be_built(begun: Any) -> None:
    house = begun({"network": "proxy"})
    assert house.keeper.state is State.PARKED
    assert "comes with the guard" in house.keeper.reason


def test_links_are_followed_and_named(tmp_path: Path) -> None:
    real = Path(tmp_path.resolve())
    (real / "a/b").mkdir(parents=True)
    (real / "one").symlink_to("a")
    (real / "two").symlink_to(real / "one/b")
    (real / "round").symlink_to("round")
    assert look(f"{real}/two/../b/./none/x") == look(f"{real}/two/../b/none/x")
    found = look(f"{real}/two")
    assert (found.real, found.kind, found.links) == (
        str(real / "a/b"),
        "directory",
        (f"{real}/two", f"{real}/one"),
    )
    assert (look(f"{real}/one/none").real, look(f"{real}/one/none").kind) == (
        f"{real}/a/none",
        "missing",
    )
    with pytest.raises(Exception, match="circle of symbolic links"):
        look(f"{real}/round")
