"""Events that cannot be read: a piece of the answer may have been in one, so that the stream is broken by it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from midwatch.core.calls.ask import Ask, Dialect, Kind
from midwatch.gateway.dialects import Event, Listener, What, listener, sse, stream

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
