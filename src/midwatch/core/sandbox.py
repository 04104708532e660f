"""From the terms of a sandbox and the facts of a machine to bubblewrap's arguments. Pure.

A sandbox is a list of mounts over the machine's own file system. Per path the higher rank wins (what
Midwatch needs, then what the fleet file says, then the defaults below), and of two that contain one
another the deeper one holds for its part. Whatever was promised and cannot be kept is listed in
`short`, never silently left out.

Invariants, each against a way out that exists otherwise:
- No symbolic link is followed that lies where a walled agent may write: the next start would give it
  the link's target.
- What is mounted inside writable ground is pinned by its parents: an agent that renames a parent would
  find the hidden file open at its next start.
- Nothing of the agent's own choice, no variable, reaches bubblewrap itself: LD_PRELOAD works outside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from fnmatch import fnmatchcase
from posixpath import dirname, join
from typing import Final, Literal

from midwatch.core.errors import SetupError
from midwatch.core.terms import Sandbox

OLDEST: Final = (0, 5, 0)
"""bubblewrap with --perms and --clearenv."""

SIZED: Final = (0, 7, 0)
"""bubblewrap that can bound a tmpfs."""

SECRETS: Final = (
    ".ssh", ".gnupg", ".pki", ".aws", ".azure", ".oci", ".config/gcloud", ".config/doctl", ".config/hcloud",
    ".kube", ".docker", ".config/containers/auth.json", ".netrc", ".pgpass", ".my.cnf", ".git-credentials",
    ".config/git/credentials", ".config/gh", ".config/glab-cli", ".npmrc", ".yarnrc.yml", ".pypirc",
    ".cargo/credentials", ".cargo/credentials.toml", ".gem/credentials", ".m2/settings.xml",
    ".terraform.d/credentials.tfrc.json", ".vault-token", ".config/op", ".config/sops", ".config/rclone",
    ".password-store", ".local/share/keyrings", ".local/share/kwalletd", ".mozilla", ".thunderbird",
    ".config/google-chrome", ".config/chromium", ".config/BraveSoftware", ".config/microsoft-edge",
    ".cache/huggingface/token", ".bash_history", ".zsh_history", ".python_history", ".psql_history",
    ".node_repl_history", ".local/share/fish/fish_history",
)  # fmt: skip
"""Below a home directory: what opens doors elsewhere. Hidden unless `read` or `write` names it."""

SYSTEM_SECRETS: Final = (
    "/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/sudoers", "/etc/sudoers.d",
    "/etc/ssl/private", "/etc/ssh/ssh_host_rsa_key", "/etc/ssh/ssh_host_ecdsa_key",
    "/etc/ssh/ssh_host_ed25519_key", "/etc/ssh/ssh_host_dsa_key", "/etc/krb5.keytab",
    "/var/spool/cron", "/var/run/docker.sock",
)  # fmt: skip
"""Of the machine: readable only to root, but Midwatch may be root."""

SOCKETS: Final = "/run"
"""Here listen docker, D-Bus and the service managers: each starts programs outside of all walls."""

HARMLESS_IN_RUN: Final = (
    "/run/current-system", "/run/booted-system", "/run/opengl-driver", "/run/opengl-driver-32",
)  # fmt: skip
"""Parts of /run that programs on NixOS are made of."""

ROOMS: Final = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - mounted, not used

ALWAYS: Final = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM"),
    *("LANG", "LANGUAGE", "LC_*", "TZ"),
)
"""Variables that a list under `env` does not take away: programs break without, and they are no secrets."""

OWN: Final = frozenset(
    {"lock", "token", "secret", "fleet.json", "instance.json", "supervisor", "hub", "gateway", "logs", "spool", "run", "worktrees"}
)  # fmt: skip
"""What of the data directory is Midwatch's (docs/design.md)."""

DEVICES: Final = ("null", "zero", "full", "random", "urandom")


class Deed(StrEnum):
    """What becomes of a path."""

    READ = "read"
    WRITE = "write"
    HIDE = "hide"
    ROOM = "room"  # an empty one of its own, of bounded size


class Rank(IntEnum):
    """Who says so."""

    DEFAULT = 0
    FILE = 1
    MIDWATCH = 2


@dataclass(frozen=True, slots=True)
class Spot:
    """What a path leads to."""

    real: str
    kind: Literal["directory", "file", "other", "missing"] = "directory"
    links: tuple[str, ...] = ()
    """Symbolic links on the way, each as the real path of its directory and its name."""


Look = Callable[[str], Spot]


