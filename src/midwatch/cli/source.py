"""The fleet file as commands read it: from disk, with this environment, against this machine."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from midwatch.cli.exits import CommandError
from midwatch.core.errors import FleetFileError, SetupError
from midwatch.core.fleet import Agent
from midwatch.core.fleetfile import FIRST_FLEET, FleetFile, call_notes, check_conditions, read
from midwatch.core.fleetfile.document import MAX_CHARACTERS
from midwatch.core.fleetfile.host import check_host

_MISSING = """\
there is no fleet file {file}. Write one, for example:

{example}
check it with 'midwatch check', then start it with 'midwatch up'; or name another file with -f"""


def read_fleet(file: Path, *, conditions: bool = False) -> FleetFile:
    """Return the fleet file. Raises FleetFileError with all problems, CommandError when it cannot be read.

    `conditions` also compiles the conditions of routes, which takes half a second.
    """
    source = read(
        _text(file),
        file=str(file),
        root=str(file.absolute().parent),
        env=os.environ,
        read_file=_bounded,
    )
    problems = check_host(source, _which, os.path.exists, _programs)
    if conditions:
        problems = sorted([*problems, *check_conditions(source)], key=lambda p: (p.line, p.column))
    if problems:
        raise FleetFileError(problems, str(file))
    notes = [*source.notes, *call_notes(source, _env_file(file, Path(source.fleet.root)))]
    return replace(source, notes=sorted(notes, key=lambda note: note.line))


def _env_file(file: Path, root: Path) -> Callable[[str, Agent], Mapping[str, str]]:
    """Return what reads an agent's env file; one that cannot be read is told when the agent starts."""

    def read_variables(name: str, agent: Agent) -> Mapping[str, str]:
        if agent.env_file is None:
            return {}
        from midwatch.supervisor.environment import read_env_file

        try:
            return read_env_file(root / Path(agent.env_file).expanduser(), name, file)
        except SetupError:
            return {}

    return read_variables


def _text(file: Path) -> str:
    try:
        return _bounded(str(file))
    except FileNotFoundError:
        raise CommandError(_MISSING.format(file=repr(str(file)), example=FIRST_FLEET)) from None
    except IsADirectoryError:
        raise CommandError(
            f"{str(file)!r} is a directory; name the fleet file in it with -f"
        ) from None
    except UnicodeDecodeError:
        raise CommandError(f"{str(file)!r} is not UTF-8 text; save it as UTF-8") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise CommandError(f"cannot read the fleet file {str(file)!r}: {reason}") from None


def _bounded(path: str) -> str:
    """Return a file's text. Reads no more than is accepted: the path may be a device without end."""
    with Path(path).open("rb") as stream:
        content = stream.read(4 * MAX_CHARACTERS + 1)
    if len(content) > 4 * MAX_CHARACTERS:
        raise ValueError(f"it is larger than {4 * MAX_CHARACTERS} bytes")
    return content.decode("utf-8-sig")


def _search_path(path: str | None) -> str:
    """Return the PATH that an agent gets: ours, and the directory of our Python at its end."""
    chosen = os.environ.get("PATH", os.defpath) if path is None else path
    own = str(Path(sys.executable).parent)
    return chosen if path is not None else f"{chosen}{os.pathsep}{own}"


def _which(program: str, path: str | None) -> str | None:
    return shutil.which(program, path=_search_path(path))


def _programs() -> Iterable[str]:
    """Yield the names of programs in PATH, to suggest from; looked at only when one is missing."""
    for folder in dict.fromkeys(_search_path(None).split(os.pathsep)):
        try:
            yield from (entry.name for entry in Path(folder or ".").iterdir())
        except OSError:
            continue
