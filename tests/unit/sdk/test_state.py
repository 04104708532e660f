"""States, feedback, tags, turns, outcomes: what an agent says of its sessions."""

from __future__ import annotations

import json
from typing import Any

import pytest

import midwatch as mw
from midwatch.core.spans import form
from midwatch.core.spans.dialect import Event, attribute
from midwatch.core.spans.form import NO_SPAN, Batch, ContentKind, Role, Row
from midwatch.core.spans.understanding import Interpreter
from midwatch.sdk.testing import Recording


def named(seen: Recording, name: str) -> dict[str, Any]:
    (found,) = (one for one in seen.spans if one["name"] == name)
    return found


def understood(one: dict[str, Any]) -> tuple[Row, Batch]:
    """Return what the hub makes of a span that was recorded."""
    row, batch = NO_SPAN[:], Batch()
    row[form.AGENT], row[form.NAME] = "inbox", one["name"]
    row[form.TRACE_ID], row[form.SPAN_ID] = bytes(15) + b"1", bytes(7) + b"1"
    row[form.START_NS], row[form.SCOPE] = int(one["startTimeUnixNano"]), "midwatch.sdk"
    events = [
        Event(e["name"], int(e["timeUnixNano"]), [attribute(k, v) for k, v in flat(e["attributes"]).items()])
        for e in one.get("events", ())
    ]  # fmt: skip
    attributes = [attribute(key, value) for key, value in one["attributes"].items()]
    Interpreter().scope("midwatch.sdk", "", {}).span(row, attributes, events, batch)
    return row, batch


def flat(pairs: list[dict[str, Any]]) -> dict[str, Any]:
    return {pair["key"]: next(iter(pair["value"].values())) for pair in pairs}


def test_a_state_is_a_span_of_its_session_and_turn_and_its_text_a_content(seen: Recording) -> None:
    memory = {"customer": {"name": "Ann Lee", "tags": ["é"]}}
    with mw.session("s1"), mw.turn():
        mw.state({"memory": memory, "scratchpad": None})
        memory["customer"]["name"] = "changed later"
    row, batch = understood(named(seen, "state"))
    assert (row[form.ROLE], row[form.SESSION]) == (Role.MEMORY, "s1")
    assert row[form.TURN] == named(seen, "invoke_agent inbox")["attributes"]["midwatch.turn"]
    (content,) = batch.contents
    item = form.CONTENTS.item(content)
    assert item["kind"] == ContentKind.STATE.name.lower()
    assert json.loads(item["text"]) == {
        "memory": {"customer": {"name": "Ann Lee", "tags": ["é"]}},
        "scratchpad": None,
    }


@pytest.mark.parametrize("parts", [None, "text", [1, 2], 7, object()])
def test_what_is_no_state_is_counted(seen: Recording, parts: Any) -> None:
    mw.state(parts)
    assert seen.spans == []
    assert seen.lost == {"bad_argument": 1}


def test_a_state_that_is_too_large_is_clipped_and_counted(seen: Recording) -> None:
    mw.state({"context": "x" * 1_000_000})
    assert seen.lost == {"clipped": 1}
    assert len(named(seen, "state")["attributes"]["midwatch.state"]) < 50_000


def test_turns_have_ids_of_their_own_that_are_on_everything_inside(seen: Recording) -> None:
    with mw.session("s1"):
        for _ in range(2):
            with mw.turn(), mw.cycle():
                pass
        with mw.cycle():
            pass
    turns = [one["attributes"].get("midwatch.turn") for one in seen.spans]
    cycle1, turn1, cycle2, turn2, outside, session = turns
    assert cycle1 == turn1 != turn2 == cycle2
    assert len(turn1) == 36
    assert (outside, session) == (None, None)


def test_a_decorated_turn_is_a_new_one_each_time(seen: Recording) -> None:
    @mw.turn
    def answer() -> None:
        pass

    answer()
    answer()
    assert len({one["attributes"]["midwatch.turn"] for one in seen.spans}) == 2