@dataclass(frozen=True, slots=True)
class Tools:
    """What this machine builds walls with."""

    program: str
    """bubblewrap's path."""
    version: tuple[int, int, int]
    user_namespace: bool
    """True: walls need a user namespace (everyone but root)."""
    privileged: bool = False
    """Midwatch is root: capabilities have to be dropped by name."""
    filtered: bool = True
    """There is a filter of system calls for this machine."""
    machine: str = ""
    nothing: str = "/dev/null"
    """An empty file, which is put over a file that is hidden."""
    devices: str | None = None
    """A directory with copies of DEVICES for root, who could change the mode of the machine's own."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What surrounds one run."""

    agent: str
    cwd: str
    data: str
    """The data directory."""
    spool: str
    socket: str | None
    homes: tuple[str, ...] = ()
    """The first is what `~` means."""
    shown: tuple[str, ...] = ()
    """What it is started from: interpreter, program, the fleet file's directory."""
    guarded: tuple[str, ...] = ()
    """Files that decide on walls, the fleet file and env files: never written from inside."""
    keys: tuple[str, ...] = ()
    """Files that hold the gateway's keys of providers: never read from inside, and never made there."""
    ground: tuple[str, ...] = ()
    """Real paths that other walled agents may write."""
    tty: bool = False


@dataclass(frozen=True, slots=True)
class Mount:
    path: str
    deed: Deed
    directory: bool
    rank: Rank
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Walls, ready to be built."""

    arguments: tuple[str, ...]
    """bubblewrap's options, all but variables, filter and command."""
    mounts: tuple[Mount, ...]
    make: tuple[str, ...] = ()
    """Directories to be made before."""
    short: tuple[str, ...] = ()
    """What was promised and is not kept, a sentence each."""


@dataclass(slots=True)
class _Survey:
    """The mounts by path while they are gathered."""

    terms: Sandbox
    scene: Scene
    look: Look
    found: dict[str, Mount] = field(default_factory=dict[str, Mount])
    make: list[str] = field(default_factory=list[str])
    links: list[tuple[str, str, Spot]] = field(default_factory=list[tuple[str, str, Spot]])
    """(key, path as written, what it leads to) of whatever was reached through links."""

    def put(self, spot: Spot, deed: Deed, rank: Rank, why: str) -> None:
        before = self.found.get(spot.real)
        if before is None or before.rank <= rank:
            directory = spot.kind == "directory"
            self.found[spot.real] = Mount(spot.real, deed, directory, rank, why)


def plan(terms: Sandbox, scene: Scene, tools: Tools, look: Look) -> Plan:
    """Return the walls of one run. Raises SetupError for terms that cannot be kept."""
    if terms.network == "proxy":
        raise SetupError(f"agents.{scene.agent}.sandbox.network: {PROXY}")
    survey = _Survey(terms, scene, look)
    _put_defaults(survey)
    _put_file(survey)
    _put_own(survey)
    _refuse_links(survey)
    mounts = _pinned(_pruned(survey.found))
    return Plan(
        arguments=tuple(_render(terms, scene, tools, mounts, look(scene.cwd).real)),
        mounts=tuple(mounts),
        make=tuple(survey.make),
        short=tuple(_shortfalls(tools)),
    )


PROXY: Final = "'proxy' comes with the guard, which this version does not have yet; write on or off"


def allowed(patterns: Sequence[str] | None, variables: Mapping[str, str]) -> dict[str, str]:
    """Return the inherited variables that the terms let through."""
    if patterns is None:
        return dict(variables)
    wanted = (*ALWAYS, *patterns)
    return {k: v for k, v in variables.items() if any(fnmatchcase(k, p) for p in wanted)}


# -- which mounts ----------------------------------------------------------------------------------


def _put_defaults(survey: _Survey) -> None:
    scene, look = survey.scene, survey.look
    for path in (scene.cwd, *scene.shown):
        spot = look(path)
        if spot.kind != "missing":
            survey.put(spot, Deed.READ, Rank.DEFAULT, "it runs from here")
    if survey.terms.network == "on":
        _put_resolver(survey)
    for path in HARMLESS_IN_RUN:
        if (spot := look(path)).kind != "missing":
            survey.put(spot, Deed.READ, Rank.DEFAULT, "part of the system")
    secrets = [join(home, name) for home in scene.homes for name in SECRETS]
    for path in (*secrets, *SYSTEM_SECRETS, SOCKETS):
        if (spot := look(path)).kind != "missing":
            survey.put(spot, Deed.HIDE, Rank.DEFAULT, "hidden by default")
    for path in ROOMS:
        spot = look(path)
        if spot.kind == "directory" or path == "/dev/shm":  # noqa: S108 - a mount point
            there = Spot(path) if path == "/dev/shm" else spot  # noqa: S108
            survey.put(there, Deed.ROOM, Rank.DEFAULT, "private")


