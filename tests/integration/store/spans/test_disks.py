"""Disks that are full, and logs that end in the middle: what was refused is not there, what was kept is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from midwatch.core.counts import Counts
from midwatch.core.spans.form import Signal
from midwatch.store.spans.embedded import EmbeddedSpans
from midwatch.store.spans.manifest import MemoryManifest

sys.path.insert(0, str(Path(__file__).parents[3]))
from spans import batch, span

FILLER = str(Path(__file__).with_name("filler.py"))


def test_a_full_disk_refuses_what_it_cannot_keep_and_goes_on_when_there_is_room(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, FILLER, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["refused"] > 0
    assert len(said["kept"]) >= 4  # some before the disk was full, all after
    assert said["found"] == said["kept"]
    assert said["rows"] == 100 * len(said["kept"])
    assert said["why"] == ["False the telemetry store cannot write"]


@pytest.mark.parametrize("cut", [1, 9, 700, 5_000])
async def test_a_log_that_ends_in_the_middle_keeps_all_commits_before(
    tmp_path: Path, cut: int
) -> None:
    store = EmbeddedSpans(tmp_path / "a", MemoryManifest(), Counts())
    await store.open()
    for number in range(3):
        await store.append(
            batch(*(span(f"{number}/{at}", f"t{number}", start_s=at) for at in range(50)))
        )
    # as the disk is at this moment, less the end of the last commit
    (tmp_path / "b").mkdir()
    for path in (tmp_path / "a").glob("g*"):
        data = path.read_bytes()
        (tmp_path / "b" / path.name).write_bytes(data[:-cut] if path.suffix == ".wal" else data)
    await store.stop()
    torn = EmbeddedSpans(tmp_path / "b", MemoryManifest(), Counts())
    await torn.open()
    names = await torn.read(
        lambda view: view.cursor.execute(f"SELECT name FROM {view.rows(Signal.SPANS)}").fetchall()
    )
    assert {name.split("/")[0] for (name,) in names} == {"0", "1"}
    assert len(names) == 100
    assert (await torn.append(batch(span("2/0", "t2")))).new == 1
    await torn.stop()
