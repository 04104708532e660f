"""What cannot work is told in one message before anything starts: fleet file, ports, data directory.

Each case is given to the installed `midwatch up`: exit code 2, the place, what was expected and
what to do, no traceback; no agent ran, and what was there before is there unchanged.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml

from midwatch.drills.instance import Instance, free_port

Midwatch = Callable[..., Any]

GOOD = {"command": ["sh", "-c", "touch started; exec sleep 600"]}
"""An agent that leaves a trace of its start."""

IS_ROOT = os.geteuid() == 0


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Instance]:
    """An instance that is not running yet: a fleet file that is right, and free ports."""
    one = Instance(tmp_path, {"inbox": {**GOOD, "cwd": str(tmp_path / "work")}})
    yield one
    one.stop()


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory that an instance has used and left in good order."""
    with Instance(tmp_path_factory.mktemp("used"), {"outside": {"external": True}}) as one:
        one.post("/api/beats", {"agent": "outside", "tokens": 7})
    return one.data


@pytest.fixture
def refused(midwatch: Midwatch, tmp_path: Path) -> Callable[..., str]:
    """Return a function that runs `midwatch up`, proves the refusal and returns what it said."""

    def up(file: Path, data: Path, **how: Any) -> str:
        said = midwatch("up", "-f", file, "--data", data, cwd=tmp_path, patient=True, **how)
        assert said.code == 2, said
        assert said.out == ""
        assert "Traceback" not in said.err
        assert list(tmp_path.rglob("started")) == [], "an agent was started"
        return str(said.err)

    return up


# -- the fleet file --------------------------------------------------------------------------------

HELLO = "agents:\n  good: {command: [touch, started]}\n"

