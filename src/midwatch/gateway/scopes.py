"""What a long-lived key may use: patterns such as `gpt-4o*` or `anthropic/*`."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

from midwatch.core.calls.chain import Place


def may_use(patterns: Sequence[str], place: Place) -> bool:
    """Tell whether a key's patterns cover a place, by its model's name or with the provider in front."""
    return any(
        fnmatch.fnmatchcase(place.model, pattern) or fnmatch.fnmatchcase(place.name, pattern)
        for pattern in patterns
    )
