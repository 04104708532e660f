"""The answer of a hub on this machine, however it is framed and wherever it is torn; and what is no answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.cli import loopback

LIMIT = 1000


def gives(parts: Iterable[bytes]) -> Callable[[], bytes]:
    rest = iter([part for part in parts if part])
    return lambda: next(rest, b"")


def heard(*parts: bytes, limit: int = LIMIT) -> tuple[int, bytes]:
    return loopback.read(gives(parts), limit)


def torn(text: bytes, cuts: list[int]) -> list[bytes]:
    at = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    return [text[a:b] for a, b in pairwise(at)]


def sized(body: bytes, _: int) -> bytes:
    return b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def chunked(body: bytes, step: int) -> bytes:
    parts = [body[i : i + step] for i in range(0, len(body), step)]
    chunks = b"".join(b"%X;x=y\r\n%b\r\n" % (len(part), part) for part in parts)
    return b"transfer-encoding: Chunked\r\n\r\n" + chunks + b"0\r\nX-Sum: 1\r\n\r\n"


def until_the_end(body: bytes, _: int) -> bytes:
    return b"\r\n" + body


@given(
    st.sampled_from([sized, chunked, until_the_end]),
    st.binary(max_size=300),
    st.integers(1, 100),
    st.lists(st.integers(0, 1000), max_size=8),
)
def test_a_body_is_the_same_however_it_is_framed_and_torn(
    framed: Callable[[bytes, int], bytes], body: bytes, step: int, cuts: list[int]
) -> None:
    text = b"HTTP/1.1 200 OK\r\nServer: x\r\n" + framed(body, step)
    assert heard(*torn(text, cuts)) == (200, body)


@given(st.sampled_from([sized, chunked]), st.binary(min_size=1, max_size=99), st.integers(0, 500))
def test_an_answer_that_ends_too_soon_is_none(
    framed: Callable[[bytes, int], bytes], body: bytes, kept: int
) -> None:
    text = b"HTTP/1.1 200 OK\r\n" + framed(body, 7)
    whole = text.removesuffix(b"X-Sum: 1\r\n\r\n")
    with pytest.raises(loopback.Malformed, match=r"too soon|was closed"):
        heard(whole[: kept % len(whole)])


@given(st.lists(st.binary(max_size=80), max_size=6))
def test_any_bytes_are_an_answer_or_malformed(parts: list[bytes]) -> None:
    try:
        status, body = heard(*parts)
    except loopback.Malformed:
        return
    assert 0 <= status <= 999
    assert len(body) <= LIMIT + 1


@pytest.mark.parametrize(
    "head",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 2x0 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\nx\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxyz0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * loopback.MAX_HEAD_BYTES + b"\r\n\r\n",
    ],
)
def test_what_is_no_answer_is_refused(head: bytes) -> None:
    with pytest.raises(loopback.Malformed):
        heard(head)


def test_a_word_on_the_way_is_not_the_answer_and_no_content_is_none() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    assert heard(early, early, b"HTTP/1.1 204 No Content\r\n\r\n") == (204, b"")


@pytest.mark.parametrize("framed", [sized, chunked, until_the_end])
def test_of_an_endless_body_one_byte_more_than_allowed_is_read(
    framed: Callable[[bytes, int], bytes],
) -> None:
    text = b"HTTP/1.1 200 OK\r\n" + framed(b"x" * 5000, 4000)
    assert heard(*torn(text, list(range(0, 5000, 50))), limit=10) == (200, b"x" * 11)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("http://127.0.0.1:8700", ("127.0.0.1", 8700, "")),
        ("http://127.8.0.1:80/", ("127.8.0.1", 80, "")),
        ("http://localhost:8700/mid/watch/", ("localhost", 8700, "/mid/watch")),
        ("http://[::1]:8700", ("::1", 8700, "")),
    ],
)
def test_loopback_in_plain_http_is_asked_plainly(url: str, place: tuple[str, int, str]) -> None:
    assert loopback.place(url) == place


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1:8700",
        "http://127.0.0.1",
        "http://10.0.0.1:8700",
        "http://hub.example:8700",
        "http://127.0.0.1.example:8700",
        "http://127.0.0.1@hub.example:8700",
        "http://localhost:8700@hub.example:1",
        "http://127.0.0.1:8700/x?y",
        "http://127.0.0.1:8700/x#y",
        "http://127.0.0.1:0",
        "http://127.0.0.1:65536",
        "http://127.0.0.1:99999999999999999999",
        "http://127.0.0.1:８700",
        "http://127.0.0.256:8700",
        "http://127.0.0.1:8700/\r\nx",
        "http://:8700",
        "127.0.0.1:8700",
        "",
    ],
)
def test_every_other_address_takes_the_usual_way(url: str) -> None:
    assert loopback.place(url) is None
