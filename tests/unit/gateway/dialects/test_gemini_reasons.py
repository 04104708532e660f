"""When a Gemini stream is over: it has no sentinel, and some models tell STOP with every chunk."""

from __future__ import annotations

import json
from typing import Any

from midwatch.core.calls.ask import Ask, Dialect, Kind
from midwatch.gateway.dialects import Listener, listener

GEMINI = Ask(Kind.GEMINI, Dialect.GENERATE, "gemini-2.5-flash", stream=True)


def data(value: Any) -> bytes:
    return f"data: {json.dumps(value)}\n\n".encode()


def part(text: str, reason: str | None = None) -> dict[str, Any]:
    candidate: dict[str, Any] = {
        "content": {"parts": [{"text": text}], "role": "model"},
        "index": 0,
    }
    return {"candidates": [candidate if reason is None else {**candidate, "finishReason": reason}]}


def hear(*chunks: bytes) -> Listener:
    heard = listener(GEMINI)
    for chunk in chunks:
        heard.feed(chunk)
    return heard


def test_a_gemini_that_tells_stop_in_every_chunk_ends_with_its_body_alone() -> None:
    for pieces in (["Hel"], ["Hel", "lo", "!"]):
        heard = hear(*(data(part(text, "STOP")) for text in pieces))
        assert (heard.finished, heard.complete) == (False, False)
        heard.close()
        assert (heard.finished, heard.finish) == (True, "STOP")


def test_a_gemini_that_goes_on_behind_its_reason_is_not_believed_again() -> None:
    heard = hear(data(part("Hel")), data(part("lo", "STOP")))
    assert heard.complete
    heard.feed(data(part(", world")))
    assert (heard.finished, heard.finish) == (False, None)
    heard.feed(data(part("!", "STOP")))
    assert not heard.finished
    assert heard.close() == []
    assert (heard.finished, heard.finish) == (True, "STOP")


def test_a_reason_without_content_ends_a_gemini() -> None:
    nothing = {"candidates": [{"finishReason": "SAFETY", "index": 0}]}
    heard = hear(data(nothing))
    assert (heard.complete, heard.finish) == (True, "SAFETY")
    unsaid = {"candidates": [{"finishReason": "FINISH_REASON_UNSPECIFIED", "index": 0}]}
    heard = hear(data(part("a")), data(unsaid))
    assert not heard.finished
