"""Odd forms carry the same stream: read as server-sent events are read, nothing is lost or added."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from midwatch.drills.rehearsal import shapes

GOOD = ["crlf", "cr", "comments", "split", "packed", "bytes", "lines", "no-space", "bom", "ids", "long-line"]  # fmt: skip

texts = st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=8)


def event(text: str) -> bytes:
    return b"data: " + json.dumps({"t": text}, ensure_ascii=False).encode() + b"\n\n"


def read_sse(data: bytes) -> list[Any]:
    """Read a stream as the standard says: three line ends, comments, fields, one leading space."""
    lines = data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    found: list[Any] = []
    buffer: list[str] = []
    for line in lines:
        if not line and buffer:
            found.append(json.loads("\n".join(buffer)))
            buffer = []
        name, _, value = line.partition(":")
        if name == "data":
            buffer.append(value.removeprefix(" "))
    return found


@pytest.mark.parametrize("form", GOOD)
@settings(max_examples=25)
@given(texts=texts)
def test_a_good_form_carries_the_same_events(form: str, texts: list[str]) -> None:
    events = [event(text) for text in texts]
    chunks = shapes.chunks(events, form, padding=50)
    assert len(chunks) == len(events)
    sent = b"".join(b"".join(parts) for parts in chunks)
    assert read_sse(sent) == [{"t": text} for text in texts]


@given(texts=texts)
def test_without_a_form_nothing_is_changed(texts: list[str]) -> None:
    events = [event(text) for text in texts]
    assert shapes.chunks(events, None) == [[one] for one in events]


def test_a_character_of_many_bytes_is_split() -> None:
    ((first, second),) = shapes.chunks([event("abcé")], "split")
    with pytest.raises(UnicodeDecodeError):
        first.decode()
    assert first + second == event("abcé")


def test_packed_events_share_chunks_of_three() -> None:
    assert [len(parts) for parts in shapes.chunks([event("x")] * 7, "packed")] == [0, 0, 1, 0, 0, 1, 1]  # fmt: skip


def test_bad_forms_are_bad() -> None:
    events = [event("one"), event("two")]
    with pytest.raises(UnicodeDecodeError):
        b"".join(b"".join(p) for p in shapes.chunks(events, "bad-utf8")).decode()
    assert shapes.chunks(events, "unterminated")[-1] == [events[-1].rstrip()]
    assert shapes.chunks(events, "garbage")[0][0].startswith(b"this is no field\n\n")


@pytest.mark.parametrize(
    ("how", "want"),
    [
        ("none", {"a": [{"b": 1}]}),
        ("part", {"a": [{"b": 1, "usage": {"input_tokens": 3}}]}),
        ("zero", {"a": [{"b": 1, "usage": {"input_tokens": 0, "output_tokens": 0}}]}),
        ("text", {"a": [{"b": 1, "usage": "unknown"}]}),
    ],
)
def test_usage_is_altered_wherever_it_is(how: str, want: Any) -> None:
    body = {"a": [{"b": 1, "usage": {"input_tokens": 3, "output_tokens": 4}}]}
    assert shapes.alter_usage(body, how) == want
    data = b"event: x\ndata: " + json.dumps(body).encode() + b"\n\n"
    altered = shapes.alter_event(data, how)
    assert altered.startswith(b"event: x\ndata: {")
    assert json.loads(altered.partition(b"data: ")[2]) == want


def test_an_event_without_usage_is_left_as_it_is() -> None:
    assert shapes.alter_event(b"data: [DONE]\n\n", "none") == b"data: [DONE]\n\n"


async def test_a_compressed_stream_can_be_read_at_once_and_whole() -> None:
    async def stream() -> Any:
        yield b"one"
        yield b"two"

    parts = [part async for part in shapes.compressed(stream())]
    assert gzip.decompress(b"".join(parts)) == b"onetwo"
    assert gzip.decompress(shapes.compress(b"all")) == b"all"
