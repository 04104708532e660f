"""A place with treasures in it, and agents within walls: for the tests of the sandbox."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import textwrap
import time
import uuid
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from midwatch.supervisor.machine.linux import LinuxSystem
from midwatch.supervisor.machine.sandbox import find_tools
from midwatch.supervisor.machine.system import Exit

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
NOBODY = 65534
ROOT_ONLY = os.geteuid() == 0


def _place() -> str:
    """A directory outside of /tmp, which walls replace."""
    chosen = "/srv" if ROOT_ONLY and Path("/srv").is_dir() else os.environ.get("PYTEST_HOUSE_HOME")
    return chosen if chosen and os.access(chosen, os.W_OK) else str(ROOT)


@pytest.fixture(scope="session")
def walls_stand() -> None:
    """Skip where no walls can be built."""
    with tempfile.TemporaryDirectory() as data:
        tools = find_tools("off", Path(data))
    if isinstance(tools, str):
        pytest.skip(tools)


@dataclass
class House:
    """A place with an agent's directory, Midwatch's data and treasures outside, all of one user."""

    base: Path
    user: int | None = None
    python: str = sys.executable
    env: dict[str, str] = field(default_factory=dict[str, str])
    """What its Python needs."""

    def __post_init__(self) -> None:
        for folder in ("cwd/conf", "cwd/keys", "cwd/protected", "outside", "home/.ssh", "home/.aws", "data/logs",
                       "data/run", "data/spool/neighbour", "data/supervisor"):  # fmt: skip
            (self.base / folder).mkdir(parents=True)
        for file in ("outside/treasure", "home/.ssh/id", "home/.aws/config", "home/.netrc", "data/token",
                     "cwd/conf/key", "cwd/keys/openai", "cwd/.env", "cwd/midwatch.yaml"):  # fmt: skip
            (self.base / file).write_text("treasure")
        (self.base / "cwd/way-out").symlink_to(self.base / "outside")
        for path in (self.base, *self.base.rglob("*")):
            if self.user is not None:
                os.lchown(path, self.user, self.user)

    @property
    def cwd(self) -> Path:
        return self.base / "cwd"

    def spec(self, command: list[str], sandbox: dict[str, Any], **more: Any) -> dict[str, Any]:
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.base / "home"),
            "MIDWATCH_RUN_ID": f"run-{uuid.uuid4().hex}",  # its processes are found by it
            "MIDWATCH_SPOOL": str(self.base / "data/spool/subject"),
            "MIDWATCH_TOKEN": "token-of-the-run",
            **self.env,
            **more.pop("env", {}),
        }
        return {
            "data": str(self.base / "data"),
            "root": str(self.cwd),
            "command": command,
            "sandbox": sandbox,
            "env": env,
            **more,
        }

    def start(self, command: list[str], sandbox: dict[str, Any], **more: Any) -> Any:
        outer = more.pop("outer", {})
        spec = self.spec(command, sandbox, **more)
        return subprocess.Popen(
            [self.python, str(HERE / "warden.py"), json.dumps(spec)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            user=self.user,
            group=self.user,
            extra_groups=[] if self.user is not None else None,
            start_new_session=True,
            cwd=self.base,
            env={**os.environ, "HOME": str(self.base / "home"), **self.env, **outer},
        )

    def run(self, command: list[str], sandbox: dict[str, Any], **more: Any) -> tuple[int, str, str]:
        with self.start(command, sandbox, **more) as process:
            try:
                out, err = process.communicate(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return process.returncode, out, err


@contextlib.contextmanager
def housed(user: int | None) -> Generator[House]:
    base = Path(tempfile.mkdtemp(prefix="midwatch-walls-", dir=_place()))
    base.chmod(0o755)
    try:
        yield House(base, user)
    finally:
        shutil.rmtree(base, ignore_errors=True)


def users() -> list[Any]:
    found = [pytest.param(None, id="oneself")]
    if ROOT_ONLY:
        found.append(pytest.param(NOBODY, id="nobody"))
    return found


def _interpreter(user: int | None) -> tuple[str, dict[str, str]] | None:
    """Return a Python that this user may run with Midwatch in it, and the variables that it takes."""
    if user is None:
        return sys.executable, {}
    paths = [str(ROOT / "src"), *(path for path in sys.path if path.endswith("site-packages"))]
    for program, env in (
        (sys.executable, {}),
        (f"/usr/bin/python3.{sys.version_info.minor}", {"PYTHONPATH": os.pathsep.join(paths)}),
    ):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            subprocess.run(
                [program, "-c", "import midwatch.supervisor.machine.sandbox"],
                env={**os.environ, **env},
                user=user,
                group=user,
                extra_groups=[],
                check=True,
                timeout=30,
                capture_output=True,
            )
            return program, env
    return None


@pytest.fixture(scope="module", params=users())
def house(walls_stand: None, request: pytest.FixtureRequest) -> Iterator[House]:
    chosen = _interpreter(request.param)
    if chosen is None:
        pytest.skip("nobody may not run a Python that has Midwatch")
    with housed(request.param) as made:
        made.python, made.env = chosen
        yield made


@pytest.fixture
def own(walls_stand: None) -> Iterator[House]:
    with housed(None) as made:
        yield made


def _warden() -> Any:
    sys.path.insert(0, str(HERE))  # the ring's modules are no package
    try:
        return importlib.import_module("warden")
    finally:
        sys.path.remove(str(HERE))


@dataclass
class Kept:
    """A walled run under the real system."""

    system: LinuxSystem
    process: Any
    exits: list[Exit]
    output: list[bytes]

    @property
    def said(self) -> str:
        return b"".join(self.output).decode()

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, f"not so in time: {what}; it said {self.said!r}"
            await asyncio.sleep(0.005)

    async def end(self) -> Exit:
        await self.until(lambda: bool(self.exits), "its end")
        return self.exits[0]


@pytest.fixture
async def walled(own: House) -> AsyncIterator[Callable[..., Kept]]:
    """Start commands within walls; whatever still runs is killed at the end."""
    system = LinuxSystem(asyncio.get_running_loop(), adopt=False)
    started: list[Kept] = []

    def start(code: str, sandbox: dict[str, Any] | None = None, **more: Any) -> Kept:
        command = [sys.executable, "-c", textwrap.dedent(code)]
        exits: list[Exit] = []
        output: list[bytes] = []
        spec = own.spec(command, {"require": True, **(sandbox or {})}, **more)
        walls, bearer, launch = _warden().launch_of(
            spec, on_output=output.append, on_exit=exits.append
        )
        process = system.spawn(walls.put_around(bearer, launch))
        started.append(Kept(system, process, exits, output))
        return started[-1]

    yield start
    for one in started:
        while system.kill_tree(one.process):
            await asyncio.sleep(0.01)
        await one.end()
    system.close()


class Nursling:
    """A process that the nursery started; what a test needs of `Popen`."""

    def __init__(self, ask: Callable[[dict[str, Any]], Any], pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ask = ask

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._ask({"of": self.pid})
        return self.returncode

    def wait(self, timeout: float) -> int:
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("a supervisor", timeout)
            time.sleep(0.005)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:  # until then its number is no one else's
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@pytest.fixture(scope="session")
def nursery() -> Iterator[Callable[..., Nursling]]:
    """Start supervisors in processes of their own, without waiting for their imports: see nursery.py."""
    with subprocess.Popen(
        [sys.executable, str(HERE / "nursery.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        orders, answers = server.stdin, server.stdout
        assert answers.readline() == b"ready\n"  # a test that counts seconds counts no imports

        def ask(order: dict[str, Any]) -> Any:
            orders.write(json.dumps(order).encode() + b"\n")
            orders.flush()
            return json.loads(answers.readline())

        def start(code: str, *args: object, console: Path, session: bool = False) -> Nursling:
            console.touch()  # it may be read at once
            words = [str(arg) for arg in args]
            order = {"code": code, "args": words, "console": str(console), "session": session}
            return Nursling(ask, ask(order))

        yield start
        orders.close()
        server.wait(30)


# -- supervisors that read their file again --------------------------------------------------------

PATIENCE_S = 40.0

RELOADING = """
import sys
from pathlib import Path
from midwatch.cli.source import read_fleet
from midwatch.core.errors import MidwatchError
from midwatch.supervisor.change.reload import Source
from midwatch.supervisor.change import drift, reload, tenure
from midwatch.supervisor.main import run
tenure.RETRY_S, drift.LOOK_S, drift.GLANCE_S = 0.5, float(sys.argv[3]), float(sys.argv[4])
reload.QUIET_S = float(sys.argv[5])
file = Path(sys.argv[1])
fleet = read_fleet(file).fleet
try:
    sys.exit(run(fleet, Path(sys.argv[2]), hub=False, source=Source(file, lambda: read_fleet(file).fleet, fleet)))
