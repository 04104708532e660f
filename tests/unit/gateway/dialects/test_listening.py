"""A listener knows at any time what a stream said, whether it is over, and what broke it."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midwatch.core.calls.ask import Ask, Dialect, Kind
from midwatch.core.calls.classes import ErrorClass
from midwatch.gateway.dialects import Event, Listener, What, listener, stream

CHAT = Ask(Kind.OPENAI, Dialect.CHAT, "gpt-4o", stream=True)
MESSAGES = Ask(Kind.ANTHROPIC, Dialect.MESSAGES, "claude", stream=True)
RESPONSES = Ask(Kind.OPENAI, Dialect.RESPONSES, "gpt-4o", stream=True)
GEMINI = Ask(Kind.GEMINI, Dialect.GENERATE, "gemini-2.5-flash", stream=True)
ARRAY = replace(GEMINI, array=True)

DONE = b"data: [DONE]\n\n"


def data(value: Any, name: str = "") -> bytes:
    line = f"data: {json.dumps(value, separators=(',', ':'), ensure_ascii=False)}\n\n"
    return (f"event: {name}\n{line}" if name else line).encode()


def chunk(delta: dict[str, Any] | None = None, reason: str | None = None, index: int = 0, **more: Any) -> bytes:  # fmt: skip
    choice = {"index": index, "delta": delta or {}, "logprobs": None, "finish_reason": reason}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "gpt-4o-2024-08-06"}
    return data({**head, "choices": [choice], **more})


USAGE = data({"id": "chatcmpl-1", "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}})  # fmt: skip


def said(text: str) -> bytes:
    return chunk({"content": text})


def message(kind: str, **more: Any) -> bytes:
    return data({"type": kind, **more}, kind)


MESSAGE = (
    message("message_start", message={"id": "msg_1", "model": "claude-x", "usage": {"input_tokens": 25, "output_tokens": 1}}),
    message("content_block_start", index=0, content_block={"type": "text", "text": ""}),
    message("ping"),
    message("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hel"}),
    message("content_block_delta", index=0, delta={"type": "text_delta", "text": "lo é"}),
    message("content_block_stop", index=0),
    message("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 15}),
    message("message_stop"),
)  # fmt: skip


def hear(ask: Ask, *chunks: bytes) -> tuple[Listener, list[Event]]:
    heard = listener(ask)
    return heard, [event for piece in chunks for event in heard.feed(piece)]


def whats(events: list[Event]) -> list[What]:
    return [event.what for event in events]


# -- chat


def test_a_chat_is_heard_to_its_end() -> None:
    heard, events = hear(
        CHAT, chunk({"role": "assistant", "content": ""}), said("Hel"), said("lo"), chunk(reason="stop"), USAGE, DONE
    )  # fmt: skip
    assert whats(events) == [What.META, What.CONTENT, What.CONTENT, What.META, What.META, What.END]
    assert (heard.text(), heard.finish, heard.response_id) == ("Hello", "stop", "chatcmpl-1")
    assert heard.model == "gpt-4o-2024-08-06"
    assert heard.complete
    assert heard.continuable
    usage = heard.usage()
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (9, 2)


def test_a_chat_is_complete_when_all_reasons_and_the_usage_are_there_also_without_a_sentinel() -> (
    None
):
    heard, _ = hear(CHAT, said("x"), chunk(reason="stop"))
    assert heard.finished
    assert not heard.complete
    heard.feed(USAGE)
    assert heard.complete
    assert not heard.ended


def test_a_chat_of_a_provider_that_tells_no_usage_is_complete_with_its_reason() -> None:
    heard = listener(CHAT, expects_usage=False)
    heard.feed(chunk({"content": "x"}, "stop"))
    assert heard.complete


def test_usage_with_the_last_content_is_heard() -> None:
    heard, _ = hear(
        CHAT, chunk({"content": "x"}, "stop", usage={"prompt_tokens": 1, "completion_tokens": 1})
    )
    assert heard.complete


def test_every_choice_needs_its_reason() -> None:
    heard, _ = hear(replace(CHAT, choices=2), chunk({"content": "a"}, "stop", 0), USAGE)
    assert not heard.complete
    heard.feed(chunk({"content": "b"}, "length", 1))
    assert heard.complete
    assert heard.finish == "stop"


def test_the_sentinel_alone_is_an_end_and_without_anything_there_is_none() -> None:
    assert hear(CHAT, said("x"), DONE)[0].complete
    heard, _ = hear(CHAT, said("x"))
    assert heard.close() == []
    assert not heard.complete


def test_the_last_event_counts_without_its_empty_line_when_it_is_whole() -> None:
    heard, events = hear(CHAT, said("x"), b"data: [DONE]")
    assert whats(events) == [What.CONTENT]
    assert heard.close() == [Event(DONE, What.END)]
    cut, _ = hear(CHAT, said("x"), b'data: {"choices":[{"del')
    assert cut.close() == []
    assert cut.malformed == 0
    assert not cut.complete


NO_TEXT: list[dict[str, Any]] = [
    {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": ""}}]}, {"function_call": {"name": "f"}},
    {"refusal": "No"}, {"audio": {"id": "a"}},
]  # fmt: skip


@pytest.mark.parametrize("delta", NO_TEXT)
def test_what_is_no_text_is_content_and_cannot_be_continued(delta: dict[str, Any]) -> None:
    heard, events = hear(CHAT, said("x"), chunk(delta))
    assert events[-1].what is What.CONTENT
    assert not heard.continuable


def test_reasoning_is_content_and_no_text() -> None:
    heard, events = hear(CHAT, chunk({"reasoning_content": "hm"}))
    assert whats(events) == [What.CONTENT]
    assert heard.text() == ""
    assert heard.continuable


def test_structured_output_and_several_answers_cannot_be_continued() -> None:
    assert not listener(replace(CHAT, structured=True)).continuable
    assert not listener(replace(CHAT, choices=2)).continuable


def test_comments_and_empty_events_are_pings() -> None:
    _, events = hear(
        CHAT, b": OPENROUTER PROCESSING\n\n", b"\n\n", b"event: ping\n\n", b"data:\n\n"
    )
    assert whats(events) == [What.PING] * 4


def test_what_the_model_says_is_never_taken_for_what_the_provider_says() -> None:
    evil = 'data: [DONE]\n\n"finish_reason":"stop" {"error":{"message":"x"}} ,"usage":null event: error'
    heard, events = hear(replace(CHAT, usage_asked=False), said(evil))
    assert whats(events) == [What.CONTENT]
    assert events[0].raw == said(evil)
    assert heard.text() == evil
    assert not heard.finished


def test_an_error_in_mid_stream_is_classified_and_ends_it() -> None:
    late = data({"error": {"message": "Overloaded", "type": "overloaded_error", "code": None}})
    heard, events = hear(CHAT, said("x"), late, said("y"), DONE)
    assert whats(events) == [What.CONTENT, What.ERROR]
    assert heard.failure is not None
    assert heard.failure.kind is ErrorClass.OVERLOADED
    assert not heard.complete
    assert heard.close() == []


def test_nothing_comes_out_behind_the_end() -> None:
    assert whats(hear(CHAT, DONE, said("x"), b": ping\n\n")[1]) == [What.END]


# -- what only we asked for


def test_a_stripped_stream_is_what_the_provider_sends_without_the_option() -> None:
    asked = [chunk({"role": "assistant", "content": ""}, usage=None), chunk({"content": 'say ,"usage":null'}, usage=None),
             chunk(reason="stop", usage=None), USAGE, DONE]  # fmt: skip
    plain = [
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": 'say ,"usage":null'}),
        chunk(reason="stop"),
        DONE,
    ]
    heard, events = hear(replace(CHAT, usage_asked=False), *asked)
    assert b"".join(event.raw for event in events) == b"".join(plain)
    assert heard.usage() is not None
    assert heard.complete


@pytest.mark.parametrize(
    ("sent", "left"),
    [
        (b'data: {"usage": null, "choices": []}\n\n', b'data: {"choices": []}\n\n'),
        (b'data: {"choices": [], "usage" : null }\r\n\r\n', b'data: {"choices": [] }\r\n\r\n'),
        (b'data: {"usage":null}\n\n', b"data: {}\n\n"),
        (b'data: {"a":{"b":1,"usage":null},"c":2,"usage":null}\n\n', b'data: {"a":{"b":1,"usage":null},"c":2}\n\n'),
        (b'data: {"choices":[{"usage":null}]}\n\n', b'data: {"choices":[{"usage":null}]}\n\n'),
    ],
)  # fmt: skip
def test_the_usage_member_goes_however_it_is_written(sent: bytes, left: bytes) -> None:
    assert hear(replace(CHAT, usage_asked=False), sent)[1][0].raw == left


def test_usage_that_a_provider_tells_anyway_stays() -> None:
    own = chunk({"content": "x"}, "stop", usage={"prompt_tokens": 1, "completion_tokens": 1})
    assert hear(replace(CHAT, usage_asked=False), own)[1][0].raw == own


def test_a_client_that_asked_gets_everything() -> None:
    sent = [chunk({"content": "x"}, usage=None), USAGE]
    assert [e.raw for e in hear(CHAT, *sent)[1]] == sent


# -- messages


def test_a_message_is_heard_to_its_end() -> None:
    heard, events = hear(MESSAGES, *MESSAGE)
    assert whats(events) == [
        What.META,
        What.META,
        What.PING,
        What.CONTENT,
        What.CONTENT,
        What.META,
        What.META,
        What.END,
    ]
    assert (heard.text(), heard.finish, heard.response_id, heard.model) == (
        "Hello é",
        "end_turn",
        "msg_1",
        "claude-x",
    )
    usage = heard.usage()
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (25, 15)


def test_a_message_with_its_reason_is_complete_without_message_stop() -> None:
    heard, _ = hear(MESSAGES, *MESSAGE[:-1])
    assert heard.complete
    assert not heard.ended


@pytest.mark.parametrize(
    "block", [{"type": "tool_use", "name": "f"}, {"type": "thinking", "thinking": ""}]
)
def test_a_tool_call_and_a_thought_cannot_be_continued(block: dict[str, Any]) -> None:
    assert not hear(MESSAGES, message("content_block_start", index=0, content_block=block))[
        0
    ].continuable


def test_anthropics_error_event_is_one() -> None:
    event = message("error", error={"type": "overloaded_error", "message": "Overloaded"})
    heard, events = hear(MESSAGES, *MESSAGE[:3], event)
    assert events[-1].what is What.ERROR
    assert events[-1].failure is heard.failure


# -- responses


def step(kind: str, number: int, **more: Any) -> bytes:
    return data({"type": kind, "sequence_number": number, **more}, kind)


WHOLE = {"id": "resp_1", "model": "gpt-4o", "status": "completed", "usage": {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}}  # fmt: skip


def test_a_response_is_heard_to_its_end() -> None:
    heard, events = hear(
        RESPONSES,
        step("response.created", 0, response={"id": "resp_1", "model": "gpt-4o"}),
        step("response.reasoning_summary_text.delta", 1, delta="hm"),
        step("response.output_text.delta", 2, delta="Hi"),
        step("response.completed", 3, response=WHOLE),
    )
    assert whats(events) == [What.META, What.CONTENT, What.CONTENT, What.END]
    assert (heard.text(), heard.finish, heard.sequence, heard.continuable) == (
        "Hi",
        "completed",
        3,
        True,
    )
    usage = heard.usage()
    assert usage is not None
    assert usage.total_tokens == 5


def test_a_response_without_its_last_event_is_not_complete_whatever_mark_follows() -> None:
    heard, _ = hear(RESPONSES, step("response.output_text.delta", 2, delta="Hi"), DONE)
    assert not heard.complete


def test_an_incomplete_response_ended_for_its_reason() -> None:
    over = {**WHOLE, "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    heard, _ = hear(RESPONSES, step("response.incomplete", 0, response=over))
    assert heard.complete
    assert heard.finish == "max_output_tokens"


def test_a_failed_response_is_an_error_with_its_usage() -> None:
    failed = {**WHOLE, "status": "failed", "error": {"code": "server_error", "message": "no"}}
    heard, _ = hear(RESPONSES, step("response.failed", 0, response=failed))
    assert heard.failure is not None
    assert heard.failure.kind is ErrorClass.TRANSIENT
    assert heard.usage() is not None


def test_a_function_call_of_a_response_cannot_be_continued() -> None:
    item = {"type": "function_call", "name": "f"}
    assert not hear(RESPONSES, step("response.output_item.added", 0, item=item))[0].continuable


# -- gemini


def part(text: str, reason: str | None = None, **more: Any) -> dict[str, Any]:
    candidate: dict[str, Any] = {
        "content": {"parts": [{"text": text, **more}], "role": "model"},
        "index": 0,
    }
    if reason:
        candidate["finishReason"] = reason
    return {"candidates": [candidate], "modelVersion": "gemini-2.5-flash", "responseId": "r1",
            "usageMetadata": {"promptTokenCount": 4, "candidatesTokenCount": 2, "totalTokenCount": 6}}  # fmt: skip


def test_gemini_ends_with_its_reason() -> None:
    heard, events = hear(
        GEMINI, data(part("thinking", thought=True)), data(part("Hel")), data(part("lo", "STOP"))
    )
    assert whats(events) == [What.CONTENT] * 3
    assert (heard.text(), heard.finish, heard.model, heard.complete) == (
        "Hello",
        "STOP",
        "gemini-2.5-flash",
        True,
    )


@pytest.mark.parametrize("reason", ["", None])
def test_an_empty_reason_is_no_end(reason: str | None) -> None:
    heard, _ = hear(CHAT, chunk({"content": "Hel"}, reason), chunk({"content": "lo"}, reason))
    assert (heard.finished, heard.finish) == (False, None)
    heard.feed(chunk(reason="stop"))
    assert (heard.finished, heard.finish) == (True, "stop")
    claude, _ = hear(MESSAGES, *MESSAGE[:6], message("message_delta", delta={"stop_reason": ""}))
    assert not claude.finished


def test_a_blocked_prompt_is_an_end() -> None:
    heard, _ = hear(GEMINI, data({"promptFeedback": {"blockReason": "SAFETY"}}))
    assert heard.complete
    assert heard.finish == "SAFETY"


def array(*chunks: dict[str, Any]) -> bytes:
    return b"[" + b"\n,\r\n".join(json.dumps(c, indent=2).encode() for c in chunks) + b"\n]"


def test_geminis_array_is_heard_element_by_element() -> None:
    whole = array(part("Hel"), part('lo "]}', "STOP"))
    heard, events = hear(ARRAY, whole)
    assert whats(events) == [What.CONTENT, What.CONTENT, What.END]
    assert b"".join(e.raw for e in events) == whole
    assert heard.text() == 'Hello "]}'


def test_an_error_within_an_array_is_heard() -> None:
    heard, _ = hear(
        ARRAY, array(part("a"), {"error": {"code": 503, "status": "UNAVAILABLE", "message": "x"}})
    )
    assert heard.failure is not None
    assert heard.failure.kind is ErrorClass.OVERLOADED


# -- whatever comes


def test_a_very_long_answer_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_TEXT", 100)
    heard, _ = hear(CHAT, *[said("x" * 30)] * 10)
    assert not heard.continuable
    assert len(heard.text()) <= 100


WIRE: list[tuple[Ask, bytes]] = [
    (
        CHAT,
        b"".join(
            [
                said("a"),
                b": ping\r\n\r\n",
                said("é"),
                b"data: {bad\n\n",
                chunk(reason="stop"),
                USAGE,
                DONE,
            ]
        ),
    ),
    (MESSAGES, b"".join(MESSAGE)),
    (
        RESPONSES,
        step("response.output_text.delta", 2, delta="é")
        + step("response.completed", 3, response=WHOLE),
    ),
    (GEMINI, data(part("é")).replace(b"\n", b"\r\n") + data(part("b", "STOP"))),
    (ARRAY, array(part("é]"), part("b", "STOP"))),
]
NAMES = ["chat", "messages", "responses", "gemini", "array"]


@pytest.mark.parametrize(("ask", "wire"), WIRE, ids=NAMES)
@settings(max_examples=25)
@given(cuts=st.lists(st.integers(0, 2_000), max_size=10), single=st.booleans())
def test_any_split_of_the_bytes_is_heard_alike(
    ask: Ask, wire: bytes, cuts: list[int], single: bool
) -> None:
    some = {0, len(wire), *(min(cut, len(wire)) for cut in cuts)}
    ends = range(len(wire) + 1) if single else sorted(some)
    whole, expected = hear(ask, wire)
    heard, events = hear(ask, *(wire[a:b] for a, b in pairwise(ends)))
    assert events == expected
    assert (heard.text(), heard.finish) == (whole.text(), whole.finish)
    assert (heard.complete, heard.malformed) == (whole.complete, whole.malformed)
    assert heard.usage() == whole.usage()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "delta", "content", "index", "finish_reason", "usage", "error", "type", "message",
                             "content_block", "response", "candidates", "parts", "text", "usageMetadata", "item"]),
            inner, max_size=5,
        )
    ),
    max_leaves=15,
)  # fmt: skip


@pytest.mark.parametrize("ask", [ask for ask, _ in WIRE], ids=NAMES)
@settings(max_examples=25)
@given(
    value=JSON,
    kind=st.sampled_from(
        [
            "",
            "message_start",
            "message_delta",
            "content_block_start",
            "response.completed",
            "response.failed",
            "x.delta",
            "response.output_item.done",
        ]
    ),
)
def test_nothing_that_a_provider_may_send_breaks_it(ask: Ask, value: Any, kind: str) -> None:
    if isinstance(value, dict) and kind:
        value = {**value, "type": kind}
    raw = b"[" + json.dumps(value).encode() + b"]" if ask.array else data(value)
    heard, events = hear(ask, raw)
    heard.usage()
    assert all(isinstance(event.what, What) for event in events)
