"""What a caller may say of its own calls: their task and their tags.

Such words choose budgets, keys and rules, and nobody can check them: an agent that may say anything can spend from
another customer's budget, or take the key that is kept for monitoring. Where that matters, the fleet file, or a
lasting key, says what may be said.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence

from midwatch.core.sealed import sealed


@sealed
class Labels:
    """What may be said. None: anything."""

    tasks: Sequence[str] | None = None
    """Patterns with * and ?."""
    tags: Mapping[str, Sequence[str]] | None = None
    """Tag → patterns of its values."""


def unfit(allowed: Labels, task: str | None, tags: Mapping[str, str]) -> str | None:
    """Return what a caller says that it may not, as the beginning of a sentence, or None."""
    if task and allowed.tasks is not None and not _fits(task, allowed.tasks):
        return f"the task {task[:80]!r} (x-midwatch-task)"
    if allowed.tags is not None:
        for name, value in tags.items():
            if not _fits(value, allowed.tags.get(name, ())):
                return f"the tag {f'{name}={value}'[:80]!r} (x-midwatch-tags)"
    return None


def own_tags(allowed: Labels, tags: Mapping[str, str]) -> dict[str, str]:
    """Return the tags that are a caller's own: those that it was allowed by name."""
    mine = allowed.tags or {}
    return {name: value for name, value in tags.items() if _fits(value, mine.get(name, ()))}


def _fits(word: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(word, pattern) for pattern in patterns)
