"""What agents printed."""

from __future__ import annotations

import contextlib
import heapq
import json
import sys
import time
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterable
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Annotated, Any, Final

import typer

from midwatch.cli import show
from midwatch.cli.client import Hub
from midwatch.cli.exits import CommandError
from midwatch.cli.instance import data_directory, find
from midwatch.cli.logsource import (
    MOST_REMOTE,
    Local,
    Remote,
    Source,
    Wanted,
    local_names,
    pick,
    remote_names,
)
from midwatch.cli.options import Data, Json, Url
from midwatch.core import loglines
from midwatch.core.units import parse_duration
from midwatch.store.logquery import Line

POLL_S: Final = 0.1
REMOTE_POLL_S: Final = 1.0

AGENTS_PER_S: Final = 20
"""Requests a second that following through a hub may cost it."""

PARTIAL_S: Final = 1.0
"""A line without end (a prompt) is shown after this long."""

NEW_S: Final = 2.0
"""How often agents that begin to print are looked for."""

_PREFIXES: Final = ("cyan", "green", "yellow", "magenta", "blue")
_GRAVE: Final = {"warning": "yellow", "error": "red", "critical": "red"}


Agents = Annotated[
    list[str] | None,
    typer.Argument(metavar="[AGENT|GLOB]…", help="Agents, by name or glob; all when left out."),
]
More = Annotated[
    list[str] | None,
    typer.Option(
        "--agent",
        metavar="AGENT|GLOB",
        help="The same as an option; repeat it for more.",
        show_default=False,
    ),
]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on as they print; Ctrl-C ends.")]
Since = Annotated[
    str | None,
    typer.Option(
        metavar="T", help="From then on: 10m (ago), or 2026-01-31T02:00.", show_default=False
    ),
]
Until = Annotated[
    str | None,
    typer.Option(metavar="T", help="Up to then, in the same forms.", show_default=False),
]
Grep = Annotated[
    str | None,
    typer.Option(
        "--grep",
        "-g",
        metavar="RE",
        show_default=False,
        help="Only lines with this pattern (RE2; (?i) at its begin ignores case).",
    ),
]
Level = Annotated[
    str | None,
    typer.Option(
        metavar="LEVEL",
        show_default=False,
        help="This level and graver: trace, debug, info, warning, error, critical.",
    ),
]
Lines = Annotated[
    int | None,
    typer.Option(
        "-n",
        "--lines",
        "--tail",
        min=0,
        help="Only the last N lines of each.",
        show_default=False,
    ),
]


def add(app: typer.Typer) -> None:
    """Add the command."""
    app.command("logs")(logs)


def logs(
    agents: Agents = None,
    follow: Follow = False,
    since: Since = None,
    until: Until = None,
    grep: Grep = None,
    level: Level = None,
    lines: Lines = None,
    more: More = None,
    as_json: Json = False,
    data: Data = None,
    url: Url = None,
) -> None:
    """Print the output of agents, each line with the time (UTC) at which it came; several by time.

    Reads the files in the data directory, also when nothing is running; with --url through the hub's
    API. All that is kept is printed, unless --since, --until or -n say less; -f alone begins with the
    last 10 lines. A line that names no level counts as info; an indented one belongs to the line
    before it. With -f, --json prints one document per line.
    """  # fmt: skip
    if follow and lines is None and since is None:
        lines = 10
    wanted = Wanted(
        _moment(since, "--since"), _moment(until, "--until"), _level(level), grep, lines
    )
    wanted.filter()  # what is wrong with it is said before anything is asked
    asked = [*(agents or ()), *(more or ())]
    house = _Remotes(Hub(find(data, url)), asked, wanted) if url else None
    sources = house or _Locals(data_directory(data), asked, wanted)
    with contextlib.closing(sources):
        several = sources.several
        printer = _Printer(several, as_json=as_json, follow=follow, width=sources.width)
        with printer:
            for agent, line in _merge(sources.opened, lambda s: _last(s.kept(), lines)):
                printer.put(agent, line)
            if follow:
                _follow(sources, printer)


def _last(found: Generator[Line], count: int | None) -> Iterable[Line]:
    return found if count is None else deque(found, maxlen=count)


def _merge(
    sources: Iterable[Source], read: Callable[[Source], Iterable[Line]]
) -> Iterable[tuple[str, Line]]:
    """Yield the lines of all sources by the time at which they came."""

    def named(source: Source) -> Generator[tuple[str, Line]]:
        for line in read(source):
            yield source.agent, line

    return heapq.merge(*(named(source) for source in sources), key=lambda pair: pair[1].at)


def _follow(sources: _Sources, printer: _Printer) -> None:
    """Print what comes, until Ctrl-C: the usual end, so no error."""
    with contextlib.suppress(KeyboardInterrupt):
        quiet = 0.0
        gaps = 0
        while True:
            with show.writing():
                sys.stdout.flush()
            time.sleep(sources.pause_s)
            sources.refresh()
            quiet += sources.pause_s
            partial = quiet >= PARTIAL_S
            # a slow reader of ours is waited for here, and nothing is lost: the files stay open
            for agent, line in _merge(sources.opened, lambda s: s.fresh(partial=partial)):  # noqa: B023
                quiet = 0.0
                printer.put(agent, line)
            if (now := sum(source.gaps for source in sources.opened)) > gaps:
                gaps = now
                show.note("midwatch: some output was rotated away before it could be shown")


