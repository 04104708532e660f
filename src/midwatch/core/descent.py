"""Which of a run's processes are which sub-agent, from a look at all of them. Pure.

A sub-agent is a branch of the tree: its own processes and all below them, as far as they are of no
sub-agent below it. Its processes are known by the run id that `mw.spawn` gave them, by having been of it
at an earlier look (pid and start time: a number that is another's by now is nobody), and by their parents.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from midwatch.core.family import Born, Claim


class Relative(Protocol):
    """A process of a run's tree, as far as it tells to which sub-agent it belongs."""

    @property
    def pid(self) -> int: ...
    @property
    def started(self) -> float: ...
    @property
    def parent(self) -> int: ...
    @property
    def age_s(self) -> float: ...
    @property
    def run_id(self) -> str: ...
    @property
    def claim(self) -> Claim: ...


@dataclass(eq=False, slots=True)
class Branch:
    """A sub-agent that is followed, and its place among the others of the run."""

    born: Born
    above: Branch | None
    """The sub-agent that started it; None: the agent itself did."""
    known: set[tuple[int, float]]
    """Its processes at the last look, by pid and start time, without those of branches below it."""

    def line(self) -> Iterator[Branch]:
        """Yield it and all above it, nearest first."""
        at: Branch | None = self
        while at is not None:
            yield at
            at = at.above

    @property
    def own_time(self) -> bool:
        """How long it lives was declared, for it or for one above it."""
        return any(branch.born.own_time for branch in self.line())

    @property
    def mark(self) -> str | None:
        """What its processes carry in their environment, by which they are spared when it outlives its run."""
        if not self.born.claimed:
            return self.born.run_id
        return self.born.agent if self.born.outlive else None


R = TypeVar("R", bound=Relative)
B = TypeVar("B", bound=Branch)


def place(living: Sequence[R], branches: Iterable[B]) -> dict[int, B]:
    """Return by pid the branch that each process is of, the innermost; those of none are left out.

    1. Walk from each process up to one whose branch is known already, or that has no parent here.
    2. Come back down: each is of the innermost of what its parent is of, what its run id names, and
    what it was of before."""
    by_pid = {member.pid: member for member in living}
    by_run: dict[str, B] = {}
    by_process: dict[tuple[int, float], B] = {}
    for branch in branches:
        by_process.update(dict.fromkeys(branch.known, branch))
        if not branch.born.claimed:
            by_run[branch.born.run_id] = branch
    found: dict[int, B | None] = {}
    for member in living:
        path: dict[int, R] = {}
        at: R | None = member
        while at is not None and at.pid not in found and at.pid not in path:
            path[at.pid] = at
            at = by_pid.get(at.parent)
        of = found.get(at.pid) if at is not None else None
        for one in reversed(path.values()):
            of = _inner(of, by_run.get(one.run_id))
            of = found[one.pid] = _inner(of, by_process.get((one.pid, one.started)))
    return {pid: branch for pid, branch in found.items() if branch is not None}


def _inner(of: B | None, other: B | None) -> B | None:
    """Return `other`, unless it is none or `of` is of it."""
    if other is None or (of is not None and any(one is other for one in of.line())):
        return of
    return other


def claimants(
    living: Sequence[R], placed: dict[int, B], carried: Collection[str], given: str
) -> list[tuple[R, B | None]]:
    """Return processes that say in their environment that they are an agent, with the branch that they
    are of now; who stands above comes first.

    Left out: who says what the run itself was `given`, what the branch is called or one above it, or what
    its parent says (it has inherited it); and who does not carry the run (`carried`), for it is another's."""
    by_pid = {member.pid: member for member in living}
    found: list[tuple[R, B | None]] = []
    for member in sorted(living, key=lambda m: (m.claim.agent.count(":"), -m.age_s)):
        name = member.claim.agent
        if name in ("", given) or member.run_id not in carried:
            continue
        of = placed.get(member.pid)
        if of is not None and any(branch.born.agent == name for branch in of.line()):
            continue
        parent = by_pid.get(member.parent)
        if parent is None or parent.claim.agent != name:
            found.append((member, of))
    return found
