"""`midwatch forget`: exported first, asked for, proved."""

from __future__ import annotations

import json
from pathlib import Path

from tests.integration.cli.conftest import FakeHub, Midwatch

GONE = {
    "before": {"spans": 12, "contents": 3, "points": 0, "logs": 1},
    "after": {"spans": 0, "contents": 0, "points": 0, "logs": 0},
    "complete": True,
    "freed_bytes": 4096,
}


def test_what_is_named_is_exported_deleted_and_proved(
    midwatch: Midwatch, data: Path, hub: FakeHub, tmp_path: Path
) -> None:
    for signal in GONE["before"]:  # type: ignore[attr-defined]
        hub.routes[f"GET /api/export/{signal}"] = f"file of {signal}".encode()
    hub.routes["POST /api/forget"] = GONE
    folder = tmp_path / "kept"
    ended = midwatch(
        "forget", "--user", "ann", "--tag", "customer=acme", "--export-to", folder, "--yes", "--data", data
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert (folder / "spans.parquet").read_bytes() == b"file of spans"
    assert sorted(p.name for p in folder.iterdir()) == [
        "contents.parquet",
        "logs.parquet",
        "points.parquet",
        "spans.parquet",
    ]
    assert hub.asked[-1] == (
        "POST /api/forget",
        {},
        {"users": ["ann"], "tags": {"customer": "acme"}},
    )
    assert hub.asked[0][1]["user"] == "ann"
    assert "spans     12     0" in ended.out


def test_an_export_that_fails_deletes_nothing(
    midwatch: Midwatch, data: Path, hub: FakeHub, tmp_path: Path
) -> None:
    hub.routes["POST /api/forget"] = GONE
    ended = midwatch("forget", "--user", "ann", "--export-to", tmp_path / "x", "--yes", "--data", data)  # fmt: skip
    assert ended.code != 0
    assert not any(route == "POST /api/forget" for route, _, _ in hub.asked)


def test_what_is_left_exits_1(midwatch: Midwatch, data: Path, hub: FakeHub) -> None:
    left = {**GONE, "after": {"spans": 1, "contents": 0, "points": 0, "logs": 0}, "complete": False}
    hub.routes["POST /api/forget"] = left
    ended = midwatch("forget", "--session", "s1", "--yes", "--json", "--data", data)
    assert ended.code == 1
    assert json.loads(ended.out) == {**left, "exported": []}


def test_nothing_goes_without_a_name_or_a_yes(midwatch: Midwatch, data: Path, hub: FakeHub) -> None:
    hub.routes["POST /api/forget"] = GONE
    for arguments, said in (
        (["--yes"], "that would be everything"),
        (["--only", "spans", "--yes"], "that would be everything"),
        (["--session", "s1"], "give --yes"),
        (["--session", "s1", "--only", "beats", "--yes"], "expected one of"),
        (["--tag", "acme", "--yes"], "expected NAME=VALUE"),
    ):
        ended = midwatch("forget", *arguments, "--data", data)
        assert ended.code == 2
        assert said in ended.err
    assert hub.asked == []
