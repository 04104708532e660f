"""What holds for every test: no network, no leftovers, nothing of the machine's own set-up.

- The suite cannot phone home: a connection or a look-up that leaves this machine is refused, and
  the test that tried fails, also when the code under test swallowed the error.
- Nobody's settings leak in: variables of Midwatch, OpenTelemetry and the model clients are removed,
  and HOME is an empty directory, so that a test never talks to an instance that really runs here.
- Nothing is left behind: a child process that outlives its test fails that test; a process that
  outlives the session fails the session, also when it has a new parent.
- Rings run in the order of what they cost; with xdist the dear ones share one worker.

Children of the tests are not covered by the guard on connections; they get the clean environment.
"""

from __future__ import annotations

import atexit
import functools
import ipaddress
import os
import re
import secrets
import shutil
import signal
import socket
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]

# -- the environment ------------------------------------------------------------------------------

_FOREIGN = ("MIDWATCH_", "OTEL_", "OPENAI_", "ANTHROPIC_", "GEMINI_", "GOOGLE_", "XDG_")
_FOREIGN_NAMES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "NO_COLOR", "FORCE_COLOR")
_SESSION = "PYTEST_HOUSE_SESSION"
# the page tests find their browser by it (tests/acceptance)
_CHROMIUM = os.environ.get("MIDWATCH_CHROMIUM") or os.environ.get("PYTEST_HOUSE_CHROMIUM")


def _clean_environment() -> None:
    """Runs at import, before anything of Midwatch is; workers inherit what the controller did."""
    if _SESSION in os.environ:
        # for the workers alone: the programs under test hash as they do for users
        os.environ.pop("PYTHONHASHSEED", None)
        return
    for name in list(os.environ):
        if name.startswith(_FOREIGN) or name in _FOREIGN_NAMES or name.lower().endswith("_proxy"):
            del os.environ[name]
    if _CHROMIUM:
        os.environ["PYTEST_HOUSE_CHROMIUM"] = _CHROMIUM
    os.environ[_SESSION] = uuid.uuid4().hex
    # the workers of xdist must give each test the same name, also where a name shows a set
    os.environ.setdefault("PYTHONHASHSEED", str(secrets.randbelow(2**32)))
    os.environ["PYTEST_HOUSE_HOME"] = os.environ.get("HOME", "")
    home = tempfile.mkdtemp(prefix="midwatch-home-")
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    os.environ["HOME"] = home
    # two sessions of tests may run the same fleet file at the same time; users may not
    os.environ["MIDWATCH_LEASES"] = str(Path(home, "leases"))


_clean_environment()

# -- no way out -----------------------------------------------------------------------------------


class OutsideWorld(ConnectionRefusedError):
    """A test tried to leave this machine. To the code under test it looks like a dead network."""


_attempts: list[str] = []


def _is_here(host: object) -> bool:
    if host is None:
        return True
    name = host.decode("ascii", "replace") if isinstance(host, bytes) else str(host)
    if name in ("", "localhost", socket.gethostname()) or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _refuse(host: object) -> OutsideWorld:
    _attempts.append(str(host))
    return OutsideWorld(f"tests may not reach {host!r}; serve what is needed on 127.0.0.1")


def _guard(name: str, address_of: Callable[[tuple[Any, ...]], object]) -> None:
    """Wrap the socket method `name`; `address_of` finds the address among its arguments."""
    real = getattr(socket.socket, name)

    def guarded(self: socket.socket, *args: Any) -> Any:
        address = address_of(args)
        # a Unix socket's address is text or bytes: it is here
        if isinstance(address, tuple) and not _is_here(address[0]):
            raise _refuse(address[0])
        return real(self, *args)

    setattr(socket.socket, name, guarded)


def _close_the_doors() -> None:
    for name in ("connect", "connect_ex"):
        _guard(name, lambda args: args[0])
    _guard("sendto", lambda args: args[-1])
    look_up = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        if not _is_here(host):
            _attempts.append(str(host))
            raise socket.gaierror(socket.EAI_NONAME, f"tests may not look up {host!r}")
        return look_up(host, *args, **kwargs)

    socket.getaddrinfo = getaddrinfo


_close_the_doors()


@pytest.fixture(autouse=True)
def _stays_on_this_machine(request: pytest.FixtureRequest) -> Iterator[None]:
    _attempts.clear()
    yield
    tried = list(_attempts)
    _attempts.clear()
    if tried and request.node.get_closest_marker("outside_world") is None:
        pytest.fail(f"the test tried to reach {', '.join(sorted(set(tried)))}", pytrace=False)


# -- nothing is left behind -----------------------------------------------------------------------


