"""waiting-for-input: sits at a prompt of its terminal until somebody answers.

The supervisor sees it (it knows the terminal and who reads it) and this detector words it. Over as soon
as the agent is in any other state: it was answered, went on by itself, or ended.
"""

from __future__ import annotations

from typing import Final

from midwatch.core.detection import Facts, Verdict, detector
from midwatch.core.excerpt import last_lines, lines_of
from midwatch.core.findings import told
from midwatch.core.incident import Clear, Finding
from midwatch.core.plain import number_of, text_of, whole_of
from midwatch.core.states import State
from midwatch.core.units import show_duration

KIND: Final = "waiting-for-input"

MAX_SCREEN_BYTES: Final = 8_000


@detector(KIND, on=("run.waiting", "agent.state", "run.ended", "sample"))
def waiting_for_input(facts: Facts) -> Verdict:
    """Find an agent that waits for a person, with what its screen shows; clear it when it goes on."""
    if facts.item.get("kind") == "run.waiting":
        return _waits(facts)
    if KIND not in facts.open_kinds or facts.state == State.WAITING:
        return None
    at = facts.item.get("at", facts.now)
    return Clear(KIND, facts.agent, _how(facts), at)


def _waits(facts: Facts) -> Finding:
    data = facts.data
    question = text_of(data, "question", 160)
    silent = number_of(data, "silent_s")
    evidence: dict[str, object] = {"run_id": text_of(data, "run_id") or facts.run_id}
    fields = {"pid": whole_of(data, "pid"), "question": question, "silent_s": silent}
    evidence |= {name: value for name, value in fields.items() if value is not None}
    if screen := last_lines(lines_of(data.get("screen")), MAX_SCREEN_BYTES):
        evidence["screen"] = screen
    quiet = f"quiet for {show_duration(silent)}" if silent else ""
    # an agent that is declared to live without a sign is meant to wait
    meant = facts.config.liveness == "none"
    return Finding(
        kind=KIND,
        agent=facts.agent,
        severity="info" if meant else "critical",
        sentence=told(facts, "waits for input" + (f": {question!r}" if question else ""), quiet),
        reason=text_of(data, "reason") or "the supervisor found it reading its terminal",
        evidence_at=facts.item["at"],
        evidence=evidence,
    )


def _how(facts: Facts) -> str:
    if facts.item.get("kind") == "run.ended":
        return "its run ended"
    return text_of(facts.data, "reason", 80) or f"it is {facts.state}"
