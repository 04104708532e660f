"""What every store of telemetry lets go when it is told to, and nothing else: with the proof that it is gone."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from midwatch.core.spans import form
from midwatch.core.spans.form import Signal
from midwatch.core.spans.keeping import Expires, Expiry
from midwatch.core.spans.store import Selector
from midwatch.store.opening import traces_of

sys.path.insert(0, str(Path(__file__).parents[1]))
import forgotten
from forgotten import without
from spans import NOON_NS, NOON_S, Place, S, batch, content, place, point, record, span, trace_id

__all__ = ["place"]


async def items(questions: Any, trace: str) -> list[dict[str, Any]]:
    return list((await questions.spans(trace_id(trace).hex(), None, 1000)).items)


async def filled(place: Place) -> tuple[Any, Any]:
    """Return a store with a trace of session s1 (two spans), one of s2, and one of another agent."""
    store, questions = await place.opened()
    rows = [
        span("a1", "one", session="s1", user="ann", tags='{"customer":"acme"}', run_id="r1"),
        span("a2", "one", parent="a1", run_id="r1"),
        span("b", "two", session="s2", user="bob", start_s=100),
        span("c", "three", agent="other", start_s=200),
    ]
    await store.append(
        batch(
            *rows,
            contents=[content(row, "k", f"secret of {row[form.NAME]}") for row in rows],
            logs=[
                record("of a2", trace_id=trace_id("one"), span_id=rows[1][form.SPAN_ID]),
                record("of none"),
            ],
            points=[point()],
        )
    )
    return store, questions


def rows_of(footprint: Any) -> dict[str, int]:
    return {signal.value: held.rows for signal, held in footprint.signals.items()}


WHOLE = {"spans": 4, "contents": 4, "logs": 2, "points": 1}


@pytest.mark.parametrize("how", [{"sessions": {"s1"}}, {"users": {"ann"}}, {"traces": {trace_id("one")}}])  # fmt: skip
async def test_dropping_takes_whole_traces_with_all_that_hangs_on_them(
    place: Place, how: dict[str, Any]
) -> None:
    store, questions = await filled(place)
    assert rows_of(await store.footprint()) == WHOLE
    await store.settle(NOON_S + 86_400.0)
    proof = await store.drop(Selector(**{k: frozenset(v) for k, v in how.items()}))
    assert {s.value: n for s, n in proof.before.items()} == {
        "spans": 2, "contents": 2, "logs": 1, "points": 0,
    }  # fmt: skip
    assert proof.complete
    assert rows_of(await store.footprint()) == {"spans": 2, "contents": 2, "logs": 1, "points": 1}
    assert await items(questions, "one") == []
    assert len(await items(questions, "two")) == 1


async def test_dropping_by_tag_looks_at_the_value(place: Place) -> None:
    store, questions = await filled(place)
    assert (await store.drop(Selector(tags={"customer": "other"}))).before[Signal.SPANS] == 0
    assert (await store.drop(Selector(tags={"customer": "acme"}))).before[Signal.SPANS] == 2
    assert await items(questions, "one") == []


async def test_an_order_to_delete_means_the_same_in_every_store(place: Place) -> None:
    store, questions = await place.opened()
    await store.append(forgotten.told())
    for how, gone, _ in forgotten.ORDERS:
        what = forgotten.selector(how)
        if set(how) <= {"sessions", "users", "tags"}:
            assert await traces_of(store, what) == forgotten.traces_of(gone), how
        elif not what.by_trace:
            assert await traces_of(store, what) == set(), how
    before = set[str]()
    for how, gone, logs in forgotten.ORDERS[:1] + forgotten.ORDERS[7:9] + forgotten.ORDERS[11:13]:
        proof = await store.drop(forgotten.selector(how))
        assert proof.complete
        assert proof.before[Signal.SPANS] == len(set(gone) - before), how
        assert proof.before[Signal.LOGS] == len(logs), how
        before.update(gone)
    left = [item["name"] for n in range(1, 6) for item in await items(questions, f"t{n}")]
    assert sorted(left) == without(forgotten.spans_of(forgotten.told()), list(before))


async def test_dropping_contents_leaves_their_spans(place: Place) -> None:
    store, questions = await filled(place)
    row = span("a1", "one", session="s1", content_count=1)
    proof = await store.drop(
        Selector(signals=frozenset({Signal.CONTENTS}), sessions=frozenset({"s1"}))
    )
    assert dict(proof.before) == {Signal.CONTENTS: 2}
    assert rows_of(await store.footprint()) == {**WHOLE, "contents": 2}
    found = await questions.contents(trace_id("one").hex(), row[form.SPAN_ID].hex())
    assert found is not None
    assert list(found.items) == []
    # the same once more, as a spool sends it: what was dropped stays so
    await store.append(batch(row, contents=[content(row, "k", "secret of a1")]))
    assert rows_of(await store.footprint()) == {**WHOLE, "contents": 2}


async def test_dropping_by_agent_run_and_time(place: Place) -> None:
    store, _ = await filled(place)
    other = await store.drop(Selector(agents=frozenset({"other"})))
    assert other.before[Signal.SPANS] == other.before[Signal.CONTENTS] == 1
    old = Selector(before_ns=NOON_NS + 100 * S, signals=frozenset({Signal.SPANS}))
    assert (await store.drop(old)).before == {Signal.SPANS: 2}
    assert (await store.drop(Selector(runs=frozenset({"r1"})))).before[Signal.SPANS] == 0


async def test_what_was_dropped_stays_so_over_a_restart(place: Place) -> None:
    store, _ = await filled(place)
    await store.drop(Selector(sessions=frozenset({"s1"})))
    await store.stop()
    _, questions = await place.opened()
    assert await items(questions, "one") == []
    assert len(await items(questions, "two")) == 1


def test_a_selector_that_selects_everything_is_refused() -> None:
    with pytest.raises(ValueError, match="everything would be selected"):
        Selector()
    with pytest.raises(ValueError, match="nothing is selected"):
        Selector(signals=frozenset(), agents=frozenset({"a"}))


async def test_the_footprint_tells_agents_and_kinds_apart(place: Place) -> None:
    store, _ = await filled(place)
    found = await store.footprint()
    assert found.size_bytes > 0
    assert found.agents["inbox"][Signal.SPANS].rows == 3
    assert found.agents["other"][Signal.SPANS].rows == 1
    assert found.agents["other"][Signal.SPANS].oldest_ns == NOON_NS + 200 * S
    assert found.signals[Signal.SPANS].oldest_ns == NOON_NS
    assert found.open == 0


# -- letting go by agent and signal ------------------------------------------------------------


async def test_what_is_older_goes_by_agent_and_signal_and_nothing_else(place: Place) -> None:
    store, _ = await place.opened()
    old = span("old", "t1", start_s=-3 * 86_400.0)
    kept = span("kept", "t2", start_s=-3 * 86_400.0, agent="search")
    young = span("young", "t3")
    await store.append(
        batch(old, kept, young, contents=[content(young, "input", "hello")], points=[point("p")])
    )
    await store.settle(NOON_S)
    if not isinstance(store, Expires):
        pytest.skip("this store is told to drop")
    expiry = Expiry(
        usual={Signal.SPANS: NOON_NS - 86_400 * 10**9},
        agents={"search": {Signal.SPANS: NOON_NS - 90 * 86_400 * 10**9}},
    )
    done = await store.expire(expiry)
    if not done.expired:
        # what is not sealed waits for its turn
        held = await store.footprint()
        assert held.hot == 3
        return
    assert dict(done.expired) == {Signal.SPANS: 1}
    held = await store.footprint()
    assert held.signals[Signal.SPANS].rows == 2
    assert held.signals[Signal.CONTENTS].rows == 1
    assert held.signals[Signal.POINTS].rows == 1
    assert not (await store.expire(expiry)).expired, "nothing goes twice"
