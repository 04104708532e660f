"""The gateway put together: settings, ledger, who may call, and what is done from time to time.

Start: what cannot be is told at once (SetupError, LedgerUnusable) and nothing is half open. Stop: calls under way
get their time, then they are cut with a word to their clients, and what they came to is written down.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

from midwatch.core.calls.period import Calendar
from midwatch.core.errors import SetupError
from midwatch.gateway import allowances, refusals
from midwatch.gateway import settings as reading
from midwatch.gateway.cached import Cache
from midwatch.gateway.counted import Counted
from midwatch.gateway.gateway import Gateway
from midwatch.gateway.holds import Holds
from midwatch.gateway.house import House, Tell
from midwatch.gateway.identify import Identify
from midwatch.gateway.kept import Entry, Kept
from midwatch.gateway.keys import Keys
from midwatch.gateway.ledger.engine import LedgerDown
from midwatch.gateway.ledger.keeper import Beside
from midwatch.gateway.ledger.opening import SCHEMES, ledger_at
from midwatch.gateway.paces import surplus
from midwatch.gateway.reconciling import Reconciling
from midwatch.gateway.recording import Records
from midwatch.gateway.runs import Runs
from midwatch.gateway.settings import Settings
from midwatch.gateway.upstream.port import Upstream
from midwatch.gateway.upstream.wire import WireUpstream

LOOK_S: Final = 0.25
"""How often keys, holds and runs of other processes, and calls of keys that are over, are looked at."""

EXPIRE_S: Final = 5.0
"""How often reservations whose time is over are counted."""

REMEMBER_S: Final = 60.0
"""How often what is usual of agents is kept."""

MAX_USUAL: Final = 5_000
"""Agents of which it is kept."""

RECONCILE_S: Final = 5.0
"""How often calls of unknown cost are looked up at their providers; each of them ever more seldom."""

ALLOWANCES_S: Final = 300.0
"""How often it is summed up what providers' keys have spent of their budgets."""

ROLL_S: Final = 3600.0
"""How often calls older than `KEEP_DAYS` are rolled into daily sums."""

KEEP_DAYS: Final = 92
"""Days that single calls are kept: a quarter. Sums by day, agent, model and key stay longer."""

SECRET_BYTES: Final = 32

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """How one gateway runs."""

    data: Path
    host: str = "127.0.0.1"
    port: int = 8701
    name: str = "gateway"
    """In the ledger: who carries a call."""
    hosts: frozenset[str] = frozenset()
    """Names by which it is called, besides those of this machine."""
    rehearsal_url: str | None = None
    """The rehearsal model stands in for all providers."""
    grace_s: float = 5.0
    """How long calls under way may go on when the gateway stops."""
    hub_url: str | None = None
    """Where calls are told."""
    node: str = ""
    """The name of this machine."""
    secrets_fd: int | None = None
    """A socket on which the supervisor hands over variables that hold secrets."""


