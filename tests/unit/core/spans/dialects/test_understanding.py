"""Whatever comes, a row is one that stores take, everything stays or is counted, and nothing raises."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))

from heard import FAMILIES, PARENT, SPAN, TRACE, hear

from midwatch.core.spans import contents, form
from midwatch.core.spans.dialect import attribute
from midwatch.core.spans.family import Family
from midwatch.core.spans.form import CONTENTS, LOGS, Batch, ContentKind, Rank, Role
from midwatch.core.spans.limits import MAX_ATTRIBUTE, MAX_ATTRIBUTES, MAX_CONTENT, MAX_CONTENTS
from midwatch.core.spans.plans import make
from midwatch.core.spans.understanding import (
    MAX_PLANS,
    MAX_TAGS,
    Interpreter,
    restored,
    restored_log,
)

KEYS = sorted({key for family in FAMILIES.values() for key in family.slots})
FOLDED = sorted(
    {
        prefix
        for family in FAMILIES.values()
        if isinstance(family, Family)
        for prefix in family.folds
    }
)
PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([10**400, -(10**400)]),
    st.floats(),
    st.text(max_size=40),
    st.binary(max_size=10),
    st.sampled_from(
        ["chat", "LLM", "AGENT", "agent", "ai.toolCall", "pending_span", "00" * 8, "tools/call"]
    ),
)
VALUE = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
KEY = st.one_of(
    st.sampled_from(KEYS),
    st.text(max_size=12),
    st.builds(
        lambda prefix, path: ".".join((prefix, *path)),
        st.sampled_from(FOLDED),
        st.lists(
            st.sampled_from(["0", "1", "2", "role", "$x", "", "content"]), min_size=1, max_size=4
        ),
    ),
)
SCOPE = st.sampled_from(
    ["somebody", "ai", "langfuse-sdk", "logfire.openai_agents", "openinference.instrumentation.x",
     "pydantic-ai", "midwatch.sdk", "mcp-python-sdk", "opentelemetry.instrumentation.anthropic"]
)  # fmt: skip


def same(left: Any, right: Any) -> bool:
    """Tell whether two values are equal, NaN with NaN, and text that no store takes with what stands for it."""
    return repr(left) == repr(right)


@settings(max_examples=120, deadline=None)
@example("langfuse-sdk", {"langfuse.observation.model.name": None}, "", False)
@given(SCOPE, st.dictionaries(KEY, VALUE, max_size=12), st.text(max_size=10), st.booleans())
def test_whatever_comes_a_row_is_made_and_nothing_of_it_is_lost(
    scope: str, attributes: dict[str, Any], name: str, has_parent: bool
) -> None:
    name = name.replace("\0", "")
    attributes.pop("logfire.span_type", None)
    heard = hear(attributes, scope=scope, name=name, parent=PARENT if has_parent else None)
    back = form.SPANS.item(heard.row)
    assert back["name"] == name
    back_again = restored(heard.row, heard.batch.contents, FAMILIES)
    for key, value in attributes.items():
        if "\0" not in repr(key + repr(value)) and "\\x00" not in repr(value):
            assert same(back_again[key], value), key
    assert len(back_again) == len(attributes)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["gen_ai.choice", "exception", "a/b", ""]) | st.text(max_size=5),
                  st.dictionaries(st.sampled_from(["content", "message", "gen_ai.prompt", "a/b", "x"]), VALUE, max_size=3)),
        max_size=4,
    )
)  # fmt: skip
def test_whatever_events_say_is_with_them_or_a_content(
    events: list[tuple[str, dict[str, Any]]],
) -> None:
    heard = hear({"gen_ai.operation.name": "chat"}, events=tuple(events))
    said = contents.events(heard.batch.contents)
    assert sum(len(inner) for _, inner in events) >= sum(len(inner) for inner in said.values())
    for number, inner in said.items():
        for key, value in inner.items():
            if "\\x00" not in repr(events[number][1][key]):
                assert same(events[number][1][key], value)


@given(st.dictionaries(st.sampled_from(KEYS), PLAIN, max_size=5))
def test_a_pending_span_is_the_open_one_of_its_parent(attributes: dict[str, Any]) -> None:
    attributes |= {"logfire.span_type": "pending_span", "logfire.pending_parent_id": "04" * 8}
    row = hear(attributes, parent=PARENT).row
    assert (row[form.SPAN_ID], row[form.PARENT_ID]) == (PARENT, b"\4" * 8)
    assert (row[form.RANK], row[form.DURATION_NS]) == (Rank.OPEN, None)


@pytest.mark.parametrize("parent", ["0" * 16, "", "zz", "04" * 7])
def test_a_pending_span_of_a_root_has_no_parent(parent: str) -> None:
    told = {"logfire.span_type": "pending_span", "logfire.pending_parent_id": parent}
    row = hear(told, parent=PARENT).row
    assert (row[form.SPAN_ID], row[form.PARENT_ID]) == (PARENT, None)


def test_a_pending_span_without_a_parent_stays_what_it_is() -> None:
    row = hear({"logfire.span_type": "pending_span"}).row
    assert (row[form.SPAN_ID], row[form.RANK]) == (SPAN, Rank.ENDED)


def test_a_family_gives_a_column_back_under_one_name_at_most() -> None:
    """And all of them hold the value as it came: scratch and contents are not given back."""
    for family in FAMILIES.values():
        back = [slot.column for slot in family.slots.values() if slot.gives_back]
        assert len(back) == len(set(back)), family.name
        assert all(column is not None and column < len(form.SPANS.row) for column in back)


def test_a_long_attribute_is_clipped_a_long_list_dropped_and_both_are_counted() -> None:
    known = Interpreter()
    heard = hear({"note": "x" * 40_000, "many": ["y" * 50_000], "short": 1}, known=known)
    kept = json.loads(heard["attributes"])
    assert set(kept) == {"note", "short"}
    assert 32_000 < len(kept["note"]) <= MAX_ATTRIBUTE
    assert known.lost == {"clipped_attribute": 1, "attribute": 1}


def test_a_content_may_be_longer_than_an_attribute_and_is_clipped_at_its_own_limit() -> None:
    known = Interpreter()
    text = "z" * (MAX_CONTENT + 5)
    heard = hear(
        {"gen_ai.input.messages": text, "gen_ai.output.messages": "y" * 99_999}, known=known
    )
    at = CONTENTS.at
    assert [len(c[at["text"]]) for c in heard.batch.contents] == [MAX_CONTENT, 99_999]
    assert [c[at["characters"]] for c in heard.batch.contents] == [MAX_CONTENT + 5, 99_999]
    assert heard.batch.contents[0][at["hash"]] == contents.digest(text)
    assert known.lost == {"clipped_content": 1}


@pytest.mark.parametrize("odd", [{}, {"gen_ai.prompt.0": "other"}])
def test_indexed_attributes_that_were_clipped_go_out_as_text(odd: dict[str, str]) -> None:
    told = {"gen_ai.prompt.0.content": "z" * (MAX_CONTENT + 5)} | odd
    heard = hear(told)
    back = restored(heard.row, heard.batch.contents, FAMILIES)
    assert [len(str(value)) for value in back.values()] == [MAX_CONTENT]


def test_too_many_attributes_and_contents_are_counted_and_the_first_ones_stay() -> None:
    known = Interpreter()
    heard = hear({f"k{n}": n for n in range(MAX_ATTRIBUTES + 7)}, known=known)
    assert len(json.loads(heard["attributes"])) == MAX_ATTRIBUTES
    assert known.lost == {"attribute": 7}
    heard = hear(
        {},
        events=tuple(("gen_ai.choice", {"message": f"m{n}"}) for n in range(MAX_CONTENTS + 3)),
        known=known,
    )
    assert len(heard.batch.contents) == heard["content_count"] == MAX_CONTENTS
    assert known.lost == {"attribute": 7, "contents": 3}


def test_too_many_tags_are_counted() -> None:
    known = Interpreter()
    told = {f"traceloop.association.properties.t{n}": n for n in range(MAX_TAGS + 2)}
    heard = hear({"traceloop.span.kind": "task"} | told, known=known)
    assert len(json.loads(heard["tags"])) == MAX_TAGS
    assert known.lost == {"tags": 2}
    assert heard.is_whole()


def test_labels_are_clipped_and_the_whole_stays_an_attribute() -> None:
    heard = hear({"gen_ai.request.model": "m" * 300, "gen_ai.operation.name": "chat"})
    assert len(heard["model"]) == 256
    assert heard.is_whole()


def test_plans_are_forgotten_when_keys_never_repeat() -> None:
    known = Interpreter()
    for number in range(2 * MAX_PLANS):
        hear({f"k{number}": 1}, known=known)
    assert len(known._plans) <= MAX_PLANS  # pyright: ignore[reportPrivateUsage]


def test_of_two_attributes_with_one_key_the_last_stays() -> None:
    plan = make(FAMILIES["gen_ai"], ("gen_ai.request.model", "x", "gen_ai.request.model", "x"))
    assert [place for _, place, _ in plan.single] == [2]
    assert plan.kept == (3,)


def _log(
    event: str, body: str | None, attributes: dict[str, Any], *, of_span: bool = True
) -> tuple[list[Any], Batch]:
    row, batch = LOGS.blank(), Batch()
    row[LOGS.at["agent"]], row[LOGS.at["time_ns"]] = "clerk", 5
    row[LOGS.at["log_id"]], row[LOGS.at["event"]], row[LOGS.at["body"]] = b"\7" * 16, event, body
    row[LOGS.at["body_is_json"]] = body is not None and body.startswith("{")
    if of_span:
        row[LOGS.at["trace_id"]], row[LOGS.at["span_id"]] = TRACE, SPAN
    Interpreter().scope("s", "1", {}).log(
        row, [attribute(k, v) for k, v in attributes.items()], batch
    )
    assert LOGS.wrong(row) is None
    assert [why for c in batch.contents if (why := CONTENTS.wrong(c))] == []
    return row, batch


def test_what_a_log_record_says_of_a_span_is_that_spans() -> None:
    row, batch = _log(
        "gen_ai.client.inference.operation.details",
        None,
        {"gen_ai.input.messages": "[]", "gen_ai.request.model": "m"},
    )
    (content,) = batch.contents
    assert content[:3] == ["clerk", TRACE, SPAN]
    assert content[CONTENTS.at["key"]] == f"log/{'07' * 16}/gen_ai.input.messages"
    assert ContentKind(content[CONTENTS.at["kind"]]) is ContentKind.INPUT
    assert row[LOGS.at["attributes"]] == '{"gen_ai.request.model":"m"}'


def test_a_message_in_a_records_body_is_a_content_with_its_json() -> None:
    row, batch = _log("gen_ai.user.message", '{"content":"Where?"}', {})
    (content,) = batch.contents
    assert (content[CONTENTS.at["text"]], content[CONTENTS.at["is_json"]]) == (
        '{"content":"Where?"}',
        True,
    )
    assert row[LOGS.at["body"]] is None


def test_a_log_record_goes_out_as_it_came() -> None:
    told = {"gen_ai.input.messages": ["a"], "gen_ai.system": "openai"}
    row, batch = _log("gen_ai.choice", '{"content":"Here."}', told)
    assert restored_log(row, batch.contents) == (told, '{"content":"Here."}', True)
    other = row[:]
    other[LOGS.at["log_id"]] = b"\6" * 16
    assert restored_log(other, batch.contents)[1] is None


def test_a_record_of_no_span_and_one_that_is_no_message_keep_their_words() -> None:
    row, batch = _log("gen_ai.user.message", "Where?", {"content": "x"}, of_span=False)
    assert (row[LOGS.at["body"]], batch.contents) == ("Where?", [])
    row, batch = _log("started", "Here we go", {"content": "x"})
    assert (row[LOGS.at["body"]], batch.contents) == ("Here we go", [])


def test_a_tool_that_the_name_alone_tells_is_a_tool() -> None:
    heard = hear({"gen_ai.tool.name": "look_up"})
    assert heard.role is Role.TOOL
