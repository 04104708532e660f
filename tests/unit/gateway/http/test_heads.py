"""Heads: what is passed on, what is written, and which names are ours."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.gateway.http.heads import (
    FRAMING,
    block,
    end_to_end,
    host_name,
    is_loopback,
    name_of,
    status_line,
)
from midwatch.gateway.upstream.reply import IDLE_S, kept_s


def test_what_belongs_to_one_hop_is_not_passed_on() -> None:
    headers = [("connection", "close, X-Hop"), ("x-hop", "1"), ("x-end", "2"), ("te", "trailers"), ("content-length", "3"), ("set-cookie", "a"), ("set-cookie", "b")]  # fmt: skip
    assert end_to_end(headers) == [("x-end", "2"), ("set-cookie", "a"), ("set-cookie", "b")]


@given(st.lists(st.tuples(st.text(min_size=1), st.text()), max_size=5))
def test_no_value_can_add_a_line_to_a_head(headers: list[tuple[str, str]]) -> None:
    head = block("GET / HTTP/1.1\r\n", headers, "a: b\r\n", FRAMING)
    assert head.endswith(b"a: b\r\n\r\n")
    lines = head.split(b"\r\n")
    assert len(lines) == 1 + sum(name not in FRAMING for name, _ in headers) + 1 + 2
    assert head.count(b"\n") == head.count(b"\r") == len(lines) - 1
    assert b"\0" not in head


@pytest.mark.parametrize(
    ("host", "name"),
    [("localhost:8701", "localhost"), ("LocalHost.", "localhost"), ("[::1]:80", "::1"), ("a.b", "a.b"), ("", ""), ("a:x", ""), ("u@a", ""), ("a/b", ""), ("a?b", ""), ("[::1", "")],
)  # fmt: skip
def test_a_host_header_has_one_name(host: str, name: str) -> None:
    assert host_name(host) == name


def test_only_this_machine_is_loopback() -> None:
    assert [n for n in ("localhost", "127.1.2.3", "::1", "10.0.0.1", "localhost.evil", "evil", "") if is_loopback(n)] == ["localhost", "127.1.2.3", "::1"]  # fmt: skip


def test_status_lines_know_the_registered_words_only() -> None:
    assert (status_line(429), status_line(529)) == ("HTTP/1.1 429 Too Many Requests\r\n", "HTTP/1.1 529 \r\n")  # fmt: skip


def test_names_are_lower_case_and_only_some_are_kept() -> None:
    assert name_of(b"X-API-Key") == "x-api-key"
    assert name_of(b"X-API-Key") is name_of(b"X-API-Key")
    for n in range(2_000):
        assert name_of(b"X-%d" % n) == f"x-{n}"


@pytest.mark.parametrize(("value", "seconds"), [("timeout=5, max=100", 4.0), ("max=1,Timeout=3", 2.0), ("timeout=0", 0.0), ("timeout=x", IDLE_S), ("", IDLE_S)])  # fmt: skip
def test_a_connection_is_kept_a_second_less_than_its_provider_says(
    value: str, seconds: float
) -> None:
    assert kept_s(value) == seconds