def _put_resolver(survey: _Survey) -> None:
    """Names must be found: where resolv.conf lies in /run, its directory, because it is replaced."""
    spot = survey.look("/etc/resolv.conf")
    if spot.kind == "file" and spot.real.startswith(SOCKETS + "/"):
        folder = dirname(spot.real)
        alone = folder in (SOCKETS, "/run/NetworkManager")
        shown = spot if alone else Spot(folder)
        survey.put(shown, Deed.READ, Rank.DEFAULT, "how names are found")


def _put_file(survey: _Survey) -> None:
    """What the fleet file says. Paths start from the agent's directory."""
    terms, scene = survey.terms, survey.scene
    for key, paths, deed in (
        ("read", terms.read, Deed.READ),
        ("write", terms.write, Deed.WRITE),
        ("hide", terms.hide, Deed.HIDE),
    ):
        for written in paths:
            path = _absolute(written, scene)
            spot = survey.look(path)
            name = f"agents.{scene.agent}.sandbox.{key}"
            if spot.kind == "missing":
                if deed is Deed.HIDE:
                    continue
                spot = _missing(survey, name, written, spot, deed)
            if deed is not Deed.HIDE:
                _refuse_own(name, written, spot, scene, survey.look)
            survey.links.append((name, written, spot))
            survey.put(spot, deed, Rank.FILE, f"sandbox.{key}")


def _absolute(written: str, scene: Scene) -> str:
    if written == "~" or written.startswith("~/"):
        if not scene.homes:
            raise SetupError(
                f"agents.{scene.agent}.sandbox: {written!r}: this user has no home directory; write the whole path"
            )
        return join(scene.homes[0], written[2:])
    return join(scene.cwd, written)


def _missing(survey: _Survey, name: str, written: str, spot: Spot, deed: Deed) -> Spot:
    """A place to write inside the agent's own directory is made; whatever else is missing is a slip."""
    home = survey.look(survey.scene.cwd).real
    if deed is Deed.WRITE and inside(spot.real, home):
        survey.make.append(spot.real)
        return Spot(spot.real, "directory", spot.links)
    raise SetupError(
        f"{name}: {written!r} does not exist ({spot.real}); create it, or correct the path"
    )


def _refuse_own(name: str, written: str, spot: Spot, scene: Scene, look: Look) -> None:
    data = look(scene.data).real
    for part in OWN:
        if inside(spot.real, join(data, part)):
            raise SetupError(f"{name}: {written!r} is Midwatch's own data; no agent is given that")
    for system in ("/proc", "/sys"):
        if inside(spot.real, system):
            raise SetupError(
                f"{name}: {written!r}: nothing below {system} can be opened to an agent"
            )


def _put_own(survey: _Survey) -> None:
    """What Midwatch needs: its data unseen, the agent's spool and socket in place."""
    scene, look = survey.scene, survey.look
    data, cwd = look(scene.data), look(scene.cwd)
    if cwd.real == data.real or any(inside(cwd.real, join(data.real, part)) for part in OWN):
        raise SetupError(
            f"agents.{scene.agent}: its directory {cwd.real!r} is Midwatch's data directory, which walls hide;"
            " give it a cwd of its own, or choose another --data"
        )
    survey.links.append((f"agents.{scene.agent}.cwd", scene.cwd, cwd))
    survey.links.append(("the data directory", scene.data, data))
    if data.kind == "directory":
        survey.put(data, Deed.HIDE, Rank.MIDWATCH, "Midwatch's data")
    spool = look(scene.spool)
    survey.put(Spot(spool.real), Deed.WRITE, Rank.MIDWATCH, "its unsent telemetry")
    if scene.socket is not None:
        survey.put(look(scene.socket), Deed.READ, Rank.MIDWATCH, "its notify socket")
    for path in scene.guarded:
        spot = look(path)
        if spot.kind != "missing":
            survey.links.append((f"agents.{scene.agent}.sandbox", path, spot))
            survey.put(spot, Deed.READ, Rank.MIDWATCH, "it decides on walls")
    for path in scene.keys:
        spot = look(path)
        survey.links.append(("models.providers", path, spot))
        if spot.kind != "missing":
            survey.put(spot, Deed.HIDE, Rank.MIDWATCH, "a provider's key")
    for path in scene.keys:
        _refuse_to_be_made(survey, path)


def _refuse_to_be_made(survey: _Survey, path: str) -> None:
    """Where a key's file is missing and an agent could make it, the fleet's calls would go to its account."""
    spot = survey.look(path)
    around = _around(survey.found, spot.real)
    if spot.kind == "missing" and around is not None and around.deed is Deed.WRITE:
        raise SetupError(
            f"agents.{survey.scene.agent}.sandbox: the file of a provider's key, {path!r}, is missing and lies where"
            " this agent may write: it could put a key of its own there; write the key to it, or name another place"
        )


