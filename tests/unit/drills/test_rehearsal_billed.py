"""The invoice: sums are exact whatever is forgotten, and a part of an answer costs a part."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from midwatch.drills.rehearsal.billed import Bill, Billed
from midwatch.drills.rehearsal.sending import Meter
from midwatch.drills.rehearsal.tokens import Usage, so_far


def bill(call: str = "", model: str = "m", usage: Usage | None = None, end: str = "done") -> Bill:
    return Bill(call, "req", "chat", model, model, "default", False, end, usage or Usage(10, 5))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 99), st.integers(0, 99))))
def test_sums_are_those_of_the_calls(calls: list[tuple[str, int, int]]) -> None:
    billed = Billed()
    for model, used, made in calls:
        billed.add(bill(model=model, usage=Usage(used, made, cached=used // 2)))
    sums = billed.sums()
    single = billed.calls(0, 1000, None, None)["calls"]
    for name in ("input", "output", "cached"):
        assert sums["total"][name] == sum(one[name] for one in single)
        assert sums["total"][name] == sum(model[name] for model in sums["models"].values())
    assert sums["total"]["calls"] == len(calls)


def test_a_forgotten_call_still_counts() -> None:
    billed = Billed(capacity=5)
    for _ in range(8):
        billed.add(bill())
    assert billed.sums()["total"]["calls"] == 8
    assert billed.sums()["forgotten"] == 3
    assert billed.calls(0, 1, None, None)["calls"][0]["number"] == 4


def test_calls_are_found_by_id_model_and_place() -> None:
    billed = Billed()
    for call, model in (("a", "m"), ("b", "m"), ("a", "n")):
        billed.add(bill(call, model))

    def numbers(after: int, limit: int, call: str | None, model: str | None) -> list[int]:
        return [one["number"] for one in billed.calls(after, limit, call, model)["calls"]]

    assert numbers(0, 9, "a", None) == [1, 3]
    assert numbers(0, 9, "a", "n") == [3]
    assert numbers(1, 1, None, None) == [2]
    assert billed.reset() == 3
    assert billed.sums() == {"total": dataclasses.asdict(billed.total), "models": {}, "ends": {}, "forgotten": 0}  # fmt: skip
    assert billed.total.calls == 0


@given(st.integers(0, 500), st.integers(0, 500), st.integers(0, 1000), st.integers(0, 1000))
def test_a_part_costs_no_more_than_the_whole_and_more_of_it_no_less(
    output: int, reasoning: int, said: int, total: int
) -> None:
    usage = Usage(10, output + reasoning, reasoning=reasoning)
    part = so_far(usage, said, total)
    assert reasoning <= part.output <= usage.output
    assert part.output <= so_far(usage, said + 1, total).output
    if said >= total > 0:
        assert part == usage


def test_a_meter_bills_the_whole_once_the_answer_ended() -> None:
    meter = Meter(Usage(10, 20), total=100, said=25)
    assert meter.bill().output == 5
    meter.end = "done"
    assert meter.bill().output == 20
    assert Meter(Usage(10, 20), total=100, said=100, again=40, end="endless").bill().output == 30
