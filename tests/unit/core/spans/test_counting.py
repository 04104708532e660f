"""Every token once: the corpus of trees, in any order of arrival."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.trees import Tree, trees

from midwatch.core.spans.counted import Place, Sum, settle, sums
from midwatch.core.spans.counting import Verdict, by_default, judge
from midwatch.core.spans.facts import Fact, Key

CORPUS = {tree.title: tree for tree in trees()}


@pytest.mark.parametrize("title", CORPUS)
def test_a_tree_comes_to_what_is_expected(title: str) -> None:
    tree = CORPUS[title]
    judgement = judge(tree.facts)
    assert tree.found(sums(judgement)) == {k: v for k, v in tree.counted.items() if any(v)}
    keys = dict(zip(tree.rows, (one.key for one in tree.facts), strict=True))
    assert {name: judgement.verdicts[keys[name]].why.value for name in tree.why} == tree.why


def test_the_corpus_has_sixty_trees_and_more() -> None:
    assert len(CORPUS) >= 60


def _arrive(
    parts: Sequence[Sequence[Fact]],
) -> tuple[dict[Place, Sum], dict[Key, Verdict]]:
    """Settle parts one after the other, as a store does: keep verdicts, add differences."""
    known: dict[Key, Fact] = {}
    told: dict[Key, Verdict] = {}
    totals: dict[Place, Sum] = {}
    for part in parts:
        change = settle(part, known.values(), told)
        told |= change.verdicts
        for place, total in change.sums.items():
            totals[place] = totals.get(place, Sum()).plus(total)
        known |= {one.key: one for one in part}
    return {place: total for place, total in totals.items() if any(total)}, told


@st.composite
def _orders(draw: st.DrawFn) -> tuple[Tree, list[list[Fact]]]:
    tree = CORPUS[draw(st.sampled_from(sorted(CORPUS)))]
    facts = draw(st.permutations(tree.facts))
    cuts = sorted(draw(st.sets(st.integers(0, len(facts)), max_size=4)))
    bounds = [0, *cuts, len(facts)]
    return tree, [facts[a:b] for a, b in pairwise(bounds)]


@settings(max_examples=120, deadline=None)
@given(_orders())
def test_the_order_of_arrival_does_not_matter(order: tuple[Tree, list[list[Fact]]]) -> None:
    tree, parts = order
    whole = judge(tree.facts)
    totals, told = _arrive(parts)
    assert totals == sums(whole)
    in_force: Mapping[Key, Verdict] = {
        one.key: told.get(one.key) or by_default(one) for one in tree.facts
    }
    assert {key: in_force[key] for key in whole.verdicts} == whole.verdicts
