"""How an incident changes: from findings, clears, actions and people. Pure; every step returns a new one.

One incident is open per (kind, agent, subject). A finding for an open one counts, and can make it more severe,
never less. What a finding said is kept beside the sentence, so that what was done can be said after it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import tzinfo
from typing import Any, Final

from midwatch.core.incident import (
    SUBJECT,
    Action,
    Clear,
    Finding,
    Incident,
    IncidentState,
    Severity,
)
from midwatch.core.plain import clean
from midwatch.core.times import show_time
from midwatch.core.units import show_money

PENDING: Final = "pending"
"""Result of an action that the node has not answered."""

WEIGHT: Final[dict[Severity, int]] = {"info": 0, "warning": 1, "critical": 2}

MAX_ACTIONS: Final = 50
"""Actions kept in one incident; of a restless agent the newest."""

# keys that the book itself keeps in the evidence
WHAT: Final = "what"  # the finding's own sentence
ITEMS: Final = "items"  # ids of the items behind it, the newest last
LAST_AT: Final = "last_at"  # time of the newest evidence
RAISED: Final = "raised_from"  # severity before it was raised
OVER: Final = "over"  # why it is resolved

MAX_ITEMS: Final = 8
"""Items whose ids are kept: a report of a run and what follows it."""

_NEEDLESS: Final = "not needed any more"

_DOING: Final = {"suspend": "suspending it", "restart": "restarting it", "stop": "stopping it"}
_DID: Final = {"suspend": "suspended", "restart": "restarted", "stop": "stopped"}
_BY_ITSELF: Final = "by the supervisor"
"""Result of what the supervisor did without being asked."""


def opened(
    finding: Finding,
    incident_id: str,
    group: str | None,
    now: float,
    item_id: str | None,
    zone: tzinfo,
) -> Incident:
    """Return the new incident; a transient one is resolved at once."""
    incident = Incident(
        id=incident_id,
        kind=finding.kind,
        agent=finding.agent,
        group=group,
        severity=finding.severity,
        state=IncidentState.RESOLVED if finding.transient else IncidentState.OPEN,
        sentence=finding.sentence,
        reason=finding.reason,
        evidence=_evidence(finding, item_id),
        opened_at=now,
        evidence_at=finding.evidence_at,
        seen_at=now,
        resolved_at=now if finding.transient else None,
        actions=_actions(finding, now),
    )
    return replace(incident, sentence=sentence_of(incident, zone, now))


def seen_again(
    incident: Incident, finding: Finding, now: float, item_id: str | None, zone: tzinfo
) -> Incident:
    """Return the incident after one more finding.

    Reports about the same run are one occurrence. Once the watch has asked for an action, the finding
    that caused it stays the one that is told.
    """
    evidence = {**incident.evidence, **_evidence(finding, item_id)}
    evidence[ITEMS] = [*items_of(incident), *([] if item_id is None else [item_id])][-MAX_ITEMS:]
    run_id = finding.evidence.get("run_id")
    is_same = run_id is not None and run_id == incident.evidence.get("run_id")
    severity = incident.severity
    if WEIGHT[finding.severity] > WEIGHT[severity]:
        evidence[RAISED], severity = severity, finding.severity
    has_asked = bool(_asked(incident))
    if has_asked:
        evidence[WHAT] = incident.evidence.get(WHAT, incident.sentence)
    actions = list(incident.actions)
    known = {(a.do, a.result) for a in actions} if is_same else set[tuple[str, str]]()
    asked = {a.do for a in _asked(incident)}
    for action in _actions(finding, now):
        if action.result == PENDING and action.do in asked:
            continue
        if (action.do, action.result) not in known:
            actions.append(action)
    changed = replace(
        incident,
        severity=severity,
        reason=incident.reason if has_asked else finding.reason,
        evidence=evidence,
        seen_at=now,
        count=incident.count + (0 if is_same else 1),
        actions=actions[-MAX_ACTIONS:],
    )
    return replace(changed, sentence=sentence_of(changed, zone, now))


def cleared(incident: Incident, clear: Clear, now: float, zone: tzinfo) -> Incident | None:
    """Return the incident resolved, or None when newer evidence has overtaken the clear."""
    if clear.at < float(incident.evidence.get(LAST_AT, incident.evidence_at)):
        return None
    actions = [replace(a, result=_NEEDLESS) if a.result == PENDING else a for a in incident.actions]
    evidence = {**incident.evidence, OVER: clear.reason}
    changed = replace(incident, actions=actions, evidence=evidence)
    return replace(
        changed,
        state=IncidentState.RESOLVED,
        resolved_at=now,
        sentence=sentence_of(changed, zone, now),
    )


def acked(incident: Incident, by: str, now: float) -> Incident:
    """Return the incident acknowledged; a resolved or acknowledged one stays as it is."""
    if incident.state is not IncidentState.OPEN:
        return incident
    evidence = {**incident.evidence, "acked_by": clean(by, 80)}
    return replace(incident, state=IncidentState.ACKED, acked_at=now, evidence=evidence)


def pending(incident: Incident) -> list[str]:
    """Return what was asked for and not answered."""
    return [a.do for a in incident.actions if a.result == PENDING]


def answered(incident: Incident, do: str, result: str, now: float, zone: tzinfo) -> Incident:
    """Return the incident with the node's answer to an action."""
    text = clean(result) or "done"
    actions = [
        Action(do, now, text) if a.do == do and a.result in (PENDING, _NEEDLESS) else a
        for a in incident.actions
    ]
    changed = replace(incident, actions=actions)
    return replace(changed, sentence=sentence_of(changed, zone, now))


