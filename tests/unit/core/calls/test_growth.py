"""Growth of what each call sends: rows of calls that add many times the usual, and honest conversations of any length."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from midwatch.core.calls.ask import Ask, Dialect, Kind
from midwatch.core.calls.growth import ENOUGH, TALKS, WARN_ROW, Growth
from midwatch.core.calls.judgement import FINE, Judgement, Level
from midwatch.core.calls.pace import Pace
from midwatch.core.models import Calls
from midwatch.core.terms import Loop

RATIO, FLOOR = 10.0, 5_000


def sends(tokens: int, *, talk: int = 1, session: str | None = None, **facts: object) -> Ask:
    return Ask(
        Kind.OPENAI, Dialect.CHAT, "m", input_tokens=tokens, opening=talk, session=session, **facts
    )  # type: ignore[arg-type]


def said(growth: Growth, ask: Ask, tree: Growth | None = None) -> Judgement:
    """Make a call that is answered."""
    judged = growth.judge(ask, RATIO, FLOOR, tree)
    growth.answered(ask, RATIO, FLOOR, tree)
    return judged


def known(usual: int = 300, talk: int = 0) -> Growth:
    """An agent whose calls usually add so much."""
    growth = Growth()
    for turn in range(ENOUGH + 1):
        assert said(growth, sends(1_000 + turn * usual, talk=talk)) == FINE
    return growth


def test_three_calls_that_each_add_many_times_the_usual_are_told_and_five_are_a_loop() -> None:
    growth = known()
    levels = [said(growth, sends(1_000 + n * 6_000)).level for n in range(8)]
    assert levels == [Level.FINE] * WARN_ROW + [Level.WARN] * 2 + [Level.LOOP] * 3
    judged = growth.judge(sends(50_000), RATIO, FLOOR)
    assert judged.kind == "prompt-growth"
    assert judged.sentence == (
        "each of its last 8 calls sent about 6,125 tokens more than the one before, usual 300; 50,000 now"
    )
    assert judged.evidence == {
        "count": 8, "tokens": 50_000, "added": 6_125, "usual": 300.0, "threshold": 5_000,
    }  # fmt: skip


def test_a_context_that_doubles_is_a_loop_before_it_fills_the_window() -> None:
    growth = known()
    tokens = [5_000 * 2**n for n in range(6)]
    assert [said(growth, sends(n)).level for n in tokens][-1] is Level.LOOP
    assert tokens[-1] == 160_000


def test_a_single_page_and_a_few_of_them_between_usual_turns_are_fine() -> None:
    growth, tokens = known(), 1_000
    for turn in range(300):
        tokens += 40_000 if turn % 3 else 300  # two pages, then a usual turn
        assert said(growth, sends(tokens)) == FINE, turn


def test_an_agent_that_reads_much_with_each_call_may_go_on_doing_so() -> None:
    growth = known(usual=8_000)
    for talk in range(1, 4):
        for turn in range(40):
            assert said(growth, sends(1_000 + turn * 20_000, talk=talk)) == FINE


def test_nothing_is_judged_before_it_is_known_what_is_usual() -> None:
    growth = Growth()
    for turn in range(10):  # of an agent that just began, short turns say little
        assert said(growth, sends(1_000 + turn * 10)) == FINE
    assert all(said(growth, sends(n * 50_000)) == FINE for n in range(1, 20))


def test_what_is_out_of_the_usual_does_not_become_usual() -> None:
    growth = known()
    for n in range(100):
        said(growth, sends(1_000 + n * 6_000))
    assert growth.usual.usual == 300


def test_an_agent_that_sends_always_the_same_may_not_begin_to_grow() -> None:
    growth = known(usual=0)
    assert growth.usual.usual == 1
    levels = [said(growth, sends(1_000 + n * 6_000)).level for n in range(6)]
    assert levels[-1] is Level.LOOP


def test_a_call_that_adds_less_ends_the_row_and_one_that_was_not_answered_says_nothing() -> None:
    growth = known()
    tokens = 1_000
    for n in range(30):
        tokens += 300 if n % 4 == 3 else 6_000
        judged = growth.judge(sends(tokens), RATIO, FLOOR)
        assert judged.level < Level.LOOP
        assert growth.judge(sends(tokens), RATIO, FLOOR) == judged, "asked again, in vain"
        growth.answered(sends(tokens), RATIO, FLOOR)


def test_conversations_beside_each_other_hide_no_growth() -> None:
    growth = known()
    levels: list[Level] = []
    for n in range(8):
        levels.append(said(growth, sends(1_000 + n * 6_000, talk=1)).level)
        for other in range(2, 12):
            assert said(growth, sends(1_000 + n * 300, talk=other)) == FINE
    assert levels[-1] is Level.LOOP
    for n in range(8):
        assert said(growth, sends(1_000 + n * 300, talk=1, session="other")) == FINE


def test_a_conversation_that_begins_anew_or_is_shortened_begins_a_new_row() -> None:
    growth = known()
    for _ in range(50):
        for tokens in (1_000, 7_000, 13_000, 19_000):
            assert said(growth, sends(tokens)).level <= Level.WARN


def test_a_new_sub_agent_is_compared_with_its_tree_and_only_told_of() -> None:
    tree = known()
    for number in range(3):
        own = Growth()
        levels = [said(own, sends(1_000 + n * 6_000), tree).level for n in range(9)]
        assert levels == [Level.FINE] * WARN_ROW + [Level.WARN] * 6, number
    assert tree.usual.usual == 300


def test_calls_whose_input_is_elsewhere_and_embeddings_say_nothing() -> None:
    growth = known()
    for n in range(20):
        unseen = sends(1_000 + n * 9_000, unseen=("previous_response_id",))
        assert said(growth, unseen) == FINE
        texts = Ask(Kind.OPENAI, Dialect.EMBEDDINGS, "m", input_tokens=n * 9_000, opening=1)
        assert said(growth, texts) == FINE


def test_what_is_remembered_is_bounded() -> None:
    growth = known()
    for talk in range(TALKS * 3):
        said(growth, sends(1_000, talk=talk))
    assert len(growth._talks) == TALKS  # pyright: ignore[reportPrivateUsage]


@given(
    st.integers(0, 2**32),
    st.lists(st.lists(st.integers(0, 4_999), min_size=1, max_size=40), min_size=1, max_size=8),
)
def test_conversations_of_any_length_that_grow_by_turns_are_fine(
    seed: int, talks: list[list[int]]
) -> None:
    """Whatever turns add below the floor, in whatever order conversations go on."""
    order = [talk for talk, turns in enumerate(talks) for _ in turns]
    random.Random(seed).shuffle(order)
    growth, left, tokens = Growth(), [list(turns) for turns in talks], [500] * len(talks)
    for talk in order:
        tokens[talk] += left[talk].pop()
        assert said(growth, sends(tokens[talk], talk=talk)) == FINE


@given(st.integers(0, 2**32), st.integers(50, 20_000))
def test_turns_of_very_different_length_are_fine_when_they_are_usual(seed: int, mean: int) -> None:
    """Ten conversations of sixty turns, most of which are short and some very long."""
    chance, growth = random.Random(seed), Growth()
    for talk in range(10):
        tokens = 500
        for _ in range(60):
            tokens += round(chance.lognormvariate(0, 1) * mean)
            assert said(growth, sends(tokens, talk=talk)).level < Level.LOOP


def test_the_pace_of_an_agent_holds_its_growth_and_knows_it_after_a_restart() -> None:
    pace = Pace(Loop(), Calls())
    for turn in range(ENOUGH + 1):
        pace.answered(sends(1_000 + turn * 300))
    again = Pace(Loop(), Calls())
    again.recall(pace.to_json())
    levels: list[Level] = []
    for n in range(6):
        ask = sends(1_000 + n * 6_000, talk=2, request_hash=str(n))
        levels.append(again.asked(ask, n).level)
        again.answered(ask)
    assert levels[-1] is Level.LOOP
    again.forgive()
    assert again.asked(sends(60_000, talk=2), 9.0) == FINE


def test_a_poll_that_grows_is_judged_like_any_call() -> None:
    pace = Pace(Loop(), Calls(polling=True))
    for turn in range(ENOUGH + 1):
        pace.answered(sends(1_000 + turn * 300))
    for n in range(5):
        pace.answered(sends(20_000 + n * 6_000))
    judged = pace.asked(sends(50_000, tags={"poll": ""}), 1.0)
    assert (judged.kind, judged.level) == ("prompt-growth", Level.LOOP)
