"""Fixtures of the suites of the ledger."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from ledgers import another, ledger, place, server

__all__ = ["another", "ledger", "place", "server"]
