"""The files of an earlier revision, checked out beside the user's own: a `git worktree` in the data directory.

A repository belongs to those who can write it, and its configuration can name programs that git would run
as us (`change.checkout`). So git is never run in it: a bare repository of our own borrows its objects
(`objects/info/alternates`) and has the worktree; of theirs no configuration is read, no hook, filter or
transport is run, nothing is written. What lies in their checkout and is not in git (a virtual environment,
a database, an output folder) is linked into the worktree, so that the old code finds the agent's things.
Bounded in time, files and bytes. Blocking: called in worker threads.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import secrets
import shutil
import signal
import string
import subprocess
import threading
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from midwatch.core.plain import clean
from midwatch.core.versions import SHORT, Revision
from midwatch.supervisor.change import checkout
from midwatch.supervisor.machine import stacks

FOLDER: Final = "worktrees"
"""In the data directory."""

GIT_S: Final = 30.0
"""How long all of git's work on one worktree may take."""

MAX_FILES: Final = 100_000
MAX_BYTES: Final = 1024 * 1024 * 1024
"""Of one revision; a larger one is not checked out."""

MAX_LISTING: Final = 64 * 1024 * 1024
"""Of git's list of a revision's files."""

MAX_ATTRIBUTES: Final = 100
"""Files of a revision that may ask for a filter; each is read by a git of its own."""

MAX_LINKS: Final = 1_000
"""Things beside the code that are linked; who has more keeps them in a folder."""

FRESH_S: Final = 300.0
"""What was asked for within so long is not tidied away: its agent may be about to be started."""

AGAIN_S: Final = 3600.0
"""How often it is looked whether one that holds an agent's files still does."""

_ABOUT: Final = "about.json"
_TREE: Final = "tree"
_UNLINKED: Final = frozenset({".git", "__pycache__"})
"""Compiled files of the newer code must not be taken for the older one's."""

_SETTINGS: Final = ("core.hooksPath=/dev/null", "core.fsmonitor=false", "core.symlinks=true", "gc.auto=0",
                    "protocol.allow=never", "submodule.recurse=false", "core.autocrlf=false")  # fmt: skip


class Unavailable(Exception):
    """A revision cannot be had. The text says why, after `its code was not: `."""


@dataclass(frozen=True, slots=True)
class Placed:
    """Where an earlier revision lies."""

    tree: str
    """The user's checkout."""
    worktree: str
    directory: str
    """The agent's directory in the worktree."""
    revision: Revision

    @property
    def name(self) -> str:
        """Return the name of its folder in FOLDER."""
        return Path(self.worktree).parent.name


