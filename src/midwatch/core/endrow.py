"""One row of the table of ends: which words of which tool mean which end, and when they are believed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from midwatch.core.ends import End

EARLY_S: Final = 60.0
"""A program reads its settings when it starts: what fails later is more likely a file of its work."""


@dataclass(frozen=True, slots=True)
class Row:
    """One error of one tool."""

    name: str
    end: End
    about: str
    """What it is, for the reference."""
    words: re.Pattern[str]
    """In the statement."""
    credential: str | None = None
    """The variable that is meant when the text names none."""
    frames: re.Pattern[str] | None = None
    """In the traceback above the statement."""
    unless: re.Pattern[str] | None = None
    """In the statement: words that make it something else."""
    nowhere: re.Pattern[str] | None = None
    """In the whole tail: words that make it something else."""
    codes: frozenset[int] | None = None
    """Exit codes with which it is believed. None: any."""
    early: bool = False
    """Believed only within `EARLY_S` of the start."""
    general: bool = False
    """Any service says so, not only those that an agent lives on: it may concern one piece of its work."""


def row(
    name: str,
    end: End,
    about: str,
    words: str,
    *,
    credential: str | None = None,
    frames: str | None = None,
    unless: str | None = None,
    nowhere: str | None = None,
    codes: Sequence[int] | None = None,
    early: bool = False,
    general: bool = False,
) -> Row:
    """Return a row; words, frames and the like are patterns."""
    return Row(
        name,
        end,
        about,
        re.compile(words),
        credential,
        re.compile(frames) if frames else None,
        re.compile(unless) if unless else None,
        re.compile(nowhere) if nowhere else None,
        frozenset(codes) if codes is not None else None,
        early,
        general,
    )
