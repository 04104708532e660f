"""Whether a database takes what is written and shows it: for `/readyz`."""

from __future__ import annotations

import time
import uuid

from midwatch.core.errors import StoreError
from midwatch.store.clickhouse.client import ClickHouse
from midwatch.store.clickhouse.rows import encode


def probe(client: ClickHouse, holder: str) -> None:
    """Write and read one row for real; `holder` is who asks. Raises StoreError when either fails."""
    stamp = time.time_ns()
    row = encode([holder, stamp])
    client.insert("midwatch_probe", ["holder", "written"], [row], uuid.uuid4().hex)
    told = client.ask(
        "SELECT max(written) FROM midwatch_probe WHERE holder = {holder:String}",
        {"holder": holder},
    )
    if told.rows[0][0] < stamp:
        raise StoreError(f"{client.where} does not show what was just written")
