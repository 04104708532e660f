"""Forwarding over real sockets and a real disk: packed, with its headers, across a restart."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from backports import zstd
from tests.integration.conftest import AsgiClient, prepare

from midwatch.core.counts import Counts
from midwatch.core.errors import SetupError
from midwatch.core.spans.form import SPANS, Signal
from midwatch.core.spans.store import Selector
from midwatch.core.telemetry import ForwardTarget
from midwatch.hub.app import Hub
from midwatch.hub.forwarding.forgetting import Forgetting
from midwatch.hub.forwarding.forwarding import Forwarding
from midwatch.hub.forwarding.target import HttpTarget
from midwatch.hub.settings import Settings
from midwatch.ingest.otlp import wire
from midwatch.sdk import otlp

sys.path.insert(0, str(Path(__file__).parents[2]))
from spans import batch, span

DEADLINE_S = 20.0


class BackEnd(ThreadingHTTPServer):
    """Answers with what it is told, and remembers what it was sent."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Requests)
        self.status, self.headers_back, self.answer = 200, dict[str, str](), b""
        self.came: list[tuple[str, dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Requests(BaseHTTPRequestHandler):
    server: BackEnd

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.came.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        self.send_response(self.server.status)
        for name, value in self.server.headers_back.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(self.server.answer)))
        self.end_headers()
        self.wfile.write(self.server.answer)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def back_end(monkeypatch: pytest.MonkeyPatch) -> Iterator[BackEnd]:
    monkeypatch.setenv("no_proxy", "*")
    server = BackEnd()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


_UNPACK = {"gzip": gzip.decompress, "zstd": zstd.decompress, "none": bytes}


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
async def test_a_request_is_packed_and_shows_its_headers(back_end: BackEnd, compression: Any, tmp_path: Path) -> None:  # fmt: skip
    (tmp_path / "key").write_text("from-file\n")
    config = ForwardTarget(
        url=back_end.url + "/otlp/",
        compression=compression,
        headers={
            "authorization": "env:TOKEN",
            "x-key": f"file:{tmp_path / 'key'}",
            "x-plain": "yes",
        },
    )
    target = HttpTarget(config, {"TOKEN": "Bearer abc"})
    answer = await target.send(Signal.LOGS, b"body" * 100)
    assert (answer.status, answer.rejected) == (200, 0)
    ((path, headers, body),) = back_end.came
    assert path == "/otlp/v1/logs"
    assert headers["content-type"] == "application/x-protobuf"
    assert (headers["authorization"], headers["x-key"], headers["x-plain"]) == (
        "Bearer abc",
        "from-file",
        "yes",
    )
    assert headers.get("content-encoding", "none") == compression
    assert _UNPACK[compression](body) == b"body" * 100


async def test_refusals_redirects_and_partial_success_are_told(back_end: BackEnd) -> None:
    target = HttpTarget(ForwardTarget(url=back_end.url), {})
    back_end.status, back_end.headers_back = 503, {"retry-after": "7"}
    answer = await target.send(Signal.SPANS, b"x")
    assert (answer.status, answer.retry_after) == (503, "7")
    back_end.status, back_end.headers_back = 302, {"location": back_end.url + "/elsewhere"}
    assert (await target.send(Signal.SPANS, b"x")).status == 302
    assert {path for path, _, _ in back_end.came} == {"/v1/traces"}, "nobody follows"
    partial = wire.Partial(rejected=3, message=b"too old").SerializeToString()
    back_end.status, back_end.answer = 200, wire.Response(partial=partial).SerializeToString()
    assert (await target.send(Signal.SPANS, b"x")).rejected == 3


class Dripping(threading.Thread):
    """A back-end that says a byte now and then, and never comes to an end."""

    def __init__(self, head: bytes) -> None:
        super().__init__()
        self.head = head
        self.ended, self.over = threading.Event(), threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.listener.getsockname()[1]}"

    def run(self) -> None:
        with contextlib.suppress(OSError), self.listener.accept()[0] as one:
            one.sendall(self.head)
            while not self.over.wait(0.02):
                one.sendall(b"x")
        self.ended.set()


