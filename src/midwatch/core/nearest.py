"""The nearest valid name: what a person most likely meant by one that does not exist."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the name closest to `name`, or None when none is close. Case and `-`/`_` count little."""
    plain = {_plain(known): known for known in sorted(names, reverse=True)}
    close = difflib.get_close_matches(_plain(name[:100]), plain, n=1, cutoff=0.66)
    return plain[close[0]] if close else None


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return `; did you mean 'x'?`, or nothing when no name is close."""
    close = nearest(name, names)
    return f"; did you mean {close!r}?" if close else ""


def _plain(name: str) -> str:
    return name.casefold().replace("-", "_").replace(" ", "_")
