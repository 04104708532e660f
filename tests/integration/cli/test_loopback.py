"""A request to a hub on this machine over a real socket: what is sent, and what ends the waiting."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Generator
from pathlib import Path

import pytest

from midwatch.cli import client, loopback
from midwatch.cli.client import Hub
from midwatch.cli.exits import UNREACHABLE, CommandError
from midwatch.cli.instance import Instance, find

from .conftest import FakeHub  # noqa: TID252  there is no tests package


@contextlib.contextmanager
def answering(answer: Callable[[socket.socket], None]) -> Generator[str]:
    """A server that hears one request, and then does as the test says."""

    def serve() -> None:
        line, _ = server.accept()
        with line, contextlib.suppress(OSError):
            line.recv(65536)
            answer(line)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join(30)


def test_an_order_arrives_with_token_and_body_and_is_answered(data: Path, hub: FakeHub) -> None:
    hub.routes["POST /api/agents/inbox/kill"] = [{"agent": "inbox", "result": "killed"}]
    assert Hub(find(data, None)).post("/api/agents/inbox/kill", {"why": "ö"}) == [
        {"agent": "inbox", "result": "killed"}
    ]
    assert hub.asked == [("POST /api/agents/inbox/kill", {}, {"why": "ö"})]


def test_the_near_and_the_far_way_ask_and_hear_the_same(
    data: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def place(url: str) -> None:
        assert url == hub.url

    def ask() -> tuple[object, str]:
        asked = Hub(find(data, None))
        with pytest.raises(CommandError) as refused:
            asked.post("/api/nothing%20here")
        return asked.get("/api/incidents", state="open", tag=["a&b", "ü"], no=None), str(
            refused.value
        )

    near = ask()
    monkeypatch.setattr(loopback, "place", place)
    assert ask() == near
    assert hub.asked[:2] == hub.asked[2:]


def test_who_never_answers_is_waited_for_until_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever sends a byte now and then does not put the deadline off."""
    over = threading.Event()

    def dribble(line: socket.socket) -> None:
        for byte in b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000:
            line.sendall(bytes([byte]))
            if over.wait(0.02):
                return

    monkeypatch.setattr(client, "TIMEOUT_S", 0.3)
    with answering(dribble) as url:
        began = time.monotonic()
        with pytest.raises(CommandError, match="timed out") as failed:
            Hub(Instance(url, None)).get("/api/fleet")
        assert time.monotonic() - began >= 0.3
        over.set()
    assert failed.value.code == UNREACHABLE


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"", "the connection was closed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[]", "it ended too soon"),
        (b"SSH-2.0-OpenSSH_9.6 \x1b[2J\r\n\r\n", "it begins with 'SSH-2.0"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "HTTP 200 without JSON"),
    ],
)
def test_what_is_no_hub_is_named(sent: bytes, said: str) -> None:
    with (
        answering(lambda line: line.sendall(sent)) as url,
        pytest.raises(CommandError) as failed,
    ):
        Hub(Instance(url, None)).get("/api/fleet")
    assert said in str(failed.value)
    assert "\x1b" not in str(failed.value)
    assert failed.value.code == UNREACHABLE


def test_an_endless_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_ANSWER_BYTES", 100_000)
    over = threading.Event()

    def flood(line: socket.socket) -> None:
        line.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while not over.is_set():
            line.sendall(b"x" * 4096)

    with answering(flood) as url:
        with pytest.raises(CommandError, match="an endless answer"):
            Hub(Instance(url, None)).get("/api/fleet")
        over.set()


@pytest.mark.parametrize("token", ["mwt_x\r\nX-Admin: 1", "mwt_\u00fc"])
def test_a_token_that_no_header_may_hold_is_not_sent(token: str) -> None:
    heard: list[bool] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(CommandError, match="a character that no header may hold"):
            Hub(Instance(url, token)).get("/api/fleet")
        server.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            heard.append(bool(server.accept()))
    assert heard == []


def test_nobody_listening_is_said_with_the_reason() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(CommandError, match="Connection refused"):
        Hub(Instance(f"http://127.0.0.1:{port}", None)).get("/api/fleet")
