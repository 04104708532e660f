"""The reports of one agent, field by field (docs/design.md, "What the supervisor reports")."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from midwatch.core.bounds import Excess
from midwatch.core.exits import End, Facts, Verdict
from midwatch.core.fleet import Agent
from midwatch.core.liveness import Judgement
from midwatch.core.redact import redact_text
from midwatch.core.restart import Decision, Next
from midwatch.core.stacks import before_stack
from midwatch.core.states import State
from midwatch.supervisor.machine.system import Exit, Sample, System
from midwatch.supervisor.reporter import Reports, Silence
from midwatch.supervisor.run import Run


class Telling:
    """Tells about one agent."""

    def __init__(self, name: str, agent: Agent, reports: Reports, system: System) -> None:
        self._name = name
        self._agent = agent
        self._reports = reports
        self._system = system
        self.unwalled: str | None = None
        """Why the run that starts does not have the walls that it should."""

    def event(self, kind: str, data: dict[str, Any], run_id: str | None = None) -> None:
        self._reports.event(self._name, kind, self._system.wall(), data, run_id)

    def run(self, run_id: str, fields: dict[str, Any]) -> None:
        self._reports.run(self._name, run_id, self._system.wall(), fields)

    def sample(self, run_id: str, fields: dict[str, Any]) -> None:
        self._reports.sample(self._name, self._system.wall(), fields, run_id)

    def of(self, sub_agent: str, *, aloud: bool) -> Telling:
        """Return the same for a sub-agent, of which only its name is known. Not `aloud`: nobody hears it."""
        reports = self._reports if aloud else Reports(Silence(), self.node)
        return Telling(sub_agent, Agent(external=True), reports, self._system)

    def withhold(self, why: str) -> None:
        """Count what happened and is not told."""
        self._reports.withheld[why] += 1

    @property
    def node(self) -> str:
        return self._reports.node

    def state(
        self,
        state: State,
        since: float,
        reason: str,
        run: Run | None,
        attempt: int,
        next_start_at: float | None,
    ) -> None:
        data = {
            "state": state,
            "since": since,
            "reason": reason,
            "pid": run.process.pid if run else None,
            "run_id": run.run_id if run else None,
            "attempt": attempt,
            "next_start_at": next_start_at,
            "node": self._reports.node,
        }
        self.event("agent.state", data, run.run_id if run else None)

    def started(
        self, run_id: str, pid: int | None, attempt: int, why: str, version: dict[str, Any]
    ) -> None:
        at = self._system.wall()
        data = {
            "run_id": run_id,
            "pid": pid,
            "command": [redact_text(word) for word in self._agent.command or ()] or None,
            "attempt": attempt,
            "why": why,
            "unwalled": self.unwalled,
            **version,
        }
        self.event("run.started", data, run_id)
        fields = {"state": "started", "started_at": at, "pid": pid}
        command = data["command"]
        self._reports.run(self._name, run_id, at, {**fields, "command": command, **version})

    def revision(self, run_id: str, revision: dict[str, Any]) -> None:
        """What git had checked out when the run was started, found out just after that."""
        self.event("run.revision", {"run_id": run_id, "revision": revision}, run_id)
        self._reports.run(self._name, run_id, self._system.wall(), {"revision": revision})

    def ended(
        self,
        verdict: Verdict,
        decision: Decision,
        run_id: str,
        exit_: Exit,
        run: Run | None,
        facts: Facts | None,
    ) -> None:
        at = self._system.wall()
        shared: dict[str, Any] = {
            "pid": run.process.pid if run else None,
            "end": verdict.end,
            "reason": verdict.reason,
            "exit_code": exit_.code,
            "signal": exit_.signal,
            "duration_s": round(facts.duration_s, 6) if facts else 0.0,
        }
        data = {
            **shared,
            "run_id": run_id,
            "rss_bytes": facts.rss_bytes if facts else None,
            "rss_limit_bytes": self._agent.limits.memory,
            "rss_slope_bytes_h": facts.rss_slope_bytes_h if facts else None,
            "tail": facts.tail if facts else [],
            "expected": verdict.expected,
            "next": decision.next,
            "next_in_s": round(decision.delay_s, 3) if decision.next is Next.RESTART else None,
            "failures": decision.failures,
            "silent_s": run.silent_s if run else None,
            "credential": verdict.credential,
            "said": verdict.said or None,
            "retry_after_s": verdict.retry_after_s,
            "identical": decision.streak.alike if decision.failures else 0,
        }
        if run is not None and run.stack:
            data["stack"] = run.stack
            data["tail"] = before_stack(facts.tail if facts else [])
        self.event("run.ended", data, run_id)
        fields = {
            **shared,
            "state": "ended",
            "ended_at": at,
            "started_at": run.started_at if run else at,
        }
        self._reports.run(self._name, run_id, at, fields)

    def lost(self, run_id: str, started_at: float) -> None:
        """The run died with an earlier supervisor: part of its history, no failure of the agent's."""
        fields = {
            "state": "ended",
            "end": End.LOST,
            "reason": "its supervisor died",
            "started_at": started_at or None,
        }
        self._reports.run(self._name, run_id, self._system.wall(), fields)

    def hung(
        self,
        run: Run,
        judgement: Judgement,
        reason: str,
        tail: list[str],
        standing: dict[str, Any],
    ) -> None:
        """`standing`: where the process stands, see `duties.progress.standing_data`."""
        data: dict[str, Any] = {
            "run_id": run.run_id,
            "pid": run.process.pid,
            "last_beat_at": run.beat_at,
            "silent_s": round(judgement.silent_s, 3),
            "interval_s": self._agent.heartbeat.every,
            "missed": judgement.missed,
            "reason": reason,
            "tail": tail,
            "standing": standing,
        }
        if run.stack:
            data["stack"] = run.stack
        self.event("run.hung", data, run.run_id)

    def excess(self, run: Run, excess: Excess, held: str) -> None:
        """A limit was passed. `held`: killed, refused (by the kernel), draining, or warned."""
        data = {
            "run_id": run.run_id,
            "limit": excess.limit,
            "used": excess.used,
            "bound": excess.bound,
            "held": held,
            "reason": excess.reason,
        }
        self.event("run.over_limit", data, run.run_id)

    def ignored(self, run: Run, grace_s: float, killed: int) -> None:
        """The run did not stop when it was asked; its tree was killed."""
        data = {
            "run_id": run.run_id,
            "pid": run.process.pid,
            "grace_s": grace_s,
            "killed": killed,
            "asked": run.wish_reason,
        }
        self.event("run.ignored_sigterm", data, run.run_id)

    def sampled(
        self, state: State, run: Run | None, sample: Sample | None, drift: Sequence[str] = ()
    ) -> None:
        """Resources, and the state and drift, so that a lost event heals."""
        fields: dict[str, Any] = {"state": state, "drift": list(drift) or None}
        if run is not None and sample is not None:
            fields |= {
                "pid": run.process.pid,
                "rss_bytes": sample.rss_bytes,
                "cpu_s": round(sample.cpu_s, 2),
                "open_files": sample.open_files,
                "children": sample.children,
                "threads": sample.threads,
                "zombies": sample.zombies,
                "pss_bytes": sample.pss_bytes,
            }
        self._reports.sample(self._name, self._system.wall(), fields, run.run_id if run else None)