def _children() -> dict[int, str]:
    """Return pid -> command line of this process's own children that still run.

    Read from /proc: a look at every process of the machine after each test would be dear.
    """
    pids: set[int] = set()
    for task in Path("/proc/self/task").glob("*/children"):
        try:
            pids.update(map(int, task.read_text().split()))
        except OSError:  # the thread ended meanwhile
            continue
    lines = {pid: line for pid in pids if (line := _command_line(pid)) is not None}
    # one per interpreter, started by whoever first shares memory, ends with it
    return {p: c for p, c in lines.items() if "multiprocessing.resource_tracker" not in c}


def _command_line(pid: int) -> str | None:
    """Return the command line of a process, or None when it has ended (a zombie has)."""
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
        name, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rpartition(")")
    except OSError:
        return None
    if rest.split()[0] in "ZX":
        return None
    # in the middle of exec a process has no command line yet
    return raw.replace(b"\0", b" ").decode(errors="replace").strip() or f"({name})"


def _of_this_session() -> dict[int, str]:
    """Return every process that inherited this session's mark, whoever its parent is by now."""
    mark = f"{_SESSION}={os.environ[_SESSION]}".encode()
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            marked = mark in (entry / "environ").read_bytes().split(b"\0")
        except OSError:  # not ours, or gone
            continue
        line = _command_line(int(entry.name))
        if marked and line is not None:
            found[int(entry.name)] = line
    return found


def _gone(find: Callable[[], dict[int, str]], within_s: float) -> dict[int, str]:
    """Wait until `find` finds nothing; return what is still there at the deadline."""
    deadline = time.monotonic() + within_s
    while (left := find()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def _kill(pids: dict[int, str]) -> str:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return "\n".join(f"  {pid}: {line[:160]}" for pid, line in sorted(pids.items()))


@pytest.fixture(autouse=True)
def _leaves_no_child() -> Iterator[None]:
    before = _children()
    yield
    if not _children().keys() - before.keys():
        return
    left = _gone(lambda: {p: c for p, c in _children().items() if p not in before}, 2.0)
    if left:
        pytest.fail(f"child processes outlived the test:\n{_kill(left)}", pytrace=False)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """Fail a session that leaves processes behind; the controller looks once its workers ended.

    The innermost wrapper: after xdist has stopped its workers, before the closing line is written.
    """
    yield
    if hasattr(session.config, "workerinput") or not Path("/proc/self/environ").exists():
        return
    time.sleep(0.1)  # a process in the middle of exec shows no environment yet
    left = _gone(_of_this_session, 3.0)
    if left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.write_line(f"\nprocesses outlived the session:\n{_kill(left)}", red=True)


# -- rings ----------------------------------------------------------------------------------------

RINGS = ("unit", "contract", "architecture", "integration", "acceptance", "chaos")
_ALONE = ("acceptance", "chaos")
"""Rings whose tests start whole instances: side by side they would measure each other."""


def _ring(path: Path) -> str:
    parts = path.relative_to(ROOT / "tests").parts if path.is_relative_to(ROOT / "tests") else ()
    return parts[0] if parts and parts[0] in RINGS else RINGS[0]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order by ring. Among several workers the long groups begin, so that all end at the same time."""
    several = hasattr(config, "workerinput")

    def place(item: pytest.Item) -> int:
        group = group_of(item.path) if several else None
        if group in _LONG:
            return _LONG.index(group) - len(_LONG)
        return RINGS.index(_ring(item.path))

    items.sort(key=place)


_GROUP = re.compile(r"xdist_group\(\"(\w+)\"\)")
_LONG = ("alone", "browser", "postgres")
"""Groups of half a minute and more, the longest first: nobody can help whoever has one, so none may come at the end."""


@functools.cache
def group_of(path: Path) -> str | None:
    """Return the name of those that the tests of a file must not run beside, or None.

    xdist takes groups from the ids of tests, and writes them there by a private name of pytest that
    pytest 9.2 has no longer: there every group is taken apart, in silence.
    """
    found = _GROUP.search(path.read_text("utf-8")) if path.is_file() else None
    if found is not None:
        return found[1]
    return "alone" if _ring(path) in _ALONE else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep each group on one worker (`--dist loadgroup`), in the order in which they were collected."""
    if config.getvalue("dist") != "loadgroup":
        return None
    config.option.loadscopereorder = False
    from xdist.scheduler import LoadGroupScheduling

    class Groups(LoadGroupScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(config.rootpath / nodeid.partition("::")[0]) or nodeid

        def mark_test_complete(self, node: Any, item_index: int, duration: float = 0) -> None:
            super().mark_test_complete(node, item_index, duration)
            # it counts what is pending over all that a worker was ever given, after each test
            scope = self._split_scope(self.registered_collections[node][item_index])
            if all(self.assigned_work[node][scope].values()):
                del self.assigned_work[node][scope]

    return Groups(config, log)
