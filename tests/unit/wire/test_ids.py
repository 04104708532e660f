from __future__ import annotations

import uuid

from midwatch.wire.ids import new_id


def test_ids_are_uuid_version_7_and_sort_by_time() -> None:
    early, late = uuid.UUID(new_id(1_000)), uuid.UUID(new_id(2_000))
    assert early.version == late.version == 7
    assert early.variant == uuid.RFC_4122
    assert early < late
    assert early.int >> 80 == 1_000


def test_ids_of_one_millisecond_differ() -> None:
    assert len({new_id(1_000) for _ in range(1_000)}) == 1_000
