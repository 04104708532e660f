"""The rehearsal model as a process, and its HTTP towards clients that are rude."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from midwatch.drills.rehearsal import Rehearsal, running
from midwatch.drills.rehearsal.__main__ import main
from midwatch.drills.rehearsal.http import MAX_BODY_BYTES, MAX_HEAD_BYTES

COMMAND = [sys.executable, "-m", "midwatch.drills.rehearsal"]
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hello"}]}).encode()
KEY = b"authorization: Bearer k\r\n"
CHAT = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n" + KEY


@pytest.fixture(scope="module")
def model() -> Iterator[Rehearsal]:
    with running() as model:
        yield model


def connect(model: Rehearsal) -> socket.socket:
    host, _, port = model.url.removeprefix("http://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=30)


def exchange(model: Rehearsal, data: bytes) -> bytes:
    """Send bytes, and read until the server closes; requests should end with connection: close."""
    with connect(model) as client:
        client.sendall(data)
        parts: list[bytes] = []
        while part := client.recv(65_536):
            parts.append(part)
    return b"".join(parts)


def post(body: bytes, *headers: bytes) -> bytes:
    extra = b"".join(h + b"\r\n" for h in headers)
    length = b"content-length: %d\r\n" % len(body)
    return CHAT + extra + length + b"connection: close\r\n\r\n" + body


def wait_for(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 30
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def test_it_prints_one_line_serves_and_ends_well_on_sigterm() -> None:
    with subprocess.Popen([*COMMAND, "--listen", "127.0.0.1:0"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        line = process.stdout.readline().decode()
        prefix = "rehearsal model listening on http://127.0.0.1:"
        assert line.startswith(prefix)
        with socket.create_connection(("127.0.0.1", int(line.removeprefix(prefix))), 30) as client:
            client.sendall(b"GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n")
            assert b'{"status":"ok","calls":0,"bugs":0}' in client.recv(1000)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert process.stdout.read() == b""


def test_a_port_that_is_taken_is_named(
    model: Rehearsal, capsys: pytest.CaptureFixture[str]
) -> None:
    address = model.url.removeprefix("http://")
    assert main(["--listen", address]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"cannot listen on {address}: ")
    assert "choose another" in said


@pytest.mark.parametrize("address", ["here", ":80", "127.0.0.1:port", "127.0.0.1:99999"])
def test_an_address_that_is_none_is_refused(
    address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--listen", address])
    assert ended.value.code == 2
    assert "expected HOST:PORT" in capsys.readouterr().err


def test_a_wrong_script_is_told_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("rules:\n  - anwser: {text: a}\n")
    assert main(["--script", str(file), "--check"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"{file}:2:5: rules[0].answer: is missing",
        f"{file}:2:5: rules[0].anwser: unknown key; did you mean 'answer'?",
    ]


def test_a_call_without_a_key_is_refused(model: Rehearsal) -> None:
    reply = exchange(model, post(BODY).replace(KEY, b""))
    assert reply.startswith(b"HTTP/1.1 401 Unauthorized\r\n")
    assert b"any key will do" in reply


def test_a_connection_carries_many_calls_also_when_they_come_at_once(model: Rehearsal) -> None:
    one = b"GET /healthz HTTP/1.1\r\n\r\n"
    reply = exchange(model, one * 3 + post(BODY))
    assert reply.count(b"HTTP/1.1 200 OK\r\n") == 4


def test_a_body_in_chunks_and_in_drops_is_read_whole(model: Rehearsal) -> None:
    chunks = b"".join(b"%x;note=1\r\n%b\r\n" % (1, BODY[i : i + 1]) for i in range(len(BODY)))
    request = (
        CHAT + b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n" + chunks + b"0\r\n\r\n"
    )
    with connect(model) as client:
        for at in range(0, len(request), 40):
            client.sendall(request[at : at + 40])
        assert client.recv(100).startswith(b"HTTP/1.1 200 OK")


def test_a_client_that_asks_first_is_told_to_go_on(model: Rehearsal) -> None:
    assert exchange(model, post(BODY, b"expect: 100-continue")).startswith(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"
    )


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"hello\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nbad name: x\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1), 413),
        (b"GET http://[ HTTP/1.1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", 400),
        (
            b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5;"
            + b"a" * (MAX_HEAD_BYTES + 1),
            400,
        ),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nfffffff\r\n", 413),
        (b"GET /" + b"a" * MAX_HEAD_BYTES + b"\r\n\r\n", 431),
        (b"GET /nowhere HTTP/1.1\r\nconnection: close\r\n\r\n", 404),
        (post(b"{"), 400),
        (post(b"[]"), 400),
        (post(b"[" * 100_000), 400),
        (post(b"\xff\xfe"), 400),
        (post(BODY, b"content-encoding: gzip"), 400),
    ],
)
def test_what_is_no_request_is_refused_and_harms_nobody(
    model: Rehearsal, data: bytes, status: int
) -> None:
    reply = exchange(model, data)
    assert reply.startswith(b"HTTP/1.1 %d " % status), reply[:200]
    assert b'"message":' in reply
    assert exchange(model, post(BODY)).startswith(b"HTTP/1.1 200 OK")
    assert b'"bugs":0' in exchange(model, b"GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n")


def test_a_client_that_leaves_frees_what_was_kept_for_it() -> None:
    with running() as model:
        stalled = BODY.replace(b'"m"', b'"m:stall"')
        with connect(model) as client:
            client.sendall(post(stalled))
            assert wait_for(lambda: model.calls.total == 1)
        assert wait_for(lambda: model.calls.page(0, 1, None)["calls"][0]["end"] == "stalled")


def test_a_stop_breaks_off_what_is_under_way() -> None:
    with running() as model:
        client = connect(model)
        client.sendall(post(BODY.replace(b'"m"', b'"m:stall"')))
        assert wait_for(lambda: model.calls.total == 1)
    with client:
        try:
            got = client.recv(100)
        except ConnectionResetError:
            got = b""
    assert got == b""
