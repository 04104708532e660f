"""`midwatch install-service` and `midwatch doctor` against real files, and systemd's own checker."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from midwatch.core.errors import SetupError
from midwatch.supervisor.datadir import DataDir

from .conftest import Ended, Midwatch  # noqa: TID252  there is no tests package

FLEET = """
agents:
  inbox: {command: [sh, -c, "sleep 1"], cwd: /tmp, limits: {stop_grace: 45s}}
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    folder = tmp_path / "my fleet 50%"
    folder.mkdir()
    (folder / "midwatch.yaml").write_text(FLEET)
    return folder / "midwatch.yaml"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
@pytest.mark.parametrize("scope", [(), ("--user",)], ids=["system", "user"])
def test_the_printed_unit_passes_systemds_own_checker(
    midwatch: Midwatch, fleet: Path, tmp_path: Path, scope: tuple[str, ...]
) -> None:
    ended = midwatch(
        "install-service", "-f", fleet, "--data", tmp_path / "da ta", "--print", *scope
    )
    assert ended.code == 0, ended.err
    (tmp_path / "midwatch.service").write_text(ended.out)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / "midwatch.service")],
        capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"},
    )  # fmt: skip
    about = [line for line in done.stderr.splitlines() if "midwatch.service" in line]
    assert (done.returncode, about) == (0, []), done.stderr


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from midwatch.cli import install_service

    monkeypatch.setattr(install_service, "_home", lambda _user: tmp_path / "home")
    return tmp_path / "home" / ".config/systemd/user/midwatch.service"


@pytest.mark.skipif(not shutil.which("systemctl"), reason="systemd is not installed")
def test_it_is_written_with_consent_alone_and_a_change_is_shown(
    midwatch: Midwatch, fleet: Path, home: Path
) -> None:
    asked = ("install-service", "--user", "-f", fleet)
    refused = midwatch(*asked)
    assert (refused.code, home.exists()) == (2, False)
    assert "add --yes" in refused.err
    written = midwatch(*asked, "--yes")
    assert written.code == 0
    assert "systemctl --user enable --now midwatch" in written.out
    assert "enable-linger" in written.out
    assert (home.stat().st_mode & 0o777, list(home.parent.iterdir())) == (0o644, [home])
    assert "is up to date" in midwatch(*asked, "--yes").out
    fleet.write_text(FLEET.replace("45s", "90s"))
    changed = midwatch(*asked, "--yes").out
    assert "-TimeoutStopSec=75s" in changed
    assert "+TimeoutStopSec=120s" in changed
    assert "TimeoutStopSec=120s" in home.read_text()


def test_a_fleet_that_is_wrong_is_no_service(midwatch: Midwatch, fleet: Path) -> None:
    fleet.write_text("agents: {a: {command: [sh], liveness: hartbeat}}")
    ended = midwatch("install-service", "-f", fleet, "--print")
    assert (ended.code, ended.out) == (2, "")
    assert "liveness" in ended.err


@pytest.mark.parametrize("name", ["a/b", "..", "x y"])
def test_a_name_that_is_none_is_refused(midwatch: Midwatch, fleet: Path, name: str) -> None:
    assert midwatch("install-service", "-f", fleet, "--name", name, "--print").code == 2


# -- doctor -----------------------------------------------------------------------------------


def test_the_doctor_finds_nothing_bad_in_a_fresh_set_up(
    midwatch: Midwatch, fleet: Path, tmp_path: Path
) -> None:
    fleet.write_text(FLEET + 'hub: {listen: "127.0.0.1:0"}\ngateway: {listen: "127.0.0.1:0"}\n')
    ended = midwatch("doctor", "-f", fleet, "--data", tmp_path / "data", "--json")
    document = json.loads(ended.out)
    assert (ended.code, document["ok"]) == (0, True), document
    assert {check["area"] for check in document["checks"]} == {"host", "fleet", "set-up"}
    assert not (tmp_path / "data").exists()


def test_what_is_bad_is_told_and_decides_the_exit_code_and_keys_stay_secret(
    midwatch: Midwatch, fleet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY_A", "sk-value-of-the-key")
    fleet.write_text(
        FLEET
        + "models: {providers: {openai: {kind: openai, keys: [{name: a, from: 'env:KEY_A'}, {name: b, from: 'env:KEY_B'}]}}}\n"
    )
    data = tmp_path / "data"
    data.mkdir(mode=0o755)
    (data / "token").write_text("mwt_x")
    (data / "token").chmod(0o644)
    ended = midwatch("doctor", "-f", fleet, "--data", data)
    assert ended.code == 1
    assert "env:KEY_A is there" in ended.out
    assert "env:KEY_B is not in the environment of this shell → export KEY_B" in ended.out
    assert "others may read" in ended.out
    assert "sk-value" not in ended.out + ended.err


def test_a_wrong_fleet_file_and_a_taken_port_are_bad(
    midwatch: Midwatch, fleet: Path, tmp_path: Path
) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        fleet.write_text(FLEET + f'hub: {{listen: "127.0.0.1:{port}"}}\n')
        ended = midwatch("doctor", "-f", fleet, "--data", tmp_path / "data")
    assert ended.code == 1
    assert f"127.0.0.1:{port}: Address already in use" in ended.out
    fleet.write_text("agents: {a: {command: [sh], livenes: output}}")
    ended = midwatch("doctor", "-f", fleet, "--data", tmp_path / "data")
    assert (ended.code, "livenes" in ended.out) == (1, True)


def test_the_doctor_believes_the_lock_and_no_pid(
    midwatch: Midwatch, fleet: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    told = {"delegation": "refused", "held_by": {"memory": "sampling", "open_files": "rlimit"}}
    lock = DataDir(data)
    try:
        lock.write_json("instance.json", {"pid": 999_999_999, "limits": told})
        running = _checks(midwatch("doctor", "-f", fleet, "--data", data, "--json"))
        with pytest.raises(SetupError):  # asking did not take it away
            DataDir(data)
    finally:
        lock.close()
    assert running["instance"] == "running without a hub, pid 999999999"
    assert running["limits"] == "memory by sampling; open files by rlimit (refused)"
    # killed: the file stays, and its pid is another process's by now
    (data / "instance.json").write_text(json.dumps({"pid": os.getpid(), "limits": told}))
    over = _checks(midwatch("doctor", "-f", fleet, "--data", data, "--json"))
    assert over["instance"] == "none is running; start it with midwatch up"
    assert over["limits"].startswith("an instance started here would have ")
    lock = DataDir(data)  # nothing is left of the question, nor of the one before
    starting = _checks(midwatch("doctor", "-f", fleet, "--data", data, "--json"))
    lock.close()
    assert starting["instance"] == "one is starting, or ending"


def test_an_instance_that_starts_while_somebody_asks_waits_for_the_answer(tmp_path: Path) -> None:
    DataDir(tmp_path).close()
    with (tmp_path / "lock").open() as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        answer = threading.Timer(0.03, fcntl.flock, (asking, fcntl.LOCK_UN))
        answer.start()
        DataDir(tmp_path).close()
        answer.join()


def _checks(ended: Ended) -> dict[str, str]:
    return {check["name"]: check["text"] for check in ended.json["checks"]}
