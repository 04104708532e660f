"""Why a run ended, read from what is known at its end. Pure.

A wish of ours (stop, hang, limit) explains an end before anything else does, then the status, then
the memory before it, then the closing words of the output (`endtexts`). What cannot be told is a
failure with its code, never a guess: a class decides whether the agent is parked.
"""

from __future__ import annotations

import errno
import signal
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from midwatch.core import closing, endtexts, units
from midwatch.core.ends import EXPECTED, End

NEAR_LIMIT: Final = 0.9
"""A SIGKILL with at least this part of the memory limit in use counts as out of memory."""

TAIL_LINES: Final = 40
"""Lines of output that an end keeps."""


class Wish(StrEnum):
    """What we asked for before the run ended."""

    STOP = "stop"
    KILL = "kill"
    RESTART = "restart"
    SUSPEND = "suspend"
    SHUTDOWN = "shutdown"
    HUNG = "hung"
    WALL = "wall"
    MEMORY = "memory"
    LIMIT = "limit"
    PLANNED = "planned"
    CHANGE = "change"


AGAIN: Final = frozenset({Wish.RESTART, Wish.PLANNED, Wish.CHANGE})
"""Wishes after which the next run begins at once, and no failure is counted."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known when a run has ended."""

    exit_code: int | None = None
    signal: int | None = None
    wish: Wish | None = None
    wish_reason: str = ""
    said_done: bool = False
    """READ from the notify socket: X_MIDWATCH_DONE or STOPPING."""
    long_lived: bool = True
    """False for a run of a schedule: exit 0 is how it ends."""
    rss_bytes: int | None = None
    rss_limit_bytes: int | None = None
    rss_slope_bytes_h: float | None = None
    oom_kills: int | None = None
    """Kills by the kernel in the run's own cgroup; None when it has none."""
    host_oom_kills: int = 0
    """Kills by the kernel's memory killer, host-wide, since the run's last sample."""
    host_stops: str = ""
    """Why the machine is going down; empty when it is not."""
    tail: list[str] = field(default_factory=list[str])
    start_errno: int | None = None
    start_problem: str = ""
    duration_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why the run ended: class, sentence, and the credential's name when that was it."""

    end: End
    reason: str
    credential: str | None = None
    useless: bool = False
    """True when a restart cannot help: a refused key, a program that does not exist."""
    retry_after_s: float | None = None
    """For how long the provider asked to be left alone."""
    said: str = ""
    """The line of output that explains it."""
    mark: str = ""
    """What stays the same when the same failure happens again; empty: not compared."""

    @property
    def expected(self) -> bool:
        return self.end in EXPECTED


_WISHES: Final[dict[Wish, End]] = {
    Wish.STOP: End.OPERATOR,
    Wish.KILL: End.OPERATOR,
    Wish.RESTART: End.OPERATOR,
    Wish.SUSPEND: End.SUSPENDED,
    Wish.SHUTDOWN: End.SHUTDOWN,
    Wish.HUNG: End.HUNG,
    Wish.WALL: End.WALL_CLOCK,
    Wish.MEMORY: End.OUT_OF_MEMORY,
    Wish.LIMIT: End.LIMIT,
    Wish.PLANNED: End.PLANNED,
    Wish.CHANGE: End.CHANGED,
}

_USELESS_ERRNO: Final = frozenset(
    {
        errno.ENOENT,
        errno.EACCES,
        errno.EPERM,
        errno.ENOEXEC,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.ELOOP,
    }
)
"""Failures of exec that stay until a person changes something; EAGAIN, ENOMEM, ETXTBSY pass."""

_SHELL_SIGNAL: Final = 128
"""A shell between us and the program reports a signal n as exit code 128 + n."""

_SHELL_SIGNALS: Final = frozenset(
    {signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGTERM, signal.SIGINT}
)

_STOP_SIGNALS: Final = frozenset(
    {signal.SIGTERM, signal.SIGKILL, signal.SIGHUP, signal.SIGINT, signal.SIGPWR}
    if hasattr(signal, "SIGPWR")
    else {signal.SIGTERM, signal.SIGKILL, signal.SIGHUP, signal.SIGINT}
)
"""What a machine that goes down sends to everything."""

_SAID: Final[dict[End, str]] = {
    End.CREDENTIALS: "its credential was refused",
    End.RATE_LIMITED: "its provider refused it for a while",
    End.QUOTA: "the quota of its account is used up",
    End.BUDGET: "its budget is used up",
    End.SUSPENDED: "the gateway refuses its calls",
    End.CONFIGURATION: "its configuration is wrong",
    End.DEPENDENCY: "something that it needs is missing",
}


