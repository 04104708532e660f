"""When output is too much: the allowance, the judgement, and how it is told."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.detection import Facts
from midwatch.core.detectors.pipe_flood import pipe_flood
from midwatch.core.fleet import Agent
from midwatch.core.flood import BURST_S, CALM_S, Allowance, Count, Flood, judge
from midwatch.core.incident import Clear, Finding

NOW = 1_750_000_000.0


def test_a_burst_is_allowed_and_then_the_rate() -> None:
    allowance = Allowance(100, 0.0)
    assert allowance.take(int(100 * BURST_S), 0.0) == 1600
    assert allowance.take(10, 0.0) == 0
    assert allowance.take(10, 0.5) == 0  # half a second's worth is no reason to begin again
    assert allowance.take(10, 1.0) == 10


def test_a_chunk_that_is_too_large_is_kept_as_far_as_it_goes() -> None:
    assert Allowance(100, 0.0).take(10_000, 0.0) == 1600


def test_a_clock_that_stands_still_or_goes_back_gives_nothing() -> None:
    allowance = Allowance(100, 50.0)
    assert allowance.take(1600, 50.0) == 1600
    assert allowance.take(1, 10.0) == 0


def test_a_chatty_agent_at_a_tenth_of_its_rate_never_loses_anything() -> None:
    allowance = Allowance(1024 * 1024, 0.0)
    assert all(allowance.take(10_240, tick / 10) == 10_240 for tick in range(36_000))


@given(st.lists(st.tuples(st.integers(0, 5_000), st.floats(0, 3)), max_size=60))
def test_no_more_is_kept_than_a_burst_and_the_rate(chunks: list[tuple[int, float]]) -> None:
    allowance, now, kept = Allowance(1000, 0.0), 0.0, 0
    for count, pause in chunks:
        now += pause
        part = allowance.take(count, now)
        assert 0 <= part <= count
        kept += part
    assert kept <= 1000 * (BURST_S + now) + 1


def test_a_flood_is_told_when_it_begins_and_when_it_is_over_and_not_in_between() -> None:
    quiet, loud = Count(0.0, 0, 0), Count(1.0, 9_000, 4_000)
    begun = judge(None, quiet, loud)
    assert (begun.begun, begun.bytes_s, begun.dropped_bytes) == (True, 9_000, 4_000)
    going = judge(begun.flood, loud, Count(2.0, 20_000, 9_000))
    assert (going.begun, going.over) == (False, False)
    last = Count(2.0, 20_000, 9_000)
    calm = judge(going.flood, last, Count(3.0, 20_100, 9_000))
    assert (calm.begun, calm.over) == (False, False)
    over = judge(calm.flood, last, Count(2.0 + CALM_S, 20_200, 9_000))
    assert (over.over, over.flood, over.dropped_bytes) == (True, None, 9_000)


def test_without_loss_there_is_no_flood() -> None:
    assert judge(None, Count(0.0, 0, 0), Count(1.0, 10**9, 0)).flood is None


def test_the_end_of_the_run_is_the_end_of_the_flood() -> None:
    flood = Flood(Count(0.0, 0, 0), Count(1.0, 100, 50))
    over = judge(flood, Count(1.0, 100, 50), Count(1.5, 300, 90), ended=True)
    assert (over.over, over.dropped_bytes, over.reason) == (True, 90, "the run ended")


def _facts(open_kinds: dict[str, float] | None = None, **data: Any) -> Facts:
    item = {"id": "i", "agent": "prices", "at": NOW, "kind": "run.flooding", "data": data}
    return Facts(
        agent="prices", item=item, now=NOW, config=Agent(command=["x"]), open_kinds=open_kinds or {}
    )


def test_the_sentence_says_how_much_and_how_much_is_allowed() -> None:
    found = pipe_flood.judge(_facts(bytes_s=9e8, limit_bytes_s=1048576, dropped_bytes=7e8))
    assert isinstance(found, Finding)
    assert found.sentence == (
        "prices: floods its output with 858 MiB/s, 1.0 MiB/s for long are allowed;"
        " what is over is left out of its log and counted; the agent itself goes on"
    )


def test_the_end_clears_what_is_open_and_nothing_else() -> None:
    clear = pipe_flood.judge(_facts({"pipe-flood": NOW}, over=True, dropped_bytes=1048576))
    assert isinstance(clear, Clear)
    assert clear.reason == "it prints as it may again; 1.0 MiB were left out"
    assert pipe_flood.judge(_facts(over=True)) is None
