"""Plain HTTP towards a rehearsal model, for tests that look at what really travels."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable
from typing import Any

from midwatch.drills.rehearsal import Rehearsal

WORDS: Any = [{"role": "user", "content": "Tell me about the tides, at some length, and the moon."}]
CONTENTS: Any = [{"role": "user", "parts": [{"text": WORDS[0]["content"]}]}]
PATHS = {
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
    "generate": "/v1beta/models/gemini-2.0-flash:generateContent",
    "embeddings": "/v1/embeddings",
}
STREAMED = ("chat", "responses", "messages", "generate")


def ask(api: str, *, stream: bool = False, **more: Any) -> tuple[str, dict[str, Any]]:
    """Return path and body of a small call in a dialect."""
    if api == "generate":
        method = "streamGenerateContent?alt=sse" if stream else "generateContent"
        return PATHS[api].replace("generateContent", method), {"contents": CONTENTS, **more}
    body: dict[str, Any] = {"model": "gpt-4o-mini", **more}
    if stream:
        body["stream"] = True
    match api:
        case "messages":
            return PATHS[api], {"max_tokens": 500, "messages": WORDS, **body}
        case "chat":
            return PATHS[api], {"messages": WORDS, **body}
        case _:
            return PATHS[api], {"input": WORDS[0]["content"], **body}


class Answer:
    """What came back: status, headers (lower case), body, and why it broke off, if it did."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes, broke: str) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.broke = broke

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def events(self) -> list[Any]:
        """The JSON of each server-sent event; `[DONE]` as text."""
        found: list[Any] = []
        for line in self.body.decode().replace("\r\n", "\n").split("\n"):
            if line.startswith("data: "):
                data = line[6:]
                found.append(data if data == "[DONE]" else json.loads(data))
        return found


def post(
    model: Rehearsal,
    path: str,
    body: Any,
    headers: dict[str, str] | None = None,
    *,
    timeout: float = 30,
) -> Answer:
    """Send one call and read all of its answer, as far as it comes."""
    connection = http.client.HTTPConnection(model.url.removeprefix("http://"), timeout=timeout)
    try:
        sent = {"authorization": "Bearer rehearsal", **(headers or {})}
        try:
            connection.request("POST", path, json.dumps(body), sent)
            reply = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            return Answer(0, {}, b"", type(error).__name__)
        got = {name.lower(): value for name, value in reply.getheaders()}
        parts, broke = bytearray(), ""
        try:
            while part := reply.read1(65_536):
                parts += part
        except (OSError, http.client.HTTPException) as error:
            broke = type(error).__name__
        if not broke and reply.length:  # fewer bytes than the head declared
            broke = "short"
        return Answer(reply.status, got, bytes(parts), broke)
    finally:
        connection.close()


def call(
    model: Rehearsal, api: str, order: Any = None, *, stream: bool = False, **more: Any
) -> Answer:
    """Make one small call that goes wrong as ordered."""
    headers: dict[str, str] = {}
    if order is not None:
        headers["x-rehearsal-behave"] = order if isinstance(order, str) else json.dumps(order)
    timeout = more.pop("timeout", 30)
    return post(model, *ask(api, stream=stream, **more), headers, timeout=timeout)


def control(model: Rehearsal, method: str, path: str, value: Any = None) -> Any:
    """Ask the control endpoint, and return its JSON."""
    connection = http.client.HTTPConnection(model.url.removeprefix("http://"), timeout=30)
    connection.request(method, path, None if value is None else json.dumps(value))
    body = json.loads(connection.getresponse().read())
    connection.close()
    return body


def billed(model: Rehearsal) -> list[dict[str, Any]]:
    """Return the calls on the invoice."""
    return control(model, "GET", "/rehearsal/billed/calls")["calls"]


def wait_for(condition: Callable[[], bool]) -> bool:
    """Return whether it came true within half a minute."""
    deadline = time.monotonic() + 30
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def open_stream(model: Rehearsal, api: str, order: Any, *, stream: bool = True) -> socket.socket:
    """Begin a call and return its socket, for a client that will not read to the end."""
    path, body = ask(api, stream=stream)
    host, _, port = model.url.removeprefix("http://").rpartition(":")
    data = json.dumps(body).encode()
    client = socket.create_connection((host, int(port)), timeout=30)
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer k\r\n"
    head += f"x-rehearsal-behave: {json.dumps(order)}\r\ncontent-length: {len(data)}\r\n\r\n"
    client.sendall(head.encode() + data)
    return client