@pytest.mark.parametrize(
    ("head", "status"),
    [(b"HTTP/1.1 20", 0), (b"HTTP/1.1 200 OK\r\nx-slow: ", 200), (b"HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n", 200)],
)  # fmt: skip
async def test_a_target_that_drips_its_answer_holds_nobody_up(
    head: bytes, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    server = Dripping(head)
    server.start()
    try:
        target = HttpTarget(ForwardTarget(url=server.url, timeout=0.5, compression="none"), {})
        async with asyncio.timeout(DEADLINE_S):
            answer = await target.send(Signal.SPANS, b"x")
        assert answer.status == status
        if not status:
            assert answer.reason == "no answer within 0.5 s"
        # the connection is gone, and with it the thread that read from it
        assert await asyncio.to_thread(server.ended.wait, DEADLINE_S)
    finally:
        server.over.set()
        server.listener.close()
        server.join()


async def test_a_target_that_is_not_there_is_told_without_its_address() -> None:
    config = ForwardTarget(url="http://127.0.0.1:1/secret-path", timeout=1.0)
    answer = await HttpTarget(config, {}).send(Signal.SPANS, b"x")
    assert answer.status == 0
    assert "secret-path" not in answer.reason


def test_a_header_whose_variable_is_missing_says_so() -> None:
    config = ForwardTarget(url="http://tempo:4318", headers={"authorization": "env:NOT_SET"})
    with pytest.raises(SetupError, match="NOT_SET"):
        HttpTarget(config, {})


def test_a_secret_that_is_no_header_is_told_of_and_never_shown(tmp_path: Path) -> None:
    config = ForwardTarget(url="http://tempo:4318", headers={"authorization": "env:TWO_LINES"})
    for bad in ("# mine\nhidden-secret", "hidden-secret\x7f", "hidden-secret…"):
        with pytest.raises(SetupError, match="authorization") as refused:
            HttpTarget(config, {"TWO_LINES": bad})
        assert "hidden" not in str(refused.value)
    (tmp_path / "key").write_bytes(b"hidden-secret\xff\xfe")
    config = ForwardTarget(url="http://tempo:4318", headers={"x-key": f"file:{tmp_path / 'key'}"})
    with pytest.raises(SetupError, match="not text"):
        HttpTarget(config, {})


async def test_what_waited_when_the_hub_was_killed_is_sent_after_its_start(
    back_end: BackEnd, tmp_path: Path
) -> None:
    targets = {"tempo": ForwardTarget(url=back_end.url), "broken": ForwardTarget(url="http://x", headers={"a-key": "env:NO"})}  # fmt: skip
    back_end.status = 503
    counts = Counts()
    first = Forwarding(tmp_path, counts)
    await first.set(targets)
    for number in range(10):
        await first.see(batch(span(f"n{number}", f"t{number}")))
    assert [state.name for state in first.states] == ["tempo"], "one without its token is left out"
    await first.stop()
    back_end.status, back_end.came[:] = 200, []
    second = Forwarding(tmp_path, counts)
    await second.set(targets)
    async with asyncio.timeout(DEADLINE_S):
        while second.states[0].backlog.entries:
            await asyncio.sleep(0.02)
    await second.stop()
    groups = [wire.Request.FromString(gzip.decompress(body)) for _, _, body in back_end.came]
    assert sum(len(request.groups) for request in groups) == 10
    assert counts.value("forwarded", "tempo") == 10


async def test_what_a_hub_stores_goes_on_once_and_a_back_end_that_is_down_refuses_nobody(
    back_end: BackEnd, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    prepare(data, "inbox")
    fleet = json.loads((data / "fleet.json").read_text())
    forward = {"tempo": {"url": back_end.url}, "down": {"url": "http://127.0.0.1:1"}}
    (data / "fleet.json").write_text(json.dumps({**fleet, "hub": {"forward": forward}}))
    hub = Hub(Settings(data, "127.0.0.1", 8700, "here", frozenset()))
    await hub.start()
    try:
        client = AsgiClient(hub.asgi)
        now = time.time_ns()
        one = {"traceId": "ab" * 16, "spanId": "cd" * 8, "name": "once", "startTimeUnixNano": str(now - 10**9), "endTimeUnixNano": str(now)}  # fmt: skip
        body = otlp.wrap([one], {"service.name": "inbox"}, "test")
        for _ in range(2):  # the second is a resend: stored already
            sent = await client.ask("POST", "/v1/traces", body, headers={"content-type": "application/json"})  # fmt: skip
            assert sent.status == 200, sent.body
        async with asyncio.timeout(DEADLINE_S):
            while hub.counts.value("forwarded", "tempo") < 1:
                await asyncio.sleep(0.02)
            while not hub.counts.value("forward_retries", "down"):
                await asyncio.sleep(0.02)
    finally:
        await hub.stop()
    (request,) = [wire.Request.FromString(gzip.decompress(b)) for _, _, b in back_end.came]
    assert b"once" in request.groups[0]
    assert len(request.groups) == 1


async def test_what_is_forgotten_waits_for_nobody_any_more(
    back_end: BackEnd, tmp_path: Path
) -> None:
    word, other = "heliotrope-7714", "another-word-4411"
    data = tmp_path / "data"
    prepare(data, "inbox")
    fleet = json.loads((data / "fleet.json").read_text())
    forward = {"tempo": {"url": back_end.url, "compression": "none"}}
    (data / "fleet.json").write_text(json.dumps({**fleet, "hub": {"forward": forward}}))
    back_end.status = 503
    hub = Hub(Settings(data, "127.0.0.1", 8700, "here", frozenset()))
    await hub.start()
    try:
        client = AsgiClient(hub.asgi)
        now = time.time_ns()
        times = {"startTimeUnixNano": str(now - 10**9), "endTimeUnixNano": str(now)}
        for number, (session, said) in enumerate([("s1", word), ("s2", other)], 1):
            spans = [
                {"traceId": f"{number:032x}", "spanId": f"{number * 10 + at:016x}", "name": "chat", **times, "attributes": attributes}
                for at, attributes in enumerate(
                    [otlp.attributes({"session.id": session}), otlp.attributes({"gen_ai.input.messages": said})]
                )
            ]  # fmt: skip
            body = otlp.wrap(spans, {"service.name": "inbox"}, "test")
            sent = await client.ask("POST", "/v1/traces", body, headers={"content-type": "application/json"})  # fmt: skip
            assert sent.status == 200, sent.body
        queue = data / "hub" / "forward" / "tempo"
        assert any(word.encode() in path.read_bytes() for path in queue.iterdir())
        answer = (await client.ask("POST", "/api/forget", {"sessions": ["s1"]})).json()
        assert (answer["complete"], answer["queued"]) == (True, 2)
        assert hub.counts.value("forward_forgotten", "tempo") == 2
        for path in (data / "hub").rglob("*"):
            assert not path.is_file() or word.encode() not in path.read_bytes(), path
        back_end.came.clear()
        back_end.status = 200
        async with asyncio.timeout(DEADLINE_S):
            while hub.counts.value("forwarded", "tempo") < 2:
                await asyncio.sleep(0.02)
    finally:
        await hub.stop()
    sent_on = b"".join(body for _, _, body in back_end.came)
    assert other.encode() in sent_on
    assert word.encode() not in sent_on


WEEK_S = 7 * 86_400.0


async def waiting_for_nobody(folder: Path, counts: Counts, name: str = "old/tempo") -> Forwarding:
    """Return a forwarding that has named a target no more since just now; three spans wait for it."""
    made = Forwarding(folder, counts)
    await made.set({name: ForwardTarget(url="http://127.0.0.1:1", timeout=0.5)})
    for number in range(3):
        await made.see(batch(span(f"n{number}", f"t{number}")))
    await made.set({})
    return made


async def test_the_queue_of_a_target_that_is_named_no_more_goes_after_a_week(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    counts = Counts()
    forwarding = await waiting_for_nobody(tmp_path, counts)
    await forwarding.sweep(1_000.0)
    assert "names old/tempo no more" in caplog.text
    await forwarding.stop()
    # a restart forgets nothing
    again = Forwarding(tmp_path, counts)
    await again.sweep(1e12)
    assert list(tmp_path.iterdir()), "before the fleet file is read nothing is known"
    await again.set({})
    await again.sweep(1_000.0 + WEEK_S - 1.0)
    assert list(tmp_path.iterdir())
    assert counts.total("forward_dropped") == 0
    await again.sweep(1_000.0 + WEEK_S)
    assert list(tmp_path.iterdir()) == []
    assert counts.value("forward_dropped", "old/tempo") == 3
    assert "3 items that waited for it are gone" in caplog.text
    await again.stop()


async def test_a_target_that_is_named_again_has_what_waited_and_its_week_anew(
    tmp_path: Path,
) -> None:
    counts = Counts()
    forwarding = await waiting_for_nobody(tmp_path, counts)
    await forwarding.sweep(1_000.0)
    await forwarding.set({"old/tempo": ForwardTarget(url="http://127.0.0.1:1", timeout=0.5)})
    assert forwarding.states[0].backlog.entries == 3
    await forwarding.set({})
    await forwarding.sweep(1_000.0 + WEEK_S)
    await forwarding.sweep(900.0 + WEEK_S)  # the clock went back: its week begins then
    await forwarding.sweep(899.0 + 2 * WEEK_S)
    assert list(tmp_path.iterdir())
    # one that is named and cannot be set up keeps its queue
    broken = ForwardTarget(url="http://x", headers={"a-key": "env:NOT_SET_ANYWHERE"})
    await forwarding.set({"old/tempo": broken})
    await forwarding.sweep(1e12)
    assert counts.total("forward_dropped") == 0
    await forwarding.stop()


async def test_what_waits_for_nobody_is_forgotten_too(tmp_path: Path) -> None:
    counts = Counts()
    forwarding = await waiting_for_nobody(tmp_path, counts)
    assert forwarding.waits
    traces = frozenset({span("n1", "t1")[SPANS.at["trace_id"]]})
    for what, gone in ((Selector(traces=traces), 1), (Selector(agents=frozenset({"inbox"})), 2)):
        order = Forgetting(what)
        await forwarding.forget(order)
        assert order.removed == gone
    assert counts.value("forward_forgotten", "old/tempo") == 3
    assert list(tmp_path.rglob("*.queue")) == []
    await forwarding.stop()
