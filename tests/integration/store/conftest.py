"""The server that the tests of ClickHouse share: a worker starts it once."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from spans import clickhouse_server

__all__ = ["clickhouse_server"]
