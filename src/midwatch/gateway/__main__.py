"""Placeholder of the gateway: answers 503 in the client's dialect, so that a client sees a clear error.

It takes no model calls; agents talk to their providers themselves until the gateway is part of
Midwatch. Standard library only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
from typing import Final

MESSAGE: Final = (
    "The Midwatch gateway is not part of this version. Let the client talk to its provider:"
    " take the base URL that points here out of its settings."
)

MAX_HEAD_BYTES: Final = 65_536
TIMEOUT_S: Final = 10.0
"""A client that does not finish its request in time is let go."""

MAX_CONNECTIONS: Final = 256

RETRY_AFTER_S: Final = 60


def refusal(path: str) -> bytes:
    """Return the error body of the dialect that `path` belongs to."""
    if path.startswith("/v1/messages"):
        body: dict[str, object] = {
            "type": "error",
            "error": {"type": "api_error", "message": MESSAGE},
        }
    elif path.startswith("/v1beta"):
        body = {"error": {"code": 503, "message": MESSAGE, "status": "UNAVAILABLE"}}
    else:
        body = {
            "error": {
                "message": MESSAGE,
                "type": "server_error",
                "param": None,
                "code": "gateway_unavailable",
            }
        }
    return json.dumps(body).encode()


def answer(path: str) -> bytes:
    """Return the whole answer to a request for `path`."""
    if path == "/healthz":
        status, body = "200 OK", b'{"status": "ok"}'
    elif path == "/readyz":
        status, body = (
            "503 Service Unavailable",
            json.dumps({"status": "unavailable", "why": MESSAGE}).encode(),
        )
    else:
        status, body = "503 Service Unavailable", refusal(path)
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        + (f"Retry-After: {RETRY_AFTER_S}\r\n" if status[0] == "5" else "")
        + "Connection: close\r\n\r\n"
    )
    return head.encode() + body


class Server:
    """One request per connection; the body is read and ignored."""

    def __init__(self) -> None:
        self._open = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= MAX_CONNECTIONS:
                async with asyncio.timeout(TIMEOUT_S):
                    writer.write(answer(await self._path(reader)))
                    await writer.drain()
        except (
            TimeoutError,
            OSError,
            ValueError,
            asyncio.IncompleteReadError,
            asyncio.LimitOverrunError,
        ):
            pass  # a client that went away, or is not one
        finally:
            self._open -= 1
            writer.close()

    async def _path(self, reader: asyncio.StreamReader) -> str:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        lines = head.split("\r\n")
        parts = lines[0].split(" ")
        if len(parts) != 3:
            raise ValueError("not a request line")
        for line in lines[1:]:
            name, _, value = line.partition(":")
            if name.strip().lower() == "content-length" and value.strip().isdigit():
                # an unread body would reset the connection before the client reads the answer
                await self._skip(reader, int(value))
        return parts[1].split("?", 1)[0]

    async def _skip(self, reader: asyncio.StreamReader, left: int) -> None:
        while left > 0 and (data := await reader.read(min(left, MAX_HEAD_BYTES))):
            left -= len(data)


async def run(host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await asyncio.start_server(Server().serve, host, port, limit=MAX_HEAD_BYTES)
    async with server:
        await stop.wait()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(
        prog="midwatch.gateway", description="placeholder of the gateway"
    )
    parser.add_argument("--data", help="the data directory; not used yet")
    parser.add_argument("--listen", default="127.0.0.1:8701", help="HOST:PORT")
    host, _, port = parser.parse_args().listen.rpartition(":")
    asyncio.run(run(host.strip("[]"), int(port)))


if __name__ == "__main__":
    main()
