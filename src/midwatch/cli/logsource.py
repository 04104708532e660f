"""Where `midwatch logs` reads from: the files of this machine's data directory, or a hub's API.

Both give an agent's lines from where they are asked to begin, and then whatever is new.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from midwatch.cli.client import Hub, path_of, record, texts
from midwatch.cli.exits import USAGE, CommandError
from midwatch.core.loglines import chosen
from midwatch.core.nearest import did_you_mean
from midwatch.store.logfiles import Reader
from midwatch.store.logquery import Filter, Line

POSTS: Final = ("hub", "gateway", "rehearsal")
"""The instance's own servers: shown when named."""

MOST_REMOTE: Final = 50
"""Agents that are read through one hub at a time: each is a request of its own."""

MOST_LINES: Final = 10_000
"""Lines of one answer of the API (`api.logs.MAX_LINES`)."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines. Times are as in the files."""

    since: str | None = None
    until: str | None = None
    level: str | None = None
    grep: str | None = None
    last: int | None = None

    @property
    def narrows(self) -> bool:
        """Tell whether lines must be looked at to know whether they are wanted."""
        return any(v is not None for v in (self.since, self.until, self.level, self.grep))

    def filter(self) -> Filter:
        """Return a fresh filter. Raises CommandError."""
        try:
            return Filter(
                self.since.encode() if self.since else None,
                self.until.encode() if self.until else None,
                self.level,
                self.grep,
            )
        except ValueError as error:
            raise CommandError(str(error)) from None


class Source(Protocol):
    """One agent's log."""

    agent: str

    @property
    def gaps(self) -> int:
        """How often output was rotated away before it was read."""
        ...

    def kept(self) -> Generator[Line]:
        """Yield what is there, from where was asked for."""
        ...

    def fresh(self, *, partial: bool) -> Generator[Line]:
        """Yield what came since; `partial`: also a line that has no end yet."""
        ...

    def close(self) -> None: ...


class Local:
    """The files of an agent on this machine."""

    def __init__(self, folder: Path, wanted: Wanted) -> None:
        self.agent = folder.name
        self._reader = Reader(folder)
        self._wanted = wanted
        self._filter = wanted.filter()

    @property
    def gaps(self) -> int:
        return self._reader.gaps

    def kept(self) -> Generator[Line]:
        wanted = self._wanted
        if wanted.since is not None:
            self._reader.begin_at(wanted.since.encode())
        elif wanted.last is not None and not wanted.narrows:
            self._reader.begin_with_last(wanted.last)
        yield from self._filter.choose(self._reader.read())

    def fresh(self, *, partial: bool) -> Generator[Line]:
        yield from self._filter.choose(self._reader.read(partial=partial))

    def close(self) -> None:
        self._reader.close()


class Remote:
    """An agent's log behind a hub."""

    def __init__(self, hub: Hub, agent: str, wanted: Wanted) -> None:
        self.agent = agent
        self.gaps = 0
        self._hub = hub
        self._wanted = wanted
        self._after: str | None = None
        self._plain = Filter()

    def kept(self) -> Generator[Line]:
        wanted = self._wanted
        if wanted.last is not None and not wanted.narrows and wanted.last <= MOST_LINES:
            answer = self._ask(tail=max(1, wanted.last))
            lines = texts(answer.get("lines"))
            yield from self._read(lines[len(lines) - wanted.last :])
            return
        query: dict[str, Any] = {
            "since": wanted.since or "1970-01-01T00:00:00Z", "until": wanted.until,
            "level": wanted.level, "grep": wanted.grep,
        }  # fmt: skip
        yield from self._pages(query)

    def fresh(self, *, partial: bool) -> Generator[Line]:
        del partial  # only whole lines travel
        wanted = self._wanted
        query: dict[str, Any] = {
            "until": wanted.until, "level": wanted.level, "grep": wanted.grep,
        }  # fmt: skip
        if self._after is None:
            query["since"] = wanted.since or "1970-01-01T00:00:00Z"
        yield from self._pages(query)

    def close(self) -> None:
        pass

    def _pages(self, query: dict[str, Any]) -> Generator[Line]:
        while True:
            answer = self._ask(after=self._after, **query)
            yield from self._read(texts(answer.get("lines")))
            if answer.get("more") is not True:
                return
            query.pop("since", None)

    def _ask(self, **query: Any) -> dict[str, Any]:
        answer = record(self._hub.get(path_of("agents", self.agent) + "/logs", **query))
        after = answer.get("after")
        if isinstance(after, str):
            self._after = after
        self.gaps += answer.get("gap") is True
        return answer

    def _read(self, lines: Sequence[str]) -> Generator[Line]:
        yield from self._plain.choose(f"{line}\n".encode("utf-8", "replace") for line in lines)


def local_names(data: Path) -> list[str]:
    """Return who has printed something. Raises CommandError."""
    home = data / "logs"
    try:
        return sorted(entry.name for entry in home.iterdir() if entry.is_dir())
    except FileNotFoundError:
        raise CommandError(f"{data} holds no output; start a fleet with: midwatch up") from None
    except OSError as error:
        raise CommandError(f"cannot read {home}: {error.strerror}") from None


def remote_names(hub: Hub) -> list[str]:
    """Return the agents that a hub knows."""
    return sorted(str(agent["agent"]) for agent in hub.items("/api/agents") if "agent" in agent)


def pick(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Return the agents that are asked for. Raises CommandError with the nearest name."""
    for pattern in patterns:
        if not chosen(names, [pattern], POSTS):
            known = f"; known: {', '.join(names[:20])}" if names else "; nothing has printed yet"
            raise CommandError(
                f"there is no output of an agent {pattern!r}{did_you_mean(pattern, list(names)) or known}",
                USAGE,
            )
    return chosen(names, patterns, POSTS)
