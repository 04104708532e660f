"""The supervisor: parent of hub, gateway and agents, and what ties keepers, posts and reports together.

It works without the hub: agents are started, judged and restarted here, reports wait in the spool.
Order at the end: agents first, then gateway and rehearsal, the hub last, so that the last reports
arrive.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from midwatch.core import access, units
from midwatch.core.errors import SetupError
from midwatch.core.family import Slight
from midwatch.core.fleet import Agent, Fleet
from midwatch.supervisor import posted
from midwatch.supervisor.address import Address
from midwatch.supervisor.change import lease
from midwatch.supervisor.change.lease import Leases
from midwatch.supervisor.change.outfit import Outfit
from midwatch.supervisor.change.placing import Placing
from midwatch.supervisor.change.reload import Changes, Source, expand
from midwatch.supervisor.change.versions import Versions
from midwatch.supervisor.change.worktree import Worktrees
from midwatch.supervisor.counter import Counter
from midwatch.supervisor.datadir import DataDir
from midwatch.supervisor.journal import ALIVE_EVERY_S, POST, Journal
from midwatch.supervisor.keeper import Keeper
from midwatch.supervisor.link import Link
from midwatch.supervisor.machine import hostdown
from midwatch.supervisor.machine.sandbox import Walls
from midwatch.supervisor.machine.system import System
from midwatch.supervisor.machine.weighing import Scales
from midwatch.supervisor.notices import Notices
from midwatch.supervisor.orders import Orders
from midwatch.supervisor.output.capture import Capture, Writer
from midwatch.supervisor.post import Gap, Post
from midwatch.supervisor.reporter import INSTANCE, Reporter, Reports
from midwatch.supervisor.sampling import Sampling
from midwatch.supervisor.sentinel import Sentinel
from midwatch.supervisor.surroundings import Surroundings
from midwatch.supervisor.switchboard import Switchboard
from midwatch.supervisor.tasks import Tasks
from midwatch.supervisor.timers import STOOD_STILL_S
from midwatch.supervisor.timetable import forget_strangers

TICK_S: Final = 1.0
"""How often the supervisor looks whether it stood still itself."""

HEAD_START_S: Final[dict[str, float]] = {"hub": 3.0, "gateway": 10.0, "rehearsal": 10.0}
"""How long agents wait for each post. Without it they start all the same, and their calls are tried again."""

FLUSH_S: Final = 3.0
"""Time at the end for the last reports; what remains waits in the spool."""

SWEEP_S: Final = 5.0
"""How long the sweep for an earlier supervisor's runs may take."""


LOSSES: Final = (
    "reports_dropped",
    "notices_clipped",
    "journal_damaged",
    "journal_failed_writes",
    "exit_status_lost",
    "replies_lost",
    "runs_untold",
    "tasks_died",
    *Slight,
    "output_dropped_bytes",
    "output_lost_bytes",
)
"""The statistics that mean a loss: told to the hub when they grow."""


@dataclass(frozen=True, slots=True)
class Plans:
    """Where the posts listen. None: that post is not started."""

    node: str
    hub: Address | None = None
    gateway: Address | None = None
    rehearsal: Address | None = None

    @property
    def hub_url(self) -> str:
        return self.hub.url if self.hub else "http://127.0.0.1:8700"


@dataclass(slots=True)
class Lifetime:
    """When the instance began, and what it found."""

    began_at: float
    dirty: bool
    last_alive_at: float | None
    orphans: int = 0
    resumed: list[str] = field(default_factory=list[str])


def _nothing() -> None:
    pass


