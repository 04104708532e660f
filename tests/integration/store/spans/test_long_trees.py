"""A long trace page by page out of the embedded store: as the fake shows it, and one tree for all pages."""

from __future__ import annotations

import random
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from midwatch.core.counts import Counts
from midwatch.core.spans.form import Role, Row
from midwatch.core.spans.questions import Node
from midwatch.core.spans.store import Selector
from midwatch.store.questions import growing
from midwatch.store.questions.embedded import EmbeddedQuestions
from midwatch.store.questions.memory import MemoryQuestions
from midwatch.store.questions.standing import FEW
from midwatch.store.spans.embedded import EmbeddedSpans
from midwatch.store.spans.manifest import MemoryManifest
from midwatch.store.spans.memory import MemorySpans, Shelf

sys.path.insert(0, str(Path(__file__).parents[3]))
from spans import batch, span, trace_id

TRACE = trace_id("t").hex()
SPANS = FEW + 200


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[EmbeddedSpans]:
    made = EmbeddedSpans(tmp_path / "spans", MemoryManifest(), Counts())
    await made.open()
    yield made
    await made.stop()


def rows(dice: random.Random, twice: int = 0) -> list[Row]:
    """Return a trace in any order: many spans begin together, some name no parent or one that is not there."""
    made: list[Row] = []
    for n in range(SPANS):
        above = None if n == 0 or dice.random() < 0.01 else f"s{dice.randrange(max(1, n))}"
        if n % 97 == 5:
            above = "nobody" if n % 2 else f"s{n}"
        made.append(
            span(
                f"s{n}",
                parent=above,
                start_s=n // 7,
                name=dice.choice(("search", "think")),
                role=dice.choice((Role.TOOL, Role.CHAIN)).value,
                status=2 if dice.random() < 0.02 else 0,
                session="night",
            )
        )
    for n in range(twice):  # another agent says that it has a span of the same id
        other = made[n][:]
        other[0] = "search"
        made.append(other)
    dice.shuffle(made)
    return made


async def paged(questions: Any, *, fold: bool) -> list[Node]:
    found: list[Node] = []
    after: str | None = None
    while True:
        tree = await questions.tree(TRACE, None, after, 400, fold=fold)
        found += tree.nodes
        if (after := tree.next) is None:
            return found


@pytest.mark.parametrize("twice", [0, 3])
async def test_a_long_trace_is_shown_as_the_fake_shows_it(store: EmbeddedSpans, twice: int) -> None:
    made = rows(random.Random(5), twice)
    fake = Shelf()
    await MemorySpans(fake).append(batch(*made))
    await store.append(batch(*made))
    expected = await paged(MemoryQuestions(fake), fold=True)
    assert await paged(EmbeddedQuestions(store), fold=True) == expected
    assert len(expected) > 400


async def test_the_next_page_is_of_the_same_tree_and_the_first_is_of_what_is_there(
    store: EmbeddedSpans, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.append(batch(*rows(random.Random(6))))
    questions, grown = EmbeddedQuestions(store), 0
    real = growing.columns

    def counted(*given: Any) -> Any:
        nonlocal grown
        grown += 1
        return real(*given)

    monkeypatch.setattr(growing, "columns", counted)
    first = await questions.tree(TRACE, None, None, 100, fold=False)
    await store.append(batch(span("before all", start_s=-5.0), span("late", start_s=9e3)))
    assert first is not None
    second = await questions.tree(TRACE, None, first.next, 100, fold=False)
    assert second is not None
    shown = [node.span["span_id"] for node in (*first.nodes, *second.nodes)]
    assert len(set(shown)) == 200
    assert (second.total, grown) == (SPANS, 1)
    again = await questions.tree(TRACE, None, None, 100, fold=False)
    assert again is not None
    assert (again.total, again.nodes[0].span["name"], grown) == (SPANS + 2, "before all", 2)


async def test_what_was_deleted_is_not_on_the_next_page(store: EmbeddedSpans) -> None:
    await store.append(batch(*rows(random.Random(7))))
    questions = EmbeddedQuestions(store)
    first = await questions.tree(TRACE, None, None, 100)
    assert first is not None
    await store.drop(Selector(sessions=frozenset({"night"})))
    assert await questions.tree(TRACE, None, first.next, 100) is None
