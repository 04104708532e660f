"""What nobody should send, sent to a gateway's process: each is answered in its client's dialect and counted, and the
gateway goes on. Above all: no agent's bodies keep a person from stopping another."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest

from .conftest import DEADLINE_S, Running, until  # noqa: TID252  there is no tests package
from .test_process import Stream  # noqa: TID252

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
GENERATE = "/v1beta/models/gemini-2.5-flash:generateContent"
PATHS = (CHAT, MESSAGES, GENERATE)
MB = 1_000_000
KILLS = 5
READ = 403
"""What the loud agent is answered when its body was read: it may ask for nothing."""


@pytest.fixture
def strict(stopped: Running) -> Running:
    """A gateway that carries nothing of the agent `loud`: 50 MB would only keep the rehearsal model busy."""
    stopped.fleet(models={"policy": [{"when": "agent == 'loud'", "deny": "it is too loud"}]})
    stopped.start()
    return stopped


def sent(gateway: Running, path: str, body: bytes, **headers: str) -> tuple[int, bytes]:
    """Send a body as it is; return status and answer."""
    address = urlsplit(gateway.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=60)
    given = {"authorization": f"Bearer {gateway.key('loud')}", "content-type": "application/json"}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request("POST", path, body, given)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def works(gateway: Running) -> bool:
    """Tell whether a good call of somebody else is carried."""
    asked = question(CHAT, f"hi, {time.monotonic()}")
    return gateway.ask("POST", CHAT, asked, gateway.key("good")).status == 200


def shape(answer: bytes) -> str:
    """Return the dialect that an error is told in."""
    error: Any = json.loads(answer)
    if error.get("type") == "error":
        return MESSAGES
    return GENERATE if isinstance(error["error"].get("code"), int) else CHAT


def counted(gateway: Running, what: str) -> int:
    """Return a counter of /metrics."""
    page = gateway.ask("GET", "/metrics").body.decode()
    found = re.findall(rf"^midwatch_gateway_\S*{what}\S* (\d+)$", page, re.MULTILINE)
    return sum(int(one) for one in found)


def question(path: str, text: str = "hi", model: str = "gpt-4o-mini") -> dict[str, Any]:
    if path == GENERATE:
        return {"contents": [{"parts": [{"text": text}]}]}
    return {"model": model, "max_tokens": 5, "messages": [{"role": "user", "content": text}]}


BAD: dict[str, tuple[int, Any, dict[str, str]]] = {
    "no JSON": (400, lambda _: b'{"model": "gpt-4o-mini", ', {}),
    "no object": (400, lambda _: b"[1, 2]", {}),
    "broken UTF-8": (400, lambda _: b'{"model": "\xff"}', {}),
    "deep": (400, lambda _: b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", {}),
    "form": (415, lambda _: b"model=gpt-4o-mini", {"content_type": "application/x-www-form-urlencoded"}),
    "too many values": (413, lambda _: b'{"messages": [' + b"1," * 900_000 + b"1]}", {}),
    "too long": (413, lambda _: b'{"messages": "' + b"a" * 70 * MB + b'"}', {}),
    "no gzip": (400, lambda _: b"junk", {"content_encoding": "gzip"}),
    "unknown packing": (415, lambda _: b"junk", {"content_encoding": "br"}),
    "bomb": (413, lambda p: gzip.compress(json.dumps(question(p, "a" * 60 * MB)).encode(), 1), {"content_encoding": "gzip"}),
}  # fmt: skip


HEAVY = ("too long", "bomb")
"""Once is enough of what takes a second."""


@pytest.mark.parametrize(
    ("what", "path"), [(w, p) for w in BAD for p in (PATHS if w not in HEAVY else (CHAT,))]
)
def test_what_cannot_be_read_is_refused_in_the_clients_dialect_and_counted(
    shared: Running, what: str, path: str
) -> None:
    status, make, headers = BAD[what]
    before = counted(shared, "midwatch_bad_request")
    got, answer = sent(shared, path, make(path), **headers)
    assert (got, shape(answer)) == (status, path), answer[:300]
    assert counted(shared, "midwatch_bad_request") == before + 1
    assert works(shared)


@pytest.mark.parametrize("model", ["gpt-4o\nmini", "gpt-4o\r\nx-evil: 1", "", "a" * 300, "\u202e"])
def test_a_models_name_that_fits_no_line_is_refused(shared: Running, model: str) -> None:
    status, answer = sent(shared, CHAT, json.dumps(question(CHAT, model=model)).encode())
    assert (status, shape(answer)) == (400, CHAT)


def packing(blocks: int = 200) -> str:
    """Return a text that packs to a tenth or so."""
    return "".join(os.urandom(1_000).hex() + "a" * 18_000 for _ in range(blocks))


def test_who_never_ends_a_head_or_a_body_keeps_nobody_waiting(shared: Running) -> None:
    address = urlsplit(shared.url)
    where = (address.hostname or "", address.port or 0)
    key = shared.key("loud").encode()
    head = b"POST %b HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer %b\r\n" % (CHAT.encode(), key)  # fmt: skip
    slow = [socket.create_connection(where, DEADLINE_S) for _ in range(100)]
    try:
        for number, one in enumerate(slow):
            one.sendall(head if number % 2 else head + b"content-length: 50000000\r\n\r\n{")
        for _ in range(5):
            assert works(shared)
    finally:
        for one in slow:
            one.close()
    until(
        lambda: counted(shared, "requests_under_way") == 1,
        "nothing is left of them but this question",
    )


@contextmanager
def fire(gateway: Running) -> Iterator[list[int]]:
    """An agent sends the worst that it can, on six connections, until the end; the answers' statuses."""
    values = ",".join(["[]"] * 390_000)
    worst = f'{{"model":"gpt-4o-mini","x":[{values}],"messages":[{{"role":"user","content":"{"a, " * 16 * MB}"}}]}}'
    bomb = gzip.compress(json.dumps(question(CHAT, "a" * 60 * MB)).encode(), 1)
    packed = gzip.compress(json.dumps(question(CHAT, packing(2_000))).encode(), 1)
    shots = [(worst.encode(), ""), (bomb, "gzip"), (packed, "gzip")]
    over = threading.Event()
    statuses: list[int] = []

    def shoot(body: bytes, encoding: str) -> None:
        headers = {"content_encoding": encoding} if encoding else {}
        while not over.is_set():
            statuses.append(sent(gateway, CHAT, body, **headers)[0])

    threads = [threading.Thread(target=shoot, args=shot) for shot in shots * 2]
    for thread in threads:
        thread.start()
    try:
        until(lambda: {READ, 413} <= set(statuses), "bodies of both kinds were read")
        yield statuses
    finally:
        over.set()
        for thread in threads:
            thread.join(60)


