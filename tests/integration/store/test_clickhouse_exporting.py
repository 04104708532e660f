"""Files out of ClickHouse when its server breaks off, refuses, or says nothing: an error, and no file."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from midwatch.core.counts import Counts
from midwatch.core.errors import StoreError
from midwatch.core.spans.form import Signal
from midwatch.core.spans.store import Selector
from midwatch.store.clickhouse.client import PART_BYTES, ClickHouse
from midwatch.store.clickhouse.exporting import export
from midwatch.store.clickhouse.spans import ClickHouseSpans
from midwatch.store.exporting import Format

LENGTH = b"Content-Length: 1000\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
HALF = {
    "a body shorter than it promised": LENGTH + b"\r\n[1,2",
    "a chunk that is not whole": CHUNKED + b"\r\n40\r\n[1,2",
    "chunks without an end": CHUNKED + b"\r\n2\r\n[]\r\n",
    "half a row": b"Content-Length: 3\r\n\r\n[1,",
}


class Server(ThreadingHTTPServer):
    """Answers as it is told, and keeps what it was asked."""

    daemon_threads = True
    answer = b""
    silent = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[dict[str, list[str]], str]] = []
        self.came, self.over = threading.Event(), threading.Event()


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.server.asked.append((parse_qs(urlsplit(self.path).query), text))
        self.server.came.set()
        if self.server.silent:
            self.server.over.wait(60.0)
            return
        self.wfile.write(self.server.answer)
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.over.set()
        made.shutdown()
        thread.join()


@pytest.fixture
async def store(server: Server) -> AsyncIterator[ClickHouseSpans]:
    made = ClickHouseSpans(
        ClickHouse(f"http://127.0.0.1:{server.server_address[1]}/midwatch"), Counts()
    )
    yield made
    await made.stop()


@pytest.mark.parametrize("how", list(Format))
@pytest.mark.parametrize("half", HALF)
async def test_an_answer_that_breaks_off_makes_no_file(
    server: Server, store: ClickHouseSpans, tmp_path: Path, half: str, how: Format
) -> None:
    server.answer = b"HTTP/1.1 200 OK\r\n" + HALF[half]
    with pytest.raises(StoreError):
        await export(store, Signal.SPANS, tmp_path / "out", how)
    assert list(tmp_path.iterdir()) == []


async def test_what_the_server_refuses_is_told_and_makes_no_file(
    server: Server, store: ClickHouseSpans, tmp_path: Path
) -> None:
    said = b"Code: 241. DB::Exception: Memory limit exceeded"
    server.answer = b"HTTP/1.1 500 No\r\nX-ClickHouse-Exception-Code: 241\r\n\r\n" + said
    with pytest.raises(StoreError, match="Memory limit exceeded"):
        await export(store, Signal.LOGS, tmp_path / "out", Format.JSONL)
    assert list(tmp_path.iterdir()) == []


async def test_values_are_bound_and_the_answer_begins_when_all_of_it_is_there(
    server: Server, store: ClickHouseSpans, tmp_path: Path
) -> None:
    server.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    name = "x') OR 1 = 1 --"
    what = Selector(agents=frozenset({name}), tags={name: name})
    done = await export(store, Signal.SPANS, tmp_path / "out", Format.JSONL, what=what)
    assert (done.rows, done.size_bytes) == (0, 0)
    ((given, text),) = server.asked
    assert name not in text
    assert given["param_value0"] == given["param_tag0"] == ["x\\') OR 1 = 1 --"]
    assert given["wait_end_of_query"] == ["1"]


async def test_a_store_that_stops_ends_an_export_that_waits(
    server: Server, store: ClickHouseSpans, tmp_path: Path
) -> None:
    server.silent = True
    under_way = asyncio.create_task(export(store, Signal.SPANS, tmp_path / "out", Format.PARQUET))
    assert await asyncio.to_thread(server.came.wait, 30.0)
    await store.stop()
    with pytest.raises(StoreError, match="before its whole answer"):
        await asyncio.wait_for(under_way, 30.0)
    assert list(tmp_path.iterdir()) == []


def test_lines_may_be_longer_than_a_piece_and_no_more_than_a_piece_is_asked_for(
    server: Server,
) -> None:
    line = b'["' + b"x" * (2 * PART_BYTES) + b'"]\n'
    server.answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(line) + line
    client = ClickHouse(f"http://127.0.0.1:{server.server_address[1]}/midwatch")
    parts = list(client.parts("SELECT 1 FORMAT JSONCompactEachRow", {}, timeout_s=30.0, settings={}))  # fmt: skip
    client.close()
    assert b"".join(parts) == line
    assert [len(part) for part in parts] == [PART_BYTES, PART_BYTES, len(line) - 2 * PART_BYTES]
