"""The notify sockets when their folder is in the way."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from midwatch.supervisor.machine.system import StartError
from midwatch.supervisor.notices import Notices


async def test_a_folder_that_was_removed_is_made_again(tmp_path: Path) -> None:
    notices = Notices(tmp_path / "run", asyncio.get_running_loop())
    assert Path(notices.listen("inbox", lambda _, sender: None)).is_socket()
    shutil.rmtree(tmp_path / "run")
    assert Path(notices.listen("prices", lambda _, sender: None)).is_socket()
    notices.close()


async def test_a_socket_that_cannot_be_made_is_a_failed_start_with_its_reason(
    tmp_path: Path,
) -> None:
    (tmp_path / "inbox.sock").mkdir()
    notices = Notices(tmp_path, asyncio.get_running_loop())
    with pytest.raises(StartError, match=r"inbox\.sock"):
        notices.listen("inbox", lambda _, sender: None)
    notices.close()