class App:
    """One gateway. Used from the event loop."""

    def __init__(
        self,
        options: Options,
        environment: Mapping[str, str],
        *,
        upstream: Upstream | None = None,
        tell: Tell | None = None,
        beside: Beside | None = None,
    ) -> None:
        """Raises SetupError when the data directory does not hold what it needs. Blocking."""
        self.options = options
        self.began = time.monotonic()
        self._environment = environment
        self.secret = secret_of(options.data)
        folder = options.data / "gateway"
        settings = reading.load(options.data, environment, options.rehearsal_url)
        self.keys = Keys(folder / "keys.json", time.time)
        self.holds = Holds(folder / "holds.json", time.time)
        self.runs = Runs(folder / "runs.json", time.time)
        self.usual = Kept(folder / "usual.json")
        """What is usual of each agent: a runaway is known as one also just after a restart."""
        for document in (self.keys, self.holds, self.runs, self.usual):
            document.open()
        counts: Counter[str] = Counter()
        self.ledger = ledger_at(
            _place(options.data, settings, environment), _calendar(settings), beside
        )
        self.house = House(
            settings=settings,
            health=reading.health(settings),
            ledger=self.ledger,
            upstream=upstream or WireUpstream(),
            tell=tell or Counted(counts),
            name=options.name,
            rehearsed=options.rehearsal_url is not None,
            records=Records(folder / "recorded", self._kept_for, counts),
            answers=Cache(folder / "answers.db", counts),
            counts=counts,
        )
        self.identify = Identify(
            self.secret, self.keys, self.runs, lambda: self.house.settings, time.time
        )
        self.identify.revoked = self.house.tell.revoked
        self.gateway = Gateway(self.house, self.identify, self.holds)
        self.gateway.paces.usual = self._usual_of
        self.reconciling = Reconciling(self.house)
        self.untold: Callable[[], Mapping[str, int]] = dict
        """What was not told to the hub, by reason."""
        self.in_contact: Callable[[], bool] = lambda: False
        """Whether the hub took what it was told last."""
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Open the ledger and begin what is done from time to time. Raises LedgerUnusable."""
        await self.ledger.start()
        self._every(LOOK_S, self._look)
        self._every(EXPIRE_S, self._expire)
        self._every(RECONCILE_S, self._reconcile)
        self._every(REMEMBER_S, self._remember)
        self._every(ALLOWANCES_S, self._look_at_allowances)
        self._every(ROLL_S, self._roll)

    async def stop(self) -> None:
        """Write what waits, and close."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.house.upstream.close()
        if self.house.answers is not None:
            await self.house.answers.close()
        await self.ledger.stop()
        if self.house.records is not None:
            await asyncio.to_thread(self.house.records.close)
        await self._remember()
        for document in self.documents:
            try:
                await document.saved()
            except OSError as error:
                log.warning("at the end: %s", error)

    async def cut_all(self) -> None:
        """End all calls under way with a word to their clients: the gateway stops."""
        calls = [call for calls in self.gateway.under_way.values() for call in calls]
        await self.gateway.cut(calls, refusals.stopping())

    def reload(self) -> Settings:
        """Take over what the supervisor wrote. Raises SetupError: then the old settings stay in force."""
        fresh = reading.load(self.options.data, self._environment, self.options.rehearsal_url)
        if (fresh.fleet.gateway.ledger or "") != (self.house.settings.fleet.gateway.ledger or ""):
            raise SetupError("gateway.ledger changes at a start only; restart the instance")
        calendar = _calendar(fresh)  # before anything is changed
        self.house.health = reading.health(fresh, self.house.health)
        self.house.settings = fresh
        self.ledger.calendar = calendar
        self.gateway.paces.reloaded()
        self.identify.forget()
        return fresh

    def _kept_for(self, agent: str) -> float:
        """Return for how many seconds an agent's records are kept."""
        return self.house.settings.calls(agent).record_for

    def not_ready(self) -> str | None:
        """Return why calls would be refused now, or None."""
        return self.ledger.down

    @property
    def documents(self) -> tuple[Kept, ...]:
        """What is kept in small files."""
        return self.keys.document, self.holds.document, self.runs.document, self.usual

    # -- from time to time ---------------------------------------------------------------------------

    def _every(self, pause_s: float, do: Callable[[], Awaitable[None]]) -> None:
        async def repeat() -> None:
            while True:
                await asyncio.sleep(pause_s)
                try:
                    await do()
                except Exception:
                    # the loop lives as long as the gateway: without it revoked keys would go on
                    self.house.counts[f"fault.{do.__name__.strip('_')}"] += 1
                    log.exception("a task of the gateway failed, and is tried again")

        self._tasks.append(asyncio.get_running_loop().create_task(repeat()))

    async def _look(self) -> None:
        """Take over what other processes wrote, and cut calls whose key is over or whose agent was killed."""
        for document in self.documents:
            await document.look()
        for calls in list(self.gateway.under_way.values()):
            for call in list(calls):
                over = self.identify.over(call.payer) or self._killed(call.payer.agent)
                if over is not None and call.killed is None:
                    self.house.counts["call.killed"] += 1
                    call.kill(over)

    def _killed(self, agent: str) -> refusals.Refusal | None:
        hold = self.holds.find(agent) if agent else None
        return refusals.held(hold, agent) if hold is not None and hold.kills else None

    async def _expire(self) -> None:
        try:
            expired = await self.ledger.expire(time.time())
        except LedgerDown:
            return  # the ledger says so itself; reservations only count for longer
        self.house.counts["reservation.expired"] += len(expired)

    def _usual_of(self, agent: str) -> Entry | None:
        return self.usual.entries.get(agent)

    async def _reconcile(self) -> None:
        try:
            await self.reconciling.look()
        except LedgerDown:
            return  # the next time

    async def _look_at_allowances(self) -> None:
        try:
            looked_at = await allowances.look(self.house)
        except LedgerDown:
            return  # the next time
        for provider in looked_at:
            self.house.tell.pool(provider)

    async def _remember(self) -> None:
        """Keep what is usual of each agent."""
        alive: set[str] = set()
        for agent, pace in self.gateway.paces.all():
            alive.add(agent)
            usual = pace.to_json()
            if any(usual.values()) and usual != self.usual.entries.get(agent):
                self.usual.put(agent, dict(usual))
        for stranger in surplus(self.usual.entries, alive, MAX_USUAL):
            self.usual.drop(stranger)

    async def _roll(self) -> None:
        """Make daily sums of old calls, so that the ledger does not grow for ever."""
        try:
            self.house.counts["ledger.rolled"] += await self.ledger.roll(time.time(), KEEP_DAYS)
        except LedgerDown:
            return  # the next time


def _place(data: Path, settings: Settings, environment: Mapping[str, str]) -> str | Path:
    """Return where the ledger is. Raises SetupError."""
    given = settings.fleet.gateway.ledger
    if given is None:
        return data / "gateway" / "ledger.db"
    if not given.startswith("env:"):
        return given
    name = given.removeprefix("env:")
    address = environment.get(name, "").strip()
    if not address.startswith(SCHEMES):
        raise SetupError(
            f"gateway.ledger: {name} holds no postgresql://… address; export it before midwatch up"
        )
    return address


def _calendar(settings: Settings) -> Calendar:
    return Calendar(ZoneInfo(settings.fleet.timezone))


def secret_of(data: Path) -> bytes:
    """Return what signs the keys of runs. Raises SetupError."""
    try:
        secret = (data / "secret").read_bytes()
    except OSError as error:
        raise SetupError(
            f"{data / 'secret'}: {error.strerror}; the gateway is started by midwatch up"
        ) from None
    if len(secret) < SECRET_BYTES:
        raise SetupError(f"{data / 'secret'} is too short to sign keys; start midwatch up anew")
    return secret
