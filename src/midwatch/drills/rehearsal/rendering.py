"""What a dialect needs to render an answer, and how text is cut into streamed pieces."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

from midwatch.drills.rehearsal.question import Call, Question
from midwatch.drills.rehearsal.tokens import Usage


@dataclass(frozen=True, slots=True)
class Event:
    """One piece of a stream as it travels, and what of the answer it carries.

    A stream is charged by what of its answer was sent: `said` is that, as text.
    """

    data: bytes
    said: str = ""


@dataclass(frozen=True, slots=True)
class Rendering:
    """One answer, ready to travel. `token` is the unique part of all its ids."""

    token: str
    created: int
    model: str
    text: str
    calls: tuple[Call, ...]
    finish: Literal["end", "length", "stop", "calls", "filter"]
    """Why it ends; `filter`: the provider would not go on."""
    stop: str | None
    """The stop sequence that ended the text, when `finish` is stop."""
    usage: Usage
    include_usage: bool
    question: Question
    thoughts: str = ""
    """What is shown of its reasoning."""
    tier: str = ""
    """The service tier that it was served on, in the dialect's own word."""
    malformed: bool = False
    """The arguments of its calls are broken on purpose."""


EFFORTS: Final = {"none": 0, "minimal": 16, "low": 64, "medium": 128, "high": 256, "xhigh": 512}
"""Tokens of reasoning for each effort that a client can ask for."""
_THINKERS: Final = re.compile(r"o\d|gpt-5|gemini-(2\.5|[3-9])")


def thinking(model: str, effort: str | None) -> int:
    """Return the tokens of reasoning for an effort; without one, models made to think do so a little."""
    if effort is None:
        return EFFORTS["low"] if _THINKERS.match(model) else 0
    return EFFORTS.get(effort, EFFORTS["medium"])


def pieces(text: str) -> Iterator[str]:
    """Yield a text in pieces of about three words, as models stream it; joined they are the text."""
    for found in re.finditer(r"(?:\s*\S{1,40}){1,3}|\s+", text):
        yield found[0]


def end_text(
    text: str, stops: tuple[str, ...], max_tokens: int | None
) -> tuple[str, str | None, bool]:
    """Return the text up to its end: the first stop sequence, or `max_tokens`.

    The second value is the stop sequence that was met, the third tells whether it was too long.
    """
    met = min((s for s in stops if s and s in text), key=text.index, default=None)
    if met is not None:
        text = text[: text.index(met)]
    if max_tokens is not None and len(text.encode("utf-8", "replace")) > max_tokens * 4:
        return (
            text.encode("utf-8", "replace")[: max_tokens * 4].decode("utf-8", "ignore"),
            None,
            True,
        )
    return text, met, False
