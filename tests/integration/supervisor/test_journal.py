"""The journal on a disk that fails."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from midwatch.supervisor import journal
from midwatch.supervisor.journal import Journal


def test_a_line_torn_by_a_full_disk_takes_no_later_line_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = Journal(tmp_path / "journal")

    def half(fd: int, data: bytes) -> None:
        os.write(fd, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(journal, "_write_all", half)
        book.started("inbox", "run-1", 7, 1.0, 1.0)
    assert book.failed_writes == 1
    book.hold("inbox", "stopped", "stopped by a person", 2.0)
    found = Journal(tmp_path / "journal")
    assert (found.of("inbox").held, found.of("inbox").run_id) == ("stopped", "run-1")
    assert found.damaged == 0
