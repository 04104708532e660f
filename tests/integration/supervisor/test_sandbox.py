"""Each promise of the sandbox, proved by trying to break it from inside.

One burglar tries everything in one run, per user and kind of network; each test looks at one attempt.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
NOBODY = 65534
TMP = 256 * 1024
ROOT_ONLY = os.geteuid() == 0


def _burglar(house: Any) -> Path:
    """Return the program, laid where every user and every wall lets it be read: a checkout may be in /tmp."""
    program = house.cwd / "burglar.py"
    shutil.copyfile(HERE / "burglar.py", program)
    program.chmod(0o644)
    return program


@dataclass
class Burglary:
    """What a burglar found, and what is so outside afterwards."""

    found: dict[str, Any]
    house: Any
    victim: subprocess.Popen[bytes]
    heard: bytes
    null_mode: int

    def __getitem__(self, name: str) -> Any:
        return self.found[name]


def burgle(house: Any, network: str, victim: subprocess.Popen[bytes]) -> Burglary:
    suid = house.base / "outside" / f"suid-{network}"
    if ROOT_ONLY:
        shutil.copy("/usr/bin/id", suid)
        suid.chmod(0o4755)
    notify = house.base / "data/run" / f"{network}.sock"
    null_mode = os.stat("/dev/null").st_mode
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.socket(socket.AF_UNIX) as abstract,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices,
    ):
        name = f"midwatch-{os.getpid()}-{network}-{house.user}"
        abstract.bind("\0" + name)
        abstract.listen()
        notices.bind(str(notify))
        if house.user is not None:
            os.chown(notify, house.user, house.user)
        notices.setblocking(False)
        spec = {
            "outside": str(house.base / "outside"),
            "data": str(house.base / "data"),
            "host_pid": victim.pid,
            "port": listener.getsockname()[1],
            "abstract": name,
            "suid": str(suid) if ROOT_ONLY else None,
        }
        sandbox = {
            "write": [".", "made/for/it"],
            "read": ["protected", "~/.aws"],
            "hide": ["conf/key"],
            "network": network,
            "tmp": TMP,
            "require": True,
        }
        code, out, err = house.run(
            [house.python, str(_burglar(house)), json.dumps(spec)],
            sandbox,
            socket=str(notify),
            env_file=".env",
            models={"providers": {"openai": {"keys": [{"from": "file:keys/openai"}]}}},
            env={"NOTIFY_SOCKET": str(notify), "TMPDIR": str(house.base / "outside")},
        )
        try:
            heard = notices.recv(4096)
        except BlockingIOError:
            heard = b""
    assert code == 0, f"the burglar did not finish: {code}\n{out}\n{err}"
    return Burglary(json.loads(out), house, victim, heard, null_mode)


def _held(house: Any, network: str) -> Iterator[Burglary]:
    with subprocess.Popen(["sleep", "600"], user=house.user) as victim:
        try:
            yield burgle(house, network, victim)
        finally:
            victim.kill()


@pytest.fixture(scope="module")
def attempts(house: Any) -> Iterator[Burglary]:
    yield from _held(house, "on")


@pytest.fixture(scope="module")
def offline(house: Any) -> Iterator[Burglary]:
    yield from _held(house, "off")


REFUSED = {"EROFS", "EACCES", "EPERM", "ENOENT"}

# -- the file system -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "where",
    [
        "/etc", "/", "home", "outside", "through a link", "through /proc/1/root",
        "through /proc/self/root", "what is read-only", "the fleet file", "the env file", "/dev",
    ],
)  # fmt: skip
def test_it_cannot_write(attempts: Burglary, where: str) -> None:
    assert attempts[f"write {where}"] in REFUSED


def test_nothing_of_the_burglar_is_found_outside(attempts: Burglary) -> None:
    base = attempts.house.base
    assert not list((base / "outside").glob("burglar*"))
    assert not Path("/etc/midwatch-burglar").exists()
    assert (base / "cwd/midwatch.yaml").read_text() == "treasure"
    assert (base / "cwd/.env").read_text() == "treasure"


def test_it_writes_where_it_may(attempts: Burglary) -> None:
    assert attempts["write inside"] == attempts["write what is made"] == "written"
    assert (attempts.house.cwd / "made/for/it/file").read_text() == "the burglar was here"
    assert stat.S_IMODE((attempts.house.cwd / "made/for/it").stat().st_mode) == 0o700


def test_what_decides_on_walls_cannot_be_replaced(attempts: Burglary) -> None:
    assert attempts["replace the fleet file"] in {"EBUSY", "EROFS"}


def test_what_is_hidden_in_writable_ground_stays_where_it_is(attempts: Burglary) -> None:
    assert attempts["rename what holds the hidden"] == "EBUSY"
    assert attempts["remove the hidden"] == "EBUSY"
    assert attempts["read the hidden"] == ""
    assert (attempts.house.cwd / "conf/key").read_text() == "treasure"


def test_a_providers_key_is_neither_read_nor_replaced(attempts: Burglary) -> None:
    assert attempts["read a provider's key"] == ""
    assert attempts["write a provider's key"] in REFUSED
    assert attempts["put another in its place"] == attempts["move what holds it"] == "EBUSY"
    assert (attempts.house.cwd / "keys/openai").read_text() == "treasure"


def test_no_hard_link_leads_out(attempts: Burglary) -> None:
    assert attempts["hard link to the outside"] in {"EXDEV", "EPERM", "EROFS", "ENOENT"}


def test_what_is_neither_written_nor_hidden_can_be_read(attempts: Burglary) -> None:
    assert attempts["read outside"] == "treasure"
    assert attempts["read what is opened"] == "treasure"


def test_keys_in_the_home_directory_are_hidden(attempts: Burglary) -> None:
    assert attempts["list .ssh"] == []
    assert attempts["read .netrc"] == ""
    assert attempts["chmod .netrc"] == "EROFS"


def test_midwatchs_data_is_hidden_but_the_own_spool_and_socket(attempts: Burglary) -> None:
    assert attempts["list data"] == ["run", "spool"]
    assert attempts["read token"] == attempts["read token through /proc/1/root"] == "ENOENT"
    assert attempts["read another's spool"] == "ENOENT"
    assert attempts["fill the hidden"] == "EROFS"
    assert attempts["write spool"] == "written"


def test_the_sockets_of_services_are_hidden(attempts: Burglary) -> None:
    assert attempts["list /run"] in ([], ["systemd"], ["resolvconf"])


def test_the_machines_settings_cannot_be_changed(attempts: Burglary) -> None:
    assert attempts["write core_pattern"] in REFUSED


def test_its_devices_are_its_own(attempts: Burglary) -> None:
    assert attempts["list /dev"] == [
        "core", "fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout",
        "tty", "urandom", "zero",
    ]  # fmt: skip
    assert attempts["write /dev/null"] == "written"
    assert attempts["chmod /dev/null"] in REFUSED, "its neighbours have the same one"
    assert os.stat("/dev/null").st_mode == attempts.null_mode


@pytest.mark.parametrize("room", ["/tmp", "/var/tmp", "/dev/shm"])
def test_its_rooms_are_private_and_bounded(attempts: Burglary, room: str) -> None:
    assert attempts[f"list {room}"] == []
    assert TMP - 65536 <= attempts[f"fill {room}"] <= TMP


# -- processes and rights --------------------------------------------------------------------------


def test_it_sees_no_process_of_the_host_and_kills_none(attempts: Burglary) -> None:
    assert attempts["pids"] == [1, attempts["own pid"]]
    assert attempts["kill a host's process"] == "ESRCH"
    assert attempts.victim.poll() is None


def test_it_inherits_no_descriptor(attempts: Burglary) -> None:
    assert attempts["fds"][:3] == [0, 1, 2]
    assert len(attempts["fds"]) == 4  # and the one that lists them


def test_bubblewrap_itself_is_given_nothing_of_the_agents(attempts: Burglary) -> None:
    names = {e.split("=")[0] for e in attempts["environment of pid 1"].split("\0") if e}
    assert names <= {"MIDWATCH_RUN_ID", "MIDWATCH_SPOOL"}


@pytest.mark.parametrize("name", ["CapEff", "CapPrm", "CapInh", "CapAmb"])
def test_it_holds_no_capability(attempts: Burglary, name: str) -> None:
    assert int(attempts[name], 16) == 0


def test_it_gains_no_rights(attempts: Burglary) -> None:
    assert (attempts["NoNewPrivs"], attempts["Seccomp"]) == ("1", "2")
    assert attempts["setuid root"] in ("EPERM", "EINVAL", "is root")


@pytest.mark.skipif(not ROOT_ONLY, reason="only root can make a setuid program")
def test_a_setuid_program_gains_nothing(attempts: Burglary) -> None:
    inside, suid = attempts["setuid program"], attempts.house.base / "outside" / "suid-on"
    outside = subprocess.run([suid, "-u"], user=NOBODY, capture_output=True, text=True, check=True)
    assert outside.stdout.strip() == "0", "the control: outside of walls it works"
    assert inside == ("65534" if attempts.house.user is not None else "0")


@pytest.mark.parametrize(
    "name",
    [
        "ptrace", "mount", "umount2", "pivot_root", "chroot", "unshare user", "unshare mounts", "setns",
        "clone user", "personality", "keyctl", "bpf", "userfaultfd", "perf_event_open", "process_vm_readv",
        "init_module", "kexec_load", "reboot", "swapon", "open_tree", "pidfd_getfd",
        "type into a terminal", "type with a wider number", "paste into a console",
    ],
)  # fmt: skip
def test_the_system_call_is_refused(attempts: Burglary, name: str) -> None:
    assert attempts[name] == "EPERM"


@pytest.mark.parametrize("name", ["clone3", "io_uring_setup"])
def test_the_system_call_is_said_not_to_exist(attempts: Burglary, name: str) -> None:
    assert attempts[name] == "ENOSYS"


def test_numbers_of_another_convention_are_refused(attempts: Burglary) -> None:
    assert attempts.found.get("x32", "ENOSYS") == "ENOSYS"
    assert attempts["personality asked"] == 0


def test_there_is_no_terminal_to_type_into(attempts: Burglary) -> None:
    assert attempts["terminal"] == "ENXIO"


def test_threads_and_children_work(attempts: Burglary) -> None:
    assert (attempts["thread"], attempts["child"]) == ("ran", 0)
    assert attempts["cwd"] == str(attempts.house.cwd)


def test_it_is_given_its_variables_and_no_temporary_directory_that_it_cannot_use(
    attempts: Burglary,
) -> None:
    env = attempts["environment"]
    assert env["MIDWATCH_TOKEN"] == "token-of-the-run"
    assert "TMPDIR" not in env


# -- the network -----------------------------------------------------------------------------------


def test_the_network_is_there_when_it_is_on(attempts: Burglary) -> None:
    assert (
        attempts["connect to the host"] == attempts["connect to an abstract socket"] == "connected"
    )


def test_off_means_no_network_not_even_this_machines(offline: Burglary) -> None:
    assert offline["connect to the host"] == "ECONNREFUSED"
    assert offline["connect to an abstract socket"] == "ECONNREFUSED"
    assert offline["interfaces"] == ["lo"]


def test_its_notices_arrive(attempts: Burglary) -> None:
    assert attempts.heard.startswith(b"WATCHDOG=1")
    assert attempts["chmod socket"] == "EROFS"


def test_its_notices_arrive_without_a_network(offline: Burglary) -> None:
    assert offline.heard.startswith(b"WATCHDOG=1")


def test_the_control_without_walls_all_of_it_succeeds(house: Any) -> None:
    """As nobody, because a burglar without walls breaks things."""
    if house.user is None:
        pytest.skip("only as a user who can break nothing")
    spec = {
        "outside": str(house.base / "outside"),
        "data": str(house.base / "data"),
        "port": 1,
        "abstract": "x",
    }
    with subprocess.Popen(["sleep", "600"], user=house.user) as victim:
        try:
            done = subprocess.run(
                [house.python, str(_burglar(house)), json.dumps({**spec, "host_pid": victim.pid})],
                env={"HOME": str(house.base / "home"), "NOTIFY_SOCKET": "/nowhere", "PATH": os.environ["PATH"]},
                cwd=house.cwd, user=house.user, group=house.user, extra_groups=[], capture_output=True,
                text=True, check=True, timeout=30,
            )  # fmt: skip
            assert victim.wait(30) == -9
        finally:
            victim.kill()
    found = json.loads(done.stdout)
    for name in (
        "outside",
        "home",
        "through a link",
        "through /proc/self/root",
        "the env file",
        "what is read-only",
    ):
        assert found[f"write {name}"] == "written", name
    assert found["read token"] == found["read .netrc"] == "treasure"
    assert found["rename what holds the hidden"] is None
    assert found["fill /tmp"] > TMP
    assert (found["unshare user"], found["ptrace"]) == (0, "ESRCH")
    assert found["personality"] == 0
    assert found["io_uring_setup"] == "EFAULT"
    assert len(found["pids"]) > 2
