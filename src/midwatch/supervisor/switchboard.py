"""The supervisor's line to the gateway: whose calls are refused, which runs are over, what the file says now.

Orders are told at once; what could not be told is told when the gateway is back, with all runs that live: every
other key is over then, also one whose end was never told. Both are compared each second, and at once when a run has ended: the gateway may have held an agent by itself, and a gateway that was
started anew with its files gone must not let a suspended one call (`core.calls.holding`).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

from midwatch.core.calls.holding import Mend, mend
from midwatch.core.calls.variables import Past
from midwatch.core.errors import LinkError
from midwatch.core.exits import Wish
from midwatch.core.states import State
from midwatch.supervisor import http
from midwatch.supervisor.keeper import HOLDS, Keeper
from midwatch.supervisor.run import Run

COMPARE_S: Final = 1.0
"""How often what is held here and there is compared."""

PATIENCE_S: Final = 2.0
"""How long one answer of the gateway is waited for; a kill waits for its streams, which are cut within a second."""

MAX_UNTOLD: Final = 2_000
"""Beginnings and ends of runs that wait for a gateway that is away; the oldest is dropped, and counted."""

OUTLIVE_S: Final = 86_400.0
"""How long the key of a run is good whose sub-agents may outlive it."""

BY: Final = "supervisor"

_RESTING: Final = frozenset({State.STOPPED, State.PARKED})

Json = dict[str, Any]


class GatewayNo(Exception):
    """The gateway answered, and refused. `status` and its words."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the kill switch did at the gateway."""

    calls_cut: int
    settled_nusd: int
    still_ending: int = 0


