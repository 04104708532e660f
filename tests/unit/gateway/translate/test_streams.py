"""Streams: translated event by event, alike however they are cut, and the same as the whole answer."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conversations import DIALECT, KINDS, MODEL, ask, replies, values
from midwatch.core.calls.ask import Kind
from midwatch.core.pricing.usage import Usage
from midwatch.gateway import translate
from midwatch.gateway.dialects import Route, What, error_event, listener
from midwatch.gateway.dialects.stream import Listener
from midwatch.gateway.translate import CannotTranslate, Frame, Stream, answer
from midwatch.gateway.translate.fields import arguments_of
from midwatch.gateway.translate.form import (
    Argued,
    Call,
    Called,
    Delta,
    Finish,
    Finished,
    Mused,
    Reply,
    Said,
    Text,
    Thought,
    joined,
)

PAIRS = [(a, b) for a in KINDS for b in KINDS if a is not b]
pairs = st.sampled_from(PAIRS)
USED = Usage(90, cache_read=10, output_text=15, reasoning=5)
QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def deltas_of(reply: Reply) -> list[Delta]:
    """Return an answer as a provider streams it: texts and arguments in several pieces."""
    found: list[Delta] = []
    number = 0
    for part in reply.parts:
        if isinstance(part, Call):
            text = json.dumps(part.arguments)
            found.append(Called(number, part.id, part.name))
            found += [Argued(number, text[i : i + 5]) for i in range(0, len(text), 5)]
            number += 1
        else:
            kind = Said if isinstance(part, Text) else Mused
            found += [kind(part.text[i : i + 3]) for i in range(0, len(part.text), 3)]
    return found


def gathered(deltas: list[Delta], end: Finished, heard: Listener) -> Reply:
    """Return the answer that a stream came to."""
    parts: list[Text | Thought | Call] = []
    calls: dict[int, list[str]] = {}
    at: dict[int, int] = {}
    for delta in deltas:
        if isinstance(delta, Said):
            parts.append(Text(delta.text))
        elif isinstance(delta, Mused):
            parts.append(Thought(delta.text))
        elif isinstance(delta, Called):
            calls[delta.index], at[delta.index] = [], len(parts)
            parts.append(Call(delta.id, delta.name, {}))
        elif isinstance(delta, Argued):
            calls[delta.index].append(delta.text)
    for index, pieces in calls.items():
        call = parts[at[index]]
        assert isinstance(call, Call)
        parts[at[index]] = Call(call.id, call.name, arguments_of("".join(pieces), "x"))
    return Reply(joined(parts), end.finish, heard.response_id, heard.model, end.stop)


def streamed(kind: Kind, reply: Reply, used: Usage | None = USED, *, array: bool = False) -> bytes:
    """Return an answer as a provider of a kind streams it."""
    writer = translate.ANSWERS[DIALECT[kind]].Writer(
        Frame("x", "m", 1, asked=MODEL[kind], array=array)
    )
    deltas = deltas_of(reply)
    end = Finished(reply.finish, reply.stop)
    return b"".join(
        (writer.begin(reply.id, reply.model), *map(writer.write, deltas), writer.end(end, used))
    )


def heard(kind: Kind, data: bytes) -> Reply:
    """Return what a client of a kind understands of a stream."""
    listening = listener(ask(kind, stream=True))
    reader = translate.ANSWERS[DIALECT[kind]].Reader()
    deltas: list[Delta] = []
    for event in (*listening.feed(data), *listening.close()):
        assert event.what is not What.MALFORMED
        assert event.what is not What.ERROR
        raw = event.raw.partition(b"data:")[2]
        if event.what is not What.END:
            deltas += reader.read(json.loads(raw))
    assert listening.complete
    return gathered(deltas, reader.end(), listening)


def translated(first: Kind, second: Kind, pieces: list[bytes], **wanted: Any) -> bytes:
    """Return what a client of the second kind gets of a stream of the first."""
    asking = ask(second, stream=True, **wanted)
    listening = listener(ask(first, stream=True))
    frame = Frame("call-1", "m", 1, MODEL[second], asking.usage_asked, asking.array)
    stream = Stream(asking, first, listening, frame)
    sent = b""
    for piece in pieces:
        sent += b"".join(event.raw for event in stream.feed(listening.feed(piece)))
    sent += b"".join(event.raw for event in stream.feed(listening.close()))
    assert listening.complete
    return sent + stream.end(listening.usage())


def cut(data: bytes, places: list[int]) -> list[bytes]:
    marks = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in itertools.pairwise(marks)]


@QUICK
@given(pair=pairs, reply=replies(), places=st.lists(st.integers(0, 10**6), max_size=30))
def test_a_stream_says_the_same_however_it_is_cut(
    pair: tuple[Kind, Kind], reply: Reply, places: list[int]
) -> None:
    first, second = pair
    data = streamed(first, reply)
    whole = translated(first, second, [data])
    assert translated(first, second, cut(data, places)) == whole
    assert heard(second, whole) == reply


@QUICK
@given(pair=pairs, reply=replies())
def test_a_stream_says_what_the_whole_answer_says(pair: tuple[Kind, Kind], reply: Reply) -> None:
    first, second = pair
    body = translate.ANSWERS[DIALECT[first]].write(reply, USED, Frame("x", "m", 1))
    whole = answer(ask(second), first, json.dumps(body).encode(), USED, Frame("x", "m", 1))
    reader = translate.ANSWERS[DIALECT[second]]
    assert heard(second, translated(first, second, [streamed(first, reply)])) == reader.read(
        json.loads(whole)
    )


@QUICK
@given(
    pair=pairs, reply=replies(), events=st.lists(st.tuples(st.integers(0, 99), values), max_size=3)
)
def test_hostile_events_raise_nothing_but_cannot_translate(
    pair: tuple[Kind, Kind], reply: Reply, events: list[tuple[int, Any]]
) -> None:
    first, second = pair
    pieces = streamed(first, reply).split(b"\n\n" if first is not Kind.GEMINI else b"\r\n\r\n")
    for place, value in events:
        bad = {
            "type": "content_block_delta",
            "delta": value,
            "choices": [{"delta": value}],
            "candidates": [{"content": {"parts": [value]}}],
        }
        pieces.insert(place % len(pieces), b"data: " + json.dumps(bad).encode())
    listening = listener(ask(first, stream=True))
    stream = Stream(ask(second, stream=True), first, listening, Frame("x", "m", 1))
    told: CannotTranslate | None = None
    try:
        for piece in pieces:
            stream.feed(listening.feed(piece + b"\n\n"))
        stream.end(listening.usage())
    except CannotTranslate as error:
        told = error
    if told is not None:
        assert told.name


HELLO = Reply((Text("Hello"),), Finish.STOP, "id1", "served")
CALLS = Reply(
    (Text("Looking"), Call("call_a", "find", {"q": "ä"}), Call("call_b", "find", {})),
    Finish.TOOLS,
    "id1",
    "served",
)


@pytest.mark.parametrize(("first", "second"), PAIRS)
@pytest.mark.parametrize("reply", [HELLO, CALLS], ids=["text", "calls"])
def test_the_usage_is_told_in_the_clients_form(first: Kind, second: Kind, reply: Reply) -> None:
    sent = translated(first, second, [streamed(first, reply)])
    listening = listener(ask(second, stream=True))
    listening.feed(sent)
    used = listening.usage()
    assert used is not None
    assert (used.input_tokens, used.cached_tokens) == (100, 10)
    assert (used.output_tokens, used.reasoning) == (20, 5)


def test_usage_is_told_to_a_chat_client_only_when_it_asked() -> None:
    pieces = [streamed(Kind.ANTHROPIC, HELLO)]
    asked = translated(Kind.ANTHROPIC, Kind.OPENAI, pieces)
    silent = translated(Kind.ANTHROPIC, Kind.OPENAI, pieces, usage=False)
    assert asked.count(b'"usage":null') == 4
    assert asked.count(b'"prompt_tokens":100') == 1
    assert b"usage" not in silent
    assert silent.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize("first", [Kind.OPENAI, Kind.ANTHROPIC])
def test_a_stream_as_an_array_is_one(first: Kind) -> None:
    for reply in (HELLO, CALLS, Reply((), Finish.STOP)):
        sent = translated(first, Kind.GEMINI, [streamed(first, reply)], array=True)
        pieces = json.loads(sent)
        assert pieces[-1]["candidates"][0]["finishReason"] == "STOP"


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_an_answer_without_a_word_begins_and_ends_properly(first: Kind, second: Kind) -> None:
    reply = Reply((), Finish.STOP, "id1", "served")
    assert heard(second, translated(first, second, [streamed(first, reply)])).finish is Finish.STOP


def test_a_client_of_messages_gets_one_block_after_the_other() -> None:
    sent = translated(Kind.OPENAI, Kind.ANTHROPIC, [streamed(Kind.OPENAI, CALLS)])
    events = [
        json.loads(line[6:]) for line in sent.decode().splitlines() if line.startswith("data: ")
    ]
    shown = [(e["type"], e.get("index")) for e in events if e["type"] != "content_block_delta"]
    assert shown == [
        ("message_start", None),
        *[(f"content_block_{what}", n) for n in range(3) for what in ("start", "stop")],
        ("message_delta", None),
        ("message_stop", None),
    ]
    assert [e["content_block"]["type"] for e in events if "content_block" in e] == [
        "text",
        "tool_use",
        "tool_use",
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_in_mid_stream_is_the_clients_own_and_the_last_word(kind: Kind) -> None:
    first = Kind.ANTHROPIC if kind is not Kind.ANTHROPIC else Kind.OPENAI
    for array in (False, True) if kind is Kind.GEMINI else (False,):
        asking = ask(kind, stream=True, array=array)
        listening = listener(ask(first, stream=True))
        stream = Stream(asking, first, listening, Frame("x", "m", 1, array=array))
        data = streamed(first, HELLO)
        half = stream.feed(listening.feed(data[: data.index(b"Hel") + 200]))
        route = Route(kind, DIALECT[kind], stream=True, array=array)
        end = error_event(route, "midwatch_cut", "broke off", listening)
        sent = b"".join(e.raw for e in half) + end
        client = listener(asking)
        events = [*client.feed(sent), *client.close()]
        assert [e.what for e in events][-1] is What.ERROR
        assert not client.complete
        if array:
            assert json.loads(sent)[-1]["error"]["code"] == 502


def chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
    body = {
        "id": "c",
        "model": "m",
        "choices": [{"index": 0, "delta": delta, "finish_reason": reason}],
    }
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def tool(
    index: int | None, identity: str | None = None, name: str | None = None, text: str = ""
) -> dict[str, Any]:
    function = {"arguments": text} if name is None else {"name": name, "arguments": text}
    found: dict[str, Any] = {"function": function}
    if identity is not None:
        found["id"] = identity
    return {"tool_calls": [found if index is None else {"index": index, **found}]}


@pytest.mark.parametrize(
    "chunks",
    [
        [tool(0, "a", "f", "{}"), tool(1, "b", "g", "{}")],
        [tool(3, "a", "f", "{"), tool(3, None, None, "}"), tool(7, "b", "g", "{}")],
        [tool(0, "a", "f", "{}"), tool(0, "b", "g", "{}")],
        [tool(None, "a", "f", "{}"), tool(None, "b", "g", "{}")],
    ],
    ids=["as documented", "indexes from anywhere", "one index for all", "no index"],
)
def test_tool_calls_of_servers_that_number_them_their_own_way(chunks: list[dict[str, Any]]) -> None:
    data = b"".join(map(chunk, chunks)) + chunk({}, "stop") + b"data: [DONE]\n\n"
    found = heard(Kind.ANTHROPIC, translated(Kind.OPENAI, Kind.ANTHROPIC, [data]))
    assert found.parts == (Call("a", "f", {}), Call("b", "g", {}))
    assert found.finish is Finish.TOOLS


@pytest.mark.parametrize(
    ("first", "data", "name"),
    [
        (Kind.OPENAI, chunk({"content": "x"}, "error"), "finish_reason"),
        (
            Kind.OPENAI,
            chunk(tool(0, "a", "f", '{"q":')) + chunk({}, "tool_calls"),
            "tool_calls.function.arguments",
        ),
        (
            Kind.OPENAI,
            chunk(tool(0, "a", "f", "{"))
            + chunk(tool(1, "b", "g", "{"))
            + chunk(tool(0, None, None, "}")),
            "tool_calls",
        ),
        (
            Kind.ANTHROPIC,
            streamed(Kind.ANTHROPIC, HELLO).replace(b"end_turn", b"pause_turn"),
            "stop_reason",
        ),
        (
            Kind.ANTHROPIC,
            streamed(Kind.ANTHROPIC, HELLO).replace(
                b'"type":"text","', b'"type":"server_tool_use","'
            ),
            "content.server_tool_use",
        ),
        (
            Kind.GEMINI,
            streamed(Kind.GEMINI, HELLO).replace(b"STOP", b"MALFORMED_FUNCTION_CALL"),
            "finishReason",
        ),
        (
            Kind.GEMINI,
            streamed(Kind.GEMINI, HELLO).replace(b'{"text":"Hel"}', b'{"executableCode":{}}'),
            "parts.executableCode",
        ),
    ],
    ids=["reason", "arguments", "in turns", "pause", "server tool", "malformed call", "code"],
)
def test_what_no_client_could_take_for_an_answer_is_named(
    first: Kind, data: bytes, name: str
) -> None:
    second = Kind.ANTHROPIC if first is not Kind.ANTHROPIC else Kind.OPENAI
    with pytest.raises(CannotTranslate) as told:
        translated(first, second, [data + b"data: [DONE]\n\n"])
    assert told.value.name == name


def test_a_call_that_was_cut_by_the_limit_is_left_away_with_its_reason_told() -> None:
    data = (
        chunk({"content": "x"})
        + chunk(tool(0, "a", "f", '{"q":'))
        + chunk({}, "length")
        + b"data: [DONE]\n\n"
    )
    found = heard(Kind.GEMINI, translated(Kind.OPENAI, Kind.GEMINI, [data]))
    assert found == Reply((Text("x"),), Finish.LENGTH, "c", "m")


def test_a_refusal_of_openai_is_one_for_everybody() -> None:
    data = chunk({"refusal": "I will not."}) + chunk({}, "stop") + b"data: [DONE]\n\n"
    for kind, reason in (
        (Kind.ANTHROPIC, b'"stop_reason":"refusal"'),
        (Kind.GEMINI, b'"finishReason":"SAFETY"'),
    ):
        sent = translated(Kind.OPENAI, kind, [data])
        assert reason in sent
        assert heard(kind, sent).parts == (Text("I will not."),)


def test_thoughts_are_shown_where_they_do_no_harm() -> None:
    reply = Reply((Thought("hm"), Text("yes")), Finish.STOP, "id1", "served")
    assert (
        heard(Kind.GEMINI, translated(Kind.OPENAI, Kind.GEMINI, [streamed(Kind.OPENAI, reply)]))
        == reply
    )
    assert (
        heard(Kind.OPENAI, translated(Kind.GEMINI, Kind.OPENAI, [streamed(Kind.GEMINI, reply)]))
        == reply
    )
    # without Anthropic's signature they would be refused when they go back
    found = heard(
        Kind.ANTHROPIC, translated(Kind.OPENAI, Kind.ANTHROPIC, [streamed(Kind.OPENAI, reply)])
    )
    assert found.parts == (Text("yes"),)