class _Sources:
    """All logs that are asked for."""

    pause_s = POLL_S

    def __init__(self) -> None:
        self.opened: list[Source] = []

    @property
    def several(self) -> bool:
        return len(self.opened) != 1

    @property
    def width(self) -> int:
        return max((len(source.agent) for source in self.opened), default=0)

    def refresh(self) -> None:
        """Take up agents that have begun to print."""

    def close(self) -> None:
        for source in self.opened:
            source.close()


class _Locals(_Sources):
    def __init__(self, data: Any, patterns: list[str], wanted: Wanted) -> None:
        super().__init__()
        self._home = data / "logs"
        self._data = data
        self._patterns = patterns
        self._wanted = wanted
        self._looked = time.monotonic()
        names = pick(local_names(data), patterns)
        self._known = set(names)
        self.opened = [Local(self._home / name, wanted) for name in names]

    @property
    def several(self) -> bool:
        # a glob may find more while it is followed: lines must not change their form then
        return super().several or any("*" in p or "?" in p for p in self._patterns) or not self._patterns  # fmt: skip

    def refresh(self) -> None:
        if time.monotonic() - self._looked < NEW_S:
            return
        self._looked = time.monotonic()
        with contextlib.suppress(CommandError):  # the data directory is away for a moment
            for name in pick(local_names(self._data), self._patterns):
                if name not in self._known:
                    self._known.add(name)
                    self.opened.append(Local(self._home / name, self._wanted))


class _Remotes(_Sources):
    def __init__(self, hub: Hub, patterns: list[str], wanted: Wanted) -> None:
        super().__init__()
        names = pick(remote_names(hub), patterns)
        if len(names) > MOST_REMOTE:
            raise CommandError(
                f"{len(names)} agents are meant, at most {MOST_REMOTE} are read through a hub; name fewer"
            )
        self.opened = [Remote(hub, name, wanted) for name in names]
        self.pause_s = max(REMOTE_POLL_S, len(names) / AGENTS_PER_S)


class _Printer:
    """Prints lines: as they are, with their agent's name, or as JSON."""

    def __init__(self, several: bool, *, as_json: bool, follow: bool, width: int) -> None:
        self._several = several
        self._as_json = as_json
        self._follow = follow
        self._width = min(width, 24)
        self._count = 0

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, *_: object) -> None:
        if self._as_json and not self._follow and kind is None:
            show.out("\n]" if self._count else "[]")

    def put(self, agent: str, line: Line) -> None:
        """Print one line."""
        if self._as_json:
            self._document(agent, line)
        elif not sys.stdout.isatty():
            head = f"{agent:{self._width}} | ".encode() if self._several else b""
            text = line.raw if not head or line.raw.endswith(b"\n") else line.raw + b"\n"
            with show.writing():
                sys.stdout.buffer.write(head + text)
        else:
            self._paint(agent, line)

    def _paint(self, agent: str, line: Line) -> None:
        text = show.clean(line.raw.decode("utf-8", "replace"))
        ends = text.endswith("\n")
        colour = _GRAVE.get(line.level or "")
        shown = show.paint(text.rstrip("\n"), colour)
        if self._several:
            place = zlib.crc32(agent.encode()) % len(_PREFIXES)
            name = show.paint(f"{show.line(agent):{self._width}} |", _PREFIXES[place])
            shown, ends = f"{name} {shown}", True
        with show.writing():
            sys.stdout.write(shown + ("\n" if ends else ""))

    def _document(self, agent: str, line: Line) -> None:
        text = loglines.split(line.raw.decode("utf-8", "replace").rstrip("\r\n"))[1]
        said = loglines.read(text)
        entry: dict[str, Any] = {"agent": agent, "at": line.at or None, "level": line.level}
        entry["text"] = text
        for name in ("message", "time", "fields"):
            if (value := attrgetter(name)(said)) is not None:
                entry[name] = value
        head = "" if self._follow else ",\n" if self._count else "[\n"
        self._count += 1
        with show.writing():
            sys.stdout.write(head + json.dumps(entry) + ("\n" if self._follow else ""))


def _level(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        return loglines.parse_level(text)
    except ValueError as error:
        raise CommandError(f"--level: {error}") from None


def _moment(text: str | None, option: str) -> str | None:
    """Return a time as it stands in the files: RFC 3339 in UTC sorts as text."""
    if text is None:
        return None
    try:
        at = datetime.now(UTC) - timedelta(seconds=parse_duration(text))
    except (ValueError, OverflowError):
        try:
            at = datetime.fromisoformat(text).astimezone(UTC)
        except (ValueError, OverflowError):
            raise CommandError(
                f"{option}: expected how long ago (10m, 2h) or a time (2026-01-31T02:00), got {text!r}"
            ) from None
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"
