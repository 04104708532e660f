"""Money without work, and prompts that grow: what is told, and what is honest."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.core.test_call_detectors import DAY, NOW, judge, spending

from midwatch.core.incident import Clear, Finding
from midwatch.core.outlay import FIRST, Outlay
from midwatch.core.terms import Loop

# -- money without work -----------------------------------------------------------------------------


def idle(**given: Any) -> Any:
    return judge("idle-burn", "call.ended", **{"outlay": spending(), "state": "running", **given})


def test_money_without_progress_is_told_with_its_pace() -> None:
    found = idle(progress_at=NOW - 900.0)
    assert found.sentence == (
        "inbox: nothing got done for 15 minutes, and its calls go on; $9 so far, $36 an hour"
    )


@pytest.mark.parametrize(
    "given",
    [
        {"progress_at": None},  # it never says what it gets done
        {"progress_at": NOW - 899.0},  # it got something done
        {"progress_at": NOW - 900.0, "outlay": spending(nusd=10**5)},  # a cent
        {"progress_at": NOW - 900.0, "outlay": Outlay()},
        {"progress_at": NOW - 900.0, "loop": Loop(idle=3600.0)},
    ],
)
def test_work_that_is_honest_or_unknown_is_no_idle_burn(given: dict[str, Any]) -> None:
    assert idle(**given) is None


def test_calls_of_an_agent_that_does_not_run_are_told_at_once() -> None:
    found = idle(state="stopped", state_at=NOW - 120.0)
    assert found.sentence.startswith("inbox: it is stopped, and its calls go on; $0.60 so far")
    assert idle(state="stopped", state_at=NOW - 59.0) is None, "sums come late"
    assert idle(state="stopped", state_at=NOW - 120.0, managed=False) is None


def test_an_agent_that_works_again_or_spends_no_more_ends_it() -> None:
    open_kinds = {"idle-burn": NOW - 60.0}
    assert isinstance(judge("idle-burn", "beat", open_kinds=open_kinds, progress_at=NOW), Clear)
    assert judge("idle-burn", "beat", open_kinds=open_kinds, progress_at=NOW - 61.0) is None
    assert isinstance(judge("idle-burn", "sample", open_kinds={"idle-burn": NOW - 900.0}), Clear)


# -- what is sent with each call ----------------------------------------------------------------------


def sending(outlay: Outlay, count: int, *, calls: int = 2, day: int = DAY, **tokens: int) -> Outlay:
    """Fold sums whose calls send so many tokens each; `input_tokens` is all of them."""
    for _ in range(count):
        data = {"calls": calls, "served": calls, "cost_nusd": 1}
        outlay.take({**data, **{k: v * calls for k, v in tokens.items()}}, NOW, day)
    return outlay


def growth(outlay: Outlay, **given: Any) -> Any:
    return judge("prompt-growth", "call.ended", outlay=outlay, **given)


def test_growth_is_told_with_the_part_that_grew() -> None:
    for part, tokens in (
        ("system prompt", {"system_tokens": 2_000, "tool_tokens": 200}),
        ("tools", {"system_tokens": 300, "tool_tokens": 1_900}),
        ("history", {"system_tokens": 300, "tool_tokens": 200}),
    ):
        outlay = sending(Outlay(), FIRST, input_tokens=1_000, system_tokens=300, tool_tokens=200)
        found = growth(sending(outlay, 3, input_tokens=3_000, **tokens))
        assert isinstance(found, Finding), part
        assert found.evidence["part"] == part
        assert f"its {part} grew from" in found.sentence
        assert "3,000 tokens with each call, usual 1,000 (3.0x)" in found.sentence


@pytest.mark.parametrize(
    ("count", "tokens"), [(2, 9_000), (3, 2_999)], ids=["one large task", "below the limit"]
)
def test_a_large_task_or_a_little_growth_is_none(count: int, tokens: int) -> None:
    outlay = sending(Outlay(), FIRST, input_tokens=1_000)
    assert growth(sending(outlay, count, input_tokens=tokens)) is None


def test_small_prompts_may_grow() -> None:
    outlay = sending(Outlay(), FIRST, input_tokens=100)
    assert growth(sending(outlay, 5, input_tokens=999)) is None


def test_a_conversation_that_grows_and_begins_anew_each_time_is_honest() -> None:
    outlay = Outlay()
    for _ in range(6):
        for turn in range(1, 11):
            sending(outlay, 1, input_tokens=1_000 * turn)
            assert growth(outlay) is None


def test_what_grew_over_days_is_compared_with_the_leanest_day() -> None:
    outlay = Outlay()
    for day, tokens in enumerate((1_000, 1_600, 2_400)):
        sending(outlay, 20, day=DAY - 3 + day, input_tokens=tokens)
    assert isinstance(growth(sending(outlay, 3, input_tokens=3_100)), Finding)


def test_an_agent_that_is_new_has_no_usual() -> None:
    assert growth(sending(Outlay(), 9, input_tokens=50_000)) is None


def test_growth_that_was_mended_is_over() -> None:
    outlay = sending(Outlay(), FIRST, input_tokens=1_000)
    over = growth(sending(outlay, 3, input_tokens=1_100), open_kinds={"prompt-growth": NOW})
    assert isinstance(over, Clear)
