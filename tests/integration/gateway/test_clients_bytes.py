"""What stands on the wire, read by a plain socket: the bytes of an answer are the same with the gateway and without.

The requests are written by hand, with the blanks, orders and escapes that no client would send: a body that is read
and written again would not survive.
"""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest

from midwatch.drills.rehearsal.model import Rehearsal
from midwatch.drills.rehearsal.thread import running

from .conftest import prepared  # noqa: TID252  there is no tests package

NOW = 1_790_000_000.0
OWN = ("date", "x-midwatch-", "openai-processing-ms", "server-timing")
"""Headers that only the gateway adds, or that hold a time taken; see test_clients.py for the reasons."""

USAGE = b'"stream_options":{"include_usage":true},'


@dataclass(frozen=True)
class Sent:
    """A request by hand, and what of it reaches the model when that is not the same."""

    name: str
    path: str
    body: bytes
    reaches: bytes | None = None
    key: str = "authorization"
    headers: dict[str, str] = field(default_factory=dict[str, str])
    status: int = 200

    def __str__(self) -> str:
        return self.name.replace(" ", "-")


CHAT, MESSAGES, GENERATE = "/v1/chat/completions", "/v1/messages", "/v1beta/models/gemini-2.5-flash"
SPREAD = b' {\r\n\t"messages" : [ {"content":"caf\\u00e9 \\ud83d\\udea2 \\/ \xc3\xa9", "role" :"user"} ] ,\n "x":1.0e+2, "model":"gpt-4o-mini"%b}\n '
ASKED = b'{"max_tokens":60, "model" : "claude-haiku-4-5","messages":[{"role":"user","content":[{"type":"text","text":"Hi \\u2028"}]}]%b}'
CONTENTS = b'{"contents" : [ {"parts":[{"text":"Count the \\u0033 ships"}]} ] }'
BEHAVE = "x-rehearsal-behave"

REQUESTS = [
    Sent("chat", CHAT, SPREAD % b""),
    Sent("chat, streamed", CHAT, SPREAD % b', "stream":true', SPREAD.replace(b"{\r\n", b"{" + USAGE + b"\r\n", 1) % b', "stream":true'),
    Sent("chat, streamed, null for options", CHAT, SPREAD % b',"stream":true , "stream_options" : null', SPREAD % b',"stream":true , "stream_options" : {"include_usage":true}'),
    Sent("chat, streamed, other options", CHAT, SPREAD % b',"stream":true , "stream_options" : { "x":[] }', SPREAD % b',"stream":true , "stream_options" : {"include_usage":true, "x":[] }'),
    Sent("chat, streamed, usage asked for", CHAT, SPREAD % b',"stream":true,"stream_options":{"include_usage" : true}'),
    Sent("chat, streamed, words about usage", CHAT, b'{"model":"gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"Say \\",\\"usage\\":null} and [DONE] to the usage"}]}', b'{' + USAGE + b'"model":"gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"Say \\",\\"usage\\":null} and [DONE] to the usage"}]}'),
    Sent("chat, refused", CHAT, SPREAD % b"", headers={BEHAVE: '{"mode":"429","retry_after":3.5}'}, status=429),
    Sent("chat, a page for people", CHAT, SPREAD % b"", headers={BEHAVE: "502"}, status=502),
    Sent("response, streamed", "/v1/responses", b'{ "input":"Hi \\u0041","stream":true,"model":"gpt-4o-mini"}'),
    Sent("embeddings", "/v1/embeddings", b'{"input":["a" ,"b"],"model":"text-embedding-3-small","dimensions":4.0e0}'.replace(b"4.0e0", b"4")),
    Sent("message", MESSAGES, ASKED % b"", key="x-api-key"),
    Sent("message, streamed", MESSAGES, ASKED % b', "stream" : true', key="x-api-key"),
    Sent("message, streamed byte by byte", MESSAGES, ASKED % b',"stream":true', key="x-api-key", headers={BEHAVE: '{"mode":"shape","sse":"bytes"}'}),
    Sent("tokens counted", MESSAGES + "/count_tokens", ASKED % b"", key="x-api-key"),
    Sent("content", GENERATE + ":generateContent", CONTENTS, key="x-goog-api-key"),
    Sent("content, streamed", GENERATE + ":streamGenerateContent?alt=sse", CONTENTS, key="x-goog-api-key"),
    Sent("content, streamed as an array", GENERATE + ":streamGenerateContent", CONTENTS, key="x-goog-api-key"),
    Sent("content, an error in mid-array", GENERATE + ":streamGenerateContent", CONTENTS, key="x-goog-api-key", headers={BEHAVE: '{"mode":"error","after_chunks":3,"between":0.05}'}),
    Sent("content, refused as an array", GENERATE + ":streamGenerateContent", CONTENTS, key="x-goog-api-key", headers={BEHAVE: "400"}, status=400),
]  # fmt: skip