def test_fifty_megabytes_of_honest_prompts_are_read_and_leave_nothing_behind(
    strict: Running,
) -> None:
    plain = json.dumps(question(CHAT, "lorem ipsum, " * 4 * MB)).encode()
    packed = gzip.compress(json.dumps(question(CHAT, packing(2_000))).encode(), 1)
    assert (len(plain) > 50 * MB, len(packed) < 5 * MB) == (True, True)
    for body, headers in ((plain, {}), (packed, {"content_encoding": "gzip"})):
        status, answer = sent(strict, CHAT, body, **headers)
        assert (status, json.loads(answer)["error"]["type"]) == (READ, "midwatch_policy")
    assert counted(strict, "held_bytes") == 0


def test_a_kill_has_its_receipt_soon_while_another_agent_sends_the_worst_it_can(
    strict: Running,
) -> None:
    """Timed several times, and judged by the median: a busy machine may take a turn from us. Where nothing else runs
    it is a fraction of a second; behind the bodies of the other it would be many."""
    gateway = strict
    streams = [Stream(gateway, gateway.key(f"agent-{n}")) for n in range(KILLS)]
    took: list[float] = []
    with fire(gateway) as statuses:
        for number, stream in enumerate(streams):
            before, answered = time.monotonic(), len(statuses)
            told = gateway.control("POST", "kill", {"agent": f"agent-{number}", "why": "it spends"})
            took.append(time.monotonic() - before)
            assert (told["receipt"]["calls_cut"], told["durable"]) == (1, True)
            assert "kill switch" in stream.over()
            until(lambda answered=answered: len(statuses) > answered, "the other goes on")
    assert sorted(took)[KILLS // 2] < 4.0, took
    assert works(gateway)
    assert counted(gateway, "held_bytes") == 0