class Supervisor:
    """Everything that runs, on one machine. Used in the main thread, inside a running loop."""

    def __init__(
        self,
        fleet: Fleet,
        data: DataDir,
        plans: Plans,
        system: System,
        reporter: Reporter,
        say: Callable[[str], None],
        source: Source | None = None,
    ) -> None:
        self.fleet = fleet.model_copy(update={"agents": expand(fleet)})
        self.data = data
        self.plans = plans
        self.system = system
        self.say = say
        self.tasks = Tasks(say)
        self._reporter = reporter
        self.reports = Reports(reporter, plans.node)
        self.journal = Journal(data.path / "supervisor" / "journal")
        self.writer = Writer()
        self.scales = Scales(
            asyncio.get_running_loop(), lambda: self.fleet, str(data.path), system.counters
        )
        self.notices = Notices(data.folder("run"), asyncio.get_running_loop())
        self.captures: dict[str, Capture] = {}
        self.keepers: dict[str, Keeper] = {}
        self.board = Switchboard(
            plans.gateway.url if plans.gateway else None,
            access.mint_node(data.secret, plans.node),
            self.keepers,
            lambda name: self.outfit.past.get(name, []),
            say,
        )
        self.orders = Orders(
            self.keepers, self.board if plans.gateway else None, self._starts_elsewhere
        )
        self.orders.asked["gateway"] = Counter(self.board).carry_out
        self.posts: dict[str, Post] = {}
        self.link: Link | None = None
        self.stood_still_s = 0.0
        self._directory_there = True
        self._told: dict[str, int] = {}
        self.lifetime = Lifetime(
            system.wall(), not self.journal.book.clean, self.journal.book.alive_at
        )
        self._secret = data.secret
        self._inherited = dict(os.environ)
        self._following: asyncio.Task[Any] | None = None
        self.versions = Versions(data, self._secret)
        self.worktrees = Worktrees(data.path)
        self.leases = self._leases(source)
        self.outfit = self._outfit(source)
        self.walls = Walls(
            data.path, lambda: self.fleet, self.outfit, source.file if source else None
        )
        self.around = self._surroundings()
        self.changes = Changes(self, source)
        self.orders.own["reload"] = self.changes.reload

    def _outfit(self, source: Source | None) -> Outfit:
        plans = self.plans
        return Outfit(
            root=self.fleet.root,
            data=self.data.path,
            secret=self._secret,
            hub_url=plans.hub_url,
            gateway_url=plans.gateway.url if plans.gateway else None,
            rehearses=plans.rehearsal is not None,
            inherited=self._inherited,
            listen=lambda name: self.notices.listen(name, self.keepers[name].hear),
            versions=self.versions,
            fleet=lambda: self.fleet,
            file=source.file if source else None,
        )

    # -- start -------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start posts, then agents. Raises SetupError when the hub says that it cannot work."""
        await self._sweep()
        for name, record in self.journal.book.records.items():
            if record.run_id is not None and not name.startswith(POST):
                self.board.ended(name, record.run_id)  # an earlier supervisor's, which died with it
        self.journal.alive(self.system.wall())
        forget_strangers(self.journal, self.fleet.agents)
        self.journal.begin(self.fleet.agents, self.system.wall())
        self.versions.keep_only(self.fleet.agents)
        for name, agent in self.fleet.agents.items():
            if not agent.external:
                self.make_keeper(name, agent)
        self._tell_beginning()  # at once: a person who looks at the console need not wait for the hub
        self._start_posts()
        await self.changes.prepare()
        await asyncio.to_thread(self.walls.prepare)
        await self._head_start()
        for keeper in self.keepers.values():
            keeper.begin(resumed=self.lifetime.dirty)
            # a fork costs milliseconds: between two of them, those that run already are heard
            await asyncio.sleep(0)
        self.tasks.spawn(self._tick(), "tick")
        self.tasks.spawn(self.board.work(), "switchboard")
        sampling = Sampling(
            self.system, self.keepers, self.reports, str(self.data.path), self._tell_losses
        )
        self.tasks.spawn(sampling.work(), "samples")
        self.tasks.spawn(Sentinel(self.system, self.keepers).watch(), "sentinel")
        self.changes.begin()
        if self.plans.hub is not None:
            token = access.mint_node(self._secret, self.plans.node)
            self.link = Link(self.plans.hub_url, self.plans.node, token, self.orders, self.tasks)
            self._following = self.tasks.spawn(self.link.follow(), "link")

    async def _sweep(self) -> None:
        """Kill what an earlier supervisor left behind: after a sudden death, and only then."""
        if not self.lifetime.dirty:
            return
        book = self.journal.book
        runs = {*book.recent_runs, *(r.run_id for r in book.records.values() if r.run_id)}
        deadline = self.system.now() + SWEEP_S
        orphans: set[tuple[int, float]] = set()
        while found := self.system.sweep(runs, str(self.data.path / "spool")):
            orphans |= found
            self.lifetime.orphans = len(orphans)
            if self.system.now() > deadline:
                self.say(
                    f"midwatch: {len(found)} processes of the last instance do not die; look for them with ps"
                )
                break
            await asyncio.sleep(0.02)

    def _leases(self, source: Source | None) -> Leases:
        places = lease.places(self._inherited)
        for complaint in lease.complaints(places):
            self.say(f"midwatch: {complaint}")
        return Leases(source.file if source else None, self.data.path, *places)

    def _surroundings(self) -> Surroundings:
        return Surroundings(
            system=self.system,
            journal=self.journal,
            reports=self.reports,
            say=self.say,
            environment=self.outfit.environment,
            directory=self.outfit.directory,
            fingerprint=self.outfit.fingerprint,
            hear_now=self.notices.drain,
            random=random.random,
            going_down=hostdown.look,
            timezone=self.fleet.timezone,
            away_since=self.lifetime.last_alive_at,
            weigh=self.scales.weigh,
            leases=self.leases,
            walls=self.walls,
            versions=self.versions,
            entry=self.outfit.entry,
            check_out=Placing(self.worktrees, self.tasks).ask,
            run_begins=self.board.began,
            run_over=self.board.over,
        )

    def _starts_elsewhere(self, name: str) -> bool:
        agent = self.fleet.agents.get(name)
        return agent is not None and agent.external

    def make_keeper(self, name: str, agent: Agent) -> Keeper:
        """Return the keeper of an agent that has none yet."""
        keeper = self.keepers[name] = Keeper(name, agent, self.around, self._capture(name))
        return keeper

    def _start_posts(self) -> None:
        for plan in posted.plans(self.plans, self.data.path, self.fleet, self._inherited):
            name = plan.name
            post = Post(
                plan,
                self.system,
                self._capture(name),
                self.journal,
                self.say,
                lambda gap, n=name: self._gap(n, gap),
                {"hub": self._reporter.hasten, "gateway": self.board.back}.get(name, _nothing),
            )
            self.posts[name] = post
            self.tasks.spawn(post.keep(), f"post {name}")
        for sentence in posted.notes(self.plans, self.fleet, self._inherited):
            self.say(f"midwatch: {sentence}")

    async def _head_start(self) -> None:
        """Wait for hub, gateway and rehearsal, but not for long: agents need none of them to live."""
        waited, began = list(self.posts.values()), self.system.now()
        while waited:
            for post in self.posts.values():
                if post.refused.is_set():
                    raise SetupError(f"{post.plan.name}: {post.problem}")
            waited_s = self.system.now() - began
            waited = [
                post
                for post in waited
                if not post.ready.is_set() and waited_s < HEAD_START_S[post.plan.name]
            ]
            await asyncio.sleep(0.01)
        for post in self.posts.values():
            post.may_refuse = False

    def _tell_beginning(self) -> None:
        at, life = self.system.wall(), self.lifetime
        self.changes.tell_loaded()
        if not life.dirty:
            return
        life.resumed = [
            name
            for name in self.keepers
            if (record := self.journal.of(name)).run_id and record.held is None
        ]
        began = life.last_alive_at or at
        gap = max(0.0, life.began_at - began)
        data = {
            "from": began,
            "to": life.began_at,
            "gap_s": round(gap, 3),
            "orphans": life.orphans,
            "resumed": life.resumed,
        }
        self.reports.event(INSTANCE, "supervisor.lost", at, data)
        orphans = f"; {life.orphans} orphaned processes stopped" if life.orphans else ""
        self.say(
            f"midwatch: the supervisor had died without a word, {units.show_duration(gap)} ago{orphans};"
            f" resuming {len(life.resumed)} agents"
        )

    def _gap(self, name: str, gap: Gap) -> None:
        data = {
            "from": gap.began,
            "to": gap.ended,
            "gap_s": round(gap.ended - gap.began, 3),
            "reason": gap.reason,
        }
        self.reports.event(INSTANCE, f"{name}.down", self.system.wall(), data)

    # -- what a run needs --------------------------------------------------------------------

    def _capture(self, name: str) -> Capture:
        folder = self.data.path / "logs" / name
        return self.captures.setdefault(name, Capture(self.writer, folder, self.system.now))

    # -- work --------------------------------------------------------------------------------

    async def _tick(self) -> None:
        noted = last = self.system.now()
        while True:
            await asyncio.sleep(TICK_S)
            now = self.system.now()
            lag = now - last - TICK_S
            last = now
            if lag > STOOD_STILL_S:
                self.stood_still_s += lag
                for keeper in self.keepers.values():
                    keeper.forgive(lag)
            if now - noted >= ALIVE_EVERY_S:
                noted = now
                self.journal.alive(self.system.wall())
                self._look_for_directory()

    def _look_for_directory(self) -> None:
        there = self.data.is_there()
        if self._directory_there and not there:
            self.say(
                f"midwatch: the data directory {str(self.data.path)!r} was removed or replaced; agents go on,"
                " but no command finds this instance, and what is recorded is lost: stop it, and start it again"
            )
        self._directory_there = there

    def _tell_losses(self) -> None:
        """Tell what was lost since the last time; on the console only the first of each kind."""
        counts = {name: int(self.statistics()[name]) for name in LOSSES}
        news = {n: c - self._told.get(n, 0) for n, c in counts.items() if c > self._told.get(n, 0)}
        if not news:
            return
        for name in (
            news.keys() - self._told.keys() - set(Slight)
        ):  # of those their keepers have told
            self.say(
                f"midwatch: {name.replace('_', ' ')}: {news[name]:,}; is the disk full or slow?"
            )
        self._told |= {name: counts[name] for name in news}
        parts = {
            "counts": {n: c for n, c in news.items() if not n.endswith("_bytes")},
            "bytes": {n: c for n, c in news.items() if n.endswith("_bytes")},
        }
        self.reports.event(INSTANCE, "node.lost", self.system.wall(), parts)

    def statistics(self) -> dict[str, int | float]:
        """Return every counter: what was done, and what was lost, by reason."""
        captures = self.captures.values()
        system = self.system.counters
        return {
            "agents": len(self.keepers),
            "agents_alive": sum(k.alive for k in self.keepers.values()),
            "restarts": sum(k.restarts for k in self.keepers.values()),
            "odd_state_changes": sum(k.odd_edges for k in self.keepers.values()),
            "reports_sent": self.reports.sent,
            "reports_dropped": self.reports.dropped,
            **self.reports.withheld,
            "notices_received": self.notices.received,
            "notices_clipped": self.notices.clipped,
            "output_bytes": sum(c.bytes_read for c in captures),
            "output_dropped_bytes": sum(c.dropped_bytes for c in captures),
            "output_flooded_bytes": sum(c.flooded_bytes for c in captures),
            "output_lost_bytes": sum(c.file.lost_bytes for c in captures),
            "output_redacted": sum(c.file.redacted for c in captures),
            "journal_damaged": self.journal.damaged,
            "journal_failed_writes": self.journal.failed_writes,
            "adopted_reaped": system.adopted_reaped,
            "leftovers_killed": system.leftovers_killed,
            "exit_status_lost": system.status_lost,
            "cgroups_failed": system.cgroups_failed,
            "asides_failed": system.asides_failed,
            "starts_failed": sum(system.by_errno.values()),
            "orders_obeyed": self.orders.obeyed,
            "orders_refused": self.orders.refused,
            "leases_unwritten": self.leases.unwritten,
            "versions_failed_writes": self.versions.failed_writes,
            "runs_untold": self.board.untold_dropped,
            "gateway_failures": self.board.failures,
            "replies_lost": self.link.replies_lost if self.link else 0,
            "post_restarts": sum(max(0, p.starts - 1) for p in self.posts.values()),
            "tasks_died": self.tasks.died,
            "stood_still_s": round(self.stood_still_s, 3),
        }

    # -- end ---------------------------------------------------------------------------------

    async def drain(self) -> None:
        """Ask every agent to stop, and wait until all have. Their graces bound the wait."""
        self.reports.event(INSTANCE, "node.stopping", self.system.wall(), {"node": self.plans.node})
        keepers = [*self.keepers.values(), *self.changes.stop()]
        if self._following is not None:
            self._following.cancel()
        living = {keeper for keeper in keepers if keeper.run is not None}
        quiet = asyncio.Event()

        def gone(keeper: Keeper) -> None:
            living.discard(keeper)
            if not living:
                quiet.set()

        for keeper in keepers:
            keeper.ended.append(lambda keeper=keeper: gone(keeper))
            keeper.shut_down()
        if living:
            await quiet.wait()

    def kill(self) -> None:
        """Stop being polite: every agent's tree dies now, and the posts."""
        for keeper in [*self.keepers.values(), *self.changes.stop()]:
            keeper.shut_down()
            keeper.kill()
        for post in self.posts.values():
            post.kill()

    async def close(self, flush: Callable[[float], Any]) -> None:
        """End the posts, the hub last; leave no process. `flush` delivers the last reports."""
        if self.posts.get("hub") is not None and self.posts["hub"].ready.is_set():
            await asyncio.get_running_loop().run_in_executor(None, flush, FLUSH_S)
        await asyncio.gather(*(post.stop() for name, post in self.posts.items() if name != "hub"))
        if "hub" in self.posts:
            await self.posts["hub"].stop()
        await self.tasks.cancel()
        runs = {r.run_id for r in self.journal.book.records.values() if r.run_id} | set(
            self.journal.book.recent_runs
        )
        self.system.sweep(runs, str(self.data.path / "spool"))
        self.journal.stopped(self.system.wall())
        self.release()

    def release(self) -> None:
        """Give back files, sockets and threads."""
        self.scales.close()
        self.worktrees.close()
        self.writer.close()
        self.notices.close()
        self.versions.save()
        self.leases.close()
        self.journal.close()
        self.system.close()
