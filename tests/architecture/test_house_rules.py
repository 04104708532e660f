"""The house keeps what tests/conftest.py promises."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.outside_world
@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1", "api.openai.com"])
def test_a_connection_that_leaves_the_machine_is_refused(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with (
        socket.socket(family, socket.SOCK_STREAM) as sock,
        pytest.raises(ConnectionRefusedError, match="tests may not reach"),
    ):
        sock.connect((host, 443))


@pytest.mark.outside_world
def test_a_datagram_and_a_lookup_that_leave_the_machine_are_refused() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        pytest.raises(ConnectionRefusedError),
    ):
        sock.sendto(b"x", ("192.0.2.1", 53))
    with pytest.raises(socket.gaierror, match="may not look up"):
        socket.getaddrinfo("example.com", 443)


def test_loopback_and_unix_sockets_stay_open(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(("localhost", server.getsockname()[1]), timeout=5).close()
    left, right = socket.socketpair()
    left.close()
    right.close()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "s"))


def test_the_environment_holds_nothing_of_the_machines_own_instance() -> None:
    foreign = [
        n for n in os.environ if n.startswith(("MIDWATCH_", "OTEL_", "OPENAI_", "ANTHROPIC_"))
    ]
    foreign.remove("MIDWATCH_LEASES")  # the session's own, below its HOME
    assert os.environ["MIDWATCH_LEASES"].startswith(os.environ["HOME"])
    assert foreign == []
    assert not (Path.home() / ".local/share/midwatch").exists()


def _session(folder: Path, body: str) -> subprocess.Popen[str]:
    """Begin a small suite of its own under this house's conftest, on two workers, without other plug-ins."""
    folder.mkdir()
    (folder / "conftest.py").write_text((ROOT / "tests/conftest.py").read_text())
    (folder / "test_it.py").write_text(textwrap.dedent(body))
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n  outside_world: x\n")
    workers = ["-p", "xdist", "-n", "2", "--dist", "loadgroup"] if "xdist_group" in body else []
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *workers, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**env, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )


SUITES = {
    "phones": """
        import socket
        def test_quiet():
            try:
                socket.create_connection(("192.0.2.1", 80), timeout=1)
            except OSError:
                pass
        """,
    "leaves a child": """
        import subprocess
        kept = []
        def test_leaves_one():
            kept.append(subprocess.Popen(["sleep", "60"]))
        """,
    "lets a process escape": """
        import subprocess
        def test_lets_one_escape():
            subprocess.run(["sh", "-c", "setsid sleep 61 >/dev/null 2>&1 &"], check=True)
        """,
    "has a group": """
        import os, time
        from pathlib import Path
        import pytest
        @pytest.mark.xdist_group("one")
        @pytest.mark.parametrize("number", range(8))
        def test_notes_its_worker(number):
            Path(__file__).with_name(os.environ["PYTEST_XDIST_WORKER"]).touch()
            time.sleep(0.05)
        """,
}
"""Suites that break the house's rules: side by side, since most of their time they wait for what must not be there."""


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """Exit code and output of each suite."""
    folder = tmp_path_factory.mktemp("suites")
    begun = {name: _session(folder / name.replace(" ", "-"), body) for name, body in SUITES.items()}
    try:
        told = {name: process.communicate(timeout=100)[0] for name, process in begun.items()}
    finally:
        for process in begun.values():
            process.kill()
            process.wait()
    workers = " ".join(path.name for path in (folder / "has-a-group").glob("gw*"))
    told["has a group"] += f"\nworkers: {workers}\n"
    return {name: (begun[name].returncode, told[name]) for name in begun}


@pytest.mark.xdist_group("house")
def test_a_swallowed_attempt_to_phone_home_still_fails_the_test(
    ended: dict[str, tuple[int, str]],
) -> None:
    code, told = ended["phones"]
    assert code == 1, told
    assert "tried to reach 192.0.2.1" in told


@pytest.mark.xdist_group("house")
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
def test_a_child_that_outlives_its_test_fails_that_test(ended: dict[str, tuple[int, str]]) -> None:
    code, told = ended["leaves a child"]
    assert code == 1, told
    assert "child processes outlived the test" in told
    assert "sleep 60" in told


@pytest.mark.xdist_group("house")
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")
def test_a_process_with_a_new_parent_fails_the_session(ended: dict[str, tuple[int, str]]) -> None:
    code, told = ended["lets a process escape"]
    assert code == 1, told
    assert "processes outlived the session" in told
    assert "sleep 61" in told


@pytest.mark.xdist_group("house")
def test_a_group_stays_on_one_worker(ended: dict[str, tuple[int, str]]) -> None:
    code, told = ended["has a group"]
    assert code == 0, told
    assert "8 passed" in told
    assert told.endswith(("workers: gw0\n", "workers: gw1\n")), told