def items_of(incident: Incident) -> list[str]:
    """Return the ids of the items behind an incident, the newest last."""
    found: Any = incident.evidence.get(ITEMS)
    return [str(i) for i in found] if isinstance(found, list) else []  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def is_transient(incident: Incident) -> bool:
    """Tell whether it was over as soon as it was told."""
    return incident.resolved_at is not None and incident.resolved_at <= incident.opened_at


def sentence_of(incident: Incident, zone: tzinfo, now: float) -> str:
    """Return what was found and what the watch did about it."""
    what = str(incident.evidence.get(WHAT, incident.sentence))
    asked = _asked(incident)
    if not asked:
        return what
    last = asked[-1]
    if last.result in (PENDING, _NEEDLESS):
        return f"{what}; {_DOING[last.do]}" if last.result == PENDING else what
    spent: Any = incident.evidence.get("spent_nusd")
    after = f" after {show_money(spent)}" if isinstance(spent, int) and spent > 0 else ""
    if did(last):
        return f"{what}; {_DID[last.do]} at {show_time(last.at, now, zone, seconds=True)}{after}"
    return f"{what}; could not {last.do} it: {last.result}"


def did(action: Action) -> bool:
    """Tell whether the node's answer says that the action was done."""
    return action.result.startswith((_DID.get(action.do, action.do), "already", "done"))


def _asked(incident: Incident) -> list[Action]:
    return [a for a in incident.actions if a.do in _DOING and a.result != _BY_ITSELF]


def _evidence(finding: Finding, item_id: str | None) -> dict[str, Any]:
    own: dict[str, Any] = {WHAT: finding.sentence, LAST_AT: finding.evidence_at}
    if item_id is not None:
        own[ITEMS] = [item_id]
    if finding.subject:
        own[SUBJECT] = finding.subject
    said = {name: value for name, value in finding.evidence.items() if name != SUBJECT}
    return {**said, **own}


def _actions(finding: Finding, now: float) -> list[Action]:
    actions = [Action(do, now, _BY_ITSELF) for do in finding.done]
    if finding.do is not None:
        actions.append(Action(finding.do, now, PENDING))
    return actions
