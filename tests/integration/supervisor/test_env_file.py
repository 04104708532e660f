"""Env files on the disk: an agent may be able to write there."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from midwatch.core.errors import SetupError
from midwatch.core.fleet import Agent, Fleet
from midwatch.supervisor.change.outfit import Outfit
from midwatch.supervisor.change.versions import Versions
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


def test_a_file_that_everybody_may_write_is_refused_unless_they_may_write_the_fleet_file(
    tmp_path: Path,
) -> None:
    file, fleet_file = tmp_path / ".env", tmp_path / "midwatch.yaml"
    file.write_text("A=1\n")
    fleet_file.touch(mode=0o644)
    for mode in (0o600, 0o644, 0o664):
        file.chmod(mode)
        assert read_env_file(file, "inbox", fleet_file) == {"A": "1"}
    file.chmod(0o666)
    with pytest.raises(SetupError, match=r"agents\.inbox\.env_file.*mode 0666.*chmod o-w"):
        read_env_file(file, "inbox", fleet_file)
    with pytest.raises(SetupError, match="mode 0666"):
        read_env_file(file, "inbox")
    fleet_file.chmod(0o666)  # as on file systems without modes
    assert read_env_file(file, "inbox", fleet_file) == {"A": "1"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_a_file_of_another_user_is_refused_unless_the_fleet_file_is_that_users(
    tmp_path: Path,
) -> None:
    file, fleet_file = tmp_path / ".env", tmp_path / "midwatch.yaml"
    file.write_text("A=1\n")
    fleet_file.touch()
    os.chown(file, 12_345, 12_345)
    with pytest.raises(SetupError, match=r"belongs to another user \(uid 12345\).*chown 0 "):
        read_env_file(file, "inbox", fleet_file)
    os.chown(fleet_file, 12_345, 12_345)
    assert read_env_file(file, "inbox", fleet_file) == {"A": "1"}


@pytest.fixture
def fitted(tmp_path: Path) -> Any:
    """Return the variables of `inbox` in a fleet of these agents."""

    def environment(**entries: dict[str, Any]) -> dict[str, str]:
        agents = {
            name: Agent.model_validate({"command": ["x"], **entry})
            for name, entry in entries.items()
        }
        fleet = Fleet(agents=agents, root=str(tmp_path))
        outfit = Outfit(
            root=str(tmp_path),
            data=tmp_path / "data",
            secret=b"s" * 32,
            hub_url="",
            gateway_url=None,
            rehearses=False,
            inherited={},
            listen=lambda _: "",
            versions=Versions(None, b"s" * 32),
            fleet=lambda: fleet,
        )
        return outfit.environment("inbox", agents["inbox"], "r1")

    (tmp_path / "out").mkdir()
    (tmp_path / "conf").mkdir()
    return environment


def test_what_a_walled_agent_may_have_made_is_not_given_to_one_without_walls(
    fitted: Any, tmp_path: Path
) -> None:
    (tmp_path / "out/.env").write_text("LD_PRELOAD=/srv/out/evil.so\n")
    inbox = {"env_file": "out/.env"}
    with pytest.raises(SetupError) as refused:
        fitted(inbox=inbox, burglar={"sandbox": {"write": ["out"]}})
    assert str(refused.value) == (
        f"agents.inbox.env_file: {str(tmp_path / 'out/.env')!r} lies where agent 'burglar' may write from inside its"
        " walls, and so might give variables to this agent, which has none; give 'burglar' a cwd of its own or fewer"
        " paths under sandbox.write, or move the file to a directory that its sandbox.read names"
    )
    with pytest.raises(SetupError, match="'burglar'"):
        fitted(inbox=inbox, burglar={"sandbox": {}})
    # who is read-only there, has no walls at all, or is the agent itself, has made nothing
    for harmless in ({"sandbox": {"read": ["out"]}}, {"sandbox": {"enabled": False}}, {}):
        assert "LD_PRELOAD" in fitted(inbox=inbox, other=harmless)
    assert "LD_PRELOAD" in fitted(inbox={**inbox, "sandbox": {}})


def test_a_link_in_writable_ground_is_not_followed_to_an_env_file(
    fitted: Any, tmp_path: Path
) -> None:
    (tmp_path / "conf/.env").write_text("A=1\n")
    (tmp_path / "out/link").symlink_to(tmp_path / "conf/.env")
    burglar = {"sandbox": {"write": ["out"]}}
    assert fitted(inbox={"env_file": "conf/.env"}, burglar=burglar)["A"] == "1"
    with pytest.raises(SetupError, match="'burglar'"):
        fitted(inbox={"env_file": "out/link"}, burglar=burglar)
