"""supervisor-killed: the supervisor died; at its next start it says what the gap was and what it did."""

from __future__ import annotations

from midwatch.core.detection import MIDWATCH, Facts, Verdict, detector
from midwatch.core.incident import Finding
from midwatch.core.plain import number_of, texts_of, whole_of
from midwatch.core.report import times, told
from midwatch.core.times import show_time
from midwatch.core.units import show_duration


@detector("supervisor-killed", on=("supervisor.lost",))
def supervisor_killed(facts: Facts) -> Verdict:
    """Tell of the gap, of orphans that were stopped and of agents that were resumed."""
    if facts.agent != MIDWATCH:
        return None
    start, end = number_of(facts.data, "from"), number_of(facts.data, "to")
    gap = number_of(facts.data, "gap_s")
    if gap is None and start is not None and end is not None:
        gap = max(0.0, end - start)
    length = f"; nothing was watched for {show_duration(gap)}" if gap is not None else ""
    since = f" after {show_time(start, facts.now, facts.zone, seconds=True)}" if start else ""
    orphans, resumed = _many(facts, "orphans"), _many(facts, "resumed")
    return Finding(
        kind="supervisor-killed",
        agent=MIDWATCH,
        severity="warning",
        sentence=told(
            facts,
            f"the supervisor died{since}{length}",
            f"{times(orphans, 'orphan')} stopped" if orphans else "",
            f"{times(resumed, 'agent')} resumed" if resumed else "",
        ),
        reason="the journal ended without a stop in good order",
        evidence_at=end or facts.item["at"],
        evidence={
            "from": start,
            "to": end,
            "gap_s": gap,
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
