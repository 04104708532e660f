"""How an incident changes, step by step."""

from __future__ import annotations

from datetime import UTC
from typing import Any

from midwatch.core import book
from midwatch.core.incident import Clear, Finding, Incident, IncidentState

NOW = 1_750_000_000.0


def _finding(**more: Any) -> Finding:
    values: dict[str, Any] = {
        "kind": "runaway-loop",
        "agent": "inbox",
        "severity": "critical",
        "sentence": "inbox: 41,200 tokens in one cycle, usual 190",
        "reason": "limit 5,000",
        "evidence_at": NOW - 1,
        "evidence": {"spent_nusd": 380_000_000},
        "do": "suspend",
    }
    return Finding(**{**values, **more})


def _open(**more: Any) -> Incident:
    return book.opened(_finding(**more), "i1", "support", NOW, "item-1", UTC)


def _crash(**more: Any) -> Finding:
    values: dict[str, Any] = {
        "kind": "crash",
        "severity": "warning",
        "sentence": "inbox: exited",
        "do": None,
        "done": ("restart",),
        "evidence": {"run_id": "r1"},
    }
    return _finding(**{**values, **more})


def test_an_incident_opens_with_what_is_pending() -> None:
    incident = _open()
    assert incident.state is IncidentState.OPEN
    assert incident.sentence == "inbox: 41,200 tokens in one cycle, usual 190; suspending it"
    assert [(a.do, a.result) for a in incident.actions] == [("suspend", "pending")]
    assert book.pending(incident) == ["suspend"]
    assert book.items_of(incident) == ["item-1"]


def test_the_answer_of_the_node_is_told_with_the_time_and_the_cost() -> None:
    incident = book.answered(_open(), "suspend", "suspended", NOW + 5, UTC)
    assert incident.sentence == (
        "inbox: 41,200 tokens in one cycle, usual 190; suspended at 15:06:45 after $0.38"
    )
    assert book.pending(incident) == []


def test_an_action_that_was_refused_says_why() -> None:
    incident = book.answered(_open(), "suspend", "no agent is called 'inbox'", NOW, UTC)
    assert incident.sentence.endswith("; could not suspend it: no agent is called 'inbox'")


def test_later_beats_of_a_runaway_count_and_neither_ask_again_nor_change_what_is_told() -> None:
    incident = book.answered(_open(), "suspend", "suspended", NOW + 1, UTC)
    later = _finding(sentence="inbox: 9,999 tokens in one cycle, usual 190")
    again = book.seen_again(incident, later, NOW + 2, "item-2", UTC)
    assert again.count == 2
    assert again.sentence == incident.sentence
    assert len(again.actions) == 1
    assert book.items_of(again) == ["item-1", "item-2"]


def test_reports_about_one_run_are_one_occurrence() -> None:
    incident = book.opened(_crash(), "i", None, NOW, "a", UTC)
    parked = _crash(severity="critical", done=("park",), sentence="inbox: parked")
    same = book.seen_again(incident, parked, NOW + 1, "b", UTC)
    assert (same.count, same.severity, same.sentence) == (1, "critical", "inbox: parked")
    assert [a.do for a in same.actions] == ["restart", "park"]
    other = book.seen_again(same, _crash(evidence={"run_id": "r2"}), NOW + 2, "c", UTC)
    assert other.count == 2
    assert [a.do for a in other.actions] == ["restart", "park", "restart"]


def test_an_incident_becomes_more_severe_and_never_less() -> None:
    incident = book.opened(_crash(), "i", None, NOW, None, UTC)
    raised = book.seen_again(incident, _crash(severity="critical"), NOW, None, UTC)
    assert (raised.severity, raised.evidence[book.RAISED]) == ("critical", "warning")
    calmer = book.seen_again(raised, _crash(severity="warning"), NOW, None, UTC)
    assert calmer.severity == "critical"


def test_actions_and_items_of_a_restless_agent_are_bounded() -> None:
    incident = book.opened(_crash(), "i", None, NOW, "0", UTC)
    for number in range(200):
        finding = _crash(evidence={"run_id": str(number)})
        incident = book.seen_again(incident, finding, NOW + number, str(number), UTC)
    assert incident.count == 201
    assert len(incident.actions) == book.MAX_ACTIONS
    assert len(book.items_of(incident)) == book.MAX_ITEMS


def test_a_clear_resolves_and_says_why() -> None:
    done = book.cleared(_open(), Clear("runaway-loop", "inbox", "resumed", NOW + 9), NOW + 9, UTC)
    assert done is not None
    assert (done.state, done.resolved_at) == (IncidentState.RESOLVED, NOW + 9)
    assert done.evidence[book.OVER] == "resumed"
    assert [a.result for a in done.actions] == ["not needed any more"]
    assert done.sentence == "inbox: 41,200 tokens in one cycle, usual 190"


def test_a_clear_that_newer_evidence_has_overtaken_is_ignored() -> None:
    assert book.cleared(_open(), Clear("runaway-loop", "inbox", "old", NOW - 60), NOW, UTC) is None


def test_a_gap_that_has_ended_is_resolved_as_it_opens() -> None:
    incident = _open(transient=True, do=None)
    assert incident.state is IncidentState.RESOLVED
    assert book.is_transient(incident)


def test_acknowledging_is_recorded_once_and_only_while_open() -> None:
    acked = book.acked(_open(), "ann\x1b", NOW + 3)
    assert (acked.state, acked.acked_at, acked.evidence["acked_by"]) == ("acked", NOW + 3, "ann")
    assert book.acked(acked, "bob", NOW + 4) is acked


def test_no_step_changes_the_incident_that_it_was_given() -> None:
    incident = _open()
    before = incident.to_json()
    book.seen_again(incident, _finding(), NOW, "x", UTC)
    book.answered(incident, "suspend", "suspended", NOW, UTC)
    book.cleared(incident, Clear("runaway-loop", "inbox", "r", NOW), NOW, UTC)
    book.acked(incident, "ann", NOW)
    assert incident.to_json() == before
