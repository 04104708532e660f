"""TLS to providers: with a certificate authority of the test's own, and in words when it is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from midwatch.gateway.upstream.dial import trusted
from midwatch.gateway.upstream.port import Phase, Request, UpstreamError
from midwatch.gateway.upstream.wire import WireUpstream

KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


def _openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module", name="papers")
def _papers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with an authority `ca.pem`, and certificates `good`, `expired` and `other` by it."""
    folder = tmp_path_factory.mktemp("papers")
    _openssl(folder, "req", "-x509", *KEY, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=Test authority")  # fmt: skip
    for name, host, days in (("good", "localhost", "2"), ("expired", "localhost", "-1"), ("other", "elsewhere.example", "2")):  # fmt: skip
        _openssl(folder, "req", *KEY, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}")  # fmt: skip
        _openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", days, "-copy_extensions", "copy", "-out", f"{name}.pem")  # fmt: skip
    return folder


def _trusting(papers: Path) -> ssl.SSLContext:
    tls = ssl.create_default_context(cafile=str(papers / "ca.pem"))
    tls.set_alpn_protocols(["http/1.1"])
    return tls


@pytest.fixture(name="provider")
def _provider(papers: Path, listening: Any) -> Callable[..., Any]:
    def provider(name: str, said: bytes, seen: list[Any]) -> Any:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(papers / f"{name}.pem", papers / f"{name}.key")
        tls.set_alpn_protocols(["h2", "http/1.1"])
        tls.sni_callback = lambda _, host, __: seen.append(host)

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    await reader.readuntil(b"\r\n\r\n")
                    seen.append(writer.get_extra_info("ssl_object").selected_alpn_protocol())
                    writer.write(said)
                    await writer.drain()
            seen.append("left")

        # a refused certificate is an error of the server's, too, and not what is tested
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        return listening(talk, ssl=tls)

    return provider


def _get(port: int, connect_s: float = 5.0) -> Request:
    return Request("GET", f"https://localhost:{port}/?key=secret", [], b"", connect_s, 5.0)


async def test_calls_go_over_tls_with_the_hosts_name_and_http_1_1(
    papers: Path, provider: Any
) -> None:
    seen: list[Any] = []
    body = b"x" * 3_000_000
    said = b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + body
    async with provider("good", said, seen) as port:
        upstream = WireUpstream(_trusting(papers))
        for _ in range(2):
            reply = await upstream.open(_get(port))
            assert await reply.whole(10.0, 1 << 22) == body
            await reply.close()
        assert upstream.dialled == 1
        assert seen == ["localhost", "http/1.1", "http/1.1"]
        await upstream.close()


async def test_a_reply_that_is_closed_closes_its_tls_connection(
    papers: Path, provider: Any, until: Any
) -> None:
    seen: list[Any] = []
    async with provider("good", b"HTTP/1.1 200 OK\r\n\r\nno end", seen) as port:
        upstream = WireUpstream(_trusting(papers))
        reply = await upstream.open(_get(port))
        assert await reply.chunk(5.0) == b"no end"
        await reply.close()
        await until(lambda: "left" in seen)
        await upstream.close()


@pytest.mark.parametrize(
    ("name", "ours", "words"),
    [
        ("expired", True, "the certificate of localhost has expired; whoever runs it must renew it"),
        ("other", True, "is for another name; correct the provider's base_url"),
        ("good", False, "is signed by nobody whom this machine trusts; set SSL_CERT_FILE"),
    ],
)  # fmt: skip
async def test_a_certificate_that_is_not_right_is_told_with_what_to_do(
    papers: Path, provider: Any, name: str, ours: bool, words: str
) -> None:
    async with provider(name, b"", []) as port:
        upstream = WireUpstream(_trusting(papers) if ours else None)
        with pytest.raises(UpstreamError, match=words) as caught:
            await upstream.open(_get(port))
        assert caught.value.phase is Phase.CONNECT
        assert "secret" not in str(caught.value)
        assert upstream.connections == 0
        await upstream.close()


async def test_a_port_that_speaks_no_tls_and_one_that_says_nothing_are_told(
    papers: Path, listening: Any
) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    upstream = WireUpstream(_trusting(papers))
    for talk, connect_s, words in (
        (plain, 5.0, "does not speak TLS; a base_url with http:// may be meant"),
        (silent, 0.3, r"did not take the connection within 0\.3 s"),
    ):
        async with listening(talk) as port:
            with pytest.raises(UpstreamError, match=words) as caught:
                await upstream.open(_get(port, connect_s))
            assert caught.value.phase is Phase.CONNECT
    await upstream.close()


def test_the_machines_own_trust_checks_names_and_offers_http_1_1_alone() -> None:
    tls = trusted()
    assert tls is trusted()
    assert (tls.check_hostname, tls.verify_mode) == (True, ssl.CERT_REQUIRED)
    assert tls.minimum_version >= ssl.TLSVersion.TLSv1_2
