"""Who is told what, when."""

from __future__ import annotations

from datetime import UTC
from typing import Any

import pytest

from midwatch.core.book import OVER, RAISED
from midwatch.core.conditions import BadCondition, Condition
from midwatch.core.fleet import Fleet, Route
from midwatch.core.incident import Action, Incident, IncidentState
from midwatch.core.notify import (
    ACTION_WAIT_S,
    GIVE_UP_S,
    Delivery,
    DeliveryState,
    Routes,
    Target,
    Why,
    after_attempt,
    next_repeat,
    notices,
    write,
)

NOW = 1_750_000_000.0
NOTIFY = {"ops": "json://localhost", "mail": "json://localhost"}


def _incident(**more: Any) -> Incident:
    values: dict[str, Any] = {
        "id": "i1",
        "kind": "oom-kill",
        "agent": "prices",
        "group": "web",
        "severity": "warning",
        "state": IncidentState.OPEN,
        "sentence": "prices: ran out of memory",
        "reason": "end=out-of-memory",
        "evidence": {},
        "opened_at": NOW,
        "evidence_at": NOW,
        "seen_at": NOW,
    }
    return Incident(**{**values, **more})


def _names(fleet: Fleet, incident: Incident) -> list[str]:
    return [target.name for target in Routes(fleet).targets(incident)]


@pytest.mark.parametrize(
    ("severity", "names"),
    [
        ("info", ["console"]),
        ("warning", ["console", "ops", "mail"]),
        ("critical", ["console", "ops", "mail"]),
    ],
)
def test_without_routes_everybody_hears_of_warning_and_critical(
    severity: str, names: list[str]
) -> None:
    assert _names(Fleet(agents={}, notify=NOTIFY), _incident(severity=severity)) == names


@pytest.mark.parametrize(
    ("match", "applies"),
    [
        ("true", True),
        ('severity == "warning"', True),
        ('severity == "critical"', False),
        ('group == "web" && agent.startsWith("pri")', True),
        ('kind in ["oom-kill", "hung-loop"]', True),
        ("count > 3", False),
    ],
)
def test_a_route_applies_when_its_condition_holds(match: str, applies: bool) -> None:
    fleet = Fleet(agents={}, notify=NOTIFY, routes=[Route(match=match, to="ops")])
    assert _names(fleet, _incident()) == ["console", *(["ops"] if applies else [])]


@pytest.mark.parametrize("match", ["severity ==", "nobody == 1", "1 + 1"])
def test_a_route_that_cannot_be_decided_applies_and_is_reported(match: str) -> None:
    routes = Routes(Fleet(agents={}, notify=NOTIFY, routes=[Route(match=match, to="ops")]))
    for _ in range(3):
        assert [t.name for t in routes.targets(_incident())] == ["console", "ops"]
    (problem,) = routes.bad
    assert repr(match) in problem


def test_a_target_of_two_routes_is_told_once_as_the_first_says() -> None:
    routes = [Route(to="ops", repeat=60.0), Route(to="ops", repeat=5.0)]
    found = Routes(Fleet(agents={}, notify=NOTIFY, routes=routes)).targets(_incident())
    assert found == [Target("console"), Target("ops", 60.0)]


def test_conditions_tell_what_is_wrong_with_them() -> None:
    with pytest.raises(BadCondition, match="is not a CEL expression"):
        Condition("a b")
    with pytest.raises(BadCondition, match="must give true or false"):
        Condition("count").holds({"count": 1})
    for broken in ("count / 0 > 1", "count * 9223372036854775807 > 1", "tags.customer == 1"):
        with pytest.raises(BadCondition):
            Condition(broken).holds({"count": 2, "tags": {}})


OPS = [Target("ops", 3_600.0)]


def _whys(incident: Incident, now: float = NOW) -> list[tuple[Why, str]]:
    return [(n.why, n.key) for n in notices(incident, OPS, now)]


def test_a_new_incident_is_told_at_once() -> None:
    (notice,) = notices(_incident(), OPS, NOW)
    assert (notice.why, notice.key, notice.next_at) == (Why.OPENED, "i1/ops/opened", NOW)


