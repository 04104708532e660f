"""When runs are sampled, and what is told of the machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from midwatch.core.fleet import Agent
from midwatch.core.terms import Limits
from midwatch.supervisor.machine.child import unwrap
from midwatch.supervisor.machine.fake import FakeSystem
from midwatch.supervisor.machine.launching import nice_of
from midwatch.supervisor.machine.system import Host, Launch, Sample
from midwatch.supervisor.reporter import INSTANCE, Reports
from midwatch.supervisor.sampling import Sampling
from midwatch.wire.items import Item, Kind


class Kept:
    """What a sampling knows of a keeper."""

    def __init__(self, system: FakeSystem, name: str, limits: Limits) -> None:
        system.programs[name] = []
        launch = Launch([name], {}, "/", name, lambda _: None, lambda _: None)
        self.run = Run(system.spawn(launch), name)
        self.agent = Agent(command=[name], limits=limits)
        self.regular: list[Sample | None] = []
        self.light: list[Sample] = []

    def sampled(self, sample: Sample | None) -> None:
        self.regular.append(sample)

    def glanced(self, sample: Sample) -> None:
        self.light.append(sample)


class Run:
    def __init__(self, process: Any, run_id: str) -> None:
        self.process = process
        self.run_id = run_id


class Room:
    def __init__(self) -> None:
        self.system = FakeSystem()
        self.items: list[tuple[Kind, Item]] = []
        self.after = 0
        self.keepers: dict[str, Any] = {}

    def submit(self, kind: Kind, item: Item) -> bool:
        self.items.append((kind, item))
        return True

    def hasten(self) -> None:
        pass

    def sampling(self, **limits: Limits) -> Sampling:
        self.keepers = {n: Kept(self.system, n, each) for n, each in limits.items()}
        return Sampling(self.system, self.keepers, Reports(self, "one"), "/data", self._count)

    def _count(self) -> None:
        self.after += 1


@pytest.fixture
def room() -> Room:
    return Room()


FREE = Limits(memory=None, processes=None)


def test_a_regular_sample_is_told_to_every_keeper_and_the_machine_to_the_hub(room: Room) -> None:
    sampling = room.sampling(inbox=FREE, idle=FREE)
    room.keepers["idle"].run = None
    room.system.machine = Host(memory_free_bytes=5, load_1m=0.5, disk_free_bytes=0)
    sampling.regular()
    assert [s.children for s in room.keepers["inbox"].regular] == [0]
    assert room.keepers["idle"].regular == [None]
    assert (room.system.passes, room.after) == (["full"], 1)
    ((kind, item),) = room.items
    told = {name: value for name, value in item.items() if name not in ("id", "at")}
    assert (kind, told) == (
        Kind.SAMPLE,
        {
            "agent": INSTANCE,
            "host_memory_free_bytes": 5,
            "host_load_1m": 0.5,
            "host_disk_free_bytes": 0,
        },
    )


def test_a_light_look_is_for_those_alone_whom_nobody_else_holds(room: Room) -> None:
    limits = {
        "free": FREE,
        "memory": Limits(memory=1000, processes=None),
        "many": Limits(memory=None, processes=5),
    }
    sampling = room.sampling(**limits)
    sampling.light()
    assert {name: len(k.light) for name, k in room.keepers.items()} == {
        "free": 0,
        "memory": 1,
        "many": 1,
    }
    assert room.system.passes == ["light"]
    room.system.held |= {"memory": "cgroup", "processes": "cgroup"}
    room.sampling(**limits).light()
    assert room.system.passes == ["light"]  # the kernel holds them: nobody is looked at


def test_a_run_whose_cgroup_failed_is_looked_at_among_those_that_the_kernel_holds(
    room: Room,
) -> None:
    room.system.held |= {"memory": "cgroup", "processes": "cgroup"}
    sampling = room.sampling(held=Limits(memory=1000), failed=Limits(memory=1000), free=FREE)
    room.keepers["failed"].run.process.held["memory"] = "sampling"
    room.keepers["free"].run.process.held["memory"] = "sampling"
    sampling.light()
    assert {name: len(k.light) for name, k in room.keepers.items()} == {
        "held": 0,
        "failed": 1,
        "free": 0,
    }


def test_who_uses_what_it_used_is_not_judged_again(room: Room) -> None:
    sampling = room.sampling(inbox=Limits(memory=1000))
    keeper = room.keepers["inbox"]
    for rss in (100, 100, 100, 200, 200):
        keeper.run.process.rss_bytes = rss
        sampling.light()
    assert [s.rss_bytes for s in keeper.light] == [100, 200]
    keeper.run.run_id = "the next"
    sampling.light()
    assert len(keeper.light) == 3


def test_a_run_that_ended_meanwhile_is_not_told(room: Room) -> None:
    sampling = room.sampling(inbox=Limits(memory=1000))
    keeper = room.keepers["inbox"]
    room.system.end(keeper.run.process, code=0)
    sampling.light()
    sampling.regular()
    assert (keeper.light, keeper.regular) == ([], [None])


@pytest.mark.parametrize(
    ("counts", "swarms"),
    [([200, 230, 260, 290], False), ([200, 301], True), ([None, 5000], False), ([900, 200], False)],
    ids=["grows", "sudden", "first", "shrinks"],
)
def test_a_sudden_crowd_calls_for_a_look(
    room: Room, counts: list[int | None], swarms: bool
) -> None:
    sampling = room.sampling(inbox=Limits(processes=5))
    found: list[bool] = []
    for count in counts:
        room.system.machine = Host(processes=count)
        found.append(sampling._swarms())  # pyright: ignore[reportPrivateUsage]
    assert any(found) is swarms


def test_a_weight_is_worth_the_nice_value_of_the_same_share() -> None:
    assert [nice_of(w) for w in (100, 80, 125, 10, 1000, 1, 10_000)] == [0, 1, -1, 10, -10, 19, -20]


@pytest.mark.parametrize(
    ("code", "walled", "told"),
    [
        (143, True, (None, 15)),
        (143, False, (143, None)),
        (1, True, (1, None)),
        (128, True, (128, None)),
        (255, True, (255, None)),
    ],
)
def test_the_exit_code_of_walls_is_read_as_their_inmates_signal(
    code: int, walled: bool, told: tuple[int | None, int | None]
) -> None:
    unwrapped: Callable[..., tuple[int | None, int | None]] = unwrap
    assert unwrapped(code, walled=walled) == told
