"""Builds walls around agents: looks once what this machine can build, then wraps each launch.

The plan is made by `core.sandbox`; here are the edges: paths are looked up, bubblewrap is tried once
per supervisor and kind of network, the filter and bubblewrap's options go into memory files. Options
travel by descriptor because they hold the agent's variables, which an argument list would show to
everyone, and which as variables of bubblewrap's own would act on it before the walls stand.
"""

from __future__ import annotations

import errno
import os
import platform
import pwd
import re
import shutil
import stat
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol

from midwatch.core import checkup, sandbox
from midwatch.core.errors import SetupError
from midwatch.core.fleet import Agent, Fleet
from midwatch.core.sandbox import Deed, Plan, Scene, Spot, Tools
from midwatch.core.terms import Sandbox
from midwatch.core.unwalled import INSTALL, SETTINGS, Circumstances, explain
from midwatch.supervisor.machine import seccomp
from midwatch.supervisor.machine.system import Launch, StartError

PROBE_S: Final = 5.0
"""How long bubblewrap may take to show that it works; it takes 10 ms."""

NOBODY: Final = 65534
"""Owns the copies of devices."""

MAX_LINKS: Final = 40
"""Symbolic links on one path, as the kernel has it."""

OUTSIDE: Final = ("MIDWATCH_RUN_ID", "MIDWATCH_SPOOL")
"""The variables that bubblewrap itself is given: by them its processes are found again."""

TEMPORARY: Final = ("TMPDIR", "TMP", "TEMP")

_VERSION: Final = re.compile(r"bubblewrap (\d+)\.(\d+)\.(\d+)")


class Told(Protocol):
    """What is told of a run that starts."""

    unwalled: str | None

    def event(self, kind: str, data: dict[str, str], run_id: str | None = None) -> None: ...


class Bearer(Protocol):
    """Whose run it is."""

    @property
    def name(self) -> str: ...
    @property
    def agent(self) -> Agent: ...
    @property
    def tell(self) -> Told: ...
    @property
    def say(self) -> Callable[[str], None]: ...


class Fitting(Protocol):
    """What agents are given: `Outfit`, or a test's."""

    @property
    def listen(self) -> Callable[[str], str]: ...
    def directory(self, agent: Agent) -> str: ...
    def env_file(self, agent: Agent) -> Path | None: ...


