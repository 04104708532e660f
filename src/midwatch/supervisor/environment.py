"""What an agent finds in its environment (CONTRACT), as a pure function; and how an env file is read.

Laid over each other: what we inherited (without what is ours or another supervisor's, and without
providers' keys), what Midwatch injects, the env file, `env` in the fleet file. The last one wins; only in
a rehearsal the gateway's address and key win over the file, because a rehearsal must never spend.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shlex
import stat
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from midwatch.core.calls import variables
from midwatch.core.errors import SetupError
from midwatch.core.fleet import Agent
from midwatch.core.sandbox import allowed

MAX_ENV_FILE_BYTES: Final = 1024 * 1024

_NOT_INHERITED: Final = re.compile(
    r"MIDWATCH_.*|NOTIFY_SOCKET|WATCHDOG_(?:USEC|PID)|LISTEN_(?:FDS|PID|FDNAMES)|INVOCATION_ID|JOURNAL_STREAM"
    r"|OTEL_EXPORTER_OTLP_.*|OTEL_SERVICE_NAME"
)
"""The supervisor's own: its token, its systemd socket, its telemetry."""

_LINE: Final = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t", '"': '"', "\\": "\\", "$": "$"}


@dataclass(frozen=True, slots=True)
class Carrier:
    """Who carries a run's model calls."""

    url: str
    key: str
    kept_back: frozenset[str] = frozenset()
    """Variables that it alone inherits."""
    rehearses: bool = False


@dataclass(frozen=True, slots=True)
class Identity:
    """What makes a run's environment its own."""

    agent: str
    run_id: str
    token: str
    hub_url: str
    spool: str
    notify_socket: str | None = None
    watchdog_s: float | None = None
    gateway: Carrier | None = None


def build(
    agent: Agent, identity: Identity, inherited: Mapping[str, str], from_file: Mapping[str, str]
) -> dict[str, str]:
    """Return the whole environment of one run."""
    if agent.sandbox is not None and agent.sandbox.enabled:
        inherited = allowed(agent.sandbox.env, inherited)
    env = {k: v for k, v in inherited.items() if inherits(k)}
    if identity.gateway is not None:
        env = _carried(identity.gateway, env, {**from_file, **agent.env})
    attributes = env.get("OTEL_RESOURCE_ATTRIBUTES", "")
    own = f"service.instance.id={identity.run_id},midwatch.agent={quote(identity.agent)},midwatch.run_id={identity.run_id}"
    env.update(
        MIDWATCH_AGENT=identity.agent,
        MIDWATCH_RUN_ID=identity.run_id,
        MIDWATCH_URL=identity.hub_url,
        MIDWATCH_TOKEN=identity.token,
        MIDWATCH_SPOOL=identity.spool,
        OTEL_SERVICE_NAME=identity.agent,
        OTEL_EXPORTER_OTLP_ENDPOINT=identity.hub_url,
        OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf",
        OTEL_EXPORTER_OTLP_HEADERS=f"authorization=Bearer%20{quote(identity.token)}",
        OTEL_RESOURCE_ATTRIBUTES=f"{attributes},{own}" if attributes else own,
    )
    if identity.notify_socket is not None:
        env["NOTIFY_SOCKET"] = identity.notify_socket
    if identity.watchdog_s:
        env["WATCHDOG_USEC"] = str(round(identity.watchdog_s * 1_000_000))
    # a killed Python agent must not take its last lines along, and shows its stack when it hangs
    env.setdefault("PYTHONUNBUFFERED", "1")
    env.setdefault("PYTHONFAULTHANDLER", "1")
    env["PATH"] = _path(env.get("PATH"))
    env.update(from_file)
    env.update(agent.env)
    if identity.gateway is not None and identity.gateway.rehearses:
        env = variables.rehearsed(env, identity.gateway.url, identity.gateway.key)
    _spare_loopback(env)
    return env


def _spare_loopback(env: dict[str, str]) -> None:
    """Behind a proxy, hub and model on this machine are still asked directly."""
    if not any(name.lower().endswith("_proxy") for name in env):
        return
    for name in ("NO_PROXY", "no_proxy"):  # clients differ in which one they read
        hosts = [host for host in env.get(name, "").split(",") if host]
        missing = [host for host in ("127.0.0.1", "localhost", "::1") if host not in hosts]
        env[name] = ",".join(hosts + missing)


def inherits(name: str) -> bool:
    """Tell whether a variable of ours may be passed on to children."""
    return _NOT_INHERITED.fullmatch(name) is None


def _carried(
    gateway: Carrier, inherited: Mapping[str, str], given: Mapping[str, str]
) -> dict[str, str]:
    """Return what is inherited with the way to the gateway in the place of providers' keys."""
    env = without(gateway.kept_back, inherited)
    env = {k: v for k, v in env.items() if not variables.astray(k)}
    return env | variables.led(given, inherited, gateway.url, gateway.key)