def _refuse_links(survey: _Survey) -> None:
    """Follow no link that an agent may have laid."""
    writable = [m.path for m in survey.found.values() if m.deed is Deed.WRITE]
    ground = [*writable, *survey.scene.ground]
    for name, written, spot in survey.links:
        for link in spot.links:
            if any(inside(dirname(link), place) for place in ground):
                raise SetupError(
                    f"{name}: {written!r} leads over the symbolic link {link!r}, which lies where an agent may write"
                    f" and so may lead anywhere; if {spot.real!r} is meant, write that"
                )


def _pruned(found: Mapping[str, Mount]) -> list[Mount]:
    """Leave out what the mount around it says already, and what cannot exist in it."""
    kept: dict[str, Mount] = {"/": Mount("/", Deed.READ, True, Rank.DEFAULT, "read-only")}
    for path in sorted(found, key=_parts):
        mount, around = found[path], _around(kept, path)
        needless = around is not None and (
            around.deed is mount.deed
            or (mount.deed is Deed.HIDE and around.deed in (Deed.HIDE, Deed.ROOM))
        )
        # /dev is built anew: all that is wanted of it has to be mounted
        if not needless or inside(path, "/dev"):
            kept[path] = mount
    return list(kept.values())


def _pinned(mounts: list[Mount]) -> list[Mount]:
    """Make mounts of the directories between writable ground and what is mounted in it: a mount
    cannot be renamed or removed."""
    kept = {mount.path: mount for mount in mounts}
    for mount in mounts:
        around = _around(kept, mount.path)
        if around is None or around.deed is not Deed.WRITE:
            continue
        for path in _between(around.path, dirname(mount.path)):
            kept[path] = Mount(path, Deed.WRITE, True, Rank.MIDWATCH, "pinned")
    return [kept[path] for path in sorted(kept, key=_parts)]


def _between(top: str, path: str) -> Iterator[str]:
    """Yield `path` and its parents below `top`."""
    while path != top and inside(path, top):
        yield path
        path = dirname(path)


def _around(mounts: Mapping[str, Mount], path: str) -> Mount | None:
    """Return the nearest mount that contains `path`, other than its own."""
    while path != "/":
        path = dirname(path)
        if path in mounts:
            return mounts[path]
    return None


def inside(path: str, folder: str) -> bool:
    """Tell whether `path` is `folder` or below it. Both are real paths."""
    return path == folder or folder == "/" or path.startswith(folder + "/")


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]


# -- bubblewrap's options --------------------------------------------------------------------------


def _render(
    terms: Sandbox, scene: Scene, tools: Tools, mounts: Iterable[Mount], cwd: str
) -> Iterator[str]:
    yield from ("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try")
    yield "--die-with-parent"
    if tools.user_namespace:
        yield "--unshare-user"
    if tools.privileged:
        yield from ("--cap-drop", "ALL")
    if terms.network == "off":
        yield "--unshare-net"
    if not scene.tty:  # with a terminal, the filter keeps it from typing into it
        yield "--new-session"
    closed = ["/dev", "/proc"]
    for mount in mounts:
        yield from _mount(mount, terms, tools)
        if mount.path == "/":
            yield from ("--proc", "/proc", "--dev", "/dev")
            for name in DEVICES if tools.devices else ():
                yield from ("--dev-bind", join(tools.devices or "", name), f"/dev/{name}")
        elif mount.deed is Deed.HIDE and mount.directory:
            closed.append(mount.path)
    # last, because mount points are made in them: a hidden directory is no room for files, nor is /dev;
    # of /proc, root without capabilities may still write /proc/sys/kernel/core_pattern
    for path in closed:
        yield from ("--remount-ro", path)
    yield from ("--chdir", cwd)


def _mount(mount: Mount, terms: Sandbox, tools: Tools) -> Iterator[str]:
    path = mount.path
    match mount.deed:
        case Deed.READ:
            yield from ("--ro-bind", path, path)
        case Deed.WRITE:
            yield from ("--dev-bind" if inside(path, "/dev") else "--bind", path, path)
        case Deed.HIDE if mount.directory:
            yield from ("--perms", "0755", "--tmpfs", path)
        case Deed.HIDE:
            yield from ("--ro-bind", tools.nothing, path)
        case Deed.ROOM:
            yield from ("--perms", "1777")
            if tools.version >= SIZED:
                yield from ("--size", str(terms.tmp))
            yield from ("--tmpfs", path)


def _shortfalls(tools: Tools) -> Iterator[str]:
    if not tools.filtered:
        yield f"system calls are not filtered: there is no filter for {tools.machine or 'this machine'}"
    if tools.version < SIZED:
        version = ".".join(map(str, tools.version))
        yield f"the size of /tmp is not bounded: bubblewrap {version} cannot do that, 0.7.0 can"
