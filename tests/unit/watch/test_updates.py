"""Live updates: soon, bounded, and what matters first."""

from __future__ import annotations

from typing import Any

from midwatch.watch.memory import RecordingPublisher
from midwatch.watch.updates import PER_ROUND, Updates


def _updates(gone: str = "") -> tuple[Updates, RecordingPublisher]:
    publisher = RecordingPublisher()

    def read(name: str) -> dict[str, Any] | None:
        if name == gone:
            return None
        return {"agent": name, "last_beat": 1.0, "recent_cycles": [{"at": 1.0}]}

    return Updates(publisher, read), publisher


def test_many_changes_of_one_agent_are_one_update() -> None:
    updates, publisher = _updates()
    for _ in range(100):
        updates.beaten("inbox")
        updates.changed("inbox")
    assert updates.flush()
    assert publisher.published == [
        ("fleet", {"agent": "inbox", "last_beat": 1.0, "recent_cycles": [{"at": 1.0}]}),
        ("beat", {"agent": "inbox", "at": 1.0, "cycle": {"at": 1.0}}),
    ]
    assert updates.flush()
    assert len(publisher.published) == 2


def test_a_round_is_bounded_states_go_first_and_beats_take_turns() -> None:
    updates, publisher = _updates()
    names = [f"a{number}" for number in range(2 * PER_ROUND)]
    for name in names:
        updates.beaten(name)
    updates.changed("parked")
    assert not updates.flush()
    first = [agent["agent"] for agent in publisher.of("fleet")]
    assert first == ["parked", *names[: PER_ROUND - 1]]
    for name in names:
        updates.beaten(name)
    assert not updates.flush()
    second = [agent["agent"] for agent in publisher.of("fleet")][PER_ROUND:]
    assert second == names[PER_ROUND - 1 : 2 * PER_ROUND - 1]


def test_an_agent_that_has_left_is_not_published() -> None:
    updates, publisher = _updates(gone="ghost")
    updates.changed("ghost")
    assert updates.flush()
    assert publisher.published == []


def test_nothing_is_read_while_nobody_follows() -> None:
    updates, publisher = _updates()
    publisher.is_heard = False
    for number in range(2 * PER_ROUND):
        updates.beaten(f"a{number}")
    updates.changed("inbox")
    assert updates.flush()
    publisher.is_heard = True
    assert updates.flush()
    assert (publisher.published, updates.published) == ([], 0)