class Worktrees:
    """The worktrees of one instance. Methods may be called from several threads."""

    def __init__(self, data: Path) -> None:
        self._folder = data / FOLDER
        self._lock = threading.Lock()
        self._asked: set[subprocess.Popen[bytes]] = set()
        self._closed = False
        self._held: dict[str, float] = {}
        """Folders that hold an agent's files, and when that was seen."""
        self._asked_at: dict[str, float] = {}

    def close(self) -> None:
        """Let nobody wait for git any more."""
        self._closed = True
        for asked in list(self._asked):
            _kill(asked)

    def place(self, directory: str, wanted: Revision, instead_of: str | None) -> Placed:
        """Return where `wanted`, an earlier revision of a directory's code, is checked out; make it when it is not.

        `instead_of`: the commit that is there now: what it has under version control is not linked. Raises Unavailable.
        """
        if not wanted.commit or set(wanted.commit) - set(string.hexdigits):
            raise Unavailable(f"{clean(wanted.commit, 20)!r} is no commit")
        found = checkout.find(Path(directory))
        if found is None:
            raise Unavailable("its directory is in no git repository any more")
        objects = Path(os.path.realpath(found.common / "objects"))
        if not objects.is_dir() or "\n" in str(objects):
            raise Unavailable(f"git's objects are not at {str(objects)!r}")
        tree = os.path.realpath(found.tree)
        inner = os.path.relpath(os.path.realpath(directory), tree)
        mark = hashlib.sha256(os.fsencode(f"{tree}\0{objects}")).hexdigest()[:12]
        home = self._folder / f"{mark}-{wanted.commit[:SHORT]}"
        with self._lock:
            self._asked_at[home.name] = time.monotonic()
            if not self._whole(home, wanted.commit):
                self._make(home, Path(tree), objects, wanted.commit, instead_of)
        there = os.path.normpath(home / _TREE / inner)
        if not os.path.isdir(there):  # noqa: PTH112
            raise Unavailable(f"{wanted.commit[:SHORT]} has no directory {inner!r}")
        if not Path(os.path.realpath(there)).is_relative_to(os.path.realpath(home / _TREE)):
            # linked as a whole, because git has nothing of it, or a link that somebody committed
            raise Unavailable(f"its directory {inner!r} is not under version control there")
        return Placed(tree, str(home / _TREE), there, Revision(wanted.commit, None, dirty=False))

    def tidy(self, keep: Collection[str], fresh_s: float = FRESH_S) -> list[str]:
        """Remove the worktrees that nobody needs; return sentences about those that hold an agent's files."""
        with self._lock:
            try:
                homes = [home for home in self._folder.iterdir() if home.name not in keep]
            except OSError:
                return []
            now, said = time.monotonic(), list[str]()
            for home in homes:
                asked, seen = (at.get(home.name, -math.inf) for at in (self._asked_at, self._held))
                if now - asked < fresh_s or (fresh_s and now - seen < AGAIN_S):
                    continue
                if not self._holds_more(home):
                    shutil.rmtree(home, ignore_errors=True)
                    continue
                self._held[home.name] = now
                if seen == -math.inf:
                    said.append(
                        f"{str(home / _TREE)!r} is used no more and holds files that an agent wrote while its"
                        " earlier code ran there; take what you need, and remove it"
                    )
            return said

    # -- making ------------------------------------------------------------------------------

    def _whole(self, home: Path, commit: str) -> bool:
        try:
            return json.loads((home / _ABOUT).read_bytes())["commit"] == commit
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def _make(
        self, home: Path, tree: Path, objects: Path, commit: str, instead_of: str | None
    ) -> None:
        program = shutil.which("git")
        if program is None:
            raise Unavailable("git is not installed")
        self._set_aside(home)
        deadline = time.monotonic() + GIT_S
        repository = home / "repository"
        git = _Git(self, program, repository, deadline)
        try:
            home.mkdir(parents=True, mode=0o700)
            form = "sha256" if len(commit) == 64 else "sha1"
            git.run("init", "--quiet", "--bare", "--template=", f"--object-format={form}")
            (repository / "objects/info").mkdir(exist_ok=True)
            (repository / "objects/info/alternates").write_text(f"{objects}\n")
            tracked = _refuse_what_we_cannot(git, commit)
            now = set(tracked)
            if instead_of is not None:
                listing = git.run("ls-tree", "-rz", "--name-only", instead_of, may_fail=True)
                now |= {os.fsdecode(name) for name in listing.split(b"\0") if name}
            git.run("worktree", "add", "--quiet", "--detach", str(home / _TREE), commit)
            links = _link(tree, home / _TREE, now, os.path.realpath(self._folder.parent))
            about = {"commit": commit, "from": str(tree), "links": links, "files": sorted(tracked)}
            (home / _ABOUT).write_text(json.dumps(about))
        except Unavailable:
            shutil.rmtree(home, ignore_errors=True)
            raise
        except (OSError, ValueError) as error:
            shutil.rmtree(home, ignore_errors=True)
            why = getattr(error, "strerror", None) or str(error)
            raise Unavailable(f"it could not be checked out: {clean(why)}") from error

    def _set_aside(self, home: Path) -> None:
        """Make room where one was not finished. The git of a supervisor that was killed may still be writing
        into it, and where its record is torn it may hold an agent's files."""
        aside = home.with_name(f"{home.name}.{secrets.token_hex(4)}")
        try:
            home.rename(aside)
        except FileNotFoundError:
            return
        except OSError as error:
            raise Unavailable(f"it could not be checked out: {clean(str(error))}") from error
        if not self._holds_more(aside):
            shutil.rmtree(aside, ignore_errors=True)

    def _holds_more(self, home: Path) -> bool:
        """Tell whether somebody wrote into a worktree; what was not finished holds nothing."""
        try:
            about = json.loads((home / _ABOUT).read_bytes())
            ours = {*map(str, about["links"]), *map(str, about["files"])}
            digits = len(str(about["commit"]))
        except FileNotFoundError:
            return False
        except (OSError, ValueError, KeyError, TypeError):
            return True
        tree = home / _TREE
        for folder, folders, files in os.walk(tree):
            folders[:] = [name for name in folders if name not in _UNLINKED]
            here = os.path.relpath(folder, tree)
            linked = [name for name in folders if os.path.islink(os.path.join(folder, name))]  # noqa: PTH114, PTH118
            for name in (*files, *linked):
                if name != ".git" and os.path.normpath(os.path.join(here, name)) not in ours:  # noqa: PTH118
                    return True
        found = checkout.find(tree)
        return found is not None and checkout.is_dirty(found, digits) is not False

    # -- git ---------------------------------------------------------------------------------

    def ask(
        self, command: list[str], cwd: Path, deadline: float, most: int
    ) -> tuple[int, bytes, bytes]:
        """Run git; return its status and what it said. Raises Unavailable when it takes too long."""
        if self._closed or time.monotonic() >= deadline:
            raise Unavailable("git took too long")
        env = {
            "PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "HOME": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_ATTR_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": "none", "GIT_NO_LAZY_FETCH": "1",
            "GIT_NO_REPLACE_OBJECTS": "1",
        }  # fmt: skip
        with stacks.STARTING:  # the supervisor reaps strangers: this one is waited for here
            asked = subprocess.Popen(
                command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE, process_group=0,
            )  # fmt: skip
            stacks.WAITED.add(asked.pid)
        self._asked.add(asked)
        limit = threading.Timer(max(0.0, deadline - time.monotonic()), _kill, (asked,))
        limit.start()
        try:
            with asked:
                assert asked.stdout is not None
                assert asked.stderr is not None
                said = asked.stdout.read(most + 1)
                if len(said) > most:
                    _kill(asked)
                    raise Unavailable("it has too many files to be checked out")
                wrong = asked.stderr.read(4096)
        finally:
            limit.cancel()
            self._asked.discard(asked)
            stacks.WAITED.discard(asked.pid)
        if asked.returncode < 0:
            raise Unavailable("git took too long" if not self._closed else "Midwatch stops")
        return asked.returncode, said, wrong


