"""Cycles and beats: what they tell, and when."""

from __future__ import annotations

import asyncio
import threading
from decimal import Decimal
from typing import Any

import pytest

import midwatch as mw
from midwatch.sdk import usage
from midwatch.sdk.testing import Recording


def told(beat: dict[str, Any]) -> dict[str, Any]:
    """The beat without what differs from run to run."""
    assert beat["duration_s"] >= 0
    return {name: value for name, value in beat.items() if name not in {"at", "duration_s"}}


def test_a_cycle_ends_with_a_beat_of_all_it_was_told(seen: Recording) -> None:
    with mw.cycle() as cycle:
        cycle.usage(tokens=1200, cost_usd=0.004)
        cycle.usage(input_tokens=10, output_tokens=5, cached_tokens=3, model_calls=1, tool_calls=2)
        cycle.done(items=2, unit="mails")
        cycle.done()
    (beat,) = seen.beats
    assert told(beat) == {
        "agent": "inbox",
        "run_id": "run-1",
        "result": "ok",
        "tokens": 1215,
        "input_tokens": 10,
        "output_tokens": 5,
        "cached_tokens": 3,
        "cost_usd": 0.004,
        "model_calls": 1,
        "tool_calls": 2,
        "items": 3,
        "unit": "mails",
    }
    assert seen.told == ["beat"]


def test_what_nobody_counted_is_left_out_and_not_zero(seen: Recording) -> None:
    with mw.cycle():
        pass
    assert told(seen.beats[0]) == {"agent": "inbox", "run_id": "run-1", "result": "ok"}


def test_when_calls_are_counted_none_is_zero(
    seen: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "tracking", True)
    monkeypatch.setattr(usage, "counting_tools", True)
    with mw.cycle():
        pass
    (beat,) = seen.beats
    assert (beat["model_calls"], beat["tokens"], beat["cost_usd"], beat["tool_calls"]) == (
        0,
        0,
        0,
        0,
    )


def test_a_cycle_that_raises_has_failed_and_the_exception_goes_on(seen: Recording) -> None:
    def work() -> None:
        with mw.cycle() as cycle:
            cycle.done()
            raise KeyError("x" * 5_000)

    with pytest.raises(KeyError) as caught:
        work()
    assert len(str(caught.value)) == 5_002
    (beat,) = seen.beats
    assert beat["result"] == "failed"
    assert beat["error"].startswith("KeyError: 'xxx")
    assert len(beat["error"]) <= 1_010
    assert beat["items"] == 1
    (span,) = seen.spans
    assert span["status"] == {"code": 2, "message": "KeyError"}


def test_an_exception_whose_text_cannot_be_made_is_told_by_its_type(seen: Recording) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    with pytest.raises(Mute), mw.cycle():
        raise Mute
    assert seen.beats[0]["error"] == "Mute: <Mute>"


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (SystemExit(0), "ok"),
        (SystemExit(3), "failed"),
        (KeyboardInterrupt(), "cancelled"),
        (asyncio.CancelledError(), "cancelled"),
        (GeneratorExit(), "ok"),
        (ValueError("x"), "failed"),
    ],
    ids=lambda value: str(type(value).__name__),
)
def test_how_a_cycle_ended_is_told_in_a_word(
    seen: Recording, error: BaseException, result: str
) -> None:
    with pytest.raises(type(error)), mw.cycle():
        raise error
    assert seen.beats[0]["result"] == result


def test_a_cycle_may_say_itself_that_it_failed(seen: Recording) -> None:
    with mw.cycle() as cycle:
        cycle.fail("the inbox did not answer")
    (beat,) = seen.beats
    assert beat["result"] == "failed"
    assert beat["error"] == "the inbox did not answer"
    assert seen.spans[0]["status"]["code"] == 2


def test_a_beat_outside_a_cycle_is_a_cycle_of_its_own(seen: Recording) -> None:
    mw.beat(tokens=1200, cost_usd=0.004, items=1, unit="pages", region="eu")
    (beat,) = seen.beats
    assert told(beat) == {
        "agent": "inbox",
        "run_id": "run-1",
        "result": "ok",
        "tokens": 1200,
        "cost_usd": 0.004,
        "items": 1,
        "unit": "pages",
        "region": "eu",
    }
    assert seen.told == ["beat"]


