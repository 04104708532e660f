"""supervisor-killed: the supervisor died; at its next start it says what the gap was and what it did."""

from __future__ import annotations

from midwatch.core.detection import MIDWATCH, Facts, Verdict, detector
from midwatch.core.findings import gap_of, times, told
from midwatch.core.incident import Finding
from midwatch.core.plain import texts_of, whole_of


@detector("supervisor-killed", on=("supervisor.lost",))
def supervisor_killed(facts: Facts) -> Verdict:
    """Tell of the gap, of orphans that were stopped and of agents that were resumed."""
    if facts.agent != MIDWATCH:
        return None
    gap = gap_of(facts)
    unwatched = f"nothing was watched{gap.lasted}" if gap.lasted else ""
    orphans, resumed = _many(facts, "orphans"), _many(facts, "resumed")
    return Finding(
        kind="supervisor-killed",
        agent=MIDWATCH,
        severity="warning",
        sentence=told(
            facts,
            f"the supervisor died{gap.since(facts, ' after ')}",
            unwatched,
            f"{times(orphans, 'orphan')} stopped" if orphans else "",
            f"{times(resumed, 'agent')} resumed" if resumed else "",
        ),
        reason="the journal ended without a stop in good order",
        evidence_at=gap.ended or facts.item["at"],
        evidence={
            **gap.to_json(),
            "orphans": orphans,
            "resumed": texts_of(facts.data, "resumed") or resumed,
        },
        done=("restart",) if resumed else (),
        transient=True,
    )


def _many(facts: Facts, name: str) -> int | None:
    """Return a field that is either a number or a list as a number."""
    value = facts.data.get(name)
    return len(value) if isinstance(value, list) else whole_of(facts.data, name)  # pyright: ignore[reportUnknownArgumentType]
