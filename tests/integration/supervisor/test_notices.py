"""The notify sockets when their folder is in the way."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
from pathlib import Path
from typing import Final

import pytest

from midwatch.supervisor.machine.system import StartError
from midwatch.supervisor.notices import Notices
from midwatch.supervisor.run import BEAT
from midwatch.wire.notify import Notice

X_CHILD: Final = b"X_MIDWATCH_CHILD=%s"


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


async def test_who_speaks_is_told_by_the_kernel_and_files_sent_along_are_not_kept(
    tmp_path: Path,
) -> None:
    heard: list[tuple[Notice, int]] = []
    notices = Notices(tmp_path, asyncio.get_running_loop())
    path = notices.listen("inbox", lambda notice, sender: heard.append((notice, sender)))
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    child = X_CHILD % json.dumps({"self": True, "pid": 1, "agent": "inbox:x"}).encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, (tmp_path / "f").open("w") as f:
        sock.connect(path)
        for _ in range(50):
            socket.send_fds(sock, [b"WATCHDOG=1"], [f.fileno()])
            notices.drain("inbox")  # a socket holds only a few
        sock.send(child)
        notices.drain("inbox")
    known = os.getpid() if hasattr(socket, "SO_PASSCRED") else 0
    assert [sender for _, sender in heard] == [known] * 51
    assert heard[0][0] is BEAT
    assert heard[-1][0].sender == known
    if before:
        assert len(os.listdir("/proc/self/fd")) == before
    notices.close()
