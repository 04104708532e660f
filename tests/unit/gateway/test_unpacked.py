"""Answers that come packed unasked: the same bytes come out however they are cut, and a half is no whole."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.gateway.upstream.port import Phase, UpstreamError
from midwatch.gateway.upstream.scripted import Answer, ScriptedReply
from midwatch.gateway.upstream.unpacked import PIECE_BYTES, Unpacked, unpacked

HEADERS = (("content-type", "application/json"), ("content-encoding", "gzip"), ("x-id", "1"))


def packed(*chunks: bytes, headers: tuple[tuple[str, str], ...] = HEADERS) -> ScriptedReply:
    return ScriptedReply(Answer(200, list(chunks), headers))


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


@given(st.binary(max_size=300), st.integers(1, 40), st.sampled_from([gzip.compress, zlib.compress]))
async def test_the_same_comes_out_however_it_is_cut(data: bytes, size: int, pack: object) -> None:
    assert callable(pack)
    reply = unpacked(packed(*pieces(pack(data), size)))
    assert await reply.whole(1.0, 1_000) == data


async def test_a_stream_is_unpacked_as_it_comes() -> None:
    packer = zlib.compressobj(wbits=31)
    sent = [packer.compress(t) + packer.flush(zlib.Z_SYNC_FLUSH) for t in (b"one", b"two")]
    reply = unpacked(packed(*sent, packer.flush()))
    assert [await reply.chunk(1.0) for _ in range(3)] == [b"one", b"two", None]


async def test_the_client_is_not_told_of_what_was_unpacked() -> None:
    reply = unpacked(packed(gzip.compress(b"{}")))
    assert list(reply.headers) == [("content-type", "application/json"), ("x-id", "1")]


@pytest.mark.parametrize("coding", ["br", "gzip, gzip", "identity"])
async def test_what_is_plain_or_not_known_passes_as_it_is(coding: str) -> None:
    reply = packed(b"x", headers=(("content-encoding", coding),))
    assert unpacked(reply) is reply


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (gzip.compress(b"hello", mtime=0)[:-4], "breaks off"),
        (gzip.compress(b"hello", mtime=0) + b"more", "follows behind"),
        (b"not packed at all", "cannot be unpacked"),
        (b"", "breaks off"),
    ],
)
async def test_half_an_answer_is_no_answer(data: bytes, reason: str) -> None:
    reply = unpacked(packed(*pieces(data, 7)))
    with pytest.raises(UpstreamError, match=reason) as caught:
        await reply.whole(1.0, 1_000)
    assert caught.value.phase is Phase.BODY


async def test_a_bomb_meets_the_limit_and_not_the_memory() -> None:
    reply = Unpacked(packed(gzip.compress(bytes(20 * PIECE_BYTES))))
    with pytest.raises(UpstreamError, match="longer than 2,000,000 bytes"):
        await reply.whole(1.0, 2_000_000)
    first = await Unpacked(packed(gzip.compress(bytes(20 * PIECE_BYTES)))).chunk(1.0)
    assert first is not None
    assert len(first) == PIECE_BYTES
