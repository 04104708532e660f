"""An order to delete, carried out by each of several hubs: what waits for other back-ends lies on the disk of whichever
hub took it.

    asked hub: begin → each other hub: its queues → begun … → queues here, the shared store, queues here
               → end → each other hub: posts under way, its queues → ended …

A hub that does not answer, goes away or is started meanwhile makes the order fail: it is never told as done where it is
not. A message may be lost between hubs, so what nobody answered is said again; whoever hears it twice does it once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

from midwatch.core.errors import StoreError
from midwatch.core.spans.form import Signal
from midwatch.core.spans.store import Proof, Selector
from midwatch.hub.forwarding.forgetting import Forgetting
from midwatch.hub.together import Take
from midwatch.wire.ids import new_id

TOPIC: Final = "forget"

LOOK_S: Final = 2.0
"""How often hubs that have not answered are told again, and it is looked whether they are still there."""

ORDER_S: Final = 1_800.0
"""How long a hub waits for the end of an order whose asker may have died, and an asker for an answer."""

log = logging.getLogger(__name__)


class Others(Protocol):
    """The other hubs: `hub.together.Together`."""

    @property
    def name(self) -> str: ...

    async def others(self) -> frozenset[str]: ...

    async def tell(self, topic: str, what: dict[str, Any]) -> None: ...

    def hear(self, topic: str, take: Take) -> None: ...

    def spawn(self, work: Any) -> None: ...


class Deleting(Protocol):
    """This hub's own part: `hub.keeping.life.Life`."""

    async def forget(self, what: Selector) -> tuple[Proof, int]: ...

    async def begin(self, what: Selector) -> Forgetting: ...

    async def end(self, order: Forgetting) -> None: ...

    def leave(self, order: Forgetting) -> None: ...


