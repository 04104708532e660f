"""ignores-sigterm: the agent did not stop when it was asked, and was killed with its whole tree."""

from __future__ import annotations

from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.findings import told
from midwatch.core.incident import Finding
from midwatch.core.plain import number_of, text_of, whole_of
from midwatch.core.units import show_duration


@detector("ignores-sigterm", on=("run.ignored_sigterm",))
def ignores_sigterm(facts: Facts) -> Verdict:
    """Tell of the grace that went by, and how many processes were killed."""
    data = facts.data
    grace, killed = number_of(data, "grace_s"), whole_of(data, "killed") or 0
    within = f" within {show_duration(grace)}" if grace else ""
    asked = text_of(data, "asked")
    others = killed - 1
    tree = f", with {others:,} {'process' if others == 1 else 'processes'} below it"
    return Finding(
        kind="ignores-sigterm",
        agent=facts.agent,
        severity="warning",
        sentence=told(
            facts,
            f"did not stop{within} of SIGTERM" + (f" ({asked})" if asked else ""),
            "killed" + (tree if others > 0 else ""),
        ),
        reason="limits.stop_grace went by",
        evidence_at=facts.item["at"],
        evidence={
            "run_id": text_of(data, "run_id", 80),
            "pid": whole_of(data, "pid"),
            "grace_s": grace,
            "killed": killed,
        },
        done=("kill",),
        transient=True,
    )