@dataclass
class Side:
    url: str
    key: str
    model: Rehearsal

    def ask(self, sent: Sent) -> tuple[str, list[tuple[str, str]], bytes]:
        """Return the status line, the headers and the body, read from a socket until its end."""
        where = urlsplit(self.url)
        assert where.hostname is not None
        shown = f"Bearer {self.key}" if sent.key == "authorization" else self.key
        headers = {
            "host": where.netloc,
            "connection": "close",
            "content-type": "application/json",
            "content-length": str(len(sent.body)),
            sent.key: shown,
            **({"anthropic-version": "2023-06-01"} if sent.key == "x-api-key" else {}),
            **sent.headers,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        with socket.create_connection((where.hostname, where.port or 80), 20.0) as line:
            line.sendall(f"POST {sent.path} HTTP/1.1\r\n{head}\r\n".encode() + sent.body)
            came = b""
            while piece := line.recv(65_536):
                came += piece
        return parse(came)

    def last(self) -> dict[str, Any]:
        return self.model.calls.page(self.model.calls.total - 1, 1, None)["calls"][0]


def parse(came: bytes) -> tuple[str, list[tuple[str, str]], bytes]:
    head, _, body = came.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = [(n.lower(), v.strip()) for n, _, v in (line.partition(":") for line in lines)]
    if dict(headers).get("transfer-encoding") == "chunked":
        body = dechunked(body)
    else:
        assert len(body) == int(dict(headers)["content-length"])
    return first, sorted(h for h in headers if not h[0].startswith(OWN)), body


def dechunked(data: bytes) -> bytes:
    body = b""
    while True:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            assert data == b"\r\n", "something follows behind the last chunk"
            return body
        assert data[length : length + 2] == b"\r\n"
        body, data = body + data[:length], data[length + 2 :]


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[Side, Side]]:
    data = tmp_path_factory.mktemp("bytes") / "data"
    with (
        running(clock=lambda: NOW) as bare,
        running(clock=lambda: NOW) as behind,
        prepared(data, behind.url) as gateway,
    ):
        gateway.fleet(models={"retries": {"attempts": 0}, "on_cut": "error"})
        gateway.start()
        yield Side(bare.url, "rehearsal:inbox", bare), Side(gateway.url, gateway.key(), behind)


def both(sides: tuple[Side, Side], sent: Sent) -> list[Any]:
    """Ask on both sides. Where a busy machine reads an error together with the first content, nothing has reached the
    client, and it gets a status: then both are asked once more."""
    for _ in range(5):
        came = [side.ask(sent) for side in sides]
        if not came[1][0].startswith("HTTP/1.1 502") or sent.status == 502:
            break
    return came


@pytest.mark.parametrize("sent", REQUESTS, ids=str)
def test_the_bytes_on_the_wire_are_the_same(sides: tuple[Side, Side], sent: Sent) -> None:
    direct, through = both(sides, sent)
    assert int(direct[0].split()[1]) == sent.status
    assert through == direct
    reached = sent.body if sent.reaches is None else sent.reaches
    json.loads(reached)
    if "counted" not in sent.name:  # the rehearsal keeps no record of what is free
        assert sides[1].last()["body_sha256"] == hashlib.sha256(reached).hexdigest()
        assert sides[0].last()["body_sha256"] == hashlib.sha256(sent.body).hexdigest()


def test_a_stream_without_its_end_mark_gets_one_and_nothing_else(sides: tuple[Side, Side]) -> None:
    sent = Sent("no end", CHAT, SPREAD % b',"stream":true', headers={BEHAVE: "no-end"})
    (_, _, bare), (_, _, carried) = (side.ask(sent) for side in sides)
    assert not bare.endswith(b"[DONE]\n\n")
    assert carried == bare + b"data: [DONE]\n\n"


def test_what_a_model_says_about_usage_is_not_stripped(sides: tuple[Side, Side]) -> None:
    """The rehearsal's answers repeat words of the question: these look like what is taken out."""
    spoken = next(sent for sent in REQUESTS if "words about" in sent.name)
    (_, _, bare), (_, _, carried) = (side.ask(spoken) for side in sides)
    assert b"usage" in bare
    assert carried == bare
