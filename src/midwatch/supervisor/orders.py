"""What a person, a detector or the hub may ask of an agent, and the sentence that answers.

Each order ends in one result: what was done, or why not. An order that is already fulfilled says so
and changes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from midwatch.core import units
from midwatch.core.exits import Wish
from midwatch.core.states import State
from midwatch.supervisor import terminal
from midwatch.supervisor.holding import Holding
from midwatch.supervisor.keeper import Keeper
from midwatch.supervisor.reporter import INSTANCE
from midwatch.supervisor.switchboard import Switchboard

ORDERS: Final = (
    *("start", "stop", "restart", "suspend", "resume", "kill", "seen"),
    *terminal.ORDERS,
)

PATIENCE_S: Final = 25.0
"""How long an order waits for the end of a run; the hub waits 30 s for the reply."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer to an order."""

    result: str
    state: str
    data: dict[str, Any] = field(default_factory=dict[str, Any])
    """What a program needs of the answer; only the orders of `terminal` have any."""


class Orders:
    """Carries out orders on the keepers of this node."""

    def __init__(
        self,
        keepers: Mapping[str, Keeper],
        board: Switchboard | None = None,
        external: Callable[[str], bool] = lambda _: False,
    ) -> None:
        """`external`: whether the fleet file knows an agent that others start."""
        self.obeyed = 0
        self.refused = 0
        self.own: dict[str, Callable[[], Awaitable[Outcome]]] = {}
        """Orders to the instance itself (agent `midwatch`): reload."""
        self.asked: dict[str, Callable[[Mapping[str, Any]], Awaitable[Outcome]]] = {}
        """Those that say more: `gateway`."""
        self._keepers = keepers
        self._external = external
        self._holding = Holding(board)

    async def obey(
        self, agent: str, do: str, by: str = "a person", data: Mapping[str, Any] | None = None
    ) -> Outcome:
        """Carry out one order; `agent` may name all instances (`web` for `web.1`, `web.2`)."""
        if agent == INSTANCE and do in self.own:
            self.obeyed += 1
            return await self.own[do]()
        if agent == INSTANCE and do in self.asked:
            self.obeyed += 1
            return await self.asked[do](data or {})
        keepers = self._named(agent)
        if not keepers and self._known(agent.partition(":")[0]):
            found = await self._holding.elsewhere(agent, do, by)
            if found is not None:
                self.obeyed += 1
                return Outcome(*found)
        if not keepers:
            self.refused += 1
            return Outcome(f"no agent {agent!r} on this node", "")
        if do not in ORDERS:
            self.refused += 1
            return Outcome(f"unknown order {do!r}: one of {', '.join(ORDERS)}", keepers[0].state)
        if do in terminal.ORDERS:
            return await self._at_terminal(keepers, do, data or {}, by)
        self.obeyed += 1
        results = await asyncio.gather(*(self._one(keeper, do, by) for keeper in keepers))
        if len(keepers) == 1:
            return Outcome(results[0], keepers[0].state)
        told = "; ".join(f"{k.name}: {r}" for k, r in zip(keepers, results, strict=True))
        return Outcome(told if len(set(results)) > 1 else results[0], keepers[0].state)

    async def _at_terminal(
        self, keepers: list[Keeper], do: str, data: Mapping[str, Any], by: str
    ) -> Outcome:
        if len(keepers) > 1:
            self.refused += 1
            names = ", ".join(k.name for k in keepers[:5])
            return Outcome(f"several agents; name one: {names}", "", {"why": "several"})
        result, answer = await terminal.carry_out(keepers[0], do, data, by)
        self.refused += "why" in answer
        self.obeyed += "why" not in answer
        return Outcome(result, keepers[0].state, answer)

    def _known(self, top: str) -> bool:
        """Tell whether sub-agents of this one are known here, or it is itself, though nobody here starts it."""
        return top in self._keepers or self._external(top)

    def _named(self, agent: str) -> list[Keeper]:
        if agent in self._keepers:
            return [self._keepers[agent]]
        head, dot = agent + ".", len(agent) + 1
        return [
            k for name, k in self._keepers.items() if name.startswith(head) and name[dot:].isdigit()
        ]

    async def _one(self, keeper: Keeper, do: str, by: str) -> str:
        match do:
            case "start":
                return await self._start(keeper, f"started by {by}")
            case "resume":
                return await self._holding.resume(keeper, f"resumed by {by}")
            case "seen":
                keeper.seen()
                return "seen" if keeper.run else "it does not run"
            case "restart":
                if keeper.run is None or keeper.state is State.SUSPENDED:
                    return await self._start(keeper, f"started by {by}")
                done = await self._end(keeper, Wish.RESTART, f"restarted by {by}")
                return (
                    "restarted" if done and keeper.run else f"still {keeper.state}: {keeper.reason}"
                )
            case "stop":
                return await self._hold(keeper, Wish.STOP, State.STOPPED, f"stopped by {by}")
            case "suspend":
                return await self._suspend(keeper, by)
            case _:
                return await self._kill(keeper, by)

    async def _start(self, keeper: Keeper, why: str) -> str:
        if keeper.state is State.SUSPENDED:
            return "it is suspended; resume it instead"
        if keeper.run is not None:
            return f"already {keeper.state}"
        later = await self._holding.free(keeper)
        if keeper.run is None:
            keeper.release(why)
        return f"started{later}" if keeper.run else keeper.reason

    async def _suspend(self, keeper: Keeper, by: str) -> str:
        """Refuse its calls and leave its process; where that would not stop its calls, stop the process."""
        if keeper.state is State.SUSPENDED:
            return f"already {keeper.state}"
        reason = f"suspended by {by}"
        why_not = await self._holding.suspend(keeper, reason, by)
        if why_not is None:
            return f"suspended{_left(keeper)}"
        said = await self._hold(keeper, Wish.SUSPEND, State.SUSPENDED, reason)
        return f"{said}; {why_not}" if why_not and said == State.SUSPENDED else said

    async def _hold(self, keeper: Keeper, wish: Wish, state: State, reason: str) -> str:
        if keeper.run is None:
            if keeper.state is state:
                return f"already {state}"
            if state is State.STOPPED and keeper.state is State.SUSPENDED:
                reason += ", while suspended"
            keeper.hold(state, reason)
            return state
        if not await self._end(keeper, wish, reason):
            return f"still {keeper.state}: its grace is {units.show_duration(keeper.agent.limits.stop_grace)}"
        return keeper.state

    async def _kill(self, keeper: Keeper, by: str) -> str:
        """Cut its calls and refuse new ones, then end its processes; the receipt says what that came to."""
        run = keeper.run
        cut = await self._holding.kill(keeper, by)
        if keeper.run is None:
            keeper.hold(State.STOPPED, f"killed by {by}")
            return f"killed: it had no process{cut}" if run is None else f"killed{cut}"
        began, pid = asyncio.get_running_loop().time(), keeper.run.process.pid
        children = keeper.run.sample.children if keeper.run.sample else 0
        if not await self._end(keeper, Wish.KILL, f"killed by {by}", kill=True):
            return f"still {keeper.state}{cut}"
        took = asyncio.get_running_loop().time() - began
        return (
            f"killed: pid {pid}"
            + (f" and {children} below it" if children else "")
            + f" gone in {took:.2f} s{cut}"
        )

    async def _end(self, keeper: Keeper, wish: Wish, reason: str, *, kill: bool = False) -> bool:
        over = asyncio.Event()
        keeper.ended.append(over.set)
        keeper.finish(wish, reason, kill=kill)
        try:
            await asyncio.wait_for(over.wait(), PATIENCE_S)
        except TimeoutError:
            return False
        return True


def _left(keeper: Keeper) -> str:
    """Say what became of the process of an agent that is suspended now."""
    return "; its calls are refused, its process is left" if keeper.run is not None else ""
