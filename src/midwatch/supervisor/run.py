"""One run of an agent: its process, the evidence of its progress, its samples, and what we asked of it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import Final

from midwatch.core import liveness, trends
from midwatch.core.descent import Branch
from midwatch.core.exits import Facts, Wish
from midwatch.core.liveness import Evidence
from midwatch.supervisor.machine.system import Exit, Process, Sample
from midwatch.supervisor.output.record import Record
from midwatch.wire.notify import Notice, decode

BEAT: Final = decode(b"WATCHDOG=1")
"""Nearly all notices are bare beats: those are read once, and known by identity."""

HISTORY: Final = 60
"""Samples kept for the growth rate: ten minutes at the usual distance."""


@dataclass(slots=True)
class Run:
    """State of one life of an agent's process. Times without `_at` are monotonic."""

    run_id: str
    process: Process
    started: float
    started_at: float
    why: str
    attempt: int
    evidence: Evidence
    oom_kills: int
    """The host's count when the run was last sampled."""
    wish: Wish | None = None
    wish_reason: str = ""
    said_done: bool = False
    carried: bool = False
    """Whether the open call is one that the gateway told of."""
    status: str | None = None
    beat_at: float | None = None
    hung_told: bool = False
    silent_s: float | None = None
    """For how long there was no evidence of progress when the run was judged hung."""
    record: Record | None = None
    """The end of its output as it came, for its screen or its stacks; None while nobody needs it."""
    stack: list[str] = field(default_factory=list[str])
    """Where its threads stood when it hung."""
    kin: dict[str, Branch] = field(default_factory=dict[str, Branch])
    """Its living sub-agents that are followed, by their run ids."""
    strangers: frozenset[int] = frozenset()
    """The pids of sub-agents which may know the notify socket: what they say is not the agent's own."""
    sample: Sample | None = None
    sampled: float = 0.0
    history: deque[tuple[float, int]] = field(
        default_factory=lambda: deque[tuple[float, int]](maxlen=HISTORY)
    )

    def hear(self, notice: Notice, now: float, wall: float, sender: int = 0) -> Notice:
        """Take what the agent said as evidence; return as much of it as is the agent's own."""
        evidence = self.evidence
        if sender in self.strangers:  # its beats must not stand in for its parent's
            return Notice(child=notice.child, sender=sender)
        if notice is BEAT:
            # the hot path: a few hundred a second, and `replace` costs more than all the rest
            e = evidence
            self.beat_at = wall
            self.evidence = Evidence(
                e.started,
                now,
                e.output,
                e.call,
                e.call_open,
                None,
                e.child_work,
                e.draining,
                e.work,
                e.waited,
            )
            return notice
        if notice.beat:
            # a beat ends the step: the loop went round. An open call may be another thread's
            evidence = replace(evidence, beat=now, step_until=None)
            self.beat_at = wall
        if notice.extend_s is not None:
            evidence = replace(evidence, step_until=now + notice.extend_s)
        if notice.call == "open":
            evidence = replace(
                evidence,
                call=now,
                call_open=now if evidence.call_open is None else evidence.call_open,
            )
        elif notice.call == "done":
            evidence = replace(evidence, call=now, call_open=None)
        if notice.draining and evidence.draining is None:
            evidence = replace(evidence, draining=now)
        self.evidence = evidence
        self.said_done = self.said_done or notice.done or notice.draining
        if notice.status is not None:
            self.status = notice.status
        return notice

    def called(self, now: float, open_s: float | None, ended_s: float | None) -> None:
        """Take what the gateway says of the agent's calls: for how long one has been open, and how long ago
        the last one ended. None: none is, or it does not know of any.

        What the agent itself declares stands beside it: only what came from here is taken back here.
        """
        evidence = self.evidence
        if open_s is not None:
            if evidence.call_open is None:
                opened = max(self.started, now - open_s)
                evidence, self.carried = replace(evidence, call_open=opened, call=now), True
        elif self.carried:
            evidence, self.carried = replace(evidence, call_open=None, call=now), False
        if ended_s is not None and now - ended_s > max(self.started, evidence.call or 0.0):
            evidence = replace(evidence, call=now - ended_s)
        self.evidence = evidence

    def printed(self, now: float, data: bytes = b"") -> None:
        self.evidence = replace(self.evidence, output=now)
        if self.record is not None:
            self.record.feed(data)

    def take(self, sample: Sample, now: float) -> None:
        """Take a sample: memory history, and whether the children worked since the last one."""
        if sample.rss_bytes == 0:
            return  # it is dying: what it held until then is what explains its end
        if self.sample is not None and liveness.child_worked(
            sample.children_cpu_s, self.sample.children_cpu_s, now - self.sampled
        ):
            self.evidence = replace(self.evidence, child_work=now)
        if self.sample is not None and liveness.tree_worked(
            sample.cpu_s, self.sample.cpu_s, now - self.sampled
        ):
            self.evidence = replace(self.evidence, work=now)
        self.sample = sample
        self.sampled = now
        self.history.append((now, sample.rss_bytes))

    def slope(self) -> float | None:
        return trends.slope_of(self.history)

    def facts(
        self,
        exit_: Exit,
        now: float,
        *,
        limit: int | None,
        tail: list[str],
        long_lived: bool,
        oom_kills: int,
        host_stops: str = "",
    ) -> Facts:
        """Return what is known at the end of the run."""
        return Facts(
            exit_code=exit_.code,
            signal=exit_.signal,
            wish=self.wish,
            wish_reason=self.wish_reason,
            said_done=self.said_done,
            long_lived=long_lived,
            rss_bytes=self.sample.rss_bytes if self.sample else None,
            rss_limit_bytes=limit,
            rss_slope_bytes_h=self.slope(),
            oom_kills=exit_.oom_kills,
            host_oom_kills=max(0, oom_kills - self.oom_kills),
            host_stops=host_stops,
            tail=tail,
            duration_s=now - self.started,
        )
