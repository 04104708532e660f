"""crash: a single failure that is none of the special ones: an exit code, a signal, a failed start.

It is a warning that resolves itself once the agent is stable; from the third failure in a row on it
is a crash-loop, and this incident ends. An agent without a supervisor says by `/ping/AGENT/fail`, or by
an exit status, that it failed; its next success ends that.
"""

from __future__ import annotations

from midwatch.core.causes import CRASHES
from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.findings import LOOP_FAILURES, ended, failures_of, found, told
from midwatch.core.incident import Clear, Finding
from midwatch.core.plain import text_of, whole_of
from midwatch.core.recovery import WAKES, recovery

KIND = "crash"


@detector(KIND, on=(*WAKES, "ping.fail", "beat"))
def crash(facts: Facts) -> Verdict:
    """Find a crash before it has become a loop."""
    if facts.item.get("kind") == "ping.fail":
        return _said_so(facts)
    if facts.cycle is not None:
        is_good = not facts.managed and facts.item.get("result") != "failed"
        return _over(facts, "it succeeded again") if is_good else None
    if not ended(facts, CRASHES):
        return recovery(facts, KIND)
    failures = failures_of(facts)
    if failures >= LOOP_FAILURES or "crash-loop" in facts.open_kinds:
        return _over(facts, "became a crash loop")
    end = facts.data.get("end")
    return found(KIND, facts, f"end={end}, {failures} in a row, a loop from {LOOP_FAILURES}")


def _over(facts: Facts, reason: str) -> Clear | None:
    return Clear(KIND, facts.agent, reason, facts.item["at"]) if KIND in facts.open_kinds else None


def _said_so(facts: Facts) -> Verdict:
    """Word a failure that the agent itself reports; nobody restarts it, so a person is needed."""
    if facts.managed:
        return None
    code, body = whole_of(facts.data, "exit_code"), text_of(facts.data, "body")
    status = "" if code is None else f" with exit status {code}"
    return Finding(
        kind=KIND,
        agent=facts.agent,
        severity="critical" if facts.declared else "warning",
        sentence=told(facts, f"reported a failure{status}" + (f" ({body})" if body else "")),
        reason="a ping that says fail",
        evidence_at=facts.item["at"],
        evidence={"exit_code": code, "body": body},
    )
