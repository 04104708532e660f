"""A ClickHouse for tests: chDB's engine, which is ClickHouse's own, behind the part of the HTTP interface that we use.

Run as a program it is the server (`python clickhouse.py FOLDER`), a process of its own: the engine takes 260 MB and
lives once in a process. It tells its port on its first line. Rows of an insert are counted afterwards: the engine has
ways to store nothing and say nothing.
"""

from __future__ import annotations

import gzip
import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

_numbers = itertools.count()


class ClickHouseServer:
    """A running server."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port

    def fresh(self) -> str:
        """Return the address of a database that nobody uses."""
        return f"http://127.0.0.1:{self.port}/test_{next(_numbers)}"


@contextmanager
def clickhouse(folder: Path | None = None) -> Iterator[ClickHouseServer]:
    """Run a server for as long as the block lasts."""
    # in memory where there is such a place: a thousand syncs of small tables take minutes on a disk
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else Path("/tmp")
    own = Path(tempfile.mkdtemp(prefix="ch-", dir=place)) if folder is None else folder
    process = subprocess.Popen(
        [sys.executable, __file__, str(own)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )  # fmt: skip
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"the engine did not start: {process.wait()}")
        yield ClickHouseServer(process, int(line))
    finally:
        if folder is None:
            process.kill()  # nobody needs what it would write
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
        assert process.stdout is not None
        process.stdout.close()
        if folder is None:
            shutil.rmtree(own, ignore_errors=True)


async def rows(store: Any, sql: str) -> list[list[Any]]:
    """Return what a store's database (`ClickHouseSpans`) says to a statement of a test."""
    return await store.question(lambda ask: ask(sql, {}))


_INSERT = re.compile(r"\s*INSERT INTO (\w+) (\([^)]*\)) FORMAT (\w+)\s*\Z")


class Handler(BaseHTTPRequestHandler):
    """One request: settings and parameters in its address, the statement there or in its body."""

    protocol_version = "HTTP/1.1"
    session: Any
    lock = threading.Lock()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        given = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        query, database = given.pop("query", ""), given.pop("database", "default")
        given.pop("wait_end_of_query", None)
        shape = given.pop("default_format", "TabSeparated")
        params = {k[6:]: given.pop(k) for k in list(given) if k.startswith("param_")}
        settings = ", ".join(f"{k} = '{v}'" for k, v in given.items())
        text = body.decode()
        try:
            with self.lock:
                told = self._run(query, text, database, settings, shape, params)
        except Exception as error:  # the top of every request: whatever the engine says is answered
            said = str(error)
            code = re.match(r"Code: (\d+)\.", said)
            self._answer(500, said.encode(), code.group(1) if code else "1001")
        else:
            self._answer(200, told)

    def _run(
        self,
        query: str,
        text: str,
        database: str,
        settings: str,
        shape: str,
        params: dict[str, str],
    ) -> bytes:
        if text.startswith("CREATE DATABASE"):
            return self.session.query(text).bytes()
        self.session.query(f"USE {database}")
        found = _INSERT.match(query)
        if found is None:
            if query:
                raise ValueError(f"Code: 62. this server takes no such insert: {query!r}")
            # settings of one statement: the engine has no request of its own
            whole = (
                f"{text}\nSETTINGS {settings}"
                if settings and text.lstrip().startswith(("SELECT", "WITH"))
                else text
            )
            return self.session.query(whole, shape, params=params).bytes()
        table, columns, form = found.groups()
        done = self.session.query(
            f"INSERT INTO {table} {columns} SETTINGS {settings} FORMAT {form}\n{text}"
        )
        if done.rows_written() != text.count("\n") + 1:
            raise ValueError(f"Code: 1001. {done.rows_written()} rows were stored of {table}")
        return b""

    def _answer(self, status: int, body: bytes, code: str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if code is not None:
            self.send_header("X-ClickHouse-Exception-Code", code)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Say nothing."""


def main(folder: str) -> None:
    from chdb.session import Session

    Handler.session = Session(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print(server.server_address[1], flush=True)
    server.serve_forever()
    with Handler.lock:
        Handler.session.close()


if __name__ == "__main__":
    main(sys.argv[1])
