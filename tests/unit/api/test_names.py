"""How the hub is called, and whose pages are its own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from midwatch.api.names import Names, origin_of
from midwatch.core.telemetry import HubListen
from midwatch.wire.problem import Refusal

PUBLIC = "https://midwatch.example.com"


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Midwatch.example.com:443/", PUBLIC),
        ("http://10.0.0.5:8700", "http://10.0.0.5:8700"),
        ("http://[::1]:80", "http://[::1]"),
        ("http://midwatch:80", "http://midwatch"),
        ("https://midwatch:80", "https://midwatch:80"),
        ("null", None),
        ("ftp://midwatch", None),
        ("http://", None),
        ("http://a:99999", None),
        ("", None),
    ],
)
def test_an_address_is_compared_as_browsers_write_it(url: str, origin: str | None) -> None:
    assert origin_of(url) == origin


@given(st.text(max_size=60))
def test_no_text_is_our_own_page_but_ours(origin: str) -> None:
    names = Names(frozenset())
    names.set(PUBLIC, [])
    with pytest.raises(Refusal) as refused:
        names.check_page({"origin": f"http://{origin}.evil.example", "host": "127.0.0.1:8700"})
    assert refused.value.status == 403
    assert len(refused.value.detail) < 600


@given(st.binary(max_size=80))
def test_no_bytes_are_our_name_but_ours(host: bytes) -> None:
    with pytest.raises(Refusal):
        Names(frozenset()).check_host(host + b".evil.example")


@pytest.mark.parametrize(
    "url",
    [
        "midwatch.example.com",
        "ftp://midwatch.example.com",
        "https://midwatch.example.com/watch",
        "https://ann@midwatch.example.com",
        "https://midwatch.example.com?a=1",
        "https://wächter.example",
        "http://a:0",
    ],
)
def test_a_public_address_is_scheme_name_and_port_alone(url: str) -> None:
    with pytest.raises(ValueError, match="public_url"):
        HubListen(public_url=url)


def test_a_public_address_is_kept_as_browsers_say_it() -> None:
    assert HubListen(public_url="HTTPS://Midwatch.Example.com/").public_url == PUBLIC


@pytest.mark.parametrize(
    ("name", "header"),
    [("Balancer", b"balancer:8700"), ("10.0.0.5", b"10.0.0.5"), ("fd00::5", b"[fd00::5]:8700")],
)
def test_a_further_name_is_answered_to_whatever_the_port(name: str, header: bytes) -> None:
    names = Names(frozenset())
    names.set(None, HubListen(hosts=[name]).hosts)
    names.check_host(header)


@pytest.mark.parametrize("name", ["balancer:8700", "10.0.0.5:8700", "http://balancer", ""])
def test_a_further_name_has_no_port(name: str) -> None:
    with pytest.raises(ValueError, match="hosts"):
        HubListen(hosts=[name])
