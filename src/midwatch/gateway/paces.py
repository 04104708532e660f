"""What is remembered of each agent's calls, to tell a loop: of the agent's own, of each of its sub-agents', and of
all of them together.

Sub-agents' names are the client's to choose, so that none of them may cost anybody else anything: of a tree at most
`MAX_BELOW` are known one by one, what its others do is counted as one agent's, and a name that was not used for long
makes room within its own tree alone. The tops of trees are signed into keys.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from midwatch.core.calls.judgement import FINE, Judgement, Level
from midwatch.core.calls.pace import REQUESTS_S, Pace
from midwatch.core.sealed import sealed
from midwatch.core.terms import Loop
from midwatch.gateway.carried import Carried
from midwatch.gateway.settings import Settings

MAX_TREES: Final = 5_000
"""Agents whose pace is known; the one that called least recently goes first."""

MAX_BELOW: Final = 100
"""Sub-agents of one agent whose pace is known one by one."""

WHOLE: Final = "*"
OTHERS: Final = "~"
"""Below an agent's name, where no sub-agent can be: the whole tree, and the sub-agents that have no pace of their
own."""


@sealed
class Seen:
    """What a call shows, and who is to be held for it."""

    judged: Judgement = FINE
    agent: str = ""
    action: str = ""
    """`loop.action` of the fleet file."""


FINE_SO_FAR: Final = Seen()


@dataclass(slots=True)
class _Tree:
    own: Pace
    whole: Pace | None = None
    """Since a sub-agent was first seen."""
    below: dict[str, Pace] = field(default_factory=dict[str, Pace])
    """The one that called least recently first."""
    others: Pace | None = None


class Paces:
    """The paces of all agents of one process."""

    def __init__(
        self,
        settings: Callable[[], Settings],
        usual: Callable[[str], Mapping[str, Any] | None] = lambda _: None,
    ) -> None:
        """`usual`: what is known of an agent from before (`Pace.to_json`)."""
        self.usual = usual
        self._settings = settings
        self._trees: dict[str, _Tree] = {}

    def asked(self, call: Carried, now: float) -> Seen:
        """Judge a call before it is made, by what it repeats and adds. Its agent must have a name."""
        whole, own = self._of(call, now)
        if whole is not None:
            judged = whole.asked_within(call.ask, now)
            if judged.level is not Level.FINE:
                own.asked(call.ask, now, whole)
                return _of_tree(call, whole, judged)
        judged = own.asked(call.ask, now, whole)
        return FINE_SO_FAR if judged is FINE else Seen(judged, call.payer.agent, own.loop.action)

    def unasked(self, call: Carried, now: float) -> None:
        """The call was not answered for no fault of its own, so that asking again repeats nothing."""
        for pace in self._of(call, now):
            if pace is not None:
                pace.unasked(call.ask)

    def settled(
        self, call: Carried, tokens: int, cost_nusd: int, now: float, *, in_vain: bool = False
    ) -> Seen:
        """Judge a call when its usage is known, by the pace of the running window. `in_vain`: it got no answer."""
        whole, own = self._of(call, now)
        if not in_vain:
            own.answered(call.ask, whole)
        judged = own.settled(tokens, cost_nusd, now)
        if whole is not None:
            of_all = whole.settled(tokens, cost_nusd, now)
            if of_all.level > judged.level:
                return _of_tree(call, whole, of_all)
        return FINE_SO_FAR if judged is FINE else Seen(judged, call.payer.agent, own.loop.action)

    def forgive(self, agent: str) -> None:
        """What an agent and its sub-agents did before they were resumed is not held against them again."""
        top, _, below = agent.partition(":")
        tree = self._trees.get(top)
        if tree is None:
            return
        paces: list[Pace | None] = [tree.others]
        if not below:
            paces += [tree.own, tree.whole]
        under = f"{agent}:"
        paces += [pace for name, pace in tree.below.items() if f"{name}:".startswith(under)]
        for pace in paces:
            if pace is not None:
                pace.forgive()

    def reloaded(self) -> None:
        """Take over what new settings say of loops and paces; what is usual stays known."""
        for top, tree in self._trees.items():
            tree.own = self._renewed(top, tree.own)
            tree.whole = self._renewed(top, tree.whole) if tree.whole is not None else None
            tree.others = self._renewed(top, tree.others) if tree.others is not None else None
            tree.below = {name: self._renewed(name, pace) for name, pace in tree.below.items()}

    def all(self) -> Iterator[tuple[str, Pace]]:
        """Return all that are known, by name."""
        for top, tree in self._trees.items():
            yield top, tree.own
            yield from tree.below.items()
            if tree.whole is not None:
                yield f"{top}:{WHOLE}", tree.whole
            if tree.others is not None:
                yield f"{top}:{OTHERS}", tree.others

    # -- whose -----------------------------------------------------------------------------------

    def _of(self, call: Carried, now: float) -> tuple[Pace | None, Pace]:
        """Return the pace of the whole tree, where it has sub-agents, and the one that is the caller's own."""
        agent = call.payer.agent
        top = agent.partition(":")[0]
        tree = self._trees.pop(top, None)
        if tree is None:
            if len(self._trees) >= MAX_TREES:
                del self._trees[next(iter(self._trees))]
            tree = _Tree(self._made(top, call))
        self._trees[top] = tree
        if agent == top:
            return tree.whole, tree.own
        if tree.whole is None:
            tree.whole = self._made(f"{top}:{WHOLE}", call)
        pace = tree.below.pop(agent, None)
        if pace is None:
            if len(tree.below) >= MAX_BELOW and not _makes_room(tree, now):
                if tree.others is None:
                    tree.others = self._made(f"{top}:{OTHERS}", call)
                return tree.whole, tree.others
            pace = self._made(agent, call)
            pace.at = now
        tree.below[agent] = pace
        return tree.whole, pace

    def _made(self, name: str, call: Carried) -> Pace:
        entry = self._settings().agent(call.payer.entry or call.payer.agent)
        pace = Pace(entry.loop if entry is not None else Loop(), call.calls)
        usual = self.usual(name)
        if usual is not None:
            pace.recall(dict(usual))
        return pace

    def _renewed(self, name: str, pace: Pace) -> Pace:
        settings = self._settings()
        entry, calls = settings.agent(name), settings.calls(name)
        loop = entry.loop if entry is not None else Loop()
        if calls.window == pace.calls.window:
            pace.loop, pace.calls = loop, calls
            return pace
        fresh = Pace(loop, calls)
        fresh.recall(pace.to_json())
        return fresh