def _kill(asked: subprocess.Popen[bytes]) -> None:
    """End git and the gits that it started, which hold its pipes."""
    if asked.returncode is None:  # not reaped: the group is still this one
        with contextlib.suppress(ProcessLookupError):
            os.killpg(asked.pid, signal.SIGKILL)


@dataclass(frozen=True, slots=True)
class _Git:
    """Git over a repository of ours."""

    owner: Worktrees
    program: str
    repository: Path
    deadline: float

    def run(self, *words: str, may_fail: bool = False) -> bytes:
        """Return what git prints; nothing when it fails and may. Raises Unavailable."""
        settings = [word for setting in _SETTINGS for word in ("-c", setting)]
        command = [self.program, f"--git-dir={self.repository}", *settings, *words]
        code, said, wrong = self.owner.ask(
            command, self.repository.parent, self.deadline, MAX_LISTING
        )
        if code == 0:
            return said
        if may_fail:
            return b""
        raise Unavailable(f"git {words[0]} failed: {clean(wrong.decode('utf-8', 'replace'), 120)}")


def _refuse_what_we_cannot(git: _Git, commit: str) -> set[str]:
    """Return the files of a revision. Raises Unavailable for one that git alone would not check out as it was."""
    if git.run("cat-file", "-t", commit, may_fail=True).strip() != b"commit":
        raise Unavailable(f"git does not have {commit[:SHORT]} any more")
    names: set[str] = set()
    total = 0
    attributes: list[str] = []
    for line in git.run("ls-tree", "-rlz", commit).split(b"\0"):
        if not line:
            continue
        about, _, raw = line.partition(b"\t")
        mode, kind, digest, size = about.split()
        name = os.fsdecode(raw)
        if kind == b"commit":
            raise Unavailable("its repository has submodules, which are not checked out with it")
        names.add(name)
        total += int(size) if size.isdigit() else 0
        if name.rpartition("/")[2] == ".gitattributes" and mode != b"120000":
            attributes.append(digest.decode())
    if len(names) > MAX_FILES or total > MAX_BYTES:
        raise Unavailable(
            f"it is too large to be checked out ({len(names):,} files, {total:,} bytes)"
        )
    if len(attributes) > MAX_ATTRIBUTES:
        raise Unavailable(f"it has more than {MAX_ATTRIBUTES} files named .gitattributes")
    for digest in set(attributes):
        if b"filter=" in git.run("cat-file", "blob", digest):
            raise Unavailable(
                "some of its files need a filter of git's (such as LFS), and none is run"
            )
    return names


def _link(tree: Path, worktree: Path, tracked: Collection[str], data: str) -> list[str]:
    """Link what lies in the checkout and is not in git, but for our own data; return the links' names.

    Raises Unavailable, OSError.
    """
    folders = {folder for name in tracked for folder in _above(name)}
    links: list[str] = []
    waiting = [""]
    while waiting:
        inner = waiting.pop()
        with os.scandir(tree / inner) as entries:
            for entry in entries:
                name = f"{inner}/{entry.name}" if inner else entry.name
                there = worktree / name
                if entry.name in _UNLINKED or name in tracked:
                    continue
                if name in folders:
                    if entry.is_dir(follow_symlinks=False) and there.is_dir():
                        waiting.append(name)
                    continue
                if os.path.commonpath((real := os.path.realpath(entry.path), data)) == real:
                    continue
                if len(links) >= MAX_LINKS:
                    raise Unavailable(f"more than {MAX_LINKS:,} files lie beside its code")
                with contextlib.suppress(FileExistsError):
                    there.symlink_to(entry.path)
                    links.append(name)
    return links


def _above(name: str) -> Iterable[str]:
    while name := name.rpartition("/")[0]:
        yield name


def moved(command: list[str], placed: Placed) -> list[str]:
    """Return a command whose words that name files of the checkout name those of the worktree."""
    found: list[str] = []
    for word in command:
        inner = os.path.relpath(word, placed.tree) if os.path.isabs(word) else ".."  # noqa: PTH117
        there = os.path.join(placed.worktree, inner)  # noqa: PTH118
        inside = inner != ".." and not inner.startswith("../")
        found.append(there if inside and os.path.lexists(there) else word)
    return found
