"""Which trees stay for their next page, and for how long."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import AsyncIterator

import pytest

from midwatch.core.spans.tree import Columns, Forest
from midwatch.store.questions import standing
from midwatch.store.questions.standing import Standing


def tree(spans: int) -> Forest:
    """Return a tree of one span and its children."""
    ids = b"".join(n.to_bytes(8) for n in range(spans))
    above = array("i", [-1, *[0] * (spans - 1)])
    nothing = [bytes(spans)] * 8
    ends = array("q", range(spans))
    return Forest(Columns(ids, above, bytearray(spans), bytes(spans), ends, nothing, 0))


@pytest.fixture
async def trees(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Standing]:
    monkeypatch.setattr(standing, "FEW", 10)
    monkeypatch.setattr(standing, "MOST", 100)
    made = Standing()
    yield made
    for name in (b"a", b"b", b"c"):
        made.drop(name)


async def test_a_tree_that_is_made_quickly_and_one_that_is_too_long_do_not_stay(
    trees: Standing,
) -> None:
    for spans in (10, 101):
        trees.keep(b"a", tree(spans))
        assert trees.find(b"a") is None
    trees.keep(b"a", tree(100))
    assert trees.find(b"a") is not None
    # and is not shown when it would be another one's
    trees.keep(b"a", tree(10))
    assert trees.find(b"a") is None


async def test_of_too_many_those_that_were_asked_for_last_stay(trees: Standing) -> None:
    first = tree(40)
    trees.keep(b"a", first)
    trees.keep(b"b", tree(40))
    trees.keep(b"a", first)
    trees.keep(b"c", tree(40))
    assert trees.find(b"a") is first
    assert trees.find(b"b") is None
    assert len(trees) == 2


async def test_a_tree_goes_after_its_time(trees: Standing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(standing, "STANDS_S", 0.001)
    trees.keep(b"a", tree(40))
    async with asyncio.timeout(30):
        while len(trees):
            await asyncio.sleep(0.001)