def test_a_beat_lasts_from_the_beat_before(seen: Recording) -> None:
    mw.beat()
    threading.Event().wait(0.02)
    mw.beat()
    mw.beat(duration_s=7.5)
    assert 0.02 <= seen.beats[1]["duration_s"] < 5
    assert seen.beats[2]["duration_s"] == 7.5


def test_a_beat_inside_a_cycle_is_a_sign_of_life_that_adds_to_it(seen: Recording) -> None:
    with mw.cycle() as cycle:
        cycle.usage(tokens=1)
        mw.beat(tokens=10, items=2, unit="mails")
        assert seen.beats == []
        assert seen.told == ["beat"]
    (beat,) = seen.beats
    assert (beat["tokens"], beat["items"], beat["unit"]) == (11, 2, "mails")


def test_a_beat_with_an_error_has_failed(seen: Recording) -> None:
    mw.beat(error="no answer")
    mw.beat(result="skipped")
    assert [beat["result"] for beat in seen.beats] == ["failed", "skipped"]
    assert seen.beats[0]["error"] == "no answer"


def test_cycles_inside_each_other_count_for_themselves(seen: Recording) -> None:
    with mw.cycle() as outer:
        outer.usage(tokens=1)
        with mw.cycle() as inner:
            inner.usage(tokens=10)
        mw.beat(tokens=100)
    assert [beat["tokens"] for beat in seen.beats] == [10, 101]
    inner_span, outer_span = seen.spans
    assert inner_span["parentSpanId"] == outer_span["spanId"]


def test_after_draining_every_beat_says_so(seen: Recording) -> None:
    mw.beat()
    mw.draining()
    mw.draining()
    mw.beat()
    with mw.cycle():
        pass
    assert [beat.get("draining") for beat in seen.beats] == [None, True, True]
    assert seen.event_kinds() == ["agent.draining"]
    assert seen.told == ["beat", "draining", "beat", "beat"]


def test_figures_that_are_no_figures_are_counted_and_left_out(seen: Recording) -> None:
    bad: Any = "many"
    mw.beat(tokens=bad, cost_usd=float("nan"), items=-1)
    assert told(seen.beats[0]) == {"agent": "inbox", "run_id": "run-1", "result": "ok"}
    assert seen.lost == {"bad_argument": 3}


def test_decimals_and_whole_floats_are_figures(seen: Recording) -> None:
    cost: Any = Decimal("0.25")
    count: Any = 3.0
    mw.beat(cost_usd=cost, items=count)
    assert seen.beats[0]["cost_usd"] == 0.25
    assert seen.beats[0]["items"] == 3


def test_names_that_the_hub_would_refuse_are_mended(seen: Recording) -> None:
    mw.beat(result="a\nb", unit="u" * 300)
    assert seen.beats[0]["result"] == "a?b"
    assert seen.beats[0]["unit"] == "u" * 128


def test_a_cycle_is_remembered_across_tasks(seen: Recording) -> None:
    async def work(tokens: int) -> None:
        await asyncio.sleep(0)
        mw.beat(tokens=tokens)

    async def loop(base: int) -> None:
        async with mw.cycle():
            await asyncio.gather(work(base + 1), work(base + 2))

    async def both() -> None:
        await asyncio.gather(loop(0), loop(100))

    asyncio.run(both())
    assert sorted(beat["tokens"] for beat in seen.beats) == [3, 203]


def test_a_task_that_outlives_its_cycle_does_not_add_to_it(seen: Recording) -> None:
    async def main() -> None:
        ended = asyncio.Event()

        async def late() -> None:
            await ended.wait()
            mw.beat(tokens=5)

        async with mw.cycle():
            task = asyncio.create_task(late())
        ended.set()
        await task

    asyncio.run(main())
    assert [beat.get("tokens") for beat in seen.beats] == [None, 5]


def test_many_threads_add_up_exactly(seen: Recording) -> None:
    with mw.cycle() as cycle:

        def add() -> None:
            for _ in range(2_000):
                cycle.usage(tokens=1)

        threads = [threading.Thread(target=add) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert seen.beats[0]["tokens"] == 8_000


def test_one_cycle_object_may_be_used_again(seen: Recording) -> None:
    cycle = mw.cycle()
    for tokens in (1, 2):
        with cycle:
            cycle.usage(tokens=tokens)
    cycle.usage(tokens=100)  # it has ended
    assert [beat["tokens"] for beat in seen.beats] == [1, 2]
