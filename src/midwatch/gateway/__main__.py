"""`python -m midwatch.gateway --data DIR --listen HOST:PORT`: the gateway's process.

SIGTERM and SIGINT end it in good order: calls under way have a few seconds, then they are cut with a word to
their clients. Exit codes: 0 ended in order, 2 it cannot run as things are (one message on stderr says why),
1 it died of a fault.
"""

from __future__ import annotations

# ruff: noqa: E402  what is imported lives as long as the process: the collector would look at it again and again
import gc

gc.disable()

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from midwatch.core.errors import MidwatchError, SetupError
from midwatch.gateway.app import App, Options
from midwatch.gateway.http import loop
from midwatch.gateway.http.server import bind, serve
from midwatch.gateway.ledger import keeper
from midwatch.gateway.ledger.keeper import Beside
from midwatch.gateway.router import Router
from midwatch.gateway.voice import Voice
from midwatch.wire import sealed

GC_YOUNG: Final = 10_000
"""Allocations between two looks of the collector: a call makes hundreds, and almost no cycles."""

STOP_S: Final = 5.0
"""How long calls under way may go on when the gateway stops."""

LAST_WORD_S: Final = 2.0
"""Then this long for telling their clients. The supervisor kills after ten seconds."""


def read_arguments(arguments: Sequence[str]) -> Options:
    """Return how to run. Raises SetupError, or SystemExit with 2 for what argparse refuses."""
    parser = argparse.ArgumentParser(prog="python -m midwatch.gateway", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="the instance's data directory")
    parser.add_argument(
        "--listen", default="127.0.0.1:8701", help="HOST:PORT; port 0 takes a free one"
    )
    parser.add_argument("--name", help="of this process in the ledger; host and port when left out")
    parser.add_argument(
        "--grace",
        type=float,
        default=STOP_S,
        metavar="SECONDS",
        help=f"how long calls may go on at the end; {STOP_S:g} when left out",
    )
    parser.add_argument("--rehearsal", metavar="URL", help="the rehearsal model, for all providers")
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a further name by which this gateway is called (Host header)",
    )
    parser.add_argument("--hub", metavar="URL", help="where calls are told; to nobody if left out")
    parser.add_argument(
        "--secrets-fd",
        type=int,
        metavar="N",
        help="an open socket on which the supervisor hands over providers' keys when it is asked; without it they"
        " are read from the environment",
    )
    parser.add_argument("--node", default=socket.gethostname(), help="the name of this machine")
    read = parser.parse_args(arguments)
    host, colon, port = read.listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise SetupError(f"--listen {read.listen!r}: expected HOST:PORT, such as 127.0.0.1:8701")
    names = {name.strip().lower() for name in read.allow_host}
    # whoever listens everywhere is called by the machine's name
    everywhere = host in ("0.0.0.0", "::")  # noqa: S104  a comparison, nothing is bound
    names.add((socket.gethostname() if everywhere else host).lower())
    return Options(
        read.data, host, int(port), read.name or "", frozenset(names), read.rehearsal, read.grace,
        read.hub, read.node, read.secrets_fd,
    )  # fmt: skip


def environment(secrets_fd: int | None) -> dict[str, str]:
    """Return our variables with those that the supervisor hands over. Raises SetupError. Blocking."""
    try:
        return {**os.environ, **({} if secrets_fd is None else sealed.ask(secrets_fd))}
    except (OSError, ValueError) as error:
        raise SetupError(f"--secrets-fd {secrets_fd}: no keys of providers came: {error}") from None


async def run(options: Options, variables: Mapping[str, str], beside: Beside | None = None) -> None:
    """Run one gateway until it is told to stop. Raises MidwatchError when it cannot start."""
    listener = bind(options.host, options.port)
    if not options.name:
        options = replace(options, name=f"{socket.gethostname()}:{listener.getsockname()[1]}")
    voice = Voice(options) if options.hub_url is not None else None
    app = App(options, variables, tell=None if voice is None else voice.telling, beside=beside)
    await app.start()
    if voice is not None:
        await voice.begin(app)
    router = Router(app)
    server = router.server = await serve(router.handle, listener, hosts=options.hosts)
    told = asyncio.Event()
    running = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        running.add_signal_handler(number, told.set)
    # what start-up made lives as long as the process; the collector need not look at it again
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_YOUNG, 20, 50)
    shown = f"[{options.host}]" if ":" in options.host else options.host
    print(f"gateway: listening on http://{shown}:{server.port}", flush=True)  # noqa: T201  the supervisor's console
    for problem in app.house.settings.problems:
        print(f"gateway: {problem}", flush=True)  # noqa: T201
    await told.wait()
    gc.unfreeze()  # or extension modules complain at exit that their objects were never freed
    cutting = running.create_task(_cut_after(app, options.grace_s))
    await server.stop(options.grace_s + LAST_WORD_S)
    cutting.cancel()
    await app.stop()
    if voice is not None:
        await voice.end()


def cores() -> int:
    """Return how many processors this process may use: with a single one, a process for the ledger is of no use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


async def _cut_after(app: App, seconds: float) -> None:
    await asyncio.sleep(seconds)
    await app.cut_all()


def main(arguments: Sequence[str]) -> int:
    """Run the gateway and return the exit code."""
    sealed.seal()  # first: providers' keys come after it
    gc.freeze()  # and what forks copies fewer pages
    gc.enable()
    logging.basicConfig(format="gateway: %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    try:
        options = read_arguments(arguments)
        loop.raise_open_files()
        beside = keeper.fork() if cores() > 1 else None
        loop.run(run(options, environment(options.secrets_fd), beside))
    except MidwatchError as error:
        print(f"gateway: {error}", file=sys.stderr)  # noqa: T201  the one message
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