class Walls:
    """The walls of one instance's agents."""

    def __init__(
        self,
        data: Path,
        fleet: Callable[[], Fleet],
        outfit: Fitting,
        file: Path | None = None,
        find: Callable[[str, Path], Tools | str] | None = None,
    ) -> None:
        """`fleet` is asked at each start, because it may be read anew; `file` is the fleet file; `find` is
        `find_tools`, or a test's."""
        self._data = data
        self._fleet = fleet
        self._outfit = outfit
        self._file = file
        self._find = find or find_tools
        self._tools: dict[str, Tools | str] = {}
        self._told: set[tuple[str, str]] = set()
        self._ground: tuple[Fleet, tuple[str, ...]] | None = None
        self._identity = _identity(data)

    def prepare(self) -> None:
        """Look what this machine can build, if any agent wants walls. Takes some milliseconds."""
        for terms in map(_terms, self._fleet().agents.values()):
            if terms is not None:
                self.tools(terms.network)

    def tools(self, network: str) -> Tools | str:
        """Return what walls are built with, or why they cannot be built; looked up once."""
        kind = "off" if network == "off" else "on"
        if kind not in self._tools:
            self._tools[kind] = self._find(kind, self._data)
        return self._tools[kind]

    def put_around(self, bearer: Bearer, launch: Launch) -> Launch:
        """Return the launch within walls, or as it was where the terms allow that and none can be built.

        Raises SetupError for terms that cannot be kept, StartError for a program that is not there.
        """
        terms, name = _terms(bearer.agent), bearer.name
        bearer.tell.unwalled = None
        if terms is None:
            return launch
        if terms.network == "proxy":
            raise SetupError(f"agents.{name}.sandbox.network: {sandbox.PROXY}")
        tools = self.tools(terms.network)
        if isinstance(tools, str):
            self._confess(bearer, launch, tools, "walls cannot be built")
            return launch
        scene = self._scene(bearer, launch)
        plan = sandbox.plan(terms, scene, tools, look)
        if plan.short:
            self._confess(bearer, launch, "; ".join(plan.short), "walls are incomplete")
        _refuse_hidden(plan, launch, name)
        for path in (*plan.make, scene.spool):
            _make(path, name)
        return wrap(launch, plan, tools)

    def _confess(self, bearer: Bearer, launch: Launch, why: str, what: str) -> None:
        """Tell that the agent runs without what was asked for. Raises SetupError where it must not."""
        assert bearer.agent.sandbox is not None
        if bearer.agent.sandbox.require:
            raise SetupError(
                f"agents.{bearer.name}.sandbox.require: {what}, so it is not started: {why}"
            )
        reason = f"its {what}: {why}" if what == "walls are incomplete" else why
        bearer.tell.unwalled = reason
        bearer.tell.event(
            "agent.unwalled", {"run_id": launch.run_id, "reason": reason}, launch.run_id
        )
        if (bearer.name, reason) not in self._told:
            self._told.add((bearer.name, reason))
            how = (
                "with incomplete walls" if what == "walls are incomplete" else "without its sandbox"
            )
            bearer.say(f"{bearer.name}: runs {how}: {why}")

    def _scene(self, bearer: Bearer, launch: Launch) -> Scene:
        if self._identity != _identity(self._data):
            raise SetupError(
                f"the data directory {str(self._data)!r} was moved or replaced, so walls would not hide it;"
                " stop Midwatch, put it back, and start again"
            )
        fleet = self._fleet()
        root = Path(fleet.root).absolute()
        own = self._file or root / "midwatch.yaml"
        env_files = (self._outfit.env_file(agent) for agent in fleet.agents.values())
        files = {str(file.absolute()) for file in (own, *env_files) if file is not None}
        return Scene(
            agent=bearer.name,
            cwd=launch.cwd,
            data=str(self._data),
            spool=str(self._data / "spool" / bearer.name),
            socket=self._outfit.listen(bearer.name),
            homes=_homes(launch.env),
            shown=(*_runtime(), str(root), *_program(launch)),
            guarded=tuple(sorted(files)),
            keys=tuple(sorted(_key_files(fleet, root))),
            ground=self._written(fleet),
            tty=launch.tty,
        )

    def _written(self, fleet: Fleet) -> tuple[str, ...]:
        """Return where walled agents may write. Looked up when the fleet was read: a link that an agent
        laid since does not count."""
        if self._ground is None or self._ground[0] is not fleet:
            places = {
                look(os.path.join(self._outfit.directory(agent), _expanded(path))).real  # noqa: PTH118
                for agent in fleet.agents.values()
                if (terms := _terms(agent)) is not None
                for path in terms.write
            }
            self._ground = fleet, tuple(sorted(places))
        return self._ground[1]


def _key_files(fleet: Fleet, root: Path) -> set[str]:
    found = (reference.partition(":") for _, reference in checkup.keys(fleet.models))
    return {str(root / Path(path).expanduser()) for kind, _, path in found if kind == "file"}


def _expanded(path: str) -> str:
    return os.path.expanduser(path) if path == "~" or path.startswith("~/") else path  # noqa: PTH111


def _terms(agent: Agent) -> Sandbox | None:
    """Return the terms of an agent that is to have walls."""
    terms = agent.sandbox
    return terms if terms is not None and terms.enabled and not agent.external else None


def wrap(launch: Launch, plan: Plan, tools: Tools) -> Launch:
    """Return the launch of bubblewrap that launches it."""
    options = list(plan.arguments)
    keep: list[int] = []
    program = seccomp.profile(tools.machine)
    if program is not None:
        keep.append(_memory_file("filter", program))
        options += ("--seccomp", str(keep[0]))
    for name, value in _variables(launch, plan).items():
        options += ("--setenv", name, value)
    keep.append(_memory_file("options", b"".join(os.fsencode(o) + b"\0" for o in options)))
    return replace(
        launch,
        command=[tools.program, "--args", str(keep[-1]), "--", *launch.command],
        env={name: launch.env[name] for name in OUTSIDE if name in launch.env},
        walled=True,
        keep_fds=(*launch.keep_fds, *keep),
    )


def _variables(launch: Launch, plan: Plan) -> dict[str, str]:
    env = dict(launch.env)
    if launch.tty and env.get("TERM", "dumb") == "dumb":
        env["TERM"] = "xterm-256color"
    # a directory for temporary files that cannot be written is worse than none
    for name in TEMPORARY:
        if name in env:
            path = look(env[name]).real
            mount = around(plan, path)
            if mount is not Deed.WRITE and not (mount is Deed.ROOM and path in sandbox.ROOMS):
                del env[name]
    return env


