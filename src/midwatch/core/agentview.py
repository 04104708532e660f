"""What the hub knows of one agent: a fold over its items.

Items may come late, twice or out of order. What promises not to depend on the order: the newest state
wins by its own time, sums are kept by the day of the beat, the strip of cycles is sorted by time, and a
beat that is still in the strip counts once. The baseline learns in the order of arrival. A time that lies
ahead of the hub's clock (it was set back since) overtakes nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from datetime import tzinfo
from typing import Any, Final

from midwatch.core.baseline import MIN_CYCLES, Baseline
from midwatch.core.day import Day
from midwatch.core.fleet import Agent
from midwatch.core.history import AgentHistory
from midwatch.core.loop import Cycle, judge, learn
from midwatch.core.outlay import Outlay
from midwatch.core.plain import clean, number_of, text_of, texts_of, whole_of
from midwatch.core.states import ALIVE, State
from midwatch.core.times import ordinal
from midwatch.core.units import NUSD
from midwatch.wire.items import Item

MAX_CYCLES: Final = 60
"""Cycles in the strip."""

MAX_DRIFT: Final = 5
"""Sentences about drift that are kept."""

RESOURCES: Final = ("rss_bytes", "pss_bytes", "open_files", "children", "threads", "zombies")
"""What of a sample is shown with an agent."""

MAX_DAYS: Final = 3
"""Days of sums that are kept: late beats may still be of yesterday."""

FRESH_SAMPLE_S: Final = 60.0
"""Older resources than this are no data."""

STATES: Final = frozenset(s.value for s in State)


class AgentView:
    """One agent. The `FleetView` feeds it; detectors and sentences read it."""

    def __init__(self, name: str, config: Agent, *, declared: bool) -> None:
        self.name = name
        self.config = config
        self.declared = declared
        """Whether the fleet file names it."""
        self.managed = not config.external and declared
        """Whether a supervisor answers for it."""
        self.state: State = _first_state(config, declared)
        self.state_at: float | None = None
        """When the newest report of the state was made; `since` is when the state began."""
        self.since: float | None = None
        self.reason: str | None = None
        self.lost = False
        self.node: str | None = None
        self.run_id: str | None = None
        self.pid: int | None = None
        self.next_start_at: float | None = None
        self.started: Item | None = None
        self.ended: Item | None = None
        self.step: Item | None = None
        self.last_beat: Item | None = None
        """The beat that arrived last, the one that `cycle` judges."""
        self.last_beat_at: float | None = None
        self.life_at: float | None = None
        """The last sign of work, by the hub's clock."""
        self.traced_at: float | None = None
        """When the newest of its spans began."""
        self.due_at: float | None = None
        """When the hub counts the agent as hung; None when it does not judge it."""
        self.cycle: Cycle | None = None
        self.calm_cycles = 0
        self.spent_nusd = 0
        """Cost of the cycles since the last usual one: what a runaway has cost so far."""
        self.tokens = Baseline()
        self.cost = Baseline()
        self.tool_calls: int | None = None
        self.unit: str | None = None
        self.result: str | None = None
        self.error: str | None = None
        self.sample: Item | None = None
        self.drift: list[str] = []
        self.unmeasured: Item | None = None
        """The last word on a limit of its that is judged later than it should be."""
        self.incidents: list[dict[str, Any]] = []
        self.open_kinds: dict[str, float] = {}
        self._skew_s: float | None = None
        self._ats: list[float] = []
        self._strip: list[tuple[Any, ...]] = []
        self.outlay = Outlay()
        self.progress_at: float | None = None
        """When it last got something done, by its own word; None when it never said what it gets done."""
        self._days: dict[int, Day] = {}
        self._runs: deque[str] = deque(maxlen=16)
        self._run_tokens = 0
        self._run_cost = 0
        self._run_is_whole = False

    # --- beats

    def take_beat(self, item: Item, now: float, zone: tzinfo) -> bool:
        """Fold a beat; returns False for one that is already in the strip."""
        at: float = item["at"]
        if not self._keep(at, item):
            return False
        self._day(at, zone).add(item)
        self._judge(item)
        if (done := item.get("items")) is not None:
            self._progress(at if done > 0 else None)
        if not _is_overtaken(at, self.last_beat_at, now):
            self.last_beat_at = at
            self.tool_calls = item.get("tool_calls")
            self.result = item.get("result")
            self.error = item.get("error")
            if not self.managed and not self.lost:
                state = State.DRAINING if item.get("draining") else State.RUNNING
                self._unmanaged(state, at, now)
        if (unit := item.get("unit")) is not None:
            self.unit = clean(unit, 40)
        self._sign_of_life(at, now)
        return True

    def _judge(self, item: Item) -> None:
        self.last_beat = item
        cycle = judge(item, self.tokens, self.cost, self.config.loop)
        learn(cycle, self.tokens, self.cost)
        self.cycle = cycle
        if cycle.excess:
            self.calm_cycles = 0
            self.spent_nusd += cycle.cost_nusd or 0
        elif not cycle.draining:
            self.calm_cycles += 1
            self.spent_nusd = 0
        if item.get("run_id") == self.run_id:
            self._run_tokens += item.get("tokens") or 0
            self._run_cost += item.get("cost_nusd") or 0

    def _keep(self, at: float, item: Item) -> bool:
        """Put a beat into the strip, sorted by time; False when it is there already."""
        index = bisect_left(self._ats, at)
        identity = item["id"]
        look = index
        while look < len(self._ats) and self._ats[look] == at:
            if self._strip[look][0] == identity:
                return False
            look += 1
        if len(self._ats) == MAX_CYCLES:
            if look == 0:
                return True  # older than the strip: counted, not shown
            del self._ats[0], self._strip[0]
            look -= 1
        self._ats.insert(look, at)
        self._strip.insert(
            look,
            (
                identity,
                at,
                item.get("duration_s"),
                item.get("tokens"),
                item.get("cost_nusd"),
                item.get("tool_calls"),
                item.get("items"),
                item.get("result"),
            ),
        )
        return True

    def open_cycle(self, item: Item) -> Cycle | None:
        """Judge what a run has used beyond its beats: a cycle that never ends is seen before its beat.

        None when that cannot be known: the run's beats were not all seen, or no baseline exists.
        """
        if not self._run_is_whole or item.get("run_id") != self.run_id:
            return None
        tokens, cost = item.get("tokens"), item.get("cost_nusd")
        usage: Item = {"at": item["at"], "draining": self.state == State.DRAINING}
        if tokens is not None and self.tokens.usual is not None:
            usage["tokens"] = max(0, tokens - self._run_tokens)
        if cost is not None and self.cost.usual is not None:
            usage["cost_nusd"] = max(0, cost - self._run_cost)
        cycle = judge(usage, self.tokens, self.cost, self.config.loop)
        return cycle if cycle.excess else None

    # --- what the supervisor says

    def take_state(self, item: Item, now: float) -> bool:
        """Fold an `agent.state` event, unless a newer report is known."""
        data = data_of(item)
        state = text_of(data, "state")
        if state not in STATES or _is_overtaken(item["at"], self.state_at, now):
            return False
        self.managed = True
        self._set(State(state), item["at"], number_of(data, "since") or item["at"])
        self.reason = text_of(data, "reason")
        self.node = text_of(data, "node", 80) or self.node
        self.next_start_at = number_of(data, "next_start_at")
        if self.state is State.SUSPENDED:
            self.pid = whole_of(data, "pid")
        elif self.state in ALIVE:
            self.pid = whole_of(data, "pid") or self.pid
        self.run_id = text_of(data, "run_id", 128) or self.run_id
        return True

    def end_with(self, parent: str, at: float) -> None:
        """Take it that this sub-agent ended when its parent's run did."""
        self._set(State.STOPPED, at, at)
        self.reason = f"ended with {parent}"

    def take_started(self, item: Item, now: float, zone: tzinfo) -> bool:
        """Fold `run.started`; each run counts once."""
        data = data_of(item)
        run_id = text_of(data, "run_id", 128) or item.get("run_id") or item["id"]
        if run_id in self._runs:
            return False
        self._runs.append(run_id)
        self.managed = True
        if is_restart(data):
            self._day(item["at"], zone).restarts += 1
        if self.started is None or not _is_overtaken(item["at"], self.started["at"], now):
            self.started = item
            self.run_id = run_id
            self.pid = whole_of(data, "pid")
            self._run_tokens = self._run_cost = 0
            self._run_is_whole = True
            self.step = None
        return True

    def take_ended(self, item: Item, now: float) -> bool:
        """Fold `run.ended`; the newest one counts."""
        if self.ended is not None and _is_overtaken(item["at"], self.ended["at"], now):
            return False
        self.managed = True
        self.ended = item
        self.run_id = text_of(data_of(item), "run_id", 128) or self.run_id
        return True

    def take_revision(self, item: Item) -> None:
        """Fold what was found out about the newest run's code just after its start."""
        data, started = data_of(item), self.started
        if started is not None and data.get("run_id") == data_of(started).get("run_id"):
            fresh = {**data_of(started), "revision": data.get("revision")}
            self.started = {**started, "data": fresh}

    def take_sample(self, item: Item, now: float) -> bool:
        """Fold a sample; its state heals a lost event. Returns whether it is news."""
        if self.sample is not None and _is_overtaken(item["at"], self.sample["at"], now):
            return False
        self.sample = item
        self.drift = texts_of(item, "drift", MAX_DRIFT)
        state = item.get("state")
        stale = self.state_at is not None and item["at"] <= min(self.state_at, now)
        if state not in STATES or stale:
            return True
        self.managed = True
        if self.lost or state != self.state:
            self._set(State(state), item["at"], item["at"])
            self.reason = None
            if state not in ALIVE:
                self.next_start_at = None
        if item.get("pid") is not None and (state in ALIVE or state == State.SUSPENDED):
            self.pid = item["pid"]
        elif state == State.SUSPENDED and item.get("run_id") is None:
            self.pid = None
        return True

    # --- what the gateway says

    def take_calls(self, item: Item, zone: tzinfo) -> None:
        """Fold a sum of calls that the gateway carried."""
        data, at = data_of(item), item["at"]
        cost = whole_of(data, "cost_nusd")
        if cost is not None and cost >= 0:
            self._day(at, zone).add_calls(item.get("run_id"), cost)
        self.outlay.take(data, at, ordinal(at, zone))

    def _progress(self, at: float | None) -> None:
        """Something got done at `at`; None: it says that nothing did, which tells that it would say so."""
        known = self.progress_at
        began = self.started["at"] if self.started is not None else 0.0
        fresh = at if at is not None else began
        self.progress_at = fresh if known is None else max(known, fresh)

    # --- what the agent says besides beats

    def take_step(self, item: Item, now: float) -> None:
        """Fold a declared step or progress: signs of work, as good as a beat."""
        self.step = item
        if item["kind"] == "agent.progress":
            self._progress(item["at"])
        if not self.managed:
            self._unmanaged(State.RUNNING, item["at"], now)
        self._sign_of_life(item["at"], now)

    def take_spans(self, at: float, now: float) -> bool:
        """Take it that spans came, the latest of which began at `at`. Returns whether that is news."""
        self.traced_at = max(self.traced_at or 0.0, at)
        before = self.state
        if not (self.managed or self.declared or self.last_beat_at is not None):
            self._unmanaged(State.RUNNING, at, now)
        return self.state is not before

    def take_run(self, item: Item, now: float) -> None:
        """Fold a run report of an agent that no supervisor answers for: a ping's, or the SDK's."""
        if self.managed:
            return
        if item.get("state") == "ended" or item.get("ended_at") is not None:
            self._unmanaged(State.STOPPED, item["at"], now)
            self.due_at = None
        elif item.get("state") == "started":
            self._unmanaged(State.RUNNING, item["at"], now)
        self.run_id = item["run_id"]
        self.pid = item.get("pid", self.pid)

    def _unmanaged(self, state: State, at: float, now: float) -> None:
        if not _is_overtaken(at, self.state_at, now):
            if state != self.state:
                self._set(state, at, at)
            self.state_at = at

    # --- time

    def _sign_of_life(self, at: float, now: float) -> None:
        """Take a sign of work at the agent's time `at`, which arrived at `now`.

        The smallest delay ever seen is the difference of the two clocks; what came later than that
        waited in a spool. So neither a slow clock nor an old spool changes who counts as alive.
        """
        delay = now - at
        self._skew_s = delay if self._skew_s is None else min(self._skew_s, delay)
        life = min(now, at + self._skew_s)
        if self.life_at is None or life > self.life_at:
            self.life_at = life
        self.reckon(now)

    def reckon(self, since: float) -> None:
        """Set `due_at` anew; `since` stands in when no sign of life is known."""
        wanted = self.config.liveness
        judged = wanted == "heartbeat" or (wanted is None and self.last_beat_at is not None)
        if self.managed or not judged or self.state in (State.STOPPED, State.DRAINING):
            self.due_at = None
            return
        if self.config.schedule is not None and wanted is None:
            self.due_at = None  # silent between two runs: that is its schedule
            return
        beat = self.config.heartbeat
        start = self.life_at if self.life_at is not None else since
        due = start + beat.every * beat.missed
        if self.step is not None:
            declared = number_of(data_of(self.step), "expect_s")
            if declared is not None and self.life_at is not None:
                due = max(due, self.step["at"] + (self._skew_s or 0.0) + declared + beat.every)
        self.due_at = due

    def excuse(self, gap_s: float) -> None:
        """Put off the due time by a pause of the hub itself, or by what its clock was set back (below 0)."""
        self._skew_s = None  # whether the agent's clock moved too is seen by its next sign of work
        if gap_s < 0:
            self.step = None  # its declared end is a time of the old clock
        if self.life_at is not None:
            self.life_at += gap_s
        if self.due_at is not None:
            self.due_at += gap_s

    @property
    def alive(self) -> bool:
        """Whether a process exists: one that is suspended may have kept its own."""
        return self.state in ALIVE or (self.state == State.SUSPENDED and self.pid is not None)

    def overdue(self, now: float) -> None:
        """Take the verdict that no sign of work came in time."""
        if not self.managed and self.state != State.UNHEALTHY:
            self._set(State.UNHEALTHY, self.state_at or now, now)

    def lose(self, now: float) -> None:
        """Take it that the agent's node has gone silent."""
        self._set(State.LOST, self.state_at or now, now)
        self.lost = True
        self.reason = "its node no longer reports"

    def _set(self, state: State, at: float, since: float) -> None:
        if state != self.state or self.since is None:
            self.since = since
        if state not in ALIVE and state != State.SUSPENDED:
            self.pid = None
        self.state = state
        self.state_at = at
        self.lost = False

    # --- start and end

    def restore(self, history: AgentHistory, now: float, zone: tzinfo) -> None:
        """Fold what the store knew, then let the store's sums of the day stand."""
        for beat in history.beats:
            self.take_beat(beat, now, zone)
        if history.started is not None:
            self.take_started(history.started, now, zone)
            self._run_is_whole = False
        if history.ended is not None:
            self.take_ended(history.ended, now)
        if history.state is not None:
            self.take_state(history.state, now)
        if history.sample is not None:
            self.take_sample(history.sample, now)
        self._skew_s = None
        self.life_at = None
        today = ordinal(now, zone)
        self._days = {today: Day.of(history.today)}
        for back, calls, tokens in history.sent:
            self.outlay.means(today - back).add(calls, tokens)
        if history.today.unit is not None:
            self.unit = clean(history.today.unit, 40)
        self.reckon(now)

    def recall_usual(self, measure: str, usual: float) -> None:
        """Take up what was usual before a runaway that is still open, instead of what it made usual.

        The beats that the store hands over may all be the runaway's.
        """
        held = self.tokens if measure == "tokens" else self.cost
        if held.usual is not None and held.usual <= usual:
            return
        before = Baseline([max(1, round(usual))] * MIN_CYCLES)
        if measure == "tokens":
            self.tokens = before
        else:
            self.cost = before

    def _day(self, at: float, zone: tzinfo) -> Day:
        number = ordinal(at, zone)
        day = self._days.get(number)
        if day is None:
            day = self._days[number] = Day()
            while len(self._days) > MAX_DAYS:
                del self._days[min(self._days)]
        return day

    # --- reading

    def today(self, now: float, zone: tzinfo) -> Day:
        """Return the sums of the day of `now`; an empty day when nothing came."""
        return self._days.get(ordinal(now, zone)) or Day()

    def strip(self) -> list[dict[str, Any]]:
        """Return the recent cycles as JSON, oldest first."""
        return [
            {
                "at": at,
                "duration_s": duration,
                "tokens": tokens,
                "cost_usd": dollars(cost),
                "tool_calls": tool_calls,
                "items": items,
                "result": result,
            }
            for _, at, duration, tokens, cost, tool_calls, items, result in self._strip
        ]

    def resources(self, now: float) -> dict[str, Any]:
        """Return the last sample's resources; None for what is unknown or too old."""
        sample = self.sample
        if sample is None or not self.alive or now - sample["at"] > FRESH_SAMPLE_S:
            sample = {}
        return {name: sample.get(name) for name in RESOURCES}


def data_of(item: Item) -> dict[str, Any]:
    """Return an event's `data`, or an empty object."""
    data = item.get("data")
    return data if isinstance(data, dict) else {}  # pyright: ignore[reportUnknownVariableType]


def is_restart(data: dict[str, Any]) -> bool:
    """Tell whether a `run.started` event's data tells of a restart, by its `attempt` or `why`."""
    attempt, why = whole_of(data, "attempt"), text_of(data, "why")
    return (attempt is not None and attempt > 1) or (why is not None and "restart" in why.lower())


def dollars(nusd: int | None) -> float | None:
    """Return nano-dollars as dollars."""
    return None if nusd is None else nusd / NUSD


def _is_overtaken(at: float, known: float | None, now: float) -> bool:
    return known is not None and at < min(known, now)


def _first_state(config: Agent, declared: bool) -> State:
    """Return the state that is shown before any report."""
    if config.external or not declared:
        return State.STARTING
    if not config.enabled:
        return State.STOPPED
    return State.SCHEDULED if config.schedule is not None else State.STARTING