FILES = {
    "empty": (
        "",
        "1:1: the file is empty; begin with:\n\nagents:\n  hello:\n    command: [python3, -c,",
    ),
    "only comments": ("# to be written\n\n", "1:1: the file is empty; begin with:"),
    "tabs": (
        HELLO + "  inbox:\n\t\tcommand: [sleep, '60']\n",
        "4:1: a tab stands where YAML expects spaces; indent with spaces",
    ),
    "unknown key": (
        HELLO + "  inbox:\n    command: [sleep, '60']\n    heartbeet: {every: 5s}\n",
        "5:5: agents.inbox.heartbeet: unknown key; did you mean 'heartbeat'?",
    ),
    "wrong unit of time": (
        HELLO + "  inbox:\n    command: [sleep, '60']\n    heartbeat: {every: 5 parsecs}\n",
        "5:24: agents.inbox.heartbeat.every: expected a duration such as 90s, 5m, 2h or 1d, got '5 parsecs'",
    ),
    "wrong unit of size": (
        HELLO + "  inbox:\n    command: [sleep, '60']\n    limits: {memory: 5 GP}\n",
        "5:22: agents.inbox.limits.memory: expected a size such as 512MiB or 5GB, got '5 GP'",
    ),
    "missing command": (
        HELLO + "  inbox:\n    group: support\n",
        "3:3: agents.inbox: command is missing: write command: [program, argument…]",
    ),
    "command that does not exist": (
        HELLO + "  inbox:\n    command: [slep, '60']\n",
        "4:15: agents.inbox.command[0]: there is no program 'slep' in PATH; did you mean 'sleep'?",
    ),
    "script that does not exist": (
        HELLO + "  inbox:\n    command: [python3, agents/inbox.py]\n",
        "4:24: agents.inbox.command[1]: there is no file",
    ),
    "two agents of one name": (
        HELLO + "  inbox:\n    command: [sleep, '60']\n  inbox:\n    command: [sleep, '61']\n",
        "5:3: agents.inbox: stands here a second time, first on line 3; rename or remove one",
    ),
    "cron that never fires": (
        HELLO + "  inbox:\n    command: [sleep, '60']\n    schedule: {cron: '0 0 30 2 *'}\n",
        "5:22: agents.inbox.schedule.cron: expected a cron expression that fires some day, "
        "got '0 0 30 2 *'; no such day is in any calendar",
    ),
    "two problems in one list": (
        HELLO
        + "  inbox:\n    command: [sleep, '60']\n    instances: many\n    limits: {memory: 5}\n",
        "5:16: agents.inbox.instances: expected",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_bad_fleet_file_is_told_with_line_key_and_what_to_do(
    name: str, refused: Callable[..., str], tmp_path: Path
) -> None:
    text, says = FILES[name]
    file, data = tmp_path / "midwatch.yaml", tmp_path / "data"
    file.write_text(text)
    said = refused(file, data)
    assert said.startswith(f"{file}:{says}"), said
    lines = said.splitlines()
    count = 2 if name.startswith("two problems") else 1
    assert lines[-1] == f"midwatch: {count} problem{'s' * (count > 1)} in {file}"
    # each problem is said once, on a line of its own
    assert len([line for line in lines if line.startswith(f"{file}:")]) == count
    assert not data.exists(), "a data directory was made for a fleet that cannot run"


def test_check_lists_every_problem_at_once_for_machines(midwatch: Midwatch, tmp_path: Path) -> None:
    file = tmp_path / "midwatch.yaml"
    file.write_text(
        "agents:\n  inbox:\n    comand: [sleep]\n    heartbeat: {every: soon}\n"
        "  prices:\n    command: [sleep, '60']\n    schedule: {cron: '0 25 * * *'}\n"
    )
    said = midwatch("check", "-f", file, "--json")
    assert said.code == 2
    assert said.err == ""
    document = yaml.safe_load(said.out)
    assert document["ok"] is False
    assert [(p["line"], p["key"]) for p in document["problems"]] == [
        (3, "agents.inbox.comand"),
        (4, "agents.inbox.heartbeat.every"),
        (7, "agents.prices.schedule.cron"),
    ]
    assert "did you mean 'command'?" in document["problems"][0]["message"]


def test_a_missing_fleet_file_is_told_with_an_example(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    said = refused(tmp_path / "midwatch.yaml", tmp_path / "data")
    assert said.startswith(f"midwatch: there is no fleet file {str(tmp_path / 'midwatch.yaml')!r}")
    assert "command: [python3" in said


# -- ports -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", ["hub", "gateway"])
def test_a_port_in_use_is_told_with_its_holder(
    who: str, place: Instance, refused: Callable[..., str]
) -> None:
    listen = yaml.safe_load(place.file.read_text())[who]["listen"]
    host, _, port = listen.rpartition(":")
    with socket.create_server((host, int(port))) as taken:
        said = refused(place.file, place.data)
        assert taken.fileno() >= 0, "the other program was harmed"
    assert re.fullmatch(
        rf"midwatch: {who}\.listen: port {port} on 127\.0\.0\.1 is in use by pid {os.getpid()} \(.*\);"
        rf" stop that program, or set {who}\.listen in the fleet file to another port\n",
        said,
    ), said


# -- the data directory ----------------------------------------------------------------------------


@pytest.fixture
def mount() -> Iterator[Callable[..., None]]:
    """Return a function that lays a small file system over a directory, or changes it."""
    if not IS_ROOT or shutil.which("mount") is None:
        pytest.skip("mounting a file system takes root")
    with ExitStack() as stack:

        def lay(path: Path, options: str) -> None:
            path.mkdir(exist_ok=True)
            command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
            subprocess.run(command, check=True, capture_output=True)
            if "remount" not in options:
                undo = ["umount", "--lazy", str(path)]
                stack.callback(subprocess.run, undo, check=True, capture_output=True)

        yield lay


@pytest.fixture
def as_anybody() -> list[str]:
    """Return what a command is run under so that file permissions hold for it, root or not."""
    if not IS_ROOT:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("setpriv (util-linux) is missing, and permissions do not bind root")
    return ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--"]


def test_a_file_in_the_place_of_the_data_directory_is_left_alone(
    place: Instance, refused: Callable[..., str]
) -> None:
    place.data.write_text("a letter to the editor")
    for data in (place.data, place.data / "below"):
        said = refused(place.file, data)
        assert said == (
            f"midwatch: data directory {str(data)!r} is not a directory;"
            " choose another path with --data\n"
        )
    assert place.data.read_text() == "a letter to the editor"


def test_a_data_directory_that_may_not_be_written_is_told(
    place: Instance, refused: Callable[..., str], as_anybody: list[str]
) -> None:
    place.data.mkdir(mode=0o500)
    said = refused(place.file, place.data, under=as_anybody)
    assert said == (
        f"midwatch: data directory {str(place.data)!r} may not be written by this user;"
        " change its owner or choose another with --data\n"
    )
    assert list(place.data.iterdir()) == []


def test_a_data_directory_that_has_become_read_only_is_told_and_unchanged(
    place: Instance, used: Path, refused: Callable[..., str], mount: Callable[..., None]
) -> None:
    mount(place.data, "size=32m")
    shutil.copytree(used, place.data, dirs_exist_ok=True)
    before = _hashes(place.data)
    assert {Path("hub/state.db"), Path("hub/telemetry.duckdb"), Path("token")} <= set(before)
    mount(place.data, "remount,ro")
    said = refused(place.file, place.data)
    assert said == (
        f"midwatch: data directory {str(place.data)!r} is on a read-only file system;"
        " choose another directory with --data\n"
    )
    assert _hashes(place.data) == before


def test_a_data_directory_without_space_is_told_and_works_once_there_is_some(
    place: Instance, refused: Callable[..., str], mount: Callable[..., None]
) -> None:
    mount(place.data, "size=64k")
    filler = place.data / "filler"
    with pytest.raises(OSError, match="No space left"):
        filler.write_bytes(b"x" * 100_000)
    said = refused(place.file, place.data)
    assert said == (
        f"midwatch: data directory {str(place.data)!r} has no space left;"
        " free some, or choose another directory with --data\n"
    )
    filler.unlink()
    mount(place.data, "remount,size=32m")
    with place:
        assert place.wait(lambda: (place.work / "started").exists(), 40)


def test_a_data_directory_that_fills_up_at_the_start_is_told_too(
    place: Instance, refused: Callable[..., str], mount: Callable[..., None]
) -> None:
    # enough for the supervisor's own files, too little for the databases
    mount(place.data, "size=400k")
    said = refused(place.file, place.data)
    assert re.search(r"^midwatch: hub: .*cannot (use|open) \S+/hub/", said, re.MULTILINE), said
    assert re.search(r"cannot (use|open) \S+: .+; see permissions and free space of", said), said
    mount(place.data, "remount,size=32m")
    with place:
        assert place.wait(lambda: (place.work / "started").exists(), 40)


def test_a_data_directory_in_use_is_told_with_its_holder_who_goes_on(
    place: Instance, refused: Callable[..., str], tmp_path: Path
) -> None:
    with place:
        assert place.wait(lambda: (place.agent("inbox") or {}).get("state") == "running", 40)
        assert place.wait(lambda: (place.work / "started").exists(), 40)
        (place.work / "started").unlink()
        agent = place.agent("inbox")
        children = place.children()
        # another fleet, other ports, the same directory
        other = tmp_path / "other.yaml"
        document = yaml.safe_load(place.file.read_text())
        document["hub"]["listen"] = f"127.0.0.1:{free_port()}"
        document["gateway"]["listen"] = f"127.0.0.1:{free_port()}"
        other.write_text(yaml.safe_dump(document))
        kept = _hashes(place.data, "fleet.json", "instance.json", "token", "secret", "lock")
        said = refused(other, place.data)
        assert said == (
            f"midwatch: {str(place.data)!r} is in use by another instance (pid {place.pid});"
            " stop that one first, or choose another directory with --data\n"
        )
        assert _hashes(place.data, *map(str, kept)) == kept
        assert place.children() == children
        now = place.agent("inbox")
        assert agent is not None
        assert now is not None
        assert (now["pid"], now["state"]) == (agent["pid"], "running")
        assert place.get("/readyz")["status"] == "ok"


# -- a database of another version -------------------------------------------------------------------


def _newer_state(hub: Path) -> None:
    with sqlite3.connect(hub / "state.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    database.close()


def _newer_telemetry(hub: Path) -> None:
    with duckdb.connect(str(hub / "telemetry.duckdb")) as database:
        database.execute("INSERT INTO schema_version VALUES (9999)")


def _foreign_state(hub: Path) -> None:
    (hub / "state.db").write_bytes(b"not a database " * 1000)


def _torn_telemetry(hub: Path) -> None:
    content = bytearray((hub / "telemetry.duckdb").read_bytes())
    content[12:20] = struct.pack("<Q", 9999)
    (hub / "telemetry.duckdb").write_bytes(content)


DATABASES: dict[str, tuple[Callable[[Path], None], str]] = {
    "state of a newer version": (
        _newer_state,
        r"\S+/hub/state\.db was written by a newer Midwatch \(revision '9999', this one knows up to "
        r"'(\w+)'\): install that version again, there take it back with 'midwatch migrate --to \1', or give another "
        r"--data directory",
    ),
    "telemetry of a newer version": (
        _newer_telemetry,
        r"\S+/hub/telemetry\.duckdb was written by a newer Midwatch \(schema 9999, this one knows "
        r"\d+\): install that version again, or give another --data directory",
    ),
    "state that is no database": (
        _foreign_state,
        r"\S+/hub/state\.db is not a database .*: move it away, or give another --data directory",
    ),
    "telemetry with a broken header": (
        _torn_telemetry,
        r"\S+/hub/telemetry\.duckdb cannot be read by this version: .*move it away, or give another "
        r"--data directory",
    ),
}


@pytest.mark.parametrize("name", DATABASES)
def test_a_database_that_cannot_be_read_is_told_and_left_as_it_is(
    name: str, place: Instance, used: Path, refused: Callable[..., str]
) -> None:
    change, says = DATABASES[name]
    shutil.copytree(used, place.data)
    change(place.data / "hub")
    files = ("hub/state.db", "hub/telemetry.duckdb", "token", "secret")
    before = _hashes(place.data, *files)
    said = refused(place.file, place.data)
    assert re.search(rf"^midwatch: hub: .*{says}$", said, re.MULTILINE), said
    assert _hashes(place.data, *files) == before
    assert not (place.data / "instance.json").exists()


def test_what_the_hub_refuses_is_said_once(
    place: Instance, used: Path, refused: Callable[..., str]
) -> None:
    shutil.copytree(used, place.data)
    _newer_state(place.data / "hub")
    said = refused(place.file, place.data)
    # a hub that takes its time to refuse is complained of meanwhile
    (told,) = [line for line in said.splitlines() if not line.startswith("cannot reach")]
    assert re.fullmatch(rf"midwatch: hub: {DATABASES['state of a newer version'][1]}", told), said


def test_a_refusal_that_comes_late_is_told_and_the_agents_go_on(
    place: Instance, used: Path, midwatch: Midwatch, tmp_path: Path
) -> None:
    """On a slow machine the agents start without the hub; nobody must be left to think it comes."""
    shutil.copytree(used, place.data)
    _newer_state(place.data / "hub")
    said = tmp_path / "said"
    with said.open("w") as out:
        command = [midwatch.program, "up", "-f", place.file, "--data", place.data]
        process = subprocess.Popen(list(map(str, command)), stdout=out, stderr=out, cwd=tmp_path)
    try:
        hub = place.wait(lambda: _hub_below(process.pid), 40)
        assert isinstance(hub, int), said.read_text()
        os.kill(hub, signal.SIGSTOP)  # as slow as a machine can be
        assert place.wait(lambda: (place.work / "started").exists(), 40), said.read_text()
        os.kill(hub, signal.SIGCONT)
        assert place.wait(lambda: "was written by a newer Midwatch" in said.read_text(), 40)
        assert "starting it again, agents go on" in said.read_text()
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait(30)
    assert process.returncode == 0


def _hub_below(pid: int) -> int | None:
    """Return the process id of the hub that a supervisor has started."""
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            if b"midwatch.hub" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
    return None


def _hashes(folder: Path, *names: str) -> dict[Path, str]:
    """Return what the files below hold, as hashes."""
    files = (
        [folder / name for name in names]
        if names
        else [p for p in folder.rglob("*") if p.is_file()]
    )
    return {f.relative_to(folder): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}
