"""What the rehearsal model was asked, and how each call ended: for tests, and for people who wonder.

Bounded: the oldest are forgotten first, and how many were is told. Keys are shown only when they are
rehearsal keys; a real one that came here by mistake is not kept.
"""

from __future__ import annotations

from collections import deque
from dataclasses import asdict, dataclass, field
from typing import Any, Final

MAX_CALLS: Final = 10_000
"""Calls that are remembered."""
MAX_SHOWN: Final = 2_000
"""Characters of each text that are kept."""

MAX_HEADERS: Final = 50
"""Headers of a call that are kept."""
MAX_HEADER_CHARS: Final = 300
_SECRET: Final = frozenset(
    {"authorization", "proxy-authorization", "cookie", "api-key", "x-api-key", "x-goog-api-key"}
)


@dataclass(slots=True)
class Record:
    """One call, as it came and as it ended.

    `end` is `under-way` until it is `done`, `refused`, `left` (the client went away), or what the
    order made of it: `cut`, `stalled`, `broken`, `error`, `endless`.
    """

    number: int
    at: float
    api: str
    path: str
    model: str = ""
    agent: str = ""
    key: str = ""
    task: str = ""
    session: str = ""
    call: str = ""
    """The id that the client gave the call."""
    request_id: str = ""
    headers: dict[str, str] = field(default_factory=dict[str, str])
    """As they came, without what is secret."""
    query: dict[str, str] = field(default_factory=dict[str, str])
    body_bytes: int = 0
    body_sha256: str = ""
    """Of the body as it came: a proxy that is faithful to the byte does not change it."""
    stream: bool = False
    turn: int = 0
    system: str = ""
    user: str = ""
    tools: list[str] = field(default_factory=list[str])
    rule: str = ""
    behaviour: str = ""
    status: int = 0
    """0: no head was sent."""
    end: str = "under-way"
    text: str = ""
    called: list[str] = field(default_factory=list[str])
    input_tokens: int = 0
    cached_tokens: int = 0
    written_tokens: int = 0
    reasoning_tokens: int = 0
    output_tokens: int = 0
    duration_s: float = 0.0


class Calls:
    """The recent calls, oldest first."""

    def __init__(self) -> None:
        self._kept: deque[Record] = deque(maxlen=MAX_CALLS)
        self.total = 0

    def open(self, at: float, api: str, path: str) -> Record:
        """Begin a record."""
        self.total += 1
        record = Record(self.total, at, api, path)
        self._kept.append(record)
        return record

    def clear(self) -> int:
        """Forget all; numbers go on. Returns how many there were."""
        count = len(self._kept)
        self._kept.clear()
        return count

    def records(self) -> list[Record]:
        """Return all that are remembered, oldest first. Also from another thread."""
        return list(self._kept)

    def page(self, after: int, limit: int, model: str | None) -> dict[str, Any]:
        """Return records with a number above `after`, and how many there were in all."""
        found = [asdict(r) for r in self._kept if r.number > after and model in (None, r.model)]
        return {
            "calls": found[:limit],
            "total": self.total,
            "forgotten": self.total - len(self._kept),
        }


def show_headers(headers: dict[str, str]) -> dict[str, str]:
    """Return headers as they may be kept: few, short, and without secrets."""
    kept = list(headers.items())[:MAX_HEADERS]
    return {
        name[:100]: "…" if name in _SECRET else value[:MAX_HEADER_CHARS] for name, value in kept
    }


def show_query(query: dict[str, str]) -> dict[str, str]:
    """Return a query as it may be kept; Google's clients may put their key there."""
    kept = list(query.items())[:MAX_HEADERS]
    return {
        name[:100]: show_key(value) if name == "key" else value[:MAX_HEADER_CHARS]
        for name, value in kept
    }


def show_key(key: str) -> str:
    """Return a key as it may be kept: rehearsal keys whole, others masked."""
    return key if key.startswith("rehearsal") else f"{key[:3]}…" if key else ""
