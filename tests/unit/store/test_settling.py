"""Generations are counted one after the other, each with what the earlier ones know of the same calls."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.trees import read_tree, trees

from midwatch.core.spans.answers import family
from midwatch.core.spans.counted import Place, Sum, sums
from midwatch.core.spans.counting import Verdict, judge
from midwatch.core.spans.facts import Fact, Key
from midwatch.store.spans import settling
from midwatch.store.spans.settling import Counted, Time, count, loose

CORPUS = {tree.title: tree for tree in trees()}


class Segments:
    """What is settled, in lists; answers exactly what it is asked for."""

    def __init__(self) -> None:
        self.facts: dict[Key, Fact] = {}
        self.told: dict[Key, Verdict] = {}
        self.totals: dict[Place, Sum] = {}

    def of_traces(self, traces: Collection[bytes]) -> Iterable[Fact]:
        return [one for one in self.facts.values() if one.trace_id in traces]

    def traces_of(self, names: Collection[str]) -> Iterable[bytes]:
        names = set(names)
        return [
            one.trace_id
            for one in self.facts.values()
            if not names.isdisjoint((one.call_id, one.response_id, one.first_response_id))
        ]

    def traces_beside(self, times: Sequence[Time]) -> Iterable[bytes]:
        return [
            one.trace_id
            for one in filter(loose, self.facts.values())
            if any(
                family(one.agent) == whose
                and one.start_ns <= until_ns
                and one.start_ns + (one.duration_ns or 0) >= since_ns
                for whose, since_ns, until_ns in times
            )
        ]

    def verdicts(self, traces: Collection[bytes]) -> Mapping[Key, Verdict]:
        return {
            key: verdict
            for key, verdict in self.told.items()
            if key[1][:16] in traces or verdict.trace_id in traces
        }

    def settle(self, fresh: Sequence[Fact]) -> Counted:
        counted = count(fresh, self)
        self.told |= counted.change.verdicts
        for place, total in counted.change.sums.items():
            self.totals[place] = self.totals.get(place, Sum()).plus(total)
        self.facts |= {one.key: one for one in fresh}
        return counted

    @property
    def found(self) -> dict[Place, Sum]:
        return {place: total for place, total in self.totals.items() if any(total)}


@st.composite
def _generations(draw: st.DrawFn) -> list[list[Fact]]:
    facts = draw(st.permutations(CORPUS[draw(st.sampled_from(sorted(CORPUS)))].facts))
    cuts = sorted(draw(st.sets(st.integers(0, len(facts)), max_size=4)))
    return [facts[a:b] for a, b in pairwise([0, *cuts, len(facts)])]


@settings(max_examples=80, deadline=None)
@given(_generations())
def test_what_is_fetched_suffices_in_any_order_of_generations(
    generations: list[list[Fact]],
) -> None:
    segments = Segments()
    for fresh in generations:
        segments.settle(fresh)
    whole = judge(one for fresh in generations for one in fresh)
    assert segments.found == sums(whole)


def _tree(spans: str) -> dict[str, Fact]:
    header = "owner session trace calls in cached written out thought dollars"
    tree = read_tree({"tree": "", "spans": spans, "counted": header})
    return dict(zip(tree.rows, tree.facts, strict=True))


def test_only_traces_that_matter_are_fetched() -> None:
    facts = _tree(
        """
        trace t1
        one call in=100 out=20 answer=chatcmpl-9a8b7c6d5e4f3a2b1c
        trace t2
        other call in=100 out=20 answer=chatcmpl-000000000000000000
        trace t3
        gate ledger in=100 out=20 $0.0003 answer=chatcmpl-9a8b7c6d5e4f3a2b1c
        """
    )
    segments = Segments()
    segments.settle([facts["one"], facts["other"]])
    counted = segments.settle([facts["gate"]])
    assert (counted.fetched, dict(counted.cut_off)) == (1, {})
    assert set(counted.change.verdicts) == {facts["one"].key, facts["gate"].key}


def test_what_is_too_far_away_is_left_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "MAX_ROUNDS", 1)
    facts = _tree(
        """
        trace t1
        one call in=100 out=20 answer=chatcmpl-9a8b7c6d5e4f3a2b1c
        trace t2
        two call in=100 out=20 answer=chatcmpl-9a8b7c6d5e4f3a2b1c
        more call in=100 out=20 answer=chatcmpl-000000000000000000
        trace t3
        far call in=100 out=20 answer=chatcmpl-000000000000000000
        """
    )
    segments = Segments()
    segments.settle([facts["two"], facts["more"], facts["far"]])
    assert dict(segments.settle([facts["one"]]).cut_off) == {"too_far": 1}