def test_tags_of_a_session_are_on_everything_inside_and_the_user_on_the_session(
    seen: Recording,
) -> None:
    with (
        mw.session("s1", user="ann", tags={"customer": "acme", "task": 7, "none": None}),
        mw.session("s2", tags={"task": "inner"}),
        mw.turn(),
    ):
        pass
    with mw.cycle():
        pass
    turn, inner, outer, after = seen.spans
    for one, tags in (
        (turn, {"customer": "acme", "task": "inner"}),
        (inner, {"customer": "acme", "task": "inner"}),
        (outer, {"customer": "acme", "task": "7"}),
    ):
        row, _ = understood(one)
        assert json.loads(row[form.TAGS]) == tags
    assert understood(outer)[0][form.USER] == "ann"
    assert understood(after)[0][form.TAGS] is None


def test_a_decorated_session_keeps_its_tags(seen: Recording) -> None:
    @mw.session("s1", user="ann", tags={"customer": "acme"})
    def work() -> None:
        pass

    work()
    (one,) = seen.spans
    assert one["attributes"]["midwatch.tag.customer"] == "acme"
    assert one["attributes"]["user.id"] == "ann"


@pytest.mark.parametrize(("tags", "lost"), [("a", {"bad_argument": 1}), ({str(n): n for n in range(40)}, {"tags": 8})])  # fmt: skip
def test_tags_beyond_what_the_hub_takes_are_counted(
    seen: Recording, tags: Any, lost: dict[str, int]
) -> None:
    with mw.session("s1", tags=tags):
        pass
    assert seen.lost == lost


def test_an_outcome_is_the_sessions_or_else_the_cycles(seen: Recording) -> None:
    with mw.session("s1"), mw.turn():
        mw.outcome("handed over", goal_met=False, escalated=True)
    with mw.cycle():
        mw.outcome("success", goal_met=True)
    rows = {one["name"]: understood(one)[0] for one in seen.spans}
    said = {
        name: (row[form.OUTCOME], row[form.GOAL_MET], row[form.ESCALATED])
        for name, row in rows.items()
    }
    assert said == {
        "invoke_agent inbox": (None, None, None),
        "session": ("handed over", False, True),
        "cycle": ("success", True, None),
    }
    assert [event["data"] for event in seen.events] == [
        {"status": "handed over", "goal_met": False, "escalated": True, "session": "s1"},
        {"status": "success", "goal_met": True},
    ]


def test_feedback_is_an_evaluation_of_its_session_also_later(seen: Recording) -> None:
    with mw.session("s1"):
        mw.feedback("thumbs", score=-1, comment="wrong customer", by="user")
    mw.feedback("thumbs", score=True, label="good", session="s1")
    first, later = (one for one in seen.spans if one["name"] == "feedback")
    row, batch = understood(first)
    assert (row[form.ROLE], row[form.SESSION]) == (Role.EVALUATION, "s1")
    assert json.loads(row[form.EVALUATIONS]) == [{"name": "thumbs", "score": -1.0, "by": "user"}]
    (content,) = batch.contents
    assert form.CONTENTS.item(content)["text"] == "wrong customer"
    row, _ = understood(later)
    assert row[form.SESSION] == "s1"
    assert json.loads(row[form.EVALUATIONS]) == [{"name": "thumbs", "score": 1.0, "label": "good"}]


@pytest.mark.parametrize("score", [float("nan"), float("-inf"), "high", 10**400])
def test_a_score_that_is_no_number_is_counted_and_the_rest_is_kept(
    seen: Recording, score: Any
) -> None:
    mw.feedback("thumbs", score=score, label="bad")
    assert seen.lost == {"bad_argument": 1}
    row, _ = understood(named(seen, "feedback"))
    assert json.loads(row[form.EVALUATIONS]) == [{"name": "thumbs", "label": "bad"}]
