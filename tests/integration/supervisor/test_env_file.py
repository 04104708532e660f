"""Env files on the disk: an agent may be able to write there."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from midwatch.core.errors import SetupError
from midwatch.supervisor.environment import MAX_ENV_FILE_BYTES, read_env_file


@pytest.mark.parametrize("writer", [False, True], ids=["nobody writes", "somebody writes nothing"])
def test_a_pipe_in_its_place_keeps_nobody_waiting(tmp_path: Path, writer: bool) -> None:
    file = tmp_path / ".env"
    os.mkfifo(file)
    other = os.open(file, os.O_RDWR) if writer else -1
    # a reader that waits would wait for ever: somebody has to let it go
    rescue = threading.Timer(10, lambda: file.write_text("LATE=1\n"))
    rescue.daemon = True
    rescue.start()
    with pytest.raises(SetupError, match="it is a pipe"):
        read_env_file(file, "inbox")
    rescue.cancel()
    if writer:
        os.close(other)


def test_a_file_that_is_too_large_says_so(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_bytes(b"#" * (MAX_ENV_FILE_BYTES + 1))
    with pytest.raises(SetupError, match="larger than 1 MiB"):
        read_env_file(file, "inbox")


def test_no_variables_are_none(tmp_path: Path) -> None:
    assert read_env_file(Path(os.devnull), "inbox") == {}