def _memory_file(name: str, content: bytes) -> int:
    fd = os.memfd_create(f"midwatch-{name}")
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def around(plan: Plan, path: str) -> Deed:
    """Return what the walls make of a real path."""
    holders = [m for m in plan.mounts if sandbox.inside(path, m.path)]
    return max(holders, key=lambda m: len(m.path)).deed


# -- looking ---------------------------------------------------------------------------------------


def look(path: str) -> Spot:
    """Return what a path leads to, with the links on the way; what may not be entered counts as missing."""
    waiting = deque(path.split("/"))
    here = "/" if path.startswith("/") else os.getcwd()  # noqa: PTH109
    links: list[str] = []
    mode = stat.S_IFDIR
    while waiting:
        part = waiting.popleft()
        if part in ("", "."):
            continue
        if part == "..":
            here = os.path.dirname(here)  # noqa: PTH120
            continue
        step = os.path.join(here, part)  # noqa: PTH118
        try:
            mode = os.lstat(step).st_mode
            if stat.S_ISLNK(mode):
                links.append(step)
                if len(links) > MAX_LINKS:
                    raise SetupError(f"{path!r} leads round in a circle of symbolic links")
                target = os.readlink(step)  # noqa: PTH115
                here = "/" if target.startswith("/") else here
                waiting.extendleft(reversed(target.split("/")))
                mode = stat.S_IFDIR
                continue
        except OSError:
            rest = os.path.normpath("/".join((step, *waiting)))
            return Spot(rest, "missing", tuple(links))
        here = step
    kind = "directory" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else "other"
    return Spot(here, kind, tuple(links))


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _homes(env: Mapping[str, str]) -> tuple[str, ...]:
    homes = [os.environ.get("HOME", ""), env.get("HOME", "")]
    with suppress(KeyError):  # a user without an entry, as in many containers
        homes.append(pwd.getpwuid(os.getuid()).pw_dir)
    return tuple(dict.fromkeys(h.rstrip("/") for h in homes if h.startswith("/") and h.strip("/")))


def _runtime() -> Iterable[str]:
    """What our own Python consists of, which agents usually run with."""
    return (sys.prefix, sys.base_prefix, str(Path(__file__).parents[2]))


def _find_program(launch: Launch) -> str:
    """Return the program's path. Raises StartError as the system would without walls."""
    program = launch.command[0]
    if "/" in program:
        found = os.path.join(launch.cwd, program)  # noqa: PTH118
        if not os.path.exists(found):  # noqa: PTH110
            raise StartError(
                errno.ENOENT, f"cannot start {program!r}: no such file (from {launch.cwd!r})"
            )
        if os.path.isdir(found):  # noqa: PTH112
            raise StartError(
                errno.EISDIR,
                f"cannot start {program!r}: it is a directory; name the program in it",
            )
        if not os.access(found, os.X_OK):
            raise StartError(
                errno.EACCES,
                f"cannot start {program!r}: permission denied; make it executable (chmod +x) or name its interpreter first",
            )
        return found
    path = os.pathsep.join(
        os.path.join(launch.cwd, part)  # noqa: PTH118
        for part in launch.env.get("PATH", os.defpath).split(os.pathsep)
    )
    found = shutil.which(program, path=path)
    if found is None:
        raise StartError(
            errno.ENOENT,
            f"cannot start {program!r}: not found on PATH; install it, or write its full path in command",
        )
    return found


def _program(launch: Launch) -> tuple[str, ...]:
    """Return the program, and the virtual environment that it is part of."""
    if not os.path.isdir(launch.cwd):  # noqa: PTH112
        raise StartError(
            errno.ENOENT,
            f"cannot start {launch.command[0]!r}: its directory {launch.cwd!r} cannot be entered; check cwd in the fleet file",
        )
    found = Path(_find_program(launch))
    above = found.parent.parent
    return (str(found), str(above)) if (above / "pyvenv.cfg").exists() else (str(found),)


def _refuse_hidden(plan: Plan, launch: Launch, name: str) -> None:
    program = look(_find_program(launch)).real
    if around(plan, program) in (Deed.HIDE, Deed.ROOM):
        raise SetupError(
            f"agents.{name}.sandbox: its program {program!r} lies where the walls hide it;"
            f" add it to sandbox.read, or take it out of sandbox.hide"
        )


