from __future__ import annotations

from datetime import UTC, datetime

from midwatch.store.columns import BEATS, TABLES
from midwatch.wire.items import FIELDS, Kind, read


def test_every_known_field_has_a_column() -> None:
    for kind in (Kind.BEAT, Kind.EVENT, Kind.SAMPLE):
        known = set(FIELDS[kind]) - {"at", "cost_usd"}
        assert known <= set(TABLES[kind].columns)


def test_unknown_fields_and_money_survive_the_round_trip() -> None:
    item = read(
        Kind.BEAT,
        {"agent": "a", "at": 1.5e9 + 0.25, "cost_usd": 0.1, "draining": True, "new": {"x": [1]}},
        1.5e9,
    )
    row = BEATS.row(item, datetime.now(UTC))
    # as the database gives it back: times as microseconds
    row[3], row[4] = round(row[3].timestamp() * 1e6), 0
    assert BEATS.item(row) == item