except MidwatchError as error:
    sys.exit(print(error, file=sys.stderr) or 2)
"""


class Instance:
    """One supervisor in a process of its own, without a terminal, as a service has none."""

    def __init__(self, folder: Path, nursery: Callable[..., Any], data: str = "data") -> None:
        self.folder = folder
        self.file = folder / "midwatch.yaml"
        self.data = folder / data
        self.console_file = folder / f"console.{data}"
        self.process: Any = None
        self._nursery = nursery

    def write(self, agents: dict[str, Any], **fleet: Any) -> None:
        defaults = {
            "limits": {"stop_grace": "5s"},
            "restart": {"backoff": "20ms..50ms", "attempts": 2},
        }
        text = yaml.safe_dump({"defaults": defaults, **fleet, "agents": agents}, sort_keys=False)
        fresh = self.file.with_suffix(".new")
        fresh.write_text(text)
        fresh.rename(self.file)

    def up(self, look_s: float = 0.2, glance_s: float = 1.0, quiet_s: float = 0.1) -> None:
        """Start; drift is looked for so often, and a file that rests so long is whole."""
        self.process = self._nursery(
            RELOADING, self.file, self.data, look_s, glance_s, quiet_s,
            console=self.console_file, session=True,
        )  # fmt: skip

    def up_at(self, terminal: int) -> None:
        """Start with a terminal that is its own."""

        def take() -> None:
            fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)

        with self.console_file.open("ab") as console:
            self.process = subprocess.Popen(
                [sys.executable, "-c", RELOADING, str(self.file), str(self.data), "1", "1", "0.1"], preexec_fn=take,
                stdin=terminal, stderr=console, stdout=console, start_new_session=True,
            )  # fmt: skip

    @property
    def console(self) -> str:
        return self.console_file.read_text()

    def until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"not so in time: {what}\n{self.console}"
            time.sleep(0.01)

    def says(self, words: str, times: int = 1) -> None:
        self.until(lambda: self.console.count(words) >= times, words)

    def reload(self, says: str = "was read again") -> str:
        """Ask for a reload; return what the console said from then on."""
        before = len(self.console)
        self.process.send_signal(signal.SIGHUP)
        self.until(lambda: says in self.console[before:], says)
        return self.console[before:]

    def pid(self, agent: str) -> int:
        """Return the pid that the console named last for this agent."""
        lines = [x for x in self.console.splitlines() if f" {agent}: started, pid " in x]
        return int(lines[-1].split("pid ")[1].split()[0].rstrip(","))

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(PATIENCE_S)


@pytest.fixture
def instances(tmp_path: Path, nursery: Callable[..., Any]) -> Iterator[Callable[..., Instance]]:
    made: list[Instance] = []

    def make(data: str = "data") -> Instance:
        made.append(Instance(tmp_path, nursery, data))
        return made[-1]

    yield make
    for one in made:
        if one.process is not None and one.process.poll() is None:
            one.process.terminate()
            try:
                one.process.wait(10)
            except subprocess.TimeoutExpired:
                one.process.kill()
                one.process.wait(10)
