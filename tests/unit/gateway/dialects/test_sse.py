"""However the bytes of a stream are split, the same whole events come out, and they are the bytes that went in."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midwatch.gateway.dialects import sse
from midwatch.gateway.dialects.sse import Elements, Events, Splitter, fields

PIECES = st.sampled_from(
    [b"data: {}", b"data:x", b": ping", b"event: a", b"\n", b"\r\n", b"\r", b"\n\n", b"\r\n\r\n", b"\r\r", "é𝄞".encode(), b"id: 1", b""]
)  # fmt: skip
STREAMS = st.lists(PIECES, max_size=25).map(b"".join)
ARRAYS = st.lists(
    st.sampled_from([b"[", b"]", b"{", b"}", b'"a]b{"', b'"\\"}"', b",", b"\r\n", b'"\\\\"', b"1", '"é"'.encode()]),
    max_size=25,
).map(b"".join)  # fmt: skip


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(ends)]


def through(splitter: Splitter, chunks: list[bytes]) -> tuple[list[bytes], bytes]:
    events = [event for chunk in chunks for event in splitter.feed(chunk)]
    return events, splitter.rest()


@settings(max_examples=25)
@given(STREAMS, st.lists(st.integers(0, 200), max_size=12))
def test_any_split_of_server_sent_events_gives_the_same_events(
    data: bytes, cuts: list[int]
) -> None:
    whole = through(Events(), [data] if data else [])
    assert through(Events(), split(data, cuts)) == whole
    assert through(Events(), [data[i : i + 1] for i in range(len(data))]) == whole
    assert b"".join(whole[0]) + whole[1] == data


@settings(max_examples=25)
@given(ARRAYS, st.lists(st.integers(0, 200), max_size=12))
def test_any_split_of_a_json_array_gives_the_same_elements(data: bytes, cuts: list[int]) -> None:
    whole = through(Elements(), [data] if data else [])
    assert through(Elements(), split(data, cuts)) == whole
    assert through(Elements(), [data[i : i + 1] for i in range(len(data))]) == whole
    assert b"".join(whole[0]) + whole[1] == data


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_lines_may_end_in_any_of_three_ways(end: bytes) -> None:
    stream = end.join(
        [b"event: a", b"data: 1", b"data: 2", b"", b": ping", b"", b"data: 3", b"", b"x"]
    )
    events, rest = through(Events(), [stream])
    assert [fields(event) for event in events] == [(b"a", b"1\n2"), (b"", None), (b"", b"3")]
    assert rest == b"x"


def test_a_carriage_return_waits_for_the_line_feed_that_may_belong_to_it() -> None:
    splitter = Events()
    assert splitter.feed(b"data: a\r\n\r") == []
    assert splitter.feed(b"\ndata: b\n\n") == [b"data: a\r\n\r\n", b"data: b\n\n"]


def test_a_byte_order_mark_is_no_part_of_the_first_line() -> None:
    assert fields(b"\xef\xbb\xbfdata: a\n\n") == (b"", b"a")


def test_elements_of_an_array_come_with_what_stands_before_them() -> None:
    events, rest = through(Elements(), [b'[{"a": "]}"}\n,\r\n{"b": [1, {}]}', b"\n]\n"])
    assert events == [b'[{"a": "]}"}', b'\n,\r\n{"b": [1, {}]}', b"\n]"]
    assert rest == b"\n"


def test_an_object_alone_is_an_element_too() -> None:
    assert through(Elements(), [b'{"error": {}}'])[0] == [b'{"error": {}}']


@pytest.mark.parametrize("size", [1, 7, 4096, 10**9])
@pytest.mark.parametrize(
    ("make", "before", "after", "opening", "closing"),
    [
        (Events, b"data: a\n\n", b"data: b\n\n", b"data: ", b"\n\n"),
        (Elements, b'[{"a":1}', b',{"b":1}', b',{"x":"', b'"}'),
    ],
)
def test_an_endless_event_is_left_out_and_the_stream_goes_on_behind_it(
    monkeypatch: pytest.MonkeyPatch, size: int, make: type[Splitter], before: bytes, after: bytes, opening: bytes, closing: bytes
) -> None:  # fmt: skip
    monkeypatch.setattr(sse, "MAX_EVENT", 5_000)
    data = before + opening + b"y" * 20_000 + closing + after
    splitter = make()
    events = [e for i in range(0, len(data), size) for e in splitter.feed(data[i : i + size])]
    assert events == [before, after]
    assert splitter.oversized == 1


def test_a_line_of_a_megabyte_passes() -> None:
    event = b"data: " + b"x" * 1_000_000 + b"\n\n"
    splitter = Events()
    assert [e for i in range(0, len(event), 4096) for e in splitter.feed(event[i : i + 4096])] == [
        event
    ]


def test_what_never_ends_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_EVENT", 5_000)
    for splitter in (Events(), Elements()):
        for _ in range(100):
            splitter.feed(b'[{"' + b"<html>" * 100)
        assert len(splitter.rest()) <= 5_000
