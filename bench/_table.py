"""The table that all benchmarks share: one row, in the form that `run.py` reads."""

from __future__ import annotations

from typing import Any


def row(
    what: str,
    ours: float,
    unit: str,
    target: float | None = None,
    peer: float | None = None,
    peer_name: str | None = None,
) -> dict[str, Any]:
    """Return a row; without `target` nothing can be missed, without `peer` nothing is comparable."""
    return {
        "what": what,
        "ours": ours,
        "peer": peer,
        "peer_name": peer_name,
        "unit": unit,
        "target": target,
        "ok": target is None or ours <= target,
    }