class Switchboard:
    """The line to one gateway. Used in the loop's thread."""

    def __init__(
        self,
        url: str | None,
        token: str,
        keepers: Mapping[str, Keeper],
        past: Callable[[str], list[Past]],
        say: Callable[[str], None],
    ) -> None:
        """`url` None: no gateway carries calls here. `past`: an agent's calls that go past it."""
        self.failures = 0
        self.untold_dropped = 0
        self.past = past
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"}
        self._keepers = keepers
        self._say = say
        self._untold: deque[tuple[str, Json]] = deque()
        self._alive: dict[str, set[str]] = {}
        """Agent → its runs, of which there may be two while a reload replaces it."""
        self._knows_alive = False
        """The gateway was told which runs live since we last came into contact."""
        self._owed: set[str] = set()
        """Agents whose hold is to be lifted when the gateway is back."""
        self._busy: set[str] = set()
        """Agents that an order is about now: they differ for a moment, and rightly."""
        self._touched: dict[str, int] = {}
        """Agent → number of the last order about it."""
        self._orders = 0
        self._wake = asyncio.Event()

    # -- asking ------------------------------------------------------------------------------

    async def ask(
        self, method: str, path: str, body: object = None, timeout_s: float = PATIENCE_S
    ) -> tuple[int, Json]:
        """Return status and answer of one of the gateway's own routes. Raises LinkError."""
        if self._url is None:
            raise LinkError("no gateway runs here")
        answer = await http.request(
            method,
            self._url + path,
            headers=self._headers,
            body=None if method == "GET" else json.dumps(body or {}).encode(),
            timeout_s=timeout_s,
        )
        try:
            value: object = json.loads(answer.body) if answer.body else None
        except ValueError as error:
            raise LinkError(f"{method} {path}: the gateway's answer is not JSON") from error
        return answer.status, cast("Json", value) if isinstance(value, dict) else {}

    async def _tell(self, path: str, body: Json) -> Json:
        """Return the answer to something that must be done. Raises LinkError and GatewayNo."""
        try:
            status, answer = await self.ask("POST", path, body)
        except LinkError:
            self.failures += 1
            raise
        if status >= 400:
            self.failures += 1
            raise GatewayNo(status, words_of(answer) or f"HTTP {status}")
        return answer

    # -- agents ------------------------------------------------------------------------------

    async def hold(self, agent: str, why: str, by: str = BY) -> None:
        """Have an agent's calls refused. Raises LinkError and GatewayNo."""
        self._owed.discard(agent)
        with self._order(agent):
            await self._tell("/control/hold", {"agent": agent, "why": why[:500], "by": by[:120]})

    async def lift(self, agent: str) -> str:
        """Let an agent's calls through again; return what keeps them from it, or nothing."""
        if self._url is None:
            return ""
        with self._order(agent):
            try:
                answer = await self._tell("/control/lift", {"agent": agent})
            except (LinkError, GatewayNo):
                self._owed.add(agent)
                return "the gateway does not answer, and is told as soon as it does"
        above = answer.get("held_by")
        return (
            f"held with {cast('Json', above).get('agent')}, which is to be resumed"
            if isinstance(above, dict)
            else ""
        )

    async def kill(self, agent: str, why: str, by: str) -> Receipt | None:
        """Refuse an agent's calls and cut those under way; None when the gateway does not answer: it is told later."""
        if self._url is None:
            return None
        self._owed.discard(agent)
        body: Json = {"agent": agent, "why": why[:500], "by": by[:120]}
        with self._order(agent):
            try:
                answer = await self._tell("/control/kill", body)
            except (LinkError, GatewayNo) as error:
                self._say(f"{agent}: the gateway could not be told of its kill: {error}")
                self._note("/control/kill", body)
                return None
        receipt = cast("Json", answer.get("receipt") or {})
        return Receipt(
            int(receipt.get("calls_cut") or 0),
            int(receipt.get("settled_nusd") or 0),
            int(receipt.get("still_ending") or 0),
        )

    @contextlib.contextmanager
    def _order(self, agent: str) -> Generator[None]:
        self._orders += 1
        mine = agent not in self._busy
        self._busy.add(agent)
        try:
            yield
        finally:
            if mine:
                self._busy.discard(agent)
            self._orders += 1
            self._touched[agent] = self._orders

    @contextlib.contextmanager
    def about(self, agent: str) -> Generator[None]:
        """Compare nothing about an agent while an order changes it here and there."""
        with self._order(agent):
            yield

    # -- runs --------------------------------------------------------------------------------

    def began(self, agent: str, run_id: str) -> None:
        """A run began: its key is good, whatever the clock says."""
        self._alive.setdefault(agent, set()).add(run_id)
        self._note("/control/runs/began", {"agent": agent, "run": run_id})

    def ended(self, agent: str, run_id: str, *, outlived: bool = False) -> None:
        """A run is over: its key is good for a moment more. It may have ended since its calls are refused."""
        alive = self._alive.get(agent, set())
        alive.discard(run_id)
        if not alive:
            self._alive.pop(agent, None)
        body: Json = {"agent": agent, "run": run_id}
        self._note("/control/runs/ended", {**body, "grace_s": OUTLIVE_S} if outlived else body)

    def over(self, agent: str, run_id: str, run: Run | None) -> None:
        """A start or run has come to its end; None: no process came of it."""
        if run is not None:
            self.ended(agent, run_id, outlived=any(kin.born.outlive for kin in run.kin.values()))

    def _note(self, path: str, body: Json) -> None:
        if self._url is None:
            return
        if len(self._untold) >= MAX_UNTOLD:
            self._untold.popleft()
            self.untold_dropped += 1
        self._untold.append((path, body))
        self._wake.set()

    def told_past(self) -> list[str]:
        """Return in sentences which agents' calls go past the gateway."""
        return [one.sentence for name in self._keepers for one in self.past(name)]

    # -- what the file says --------------------------------------------------------------------

    async def reload(self) -> list[str]:
        """Let the gateway read the fleet anew; return what a person should know of it."""
        if self._url is None:
            return []
        try:
            answer = await self._tell("/control/reload", {})
        except GatewayNo as no:
            return [f"the gateway goes on by what it had: {no}"]
        except LinkError:
            return ["the gateway does not answer; it takes the file over when it is back"]
        problems: object = answer.get("problems")
        return (
            [str(one) for one in cast("list[object]", problems)]
            if isinstance(problems, list)
            else []
        )

    # -- comparing -----------------------------------------------------------------------------

    async def work(self) -> None:
        """Tell what waits, and compare; until cancelled."""
        while self._url is not None:
            self._wake.clear()
            try:
                await self._flush()
                await self._tell_alive()
                await self.compare()
            except LinkError:
                self._knows_alive = False
            except GatewayNo:
                pass  # it says so itself; the next second
            # not wait_for: it may swallow a cancellation that comes with the wake
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(COMPARE_S):
                    await self._wake.wait()

    def back(self) -> None:
        """The gateway answers again: tell it now what it missed."""
        self._knows_alive = False
        self._wake.set()

    async def _flush(self) -> None:
        while self._untold:
            path, body = self._untold[0]
            status, answer = await self.ask("POST", path, body)
            if status >= 500:
                raise GatewayNo(status, words_of(answer))
            if self._untold and self._untold[0][1] is body:
                self._untold.popleft()
        for agent in list(self._owed):
            await self._tell("/control/lift", {"agent": agent})
            self._owed.discard(agent)

    async def _tell_alive(self) -> None:
        """Tell which runs live, after the ends that wait: those have their own time of grace."""
        if self._knows_alive:
            return
        self._knows_alive = True  # before it is so: `back` may come meanwhile
        alive = {agent: sorted(runs) for agent, runs in self._alive.items()}
        status, answer = await self.ask("POST", "/control/runs", {"live": alive, "at": time.time()})
        if status >= 500:
            self._knows_alive = False
            raise GatewayNo(status, words_of(answer))

    async def compare(self) -> None:
        """Mend what the gateway holds and we do not, and the other way. Raises LinkError and GatewayNo."""
        before = self._orders
        status, answer = await self.ask("GET", "/control/state")
        if status != 200:
            raise GatewayNo(status, words_of(answer))
        held = _holds(answer)
        self._hear_calls(answer.get("working"))
        for name, keeper in list(self._keepers.items()):
            if name in self._busy or name in self._owed or self._touched.get(name, 0) > before:
                continue  # an order has changed it since: what was read of it is old
            hold, run = held.get(name), keeper.run
            resting = keeper.state in _RESTING if run is None else run.wish in HOLDS
            said = hold or {}
            since = said.get("since")
            todo = mend(
                None if hold is None else str(hold.get("kind")),
                suspended=keeper.suspended,
                resting=resting,
                then=str(said.get("then") or ""),
                held_s=time.time() - since if isinstance(since, int | float) else math.inf,
                same_run=run is not None and run.run_id == said.get("run"),
            )
            await self._mend(keeper, todo, said)

    def _hear_calls(self, working: object) -> None:
        """A call that is open, or has ended, is a sign of life, whatever the agent itself says of it."""
        told = cast("Json", working) if isinstance(working, dict) else {}
        for name, keeper in self._keepers.items():
            if keeper.run is None or (name not in told and not keeper.run.carried):
                continue
            said = told.get(name)
            ages = cast("Json", said) if isinstance(said, dict) else {}
            keeper.run.called(
                keeper.system.now(), _seconds(ages.get("open_s")), _seconds(ages.get("ended_s"))
            )

    async def _mend(self, keeper: Keeper, todo: Mend, hold: Json) -> None:
        if todo is Mend.LIFT:
            await self._tell("/control/lift", {"agent": keeper.name})
        elif todo is Mend.TELL:
            await self.hold(keeper.name, keeper.reason)
        elif todo is not Mend.NOTHING:
            why = f"held by the gateway: {hold.get('why') or hold.get('kind')}"[:500]
            self._act(keeper, todo, why)

    def _act(self, keeper: Keeper, todo: Mend, why: str) -> None:
        """Do about an agent that the gateway holds what is to be done."""
        if todo is Mend.SUSPEND:
            keeper.suspend(why)
            self._say(f"{keeper.name}: suspended, {why}")
        elif keeper.run is None:
            keeper.hold(State.STOPPED, f"stopped, {why}")  # a restart is of a run
        elif keeper.run.wish is None:
            wish = Wish.RESTART if todo is Mend.RESTART else Wish.STOP
            done = "restarted" if wish is Wish.RESTART else "stopped"
            self._say(f"{keeper.name}: {done}, {why}")
            keeper.finish(wish, f"{done}, {why}")


def words_of(answer: Mapping[str, Any]) -> str:
    """Return what an answer of the gateway says is wrong."""
    error: object = answer.get("error") or answer
    found = cast("Json", error) if isinstance(error, dict) else {}
    return str(found.get("message") or found.get("detail") or "")[:1000]


def _holds(answer: Json) -> dict[str, Json]:
    listed: object = answer.get("holds")
    if not isinstance(listed, list):
        return {}
    found = [cast("Json", one) for one in cast("list[object]", listed) if isinstance(one, dict)]
    return {str(one.get("agent")): one for one in found}


def _seconds(value: object) -> float | None:
    return max(0.0, float(value)) if isinstance(value, int | float) else None
