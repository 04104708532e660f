"""pipe-flood: an agent prints more than its log takes; what is over is left out, the agent goes on."""

from __future__ import annotations

from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.findings import told
from midwatch.core.incident import Clear, Finding
from midwatch.core.plain import flag_of, number_of, text_of
from midwatch.core.units import show_size

KIND = "pipe-flood"


@detector(KIND, on=("run.flooding", "run.started"))
def pipe_flood(facts: Facts) -> Verdict:
    """Tell of a flood when it begins; its end, or the end of the run, ends the incident.

    Of the end of a run that died with its supervisor only the next run tells.
    """
    if facts.item.get("kind") != "run.flooding":
        another = Clear(KIND, facts.agent, "another run began", facts.item["at"])
        return another if KIND in facts.open_kinds else None
    data = facts.data
    dropped = number_of(data, "dropped_bytes") or 0
    if flag_of(data, "over"):
        if KIND not in facts.open_kinds:
            return None
        why = text_of(data, "reason") or "it prints as it may again"
        return Clear(
            KIND, facts.agent, f"{why}; {show_size(dropped)} were left out", facts.item["at"]
        )
    speed, limit = number_of(data, "bytes_s") or 0, number_of(data, "limit_bytes_s")
    allowed = f", {show_size(limit)}/s for long are allowed" if limit else ""
    evidence: dict[str, object] = {
        "bytes_s": speed,
        "limit_bytes_s": limit,
        "dropped_bytes": dropped,
    }
    if facts.run_id is not None:
        evidence["run_id"] = facts.run_id
    return Finding(
        kind=KIND,
        agent=facts.agent,
        severity="warning",
        sentence=told(
            facts,
            f"floods its output with {show_size(speed)}/s{allowed}",
            "what is over is left out of its log and counted; the agent itself goes on",
        ),
        reason=f"bytes_s={speed:.0f}, limits.output is {limit or 0:.0f}",
        evidence_at=facts.item["at"],
        evidence=evidence,
    )