def without(names: frozenset[str], inherited: Mapping[str, str]) -> dict[str, str]:
    """Return what children other than the gateway inherit: no provider's key."""
    return {k: v for k, v in inherited.items() if inherits(k) and k not in names}


def _path(inherited: str | None) -> str:
    """Append our interpreter's directory: `python` then exists also where only python3 is installed."""
    own = str(Path(sys.executable).parent)
    path = inherited or os.defpath
    return path if own in path.split(os.pathsep) else f"{path}{os.pathsep}{own}"


def read_bounded(path: Path, check: Callable[[os.stat_result], None] | None = None) -> bytes:
    """Return the content of an env file, no more of it than tells that it is too large. Raises OSError,
    and what `check` raises of the file that was opened.

    An agent may be able to write there: a pipe in the file's place must not make everybody wait.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(fd, "rb") as stream:  # noqa: PTH123  opened by its descriptor
        found = os.fstat(fd)
        if stat.S_ISFIFO(found.st_mode):
            raise OSError(errno.EINVAL, "it is a pipe")
        if check is not None:
            check(found)
        return stream.read(MAX_ENV_FILE_BYTES + 1) or b""


def _trusted(found: os.stat_result, path: Path, agent: str, fleet_file: Path | None) -> None:
    """Raise SetupError for a file that others may have written: variables are code.

    Who may write the fleet file says which commands are run, and is believed here, too. A group is:
    in many systems each user has one of his own, and files are made writable to it.
    """
    if not stat.S_ISREG(found.st_mode):
        return
    owners, open_to_all = {0, os.geteuid()}, False
    if fleet_file is not None:
        with contextlib.suppress(OSError):
            beside = fleet_file.stat()
            owners.add(beside.st_uid)
            open_to_all = bool(beside.st_mode & stat.S_IWOTH)
    who, quoted = f"agents.{agent}.env_file: {str(path)!r}", shlex.quote(str(path))
    if found.st_uid not in owners:
        raise SetupError(
            f"{who} belongs to another user (uid {found.st_uid}), who might give variables to this agent;"
            f" if what it says is meant, make it yours: chown {os.geteuid()} {quoted}"
        )
    if found.st_mode & stat.S_IWOTH and not open_to_all:
        raise SetupError(
            f"{who} may be written by everybody (mode {stat.S_IMODE(found.st_mode):04o}), who might give"
            f" variables to this agent; look at what it says, then: chmod o-w {quoted}"
        )


def read_env_file(path: Path, agent: str, fleet_file: Path | None = None) -> dict[str, str]:
    """Return the variables of an env file. Raises SetupError with file and line."""
    try:
        content = read_bounded(path, lambda found: _trusted(found, path, agent, fleet_file))
        if len(content) > MAX_ENV_FILE_BYTES:
            raise SetupError(
                f"agents.{agent}.env_file: {str(path)!r} is larger than 1 MiB; is it an env file?"
            )
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise SetupError(
            f"agents.{agent}.env_file: cannot read {str(path)!r} ({error.strerror}); create it, or take env_file out"
        ) from error
    except UnicodeDecodeError as error:
        raise SetupError(f"agents.{agent}.env_file: {str(path)!r} is not UTF-8 text") from error
    return parse_env(text, str(path))


def parse_env(text: str, file: str) -> dict[str, str]:
    """Read KEY=VALUE lines: comments, `export`, single quotes (as is) and double quotes (escapes).

    Raises SetupError that names the line; it never shows a value, which may be a secret.
    """
    found: dict[str, str] = {}
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise SetupError(f"{file}:{number}: expected KEY=VALUE")
        name, value = match[1], match[2]
        if "\0" in value:
            raise SetupError(f"{file}:{number}: {name} holds a NUL character")
        if value[:1] in ("'", '"'):
            end = _closing(value)
            rest = value[end + 1 :].strip()
            if end < 0 or (rest and not rest.startswith("#")):
                raise SetupError(
                    f"{file}:{number}: {name}: the quote is not closed at the end of the value"
                )
            inner = value[1:end]
            found[name] = inner if value[0] == "'" else re.sub(r"\\(.)", _escape, inner)
        else:
            found[name] = re.split(r"\s+#", value, maxsplit=1)[0].strip()
    return found


def _closing(value: str) -> int:
    quote_, at = value[0], 1
    while at < len(value):
        if value[at] == "\\" and quote_ == '"':
            at += 1
        elif value[at] == quote_:
            return at
        at += 1
    return -1


def _escape(match: re.Match[str]) -> str:
    return _ESCAPES.get(match[1], match[0])
