"""How detectors are made and found: Facts in, a verdict out.

A detector is a pure function of one frozen `Facts`. It lives in a file of its own under
`core/detectors`, says with `@detector(kind, on=…)` which items wake it, and knows no other detector.
`load()` finds them all; the watch calls those that an item wakes.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from types import ModuleType
from typing import Any, Final

from midwatch.core.fleet import Agent
from midwatch.core.incident import Clear, Finding
from midwatch.core.loop import Cycle
from midwatch.core.outlay import Outlay
from midwatch.wire.items import Item, Kind

MIDWATCH: Final = "midwatch"
"""The agent's name in items that speak of Midwatch itself."""

OVERDUE: Final = "overdue"
"""Wakes detectors when the hub finds an agent's beat overdue; there is no item then."""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a detector may know. Times are Unix seconds.

    `agent` to `last_beat_at` describe the agent after the item was taken into the view.
    """

    agent: str
    item: Item
    """The item that woke the detector; `{}` for OVERDUE. Not to be changed."""
    now: float
    config: Agent
    zone: tzinfo = UTC
    state: str | None = None
    state_at: float | None = None
    state_before: str | None = None
    """The state before this item, when this item changed it."""
    managed: bool = False
    """True when a supervisor answers for this agent."""
    declared: bool = True
    """True when the fleet file names this agent."""
    last_beat_at: float | None = None
    beat_due_at: float | None = None
    """When the next beat is overdue; None when none is expected by the hub."""
    cycle: Cycle | None = None
    """The item as a judged cycle, when it is a beat (or tells of an open cycle)."""
    open_kinds: Mapping[str, float] = field(default_factory=dict[str, float])
    """This agent's open incidents: kind → when its last finding was seen."""
    run_id: str | None = None
    ended: Item | None = None
    """The agent's newest `run.ended`."""
    spent_nusd: int = 0
    """Cost of the runaway cycles in a row, up to this one."""
    calm_cycles: int = 0
    """Cycles in a row, up to this one, that were not runaways."""
    outlay: Outlay | None = None
    """Its calls that the gateway carried."""
    progress_at: float | None = None
    """When it last got something done, by its own word; None when it never says what it gets done."""
    open_evidence: Mapping[str, Mapping[str, Any]] = field(
        default_factory=dict[str, "Mapping[str, Any]"]
    )
    """Evidence of this agent's open incidents, by kind."""

    @property
    def data(self) -> dict[str, Any]:
        """The event's `data`, or an empty object."""
        data = self.item.get("data")
        return data if isinstance(data, dict) else {}  # pyright: ignore[reportUnknownVariableType]


Verdict = Finding | Clear | None
Judge = Callable[[Facts], Verdict]


@dataclass(frozen=True, slots=True)
class Detector:
    """One registered detector."""

    kind: str
    on: frozenset[str]
    """What wakes it: item kinds (`beat`, `run`, `sample`), event kinds (`run.ended`), or OVERDUE."""
    judge: Judge = field(compare=False)


def detector(kind: str, *, on: Sequence[str]) -> Callable[[Judge], Detector]:
    """Make the function below a detector of `kind`, woken by `on`."""

    def register(judge: Judge) -> Detector:
        return Detector(kind, frozenset(on), judge)

    return register


def load(package: ModuleType | None = None) -> dict[str, Detector]:
    """Return the detectors of all modules in `package` (default `core.detectors`), by kind.

    Raises ValueError for a module without a detector and for two detectors of one kind.
    """
    if package is None:
        package = importlib.import_module("midwatch.core.detectors")
    found: dict[str, Detector] = {}
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda i: i.name):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        own = [value for value in vars(module).values() if isinstance(value, Detector)]
        if not own:
            raise ValueError(f"{module.__name__} holds no detector; decorate one with @detector")
        for one in own:
            if one.kind in found:
                raise ValueError(f"two detectors are called {one.kind!r}; give each its own kind")
            found[one.kind] = one
    return found


def by_wake(detectors: dict[str, Detector]) -> dict[str, tuple[Detector, ...]]:
    """Return the detectors by what wakes them, so that an item costs only those it concerns."""
    wakes: dict[str, list[Detector]] = {}
    for one in detectors.values():
        for wake in one.on:
            wakes.setdefault(wake, []).append(one)
    return {wake: tuple(some) for wake, some in wakes.items()}


def wake_of(kind: Kind, item: Item) -> str:
    """Return what an item wakes: its event kind for events, else its item kind.

    Event kinds without a dot are an agent's own words and wake nothing.
    """
    if kind is not Kind.EVENT:
        return kind.value
    name = str(item.get("kind", ""))
    return name if "." in name else ""