def test_a_pending_action_is_waited_for_a_moment_so_that_its_answer_can_be_told() -> None:
    incident = _incident(actions=[Action("suspend", NOW, "pending")])
    assert [n.next_at for n in notices(incident, OPS, NOW)] == [NOW + ACTION_WAIT_S]


def test_a_raised_severity_is_told_once_more() -> None:
    incident = _incident(severity="critical", evidence={RAISED: "warning"})
    assert _whys(incident) == [
        (Why.OPENED, "i1/ops/opened"),
        (Why.RAISED, "i1/ops/raised-critical"),
    ]


def test_an_open_incident_is_told_again_after_each_repeat_until_it_is_acknowledged() -> None:
    incident = _incident()
    assert _whys(incident, NOW + 3_599) == [(Why.OPENED, "i1/ops/opened")]
    assert _whys(incident, NOW + 7_300)[1:] == [(Why.AGAIN, "i1/ops/again-2")]
    assert next_repeat(incident, OPS, NOW + 7_300) == NOW + 10_800
    acked = _incident(state=IncidentState.ACKED)
    assert _whys(acked, NOW + 7_300) == [(Why.OPENED, "i1/ops/opened")]
    assert next_repeat(acked, OPS, NOW) is None
    assert next_repeat(incident, [Target("console")], NOW) is None


def test_the_end_is_told_except_of_what_was_over_when_it_was_told() -> None:
    over = {"state": IncidentState.RESOLVED}
    assert [w for w, _ in _whys(_incident(**over, resolved_at=NOW + 60))] == [
        Why.OPENED,
        Why.RESOLVED,
    ]
    assert [w for w, _ in _whys(_incident(**over, resolved_at=NOW))] == [Why.OPENED]


@pytest.mark.parametrize(
    ("why", "more", "title", "body"),
    [
        (
            Why.OPENED,
            {},
            "night: oom-kill (warning)",
            "prices: ran out of memory\nWhy: end=out-of-memory",
        ),
        (
            Why.RAISED,
            {"severity": "critical", "count": 3},
            "night: oom-kill (raised to critical)",
            "prices: ran out of memory\nSeen 3 times since 15:06.\nWhy: end=out-of-memory",
        ),
        (
            Why.AGAIN,
            {},
            "night: oom-kill is still open (warning)",
            "prices: ran out of memory\nOpen since 15:06, 2 hours.",
        ),
        (
            Why.RESOLVED,
            {
                "state": IncidentState.RESOLVED,
                "resolved_at": NOW + 480,
                "evidence": {OVER: "stable for 10 minutes"},
            },
            "night: oom-kill is over",
            "prices: ran out of memory\nOver after 8 minutes: stable for 10 minutes.",
        ),
    ],
)
def test_a_message_is_plain_and_says_what_a_sleepy_person_needs(
    why: Why, more: dict[str, Any], title: str, body: str
) -> None:
    assert write(why, _incident(**more), "night", NOW + 7_200, UTC) == (title, body)


def _delivery() -> Delivery:
    return Delivery("d", "k", "i1", "ops", Why.OPENED, "t", "b", NOW, NOW)


def test_attempts_are_spaced_further_and_further_and_then_given_up() -> None:
    delivery, now, waits = _delivery(), NOW, list[float]()
    while delivery.next_at is not None:
        now = delivery.next_at
        after_attempt(delivery, "503", now)
        if delivery.next_at is not None:
            waits.append(delivery.next_at - now)
    assert waits[:8] == [5, 10, 20, 40, 80, 160, 300, 300]
    assert delivery.state is DeliveryState.FAILED
    assert NOW + GIVE_UP_S - 300 <= now <= NOW + GIVE_UP_S


def test_what_cannot_succeed_is_given_up_at_once() -> None:
    delivery = _delivery()
    after_attempt(delivery, "no such target", NOW, permanent=True)
    assert (delivery.state, delivery.attempts, delivery.next_at) == (DeliveryState.FAILED, 1, None)


def test_a_success_ends_it_and_clears_the_error() -> None:
    delivery = _delivery()
    after_attempt(delivery, "503", NOW)
    after_attempt(delivery, None, NOW + 5)
    assert (delivery.state, delivery.error, delivery.delivered_at) == (
        DeliveryState.DELIVERED,
        None,
        NOW + 5,
    )