class Everywhere:
    """Asks the others, and does what they ask. Made before `others` starts."""

    def __init__(self, others: Others, life: Deleting) -> None:
        self._others = others
        self._life = life
        self._waiting: dict[tuple[str, str], asyncio.Future[int]] = {}
        """Answers that are waited for, by the order's step and the hub's name."""
        self._orders: dict[str, Forgetting] = {}
        """Orders of others that have begun here."""
        self._answers: dict[str, dict[str, Any] | None] = {}
        """What was answered to steps of others' orders; None while one is carried out."""
        others.hear(TOPIC, self._take)

    async def forget(self, what: Selector) -> tuple[Proof, int]:
        """Delete what is selected; return the store's proof, and how many items no longer wait in any hub. Raises
        StoreError."""
        order = new_id()
        asked = await self._others.others()
        said = {"what": as_json(what)}
        await self._ask({"order": order, "do": "begin", **said}, asked)
        proof, queued = await self._life.forget(what)
        queued += await self._ask({"order": order, "do": "end"}, asked)
        if late := await self._others.others() - asked:
            raise StoreError(_not_done(sorted(late), "was started meanwhile"))
        return proof, queued

    async def _ask(self, message: dict[str, Any], asked: Iterable[str]) -> int:
        """Tell the others, and return the sum of what they answer once all have. Raises StoreError."""
        step = f"{message['order']} {message['do']}"
        loop = asyncio.get_running_loop()
        answers = {name: loop.create_future() for name in asked}
        if not answers:
            return 0
        self._waiting |= {(step, name): answer for name, answer in answers.items()}
        try:
            async with asyncio.timeout(ORDER_S):
                await self._all(message, answers)
            return sum(answer.result() for answer in answers.values())
        except TimeoutError:
            late = sorted(name for name, answer in answers.items() if not answer.done())
            raise StoreError(_not_done(late, f"did not answer within {ORDER_S:.0f} s")) from None
        finally:
            for name, answer in answers.items():
                del self._waiting[step, name]
                if not answer.cancel() and not answer.cancelled():
                    answer.exception()  # of several that failed the first is told

    async def _all(
        self, message: dict[str, Any], answers: Mapping[str, asyncio.Future[int]]
    ) -> None:
        left = set(answers.values())
        while left:
            await self._others.tell(TOPIC, message)
            done, left = await asyncio.wait(left, timeout=LOOK_S)
            for answer in done:
                answer.result()
            if left:
                there = await self._others.others()
                gone = [n for n, answer in answers.items() if answer in left and n not in there]
                if gone:
                    raise StoreError(_not_done(sorted(gone), "went away"))

    # -- what another one asks -------------------------------------------------------------------

    async def _take(self, said: dict[str, Any]) -> None:
        if said["do"] == "answer":
            self._take_answer(said)
            return
        step = f"{said['order']} {said['do']}"
        if step not in self._answers:
            self._answers[step] = None
            asyncio.get_running_loop().call_later(ORDER_S, self._answers.pop, step, None)
            self._others.spawn(self._carry(step, said))
        elif (answer := self._answers[step]) is not None:
            self._others.spawn(self._answer(answer))

    def _take_answer(self, said: dict[str, Any]) -> None:
        answer = self._waiting.get((said["step"], said["name"]))
        if answer is None or answer.done():
            return
        if said["error"] is None:
            answer.set_result(said["removed"])
        else:
            answer.set_exception(StoreError(_not_done([said["name"]], f"says: {said['error']}")))

    async def _carry(self, step: str, said: dict[str, Any]) -> None:
        order, removed, error = said["order"], 0, None
        try:
            if said["do"] == "begin":
                await self._begin(order, of_json(said["what"]))
            else:
                removed = await self._end(order)
        except StoreError as failed:
            error = str(failed)
            log.warning("an order to delete is not carried out here: %s", error)
        except Exception as failed:  # whatever it is, who asked waits for an answer
            error = f"a fault of the hub ({type(failed).__name__}); its log has more"
            log.exception("an order to delete is not carried out here")
        answer = {"do": "answer", "step": step, "name": self._others.name, "removed": removed, "error": error}  # fmt: skip
        if step in self._answers:
            self._answers[step] = answer
        await self._answer(answer)

    async def _answer(self, answer: dict[str, Any]) -> None:
        try:
            await self._others.tell(TOPIC, answer)
        except StoreError as failed:
            log.warning("who asked for an order to delete is not answered: %s", failed)

    async def _begin(self, order: str, what: Selector) -> None:
        self._orders[order] = await self._life.begin(what)
        asyncio.get_running_loop().call_later(ORDER_S, self._leave, order)

    async def _end(self, order: str) -> int:
        begun = self._orders.get(order)
        if begun is None:
            raise StoreError("this order was never begun here, or too long ago")
        try:
            await self._life.end(begun)
        finally:
            self._leave(order)
        return begun.removed

    def _leave(self, order: str) -> None:
        begun = self._orders.pop(order, None)
        if begun is not None:
            self._life.leave(begun)


def _not_done(names: list[str], why: str) -> str:
    shown = ", ".join(name.partition(":")[2] for name in names)
    return f"hub {shown} {why}: what waits there for other back-ends may still hold it; say it again when it is there"


def as_json(what: Selector) -> dict[str, Any]:
    """Return an order as hubs tell it."""
    return {
        "signals": sorted(signal.value for signal in what.signals),
        "agents": sorted(what.agents),
        "runs": sorted(what.runs),
        "sessions": sorted(what.sessions),
        "users": sorted(what.users),
        "tags": dict(what.tags),
        "traces": sorted(trace.hex() for trace in what.traces),
        "before_ns": what.before_ns,
    }


def of_json(said: Mapping[str, Any]) -> Selector:
    """Return the order that `as_json` wrote."""
    return Selector(
        signals=frozenset(map(Signal, said["signals"])),
        agents=frozenset(said["agents"]),
        runs=frozenset(said["runs"]),
        sessions=frozenset(said["sessions"]),
        users=frozenset(said["users"]),
        tags=said["tags"],
        traces=frozenset(map(bytes.fromhex, said["traces"])),
        before_ns=said["before_ns"],
    )