def _make(path: str, name: str) -> None:
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)  # noqa: PTH103
    except OSError as error:
        raise SetupError(
            f"agents.{name}.sandbox: cannot make {path!r} ({error.strerror}); make it, or correct the path"
        ) from error


# -- what this machine can build -------------------------------------------------------------------


def find_tools(network: str, data: Path) -> Tools | str:
    """Try bubblewrap; return what walls are built with, or why they cannot be built and what to do."""
    if sys.platform != "linux":
        return f"sandboxes need Linux, this is {sys.platform}"
    program = shutil.which("bwrap", path=os.pathsep.join((os.environ.get("PATH", ""), os.defpath)))
    if program is None:
        return f"bubblewrap is not installed; {INSTALL}"
    program = os.path.realpath(program)
    said = _ask([program, "--version"])
    match = _VERSION.match(said)
    if match is None:
        return explain(said, _circumstances())
    version = (int(match[1]), int(match[2]), int(match[3]))
    if version < sandbox.OLDEST:
        oldest = ".".join(map(str, sandbox.OLDEST))
        return f"bubblewrap {match[0].split()[1]} is too old, {oldest} is needed; {INSTALL}"
    root, machine = os.geteuid() == 0, platform.machine()
    nothing = _nothing(data)
    if nothing is None:
        return f"the data directory {str(data)!r} takes no file; is it full, or read-only?"
    tools = Tools(
        program=program,
        version=version,
        user_namespace=not root,
        privileged=root,
        filtered=machine in seccomp.ARCHITECTURES,
        machine=machine,
        nothing=nothing,
        devices=_devices(data) if root else None,
    )
    # root in a container may have no right to mount, and still one to a user namespace
    for candidate in (tools, replace(tools, user_namespace=True)) if root else (tools,):
        said = _try(candidate, network, data)
        if _VERSION.match(said):
            return candidate
    return explain(said, _circumstances())


def _try(tools: Tools, network: str, data: Path) -> str:
    """Run bubblewrap inside the usual walls, and return what it says: its version, if they stand.

    The output decides, not the exit code, which a reaper of this process may have taken.
    """
    terms = Sandbox(write=[], network="off" if network == "off" else "on")
    scene = Scene("midwatch", "/", str(data), str(data / "run"), None)
    command = [tools.program, "--version"]
    launch = Launch(command, {}, "/", "", lambda _: None, lambda _: None)
    walled = wrap(launch, sandbox.plan(terms, scene, tools, look), tools)
    try:
        return _ask(walled.command, walled.keep_fds)
    finally:
        for fd in walled.keep_fds:
            os.close(fd)


def _ask(command: Iterable[str], keep: Iterable[int] = ()) -> str:
    try:
        done = subprocess.run(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={},
            cwd="/",
            pass_fds=tuple(keep),
            timeout=PROBE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it took longer than {PROBE_S:g} s"
    except OSError as error:
        return f"it cannot be started: {error.strerror}"
    return done.stdout.decode("utf-8", "replace")


def _circumstances() -> Circumstances:
    settings: dict[str, str] = {}
    for name in SETTINGS:
        with suppress(OSError):
            settings[name] = Path("/proc/sys", *name.split(".")).read_text().strip()
    marks = ("/.dockerenv", "/run/.containerenv")
    container = "container" in os.environ or any(Path(mark).exists() for mark in marks)
    return Circumstances(settings, container, os.geteuid() == 0)


def _nothing(data: Path) -> str | None:
    """Make the empty file that is put over hidden ones; None where it cannot be made."""
    path = data / "run" / "nothing"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o444)
    except OSError:
        return None
    return str(path)


def _devices(data: Path) -> str | None:
    """Make copies of the harmless devices: root without capabilities still owns the machine's, and could
    take them from everyone with chmod. None where no copies can be made or opened."""
    folder = data / "run" / "devices"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for name in sandbox.DEVICES:
            copy = folder / name
            copy.unlink(missing_ok=True)
            os.mknod(copy, stat.S_IFCHR | 0o666, os.stat(f"/dev/{name}").st_rdev)  # noqa: PTH116
            copy.chmod(0o666)
            # all agents share the copies, and only an owner may change a mode
            os.chown(copy, NOBODY, NOBODY)
            os.close(os.open(copy, os.O_RDONLY | os.O_CLOEXEC))
    except OSError:
        return None
    return str(folder)
