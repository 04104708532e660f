"""A hub that takes everything and keeps nothing, so that spans are made and sent while a gateway is measured.

python bench/_hub.py --listen HOST:PORT
"""

from __future__ import annotations

import argparse
import asyncio
import re
import sys

_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_TAKEN = b"HTTP/1.1 202 Accepted\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


class Taker(asyncio.Protocol):
    """One connection: each whole request is answered with 202."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._buffer = bytearray()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            found = _LENGTH.search(self._buffer, 0, end + 2)
            whole = end + 4 + (0 if found is None else int(found[1]))
            if len(self._buffer) < whole:
                return
            del self._buffer[:whole]
            self._transport.write(_TAKEN)


async def serve(host: str, port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Taker, host, port)
    await server.serve_forever()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", required=True)
    host, _, port = parser.parse_args().listen.rpartition(":")
    asyncio.run(serve(host, int(port)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
