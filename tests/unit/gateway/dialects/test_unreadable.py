"""Events that cannot be read: a piece of the answer may have been in one, so that the stream is broken by it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from midwatch.core.calls.ask import Ask, Dialect, Kind
from midwatch.core.calls.classes import ErrorClass
from midwatch.gateway.dialects import Event, Listener, What, answers, listener, sse, stream

CHAT = Ask(Kind.OPENAI, Dialect.CHAT, "gpt-4o", stream=True)
ARRAY = Ask(Kind.GEMINI, Dialect.GENERATE, "gemini-2.5-flash", stream=True, array=True)
DONE = b"data: [DONE]\n\n"


def chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return f"data: {json.dumps({'id': 'x', 'choices': [choice]})}\n\n".encode()


def said(text: str) -> bytes:
    return chunk({"content": text})


def hear(ask: Ask, *pieces: bytes) -> tuple[Listener, list[Event]]:
    heard = listener(ask)
    return heard, [event for piece in pieces for event in heard.feed(piece)]


@pytest.mark.parametrize("bad", [b"data: {broken\n\n", b"data: 7\n\n"])
@pytest.mark.parametrize("at_once", [False, True])
def test_it_breaks_the_stream_and_nothing_behind_it_counts(bad: bytes, at_once: bool) -> None:
    pieces = [said("a"), bad, said("b"), DONE]
    heard, events = hear(CHAT, *([b"".join(pieces)] if at_once else pieces))
    assert [event.what for event in events] == [What.CONTENT, What.MALFORMED]
    assert (heard.malformed, heard.text(), heard.complete) == (1, "a", False)
    assert heard.failure is not None
    assert heard.failure.code == stream.UNREADABLE


def test_behind_the_reason_of_the_end_it_breaks_nothing() -> None:
    heard, _ = hear(CHAT, said("a"), chunk({}, "stop"), b"data: {broken\n\n", DONE)
    assert (heard.failure, heard.ended, heard.text()) == (None, True, "a")


def test_half_an_event_at_the_end_is_a_cut_and_not_unreadable() -> None:
    heard, _ = hear(CHAT, said("a"), b'data: {"id": "x", "cho')
    assert heard.close() == []
    assert (heard.failure, heard.malformed, heard.continuable) == (None, 0, True)


def test_an_event_that_is_too_long_breaks_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT", 1_000)
    heard, _ = hear(CHAT, said("a"), said("x" * 2_000), said("b"))
    assert heard.failure is not None
    assert not heard.continuable


def test_an_element_that_cannot_be_read_breaks_an_array() -> None:
    good = json.dumps(
        {"candidates": [{"content": {"parts": [{"text": "a"}]}, "finishReason": "STOP"}]}
    )
    heard, events = hear(ARRAY, b"[{bad}, " + good.encode() + b"]")
    assert [event.what for event in events] == [What.MALFORMED]
    assert heard.failure is not None


def test_an_event_of_very_many_values_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "LONG_BYTES", 100)
    monkeypatch.setattr(stream, "MAX_VALUES", 50)
    many = f"data: {json.dumps({'choices': [[]] * 100})}\n\n".encode()
    long = said("a, [{" * 100)
    heard, events = hear(CHAT, long, many)
    assert [event.what for event in events] == [What.CONTENT, What.MALFORMED]
    assert (heard.text(), heard.complete) == ("a, [{" * 100, False)


def test_an_answer_of_very_many_values_is_none_and_is_paid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "LONG_BYTES", 100)
    monkeypatch.setattr(answers, "MAX_VALUES", 50)
    many = json.dumps({"choices": [[]] * 100, "usage": {"prompt_tokens": 1}}).encode()
    found = answers.answer(replace(CHAT, stream=False), 200, (), many)
    assert found.failure is not None
    assert (found.failure.kind, found.free, found.told) == (ErrorClass.UNREADABLE, False, False)


def test_of_long_embeddings_the_vectors_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def noting(data: bytes) -> Any:
        read.append(len(data))
        return json.loads(data)

    monkeypatch.setattr(answers, "LONG_BYTES", 100)
    monkeypatch.setattr(answers, "MAX_VALUES", 50)
    monkeypatch.setattr(answers, "from_json", noting)
    told = {"prompt_tokens": 7, "total_tokens": 7}
    vectors = [{"embedding": [0.5] * 1_000, "index": n} for n in range(3)]
    body = json.dumps({"object": "list", "data": vectors, "model": "e", "usage": told}).encode()
    ask = Ask(Kind.OPENAI, Dialect.EMBEDDINGS, "e")
    found = answers.answer(ask, 200, (), body)
    assert found.usage is not None
    assert (found.usage.input_tokens, found.model, found.failure) == (7, "e", None)
    assert max(read) < 100
    for end in (1, 60, 2_000):
        cut = answers.answer(ask, 200, (), body[:-end])
        assert cut.failure is not None
        assert not cut.free


@pytest.mark.parametrize("nothing", [b"\n\n", b": ping\n\n", b"data: {}\n\n"])
def test_events_without_end_that_say_nothing_break_the_stream(
    nothing: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "MAX_EMPTY", 100)
    patient, _ = hear(CHAT, *[said("a"), nothing * 100] * 3, said("b"))
    assert (patient.failure, patient.text()) == (None, "aaab")
    heard, events = hear(CHAT, said("a"), nothing * 5_000, said("b"), DONE)
    assert heard.failure is not None
    assert (heard.text(), heard.complete, len(events)) == ("a", False, 102)
    over, _ = hear(CHAT, said("a"), chunk({}, "stop"), nothing * 5_000, DONE)
    assert (over.failure, over.complete) == (None, True)
