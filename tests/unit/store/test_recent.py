from __future__ import annotations

from midwatch.store.recent import RecentIds


def test_the_oldest_are_forgotten_and_since_says_from_when_on_it_is_complete() -> None:
    recent = RecentIds(limit=3)
    recent.add(["a", "b"], 10.0)
    assert recent.since == float("-inf")
    recent.add(["c", "d"], 20.0)
    assert ["a" in recent, "b" in recent, "d" in recent] == [False, True, True]
    assert recent.since == 10.0
    recent.add(["e", "f", "g"], 30.0)
    assert recent.since == 20.0
    assert len(recent) == 3


def test_what_was_not_committed_is_forgotten() -> None:
    recent = RecentIds()
    recent.add(["a", "b"], 1.0)
    recent.discard(["a", "unknown"])
    assert ["a" in recent, "b" in recent] == [False, True]
