"""Why a run ended, read from what is known at its end. Pure.

A wish of ours (stop, hang, limit) explains an end before anything else does, then the status, then
the memory before it, then the last lines of output. One table holds the texts of refused
credentials; its tests hold what the real clients print.
"""

from __future__ import annotations

import errno
import re
import signal
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from midwatch.core import units

NEAR_LIMIT: Final = 0.9
"""A SIGKILL with at least this part of the memory limit in use counts as out of memory."""

CREDENTIAL_LINES: Final = 20
"""How far back in the output a refused credential may explain the exit: the end of a traceback,
not a warning from an hour ago."""

TAIL_LINES: Final = 40
"""Lines of output that an end keeps."""


class End(StrEnum):
    """Why a run ended. The value travels as `end`."""

    FINISHED = "finished"  # said that its work is complete, then exit 0
    SILENT = "silent"  # exit 0 of an agent that should be running
    FAILED = "failed"  # exit code other than 0
    SIGNAL = "signal"  # ended by a signal from outside
    OUT_OF_MEMORY = "out-of-memory"
    CREDENTIALS = "credentials"  # its key was refused or is missing
    HUNG = "hung"  # we stopped it: no evidence of progress
    WALL_CLOCK = "wall-clock"  # we stopped it: it ran past its time
    LIMIT = "limit"  # we stopped it: at its limit of processes, files or disk
    RATE_LIMITED = "rate-limited"  # its provider refused it for a while
    CONFIGURATION = "configuration"  # its settings are wrong or missing
    DEPENDENCY = "missing-dependency"  # a module or program that it needs is not there
    PLANNED = "planned-restart"  # we restarted it before it could fail: it grew towards a limit
    CHANGED = "changed"  # its entry in the fleet file changed, or the schedule replaced its run
    CANNOT_START = "cannot-start"  # the program could not be executed
    OPERATOR = "operator"  # a person wanted it
    SUSPENDED = "suspended"  # a person or detector suspended it
    SHUTDOWN = "shutdown"  # the instance stops
    LOST = "lost"  # its supervisor died and took it along


EXPECTED: Final = frozenset(
    {End.FINISHED, End.OPERATOR, End.SUSPENDED, End.SHUTDOWN, End.PLANNED, End.CHANGED}
)
"""Ends that somebody wanted: no failure, no incident."""


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
    host_oom_kills: int = 0
    """Kills by the kernel's memory killer, host-wide, since the run's last sample."""
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

_CREDENTIALS: Final[tuple[tuple[re.Pattern[str], str | None], ...]] = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        # openai, Python and Node; also any server that speaks its dialect
        (
            r"openai\.AuthenticationError|Incorrect API key provided|\binvalid_api_key\b",
            "OPENAI_API_KEY",
        ),
        (
            r"openai\.OpenAIError: (?:Missing credentials|The api_key client option must be set)",
            "OPENAI_API_KEY",
        ),
        (r"You didn't provide an API key", "OPENAI_API_KEY"),
        # anthropic
        (
            r"anthropic\.(?:AuthenticationError|PermissionDeniedError)|invalid x-api-key",
            "ANTHROPIC_API_KEY",
        ),
        (r"Could not resolve authentication method", "ANTHROPIC_API_KEY"),
        (r"x-api-key header is required", "ANTHROPIC_API_KEY"),
        # google
        (r"API key not valid\. Please pass a valid API key|\bAPI_KEY_INVALID\b", "GEMINI_API_KEY"),
        (r"Missing key inputs argument|No API_KEY or ADC found", "GEMINI_API_KEY"),
        # others that agents meet
        (
            r"\bExpiredTokenException\b|\bUnrecognizedClientException\b|\bInvalidAccessKeyId\b",
            "AWS_ACCESS_KEY_ID",
        ),
        (r"huggingface_hub\.\S*(?:GatedRepoError|LocalTokenNotFoundError)", "HF_TOKEN"),
        (r"\bBad credentials\b", "GITHUB_TOKEN"),
        # last: says what, not whose
        (r"\bAuthenticationError\b|\bauthentication_error\b", None),
        (r"(?i)\b(?:401 unauthorized|http 401|status[ _]code:? 401|error code: 401)\b", None),
        (
            r"(?i)\b(?:invalid|expired|revoked|missing) (?:api[ _-]?key|access token|credentials)\b",
            None,
        ),
    )
)
"""Texts of a refused or missing credential, the more telling first, and the variable they mean."""

_VARIABLE: Final = re.compile(r"\b([A-Z][A-Z0-9_]*_(?:API_KEY|TOKEN|SECRET|ACCESS_KEY|KEY))\b")
"""A variable that the message names itself tells more than the table does."""

_SECOND_NAMES: Final = frozenset({"OPENAI_ADMIN_KEY"})
"""Variables that a message names beside the usual one."""

_OUT_OF_MEMORY: Final = re.compile(
    r"^MemoryError\b|JavaScript heap out of memory|std::bad_alloc|fatal error: runtime: out of memory"
    r"|java\.lang\.OutOfMemoryError|memory allocation of \d+ bytes failed"
)


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
    credential = find_credential(facts.tail)
    if credential is not None:
        name, line = credential
        return Verdict(End.CREDENTIALS, f"its credential was refused: {line}", name, useless=True)
    if code == 0:
        return Verdict(End.SILENT, "ended with code 0 without having said that it was done")
    if any(_OUT_OF_MEMORY.search(line) for line in facts.tail[-CREDENTIAL_LINES:]):
        return Verdict(End.OUT_OF_MEMORY, f"ran out of memory, exit code {code}{_growth(facts)}")
    said = last_words(facts.tail)
    return Verdict(End.FAILED, f"exit code {code}" + (f": {said}" if said else ""))


def find_credential(tail: list[str]) -> tuple[str, str] | None:
    """Return (name, line) of the refused credential that `tail` tells of, or None.

    The name is the environment variable where it can be told, else `API key`.
    """
    recent = tail[-CREDENTIAL_LINES:]
    for pattern, usual in _CREDENTIALS:
        for line in reversed(recent):
            if pattern.search(line) is None:
                continue
            named = [n for n in _VARIABLE.findall(line) if n not in _SECOND_NAMES]
            return (named[0] if named else usual or "API key"), _clip(line)
    return None


def last_words(tail: list[str]) -> str:
    """Return the last line that says something, clipped; empty when there is none."""
    for line in reversed(tail):
        if line.strip():
            return _clip(line)
    return ""


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
    if number == signal.SIGKILL:
        limit, rss = facts.rss_limit_bytes, facts.rss_bytes
        if limit and rss is not None and rss >= NEAR_LIMIT * limit:
            return Verdict(
                End.OUT_OF_MEMORY, f"killed (SIGKILL) near its memory limit{_growth(facts)}"
            )
        if facts.host_oom_kills > 0:
            return Verdict(
                End.OUT_OF_MEMORY,
                f"killed (SIGKILL) while the host ran out of memory{_growth(facts)}",
            )
    if number == signal.SIGTERM and facts.said_done:
        return Verdict(End.FINISHED, "ended by SIGTERM after it had said that it stops")
    return Verdict(End.SIGNAL, f"ended by {signal_name(number)}, which nobody here sent")


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
