"""What a dialect needs to render an answer, and how text is cut into streamed pieces."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from midwatch.drills.rehearsal.question import Call, Question
from midwatch.drills.rehearsal.tokens import Usage


@dataclass(frozen=True, slots=True)
class Rendering:
    """One answer, ready to travel. `token` is the unique part of all its ids."""

    token: str
    created: int
    model: str
    text: str
    calls: tuple[Call, ...]
    finish: Literal["end", "length", "stop", "calls"]
    stop: str | None
    """The stop sequence that ended the text, when `finish` is stop."""
    usage: Usage
    include_usage: bool
    question: Question


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
