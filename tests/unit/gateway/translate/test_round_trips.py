"""There and back: what two dialects have in common is the same after the way through the other one."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conversations import DIALECT, KINDS, MODEL, ask, conversations, read, replies, values, write
from midwatch.core.calls.ask import Kind
from midwatch.core.pricing.usage import Usage
from midwatch.gateway import translate
from midwatch.gateway.translate import CannotTranslate, Frame, answer, request
from midwatch.gateway.translate.form import Conversation, Notes, Reply

PAIRS = list(itertools.permutations(KINDS, 2))
FRAME = Frame("call-1", "a-model", 1_700_000_000, asked="gemini-3-pro")
pairs = st.sampled_from(PAIRS)
kinds = st.sampled_from(KINDS)
QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@QUICK
@given(kind=kinds, said=conversations())
def test_what_is_written_is_read_as_it_was(kind: Kind, said: Conversation) -> None:
    notes = Notes()
    body = write(kind, said, notes)
    found = read(kind, body, notes, stream=said.stream)
    assert found == said
    assert write(kind, found) == body
    assert notes.names == ()


@QUICK
@given(pair=pairs, said=conversations())
def test_a_request_comes_back_from_another_dialect_as_it_went(
    pair: tuple[Kind, Kind], said: Conversation
) -> None:
    first, second = pair
    body = write(first, said)
    there = request(
        ask(first, stream=said.stream), json.dumps(body).encode(), second, MODEL[second]
    )
    assert there.left_out == ()
    assert there.ask.kind is second
    assert there.ask.dialect is DIALECT[second]
    back = request(there.ask, there.body, first, MODEL[first])
    assert json.loads(back.body) == body
    assert back.left_out == ()


@QUICK
@given(pair=pairs, reply=replies(), counts=st.tuples(*[st.integers(0, 10**6)] * 5))
def test_an_answer_comes_back_from_another_dialect_as_it_went(
    pair: tuple[Kind, Kind], reply: Reply, counts: tuple[int, ...]
) -> None:
    first, second = pair
    used = Usage(
        counts[0],
        cache_read=counts[1],
        cache_write_5m=counts[2],
        output_text=counts[3],
        reasoning=counts[4],
    )
    whole: dict[str, Any] = translate.ANSWERS[DIALECT[first]].write(reply, used, FRAME)
    there = answer(ask(second), first, json.dumps(whole).encode(), used, FRAME)
    back = answer(ask(first), second, there, used, FRAME)
    assert json.loads(back) == whole


def _broken(body: Any, path: list[int], value: Any) -> Any:
    """Return a body with something else in it, wherever the path leads."""
    if not path or not isinstance(body, dict | list) or not body:
        return value
    if isinstance(body, dict):
        key = sorted(body)[path[0] % len(body)]
        return {**body, key: _broken(body[key], path[1:], value)}
    place = path[0] % len(body)
    return [*body[:place], _broken(body[place], path[1:], value), *body[place + 1 :]]


paths = st.lists(st.integers(0, 30), max_size=8)
hostile = values | st.sampled_from(
    [{"type": "text"}, [], {}, [{}], "data:,", float(10**18), [[[]]], {"type": []}]
)


@QUICK
@given(pair=pairs, said=conversations(), path=paths, value=hostile)
def test_a_hostile_request_raises_nothing_but_cannot_translate(
    pair: tuple[Kind, Kind], said: Conversation, path: list[int], value: Any
) -> None:
    first, second = pair
    body = _broken(write(first, said), path, value)
    told: CannotTranslate | None = None
    try:
        request(ask(first), json.dumps(body).encode(), second, MODEL[second])
    except CannotTranslate as error:
        told = error
    if told is not None:
        assert told.name
        assert len(str(told)) < 300
        assert str(told).isprintable()


@QUICK
@given(pair=pairs, reply=replies(), path=paths, value=hostile)
def test_a_hostile_answer_raises_nothing_but_cannot_translate(
    pair: tuple[Kind, Kind], reply: Reply, path: list[int], value: Any
) -> None:
    first, second = pair
    whole: dict[str, Any] = translate.ANSWERS[DIALECT[first]].write(reply, None, FRAME)
    body = json.dumps(_broken(whole, path, value)).encode()
    told: CannotTranslate | None = None
    try:
        json.loads(answer(ask(second), first, body, None, FRAME))
    except CannotTranslate as error:
        told = error
    if told is not None:
        assert told.name


@pytest.mark.parametrize(("first", "second"), PAIRS)
@pytest.mark.parametrize(
    "body", [b"", b"[]", b"\xff", b'{"messages":' + b"[" * 5_000, b'{"a":NaN}']
)
def test_what_is_no_request_is_refused(first: Kind, second: Kind, body: bytes) -> None:
    with pytest.raises(CannotTranslate):
        request(ask(first), body, second, MODEL[second])


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_a_schema_nested_as_deeply_as_a_body_may_be_is_read(first: Kind, second: Kind) -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(60):
        schema = {"type": "array", "items": schema}
    said = read(Kind.OPENAI, {"model": "m", "messages": [{"role": "user", "content": "x"}]})
    body = write(first, said)
    if first is Kind.OPENAI:
        body["tools"] = [
            {
                "type": "function",
                "function": {
                    "name": "f",
                    "parameters": {"type": "object", "properties": {"a": schema}},
                },
            }
        ]
    elif first is Kind.ANTHROPIC:
        body["tools"] = [
            {"name": "f", "input_schema": {"type": "object", "properties": {"a": schema}}}
        ]
    else:
        body["tools"] = [
            {
                "functionDeclarations": [
                    {"name": "f", "parameters": {"type": "OBJECT", "properties": {"a": schema}}}
                ]
            }
        ]
    assert request(ask(first), json.dumps(body).encode(), second, MODEL[second]).body
