from __future__ import annotations

from collections.abc import Iterator

from midwatch.core.sketch import Sketch
from midwatch.core.spans.rollup import Key, Sum
from midwatch.store.questions.kept import Kept, Place

PLACE = Place("days", (1, 2), 0, 86_400, 0, 86_400, "calls", None)


class Database:
    """Gives so many sums, and counts how often it was asked."""

    def __init__(self, sums: int, buckets: int = 0) -> None:
        self.asked = 0
        self._sums, self._buckets = sums, buckets

    def __call__(self, limit: int) -> Iterator[tuple[Key, Sum]]:
        self.asked += 1
        for n in range(min(limit, self._sums)):
            sketch = Sketch(dict.fromkeys(range(self._buckets), 1))
            yield Key(n, "inbox", "", "agent", "inbox"), Sum(calls=n, trace_latency=sketch)


def test_what_was_asked_is_not_read_again_until_a_segment_comes_or_goes() -> None:
    kept, database = Kept(), Database(3)
    first = kept.get(PLACE, database)
    assert first is not None
    assert [one.calls for _, one in first] == [0, 1, 2]
    assert kept.get(PLACE, database) is first
    assert database.asked == 1
    kept.get(PLACE._replace(segments=(1, 2, 3)), database)
    assert database.asked == 2


def test_an_answer_of_too_many_sums_is_left_to_the_database_and_not_tried_again() -> None:
    kept, database = Kept(most_sums=10), Database(11)
    assert kept.get(PLACE, database) is None
    assert kept.get(PLACE, database) is None
    assert database.asked == 1


def test_what_is_held_is_bounded_and_what_was_asked_longest_ago_goes_first() -> None:
    kept, database = Kept(most_cells=50), Database(2, buckets=9)
    places = [PLACE._replace(first_s=n) for n in range(3)]
    for place in (places[0], places[1], places[0], places[2]):
        kept.get(place, database)
        assert kept.cells <= 50
    assert database.asked == 3
    kept.get(places[0], database)
    assert database.asked == 3
    kept.get(places[1], database)
    assert database.asked == 4


def test_an_answer_that_is_more_than_may_be_held_is_given_and_not_kept() -> None:
    kept, database = Kept(most_cells=30), Database(3, buckets=9)
    for _ in range(2):
        assert len(kept.get(PLACE, database) or ()) == 3
    assert (database.asked, kept.cells) == (2, 0)