def classify(facts: Facts) -> Verdict:
    """Return why a run ended. The order is the order of certainty."""
    if facts.start_errno is not None:
        return Verdict(
            End.CANNOT_START, facts.start_problem, useless=facts.start_errno in _USELESS_ERRNO
        )
    if facts.wish is not None:
        reason = facts.wish_reason or f"stopped: {facts.wish}"
        if facts.wish is Wish.MEMORY:
            reason += _growth(facts)
        return Verdict(_WISHES[facts.wish], reason)
    number = _signal_of(facts)
    if number is not None:
        return _by_signal(number, facts)
    code = facts.exit_code or 0
    if code == 0 and (facts.said_done or not facts.long_lived):
        return Verdict(End.FINISHED, "finished its work")
    found = endtexts.find(facts.tail, code=code, ran_s=facts.duration_s)
    if found is not None:
        return _by_words(found, code, facts)
    said = last_words(facts.tail)
    if code == 0:
        mark = endtexts.mark_of(End.SILENT, said)
        reason = "ended with code 0 without having said that it was done"
        return Verdict(End.SILENT, reason, said=said, mark=mark)
    reason = f"exit code {code}" + (f": {said}" if said else "")
    return Verdict(
        End.FAILED, reason, said=said, mark=endtexts.mark_of(End.FAILED, f"{code} {said}")
    )


def _by_words(found: endtexts.Found, code: int, facts: Facts) -> Verdict:
    line = _clip(found.line)
    mark = endtexts.mark_of(found.end, line)
    if found.end is End.OUT_OF_MEMORY:
        return Verdict(found.end, f"ran out of memory, exit code {code}{_growth(facts)}", mark=mark)
    return Verdict(
        found.end,
        f"{_SAID[found.end]}: {line}",
        found.credential,
        # a budget that says no time does not come back by itself
        useless=(found.end is End.CREDENTIALS and found.sure)
        or (found.end is End.BUDGET and found.retry_after_s is None),
        retry_after_s=found.retry_after_s,
        said=line,
        mark=mark,
    )


def is_stop_signal(facts: Facts) -> bool:
    """Tell whether the run ended as it would if the machine, or its session, were being stopped.

    Nobody here asked for it. A shell reports the signal as a code.
    """
    return facts.wish is None and _signal_of(facts) in _STOP_SIGNALS - {signal.SIGKILL}


def last_words(tail: list[str]) -> str:
    """Return the line that says most about the end, clipped; empty when there is none."""
    return _clip(closing.headline(tail))


def signal_name(number: int) -> str:
    """Return `SIGKILL` for 9; the bare number when the platform has no name for it."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _signal_of(facts: Facts) -> int | None:
    if facts.signal is not None:
        return facts.signal
    number = (facts.exit_code or 0) - _SHELL_SIGNAL
    return number if number in _SHELL_SIGNALS else None


def _by_signal(number: int, facts: Facts) -> Verdict:
    if number == signal.SIGKILL and (cause := _memory_kill(facts)):
        return Verdict(End.OUT_OF_MEMORY, f"killed (SIGKILL) {cause}{_growth(facts)}")
    if facts.host_stops and number in _STOP_SIGNALS:
        return Verdict(End.HOST_SHUTDOWN, f"stopped with the machine: {facts.host_stops}")
    if number == signal.SIGTERM and facts.said_done:
        return Verdict(End.FINISHED, "ended by SIGTERM after it had said that it stops")
    name = signal_name(number)
    if number in (signal.SIGABRT, signal.SIGTRAP, signal.SIGILL):
        # a runtime without memory says so, and then ends itself
        found = endtexts.find(facts.tail, code=None, ran_s=facts.duration_s)
        if found is not None:
            return Verdict(End.OUT_OF_MEMORY, f"ran out of memory, {name}{_growth(facts)}")
    if number == signal.SIGXFSZ:
        return Verdict(End.LIMIT, "a file reached the largest size that it may have (SIGXFSZ)")
    mark = endtexts.mark_of(End.SIGNAL, name)
    return Verdict(End.SIGNAL, f"ended by {name}, which nobody here sent", mark=mark)


def _memory_kill(facts: Facts) -> str:
    """Return what speaks for a kill for memory; empty when nothing does."""
    if facts.oom_kills:
        return "by the kernel at its memory limit"
    limit, rss = facts.rss_limit_bytes, facts.rss_bytes
    if limit and rss is not None and rss >= NEAR_LIMIT * limit:
        return "near its memory limit"
    return "while the host ran out of memory" if facts.host_oom_kills > 0 else ""


def _growth(facts: Facts) -> str:
    if facts.rss_bytes is None:
        return ""
    text = f" ({units.show_size(facts.rss_bytes)}"
    if facts.rss_limit_bytes:
        text += f" of {units.show_size(facts.rss_limit_bytes)}"
    slope = facts.rss_slope_bytes_h
    if slope is not None and abs(slope) >= 1024 * 1024:
        text += f", {'+' if slope > 0 else ''}{units.show_size(slope)} an hour"
    return text + ")"


def _clip(line: str, limit: int = 300) -> str:
    text = line.strip()
    return text if len(text) <= limit else text[: limit - 1] + "…"