def surplus(names: Collection[str], alive: Collection[str], in_all: int) -> list[str]:
    """Return the names of which what is usual is kept no more: of each tree those beyond `MAX_BELOW`, and of all
    those beyond `in_all`; in both, those that are not `alive` go first, and then the oldest. `names`: oldest first.
    """
    in_order = sorted(names, key=lambda name: name in alive)
    trees: dict[str, list[str]] = {}
    for name in in_order:
        trees.setdefault(name.partition(":")[0], []).append(name)
    gone: dict[str, None] = {}
    for tree in trees.values():
        of_tree = [name for name in tree if name.partition(":")[2] not in ("", WHOLE, OTHERS)]
        gone |= dict.fromkeys(of_tree[: max(0, len(of_tree) - MAX_BELOW)])
    left = [name for name in in_order if name not in gone]
    return [*gone, *left[: max(0, len(left) - in_all)]]


def _makes_room(tree: _Tree, now: float) -> bool:
    """Forget the sub-agent that called least recently, when that is long ago; tell whether."""
    oldest = next(iter(tree.below))
    if tree.below[oldest].at > now - REQUESTS_S:
        return False
    del tree.below[oldest]
    return True


def _of_tree(call: Carried, whole: Pace, judged: Judgement) -> Seen:
    said = f"{judged.sentence}, all its sub-agents together"
    evidence = {**judged.evidence, "tree": True}
    shown = Judgement(judged.level, judged.kind, said, evidence)
    return Seen(shown, call.payer.agent.partition(":")[0], whole.loop.action)
