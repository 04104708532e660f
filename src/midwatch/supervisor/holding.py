"""Suspend, resume and kill where the gateway carries an agent's calls: what is told to whom first, and the words.

Suspend: the gateway refuses first, then the agent counts as suspended. Resume: the gateway lets through first, or an
agent that goes on is refused once more. Kill: calls are cut before the processes die, or they would look like clients
that left.
"""

from __future__ import annotations

from midwatch.core import units
from midwatch.core.errors import LinkError
from midwatch.core.states import State
from midwatch.supervisor.keeper import Keeper
from midwatch.supervisor.switchboard import GatewayNo, Switchboard


class Holding:
    """The holds of one node's agents. `board` None: no gateway carries calls here."""

    def __init__(self, board: Switchboard | None) -> None:
        self._board = board

    async def suspend(self, keeper: Keeper, reason: str, by: str) -> str | None:
        """Refuse an agent's calls and leave its process: None when that is done, else why the process has to be
        stopped for it (nothing when no gateway is here)."""
        board = self._board
        if board is None:
            return ""
        with board.about(keeper.name):
            try:
                await board.hold(keeper.name, reason, by)
            except (LinkError, GatewayNo) as error:
                return f"its process was stopped, since the gateway does not answer ({error})"
            past = board.past(keeper.name)
            if past and keeper.run is not None:
                names = ", ".join(dict.fromkeys(one.variable for one in past))
                return f"its process was stopped, since its calls with {names} go past the gateway"
            if keeper.run is not None and keeper.run.wish is not None:
                return "its process was ending"
            keeper.suspend(reason)
            return None

    async def resume(self, keeper: Keeper, why: str) -> str:
        """Let an agent go on, or start it."""
        if keeper.state is State.PARKED:
            return "it is parked, not suspended; start it when it is repaired"
        if keeper.state is not State.SUSPENDED:
            later = await self.free(keeper)  # the gateway may hold it, and we not know yet
            return f"not suspended: {keeper.state}{later}"
        lives = keeper.run is not None
        if self._board is None:
            keeper.resume(why)
            return "resumed" if keeper.run else keeper.reason
        with self._board.about(keeper.name):
            later = await self.free(keeper)
            if keeper.state is State.SUSPENDED:
                keeper.resume(why)
        if keeper.run is None:
            return keeper.reason
        return f"resumed{'; its process goes on' if lives else ''}{later}"

    async def free(self, keeper: Keeper) -> str:
        """Let the gateway lift what holds an agent; return what still keeps its calls from it, to be added."""
        problem = "" if self._board is None else await self._board.lift(keeper.name)
        return f"; {problem}" if problem else ""

    async def kill(self, keeper: Keeper, by: str) -> str:
        """Cut an agent's calls and refuse new ones; return what that came to, to be added."""
        if self._board is None:
            return ""
        receipt = await self._board.kill(keeper.name, f"killed by {by}", by)
        if receipt is None:
            return (
                "; the gateway does not answer: it refuses the agent's calls as soon as it is back"
            )
        calls = "1 call" if receipt.calls_cut == 1 else f"{receipt.calls_cut} calls"
        cost = f" after {units.show_money(receipt.settled_nusd)}" if receipt.settled_nusd else ""
        past = ", ".join(dict.fromkeys(one.variable for one in self._board.past(keeper.name)))
        beside = f"; calls with {past} went past the gateway" if past else ""
        return f"; {calls} cut{cost}{beside}"

    async def elsewhere(self, agent: str, do: str, by: str) -> tuple[str, str] | None:
        """Carry out an order on an agent whose calls the gateway knows and whose process is not ours: a sub-agent,
        or one that others start. Return result and state; None when the order is not for the gateway."""
        board = self._board
        if board is None:
            return None
        try:
            match do:
                case "suspend":
                    await board.hold(agent, f"suspended by {by}", by)
                    return "suspended; its calls are refused", "suspended"
                case "resume":
                    problem = await board.lift(agent)
                    return ("resumed" + (f"; {problem}" if problem else ""), "running")
                case "kill":
                    receipt = await board.kill(agent, f"killed by {by}", by)
                    calls = (
                        "its calls are refused as soon as the gateway, which does not answer, is back"
                        if receipt is None
                        else f"its calls are refused ({receipt.calls_cut} cut)"
                    )
                    return f"{calls}; its process is not ours to end", "suspended"
                case _:
                    return None
        except (LinkError, GatewayNo) as error:
            return f"not done: {error}", ""
