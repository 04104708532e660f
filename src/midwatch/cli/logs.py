"""What an agent printed."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Annotated, Final

import typer

from midwatch.cli import show
from midwatch.cli.exits import USAGE, CommandError
from midwatch.cli.instance import data_directory
from midwatch.cli.options import Data
from midwatch.core.nearest import did_you_mean
from midwatch.core.units import parse_duration

POLL_S: Final = 0.1
MAX_LINE: Final = 64 * 1024
_STAMP: Final = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z ")


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command("logs")(logs)


def logs(
    agent: Annotated[str, typer.Argument(help="The agent.")],
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on as it prints; Ctrl-C ends.")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="T", help="From then on: 10m (ago), or 2026-01-31T02:00.", show_default=False
        ),
    ] = None,
    lines: Annotated[
        int | None,
        typer.Option("-n", "--lines", min=0, help="Only the last N lines.", show_default=False),
    ] = None,
    data: Data = None,
) -> None:
    """Print the output of an agent, each line with the time (UTC) at which it came.

    Reads the files in the data directory, also when nothing is running. All that is kept is
    printed, unless --since or -n say less; -f alone begins with the last 10 lines.
    """
    folder = _folder(data_directory(data), agent)
    earliest = None if since is None else _moment(since)
    if follow and lines is None and earliest is None:
        lines = 10
    with contextlib.closing(_Tail(folder / "output.log")) as tail:
        found = _after(_kept(folder, tail), earliest)
        for text in found if lines is None else deque(found, maxlen=lines):
            _print(text)
        if follow:
            _follow(tail)


def _follow(tail: _Tail) -> None:
    """Print what comes, until Ctrl-C: the usual end, so no error."""
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            with show.writing():
                sys.stdout.flush()
            time.sleep(POLL_S)
            for text in tail.read():
                _print(text)


def _folder(data: Path, agent: str) -> Path:
    """Return where an agent's output is. Raises CommandError with the nearest name."""
    home = data / "logs"
    try:
        names = sorted(entry.name for entry in home.iterdir() if entry.is_dir())
    except FileNotFoundError:
        raise CommandError(f"{data} holds no output; start a fleet with: midwatch up") from None
    except OSError as error:
        raise CommandError(f"cannot read {home}: {error.strerror}") from None
    if agent in names:
        return home / agent
    known = f"; known: {', '.join(names[:20])}" if names else "; nothing has printed yet"
    raise CommandError(
        f"there is no output of an agent {agent!r}{did_you_mean(agent, names) or known}", USAGE
    )


def _moment(text: str) -> bytes:
    """Return the earliest time as it stands in the files: RFC 3339 in UTC sorts as text."""
    try:
        at = datetime.now(UTC) - timedelta(seconds=parse_duration(text))
    except (ValueError, OverflowError):
        try:
            at = datetime.fromisoformat(text).astimezone(UTC)
        except (ValueError, OverflowError):
            raise CommandError(
                f"--since: expected how long ago (10m, 2h) or a time (2026-01-31T02:00), got {text!r}"
            ) from None
    return at.strftime("%Y-%m-%dT%H:%M:%S.").encode() + b"%03dZ" % (at.microsecond // 1000)


def _after(lines: Iterator[bytes], earliest: bytes | None) -> Iterator[bytes]:
    begun = earliest is None
    for text in lines:
        if not begun and _STAMP.match(text):
            begun = text[: len(earliest or b"")] >= (earliest or b"")
        if begun:
            yield text


def _kept(folder: Path, tail: _Tail) -> Iterator[bytes]:
    """Yield the lines of the rotated files, oldest first, then of the current one.

    All are opened before one is read, the youngest first: a rotation meanwhile gives a file a
    higher number, so it is met twice, but never missed.
    """
    with contextlib.ExitStack() as opened:
        streams: dict[tuple[int, int], IO[bytes]] = {}
        current = tail.open()
        if current is not None:
            streams[_identity(os.fstat(current.fileno()))] = current
        numbers = [n for p in folder.glob("output.log.*") if (n := p.suffix[1:]).isdecimal()]
        for number in range(1, max(map(int, numbers), default=0) + 2):
            with contextlib.suppress(FileNotFoundError):
                stream = opened.enter_context((folder / f"output.log.{number}").open("rb"))
                streams.setdefault(_identity(os.fstat(stream.fileno())), stream)
        for stream in reversed([s for s in streams.values() if s is not current]):
            yield from _lines(stream)
        yield from tail.read()


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    while text := stream.readline(MAX_LINE):
        yield text


class _Tail:
    """The current file: what was added since the last look, also across a rotation."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream: IO[bytes] | None = None

    def open(self) -> IO[bytes] | None:
        """Return the file that is read; None as long as there is none."""
        if self._stream is None:
            with contextlib.suppress(FileNotFoundError):
                self._stream = self._path.open("rb")
        return self._stream

    def read(self) -> Iterator[bytes]:
        """Yield what is new."""
        while (stream := self.open()) is not None:
            if os.fstat(stream.fileno()).st_size < stream.tell():
                stream.seek(0)  # somebody emptied it
            yield from _lines(stream)
            if self._is_current(stream):
                return
            yield from _lines(stream)  # what came between reading and rotation
            self.close()

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _is_current(self, stream: IO[bytes]) -> bool:
        try:
            theirs = self._path.stat()
        except FileNotFoundError:
            return True  # between two names
        return _identity(os.fstat(stream.fileno())) == _identity(theirs)


def _print(text: bytes) -> None:
    with show.writing():
        if sys.stdout.isatty():
            sys.stdout.write(show.clean(text.decode("utf-8", "replace")))
        else:
            sys.stdout.buffer.write(text)
