"""Entry of the supervisor: one data directory, one loop, signals in, a clean end out.

`run` is what `midwatch up` calls in the foreground. What cannot be used is told as SetupError
before anything was started.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from midwatch.core import access
from midwatch.core.errors import LinkError, SetupError
from midwatch.core.fleet import Fleet
from midwatch.sdk.transport import Transport
from midwatch.supervisor import address, http
from midwatch.supervisor.change.reload import Source
from midwatch.supervisor.datadir import DataDir
from midwatch.supervisor.machine import linux
from midwatch.supervisor.machine.portable import PortableSystem
from midwatch.supervisor.machine.system import System
from midwatch.supervisor.precedence import Precedence
from midwatch.supervisor.pulse import Pulse
from midwatch.supervisor.reporter import Silence
from midwatch.supervisor.service_notify import ServiceManager
from midwatch.supervisor.supervisor import Plans, Supervisor
from midwatch.wire.sealed import seal

READY_PATIENCE_S: Final = 120.0
"""How long the address of the page is waited for before the console says that the hub is slow."""

LINK_FILE: Final = "hub/link"
"""Where the hub leaves the page's address with its one-time token."""


def run(
    fleet: Fleet,
    data: Path,
    *,
    rehearsal: bool = False,
    on_ready: Callable[[str], None] | None = None,
    say: Callable[[str], None] | None = None,
    hub: bool = True,
    source: Source | None = None,
) -> int:
    """Run a resolved fleet until SIGINT or SIGTERM; return the exit code.

    `on_ready` is called once with the page's address. `say` takes the console's sentences, by default
    stderr. `hub=False` starts agents alone: nothing is reported. `source` is where the fleet comes from:
    without it nothing can be reloaded. Raises SetupError.
    """
    seal()  # our environment holds providers' keys, and agents are of our user
    return asyncio.run(_run(fleet, data, rehearsal, on_ready, say or _to_stderr, hub, source))


async def _run(
    fleet: Fleet,
    data: Path,
    rehearsal: bool,
    on_ready: Callable[[str], None] | None,
    say: Callable[[str], None],
    hub: bool,
    source: Source | None,
) -> int:
    loop = asyncio.get_running_loop()
    _raise_limit()
    directory = DataDir(data)
    try:
        plans = _plans(fleet, rehearsal, hub)
        fleet = _with_addresses(fleet, plans)
        system: System = (
            linux.own(loop, directory.secret) if linux.supported() else PortableSystem(loop)
        )
        transport = _transport(directory, plans) if plans.hub else None
        reporter = transport or Silence()
        supervisor = Supervisor(fleet, directory, plans, system, reporter, say, source)
        directory.write_json("fleet.json", supervisor.fleet.model_dump(mode="json"))
        directory.write_json("instance.json", _instance(fleet, plans, source, system))
        directory.remove(LINK_FILE)
        try:
            await _live(supervisor, transport, on_ready)
        finally:
            if transport is not None:
                transport.close(1.0)
            directory.remove("instance.json")
    finally:
        directory.close()
    return 0


async def _live(
    supervisor: Supervisor, transport: Transport | None, on_ready: Callable[[str], None] | None
) -> None:
    changes = supervisor.changes
    stop, kill = _listen_to_signals(changes.hang_up if changes.source is not None else None)
    manager = ServiceManager(os.environ)
    if "reload" in supervisor.orders.own:
        supervisor.orders.own["reload"] = manager.telling(supervisor.changes.reload)
    problem: SetupError | None = None
    ours = Precedence("midwatch", supervisor.system, supervisor.say)
    supervisor.tasks.spawn(ours.keep(), "precedence")
    starting = supervisor.tasks.spawn(_start(supervisor), "start")
    stopped = supervisor.tasks.spawn(stop.wait(), "wait for a signal")
    await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if starting.done():
        problem = starting.result()
        if problem is None:
            manager.ready()
            supervisor.tasks.spawn(manager.keep(Pulse(supervisor), supervisor.say), "service")
            gc.freeze()  # what lives now lives on: forks copy fewer pages
            if on_ready is not None and supervisor.plans.hub is not None:
                supervisor.tasks.spawn(_announce(supervisor, on_ready), "announce")
            await stopped
    else:
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
    stopped.cancel()
    manager.stopping()
    if problem is None:
        supervisor.say("midwatch: stopping; agents get time to finish (Ctrl-C again kills them)")
    supervisor.tasks.spawn(_kill_on(kill, supervisor), "wait for a second signal")
    await supervisor.drain()
    # after a kill there is no hub to take the last reports: they wait in the spool
    await supervisor.close(transport.flush if transport and not kill.is_set() else _nothing)
    if problem is not None:
        raise problem
    supervisor.say("midwatch: stopped; nothing is left running")


async def _kill_on(kill: asyncio.Event, supervisor: Supervisor) -> None:
    await kill.wait()
    supervisor.say("midwatch: killing what still runs")
    supervisor.kill()


async def _start(supervisor: Supervisor) -> SetupError | None:
    try:
        await supervisor.start()
    except SetupError as error:
        return error
    return None


def _listen_to_signals(reload: Callable[[], None] | None) -> tuple[asyncio.Event, asyncio.Event]:
    """The first signal drains, the second kills. SIGHUP is the end of the terminal where there is one;
    a service, which has none, is asked by it to read its file again."""
    stop, kill = asyncio.Event(), asyncio.Event()

    def heard() -> None:
        (kill if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # under nohup the end of the terminal is not our end
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            again = reload if number == signal.SIGHUP and not _has_terminal() else None
            loop.add_signal_handler(number, again or heard)
    return stop, kill


def _has_terminal() -> bool:
    """Tell whether we have a controlling terminal, whose end would be told by SIGHUP."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True


async def _announce(supervisor: Supervisor, on_ready: Callable[[str], None]) -> None:
    """Call `on_ready` when the hub can write and query, with the address that it left."""
    url = supervisor.plans.hub_url
    file = supervisor.data.path / LINK_FILE
    late = time.monotonic() + READY_PATIENCE_S
    while True:
        with contextlib.suppress(LinkError):
            if (
                await http.request("GET", f"{url}/readyz", timeout_s=2.0)
            ).status == 200 and file.exists():
                on_ready(file.read_text("utf-8").strip() or url)
                return
        if time.monotonic() > late:
            late += READY_PATIENCE_S
            supervisor.say(
                "midwatch: the hub is not ready yet; look into logs/hub/output.log of the data directory"
            )
        await asyncio.sleep(0.05)


def _transport(directory: DataDir, plans: Plans) -> Transport:
    token = access.mint_node(directory.secret, plans.node)
    spool = directory.folder("spool", "supervisor")
    return Transport(plans.hub_url, token, spool, gather=True)


def _nothing(_timeout_s: float) -> None:
    """Flush what was told to nobody."""


def _plans(fleet: Fleet, rehearsal: bool, hub: bool) -> Plans:
    """Read and check every address before anything starts."""
    found: dict[str, address.Address] = {}
    if hub:
        for name, listen in (("hub", fleet.hub.listen), ("gateway", fleet.gateway.listen)):
            key = f"{name}.listen"
            found[name] = address.reserve(
                address.parse(listen, key), key, patience_s=address.PATIENCE_S
            )
    if rehearsal:
        found["rehearsal"] = address.reserve(address.Address("127.0.0.1", 0), "rehearsal")
    return Plans(node_name(), **found)


def _with_addresses(fleet: Fleet, plans: Plans) -> Fleet:
    """Write the ports that were chosen for port 0 back, for whoever reads fleet.json."""
    update: dict[str, Any] = {}
    if plans.hub is not None and plans.gateway is not None:
        update["hub"] = fleet.hub.model_copy(update={"listen": str(plans.hub)})
        update["gateway"] = fleet.gateway.model_copy(update={"listen": str(plans.gateway)})
    return fleet.model_copy(update=update)


def _instance(fleet: Fleet, plans: Plans, source: Source | None, system: System) -> dict[str, Any]:
    try:
        version = metadata.version("midwatch")
    except metadata.PackageNotFoundError:
        version = "unknown"
    return {
        "pid": os.getpid(),
        "node": plans.node,
        "hub_url": plans.hub.url if plans.hub else None,
        "gateway_url": plans.gateway.url if plans.gateway else None,
        "rehearsal_url": plans.rehearsal.url if plans.rehearsal else None,
        "fleet": fleet.fleet,
        "file": str(source.file) if source else None,
        "version": version,
        "started_at": time.time(),
        "limits": {"delegation": system.delegation(), "held_by": system.enforcement()},
    }


def node_name() -> str:
    """Return the machine's name as a name of ours."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", socket.gethostname())[:63].strip("-._") or "local"


def _raise_limit() -> None:
    """Each agent needs three descriptors here; the usual soft limit of 1024 is for select()."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _to_stderr(text: str) -> None:
    stamp = time.strftime("%H:%M:%S")
    with contextlib.suppress(OSError, ValueError):  # a closed terminal must not stop the watch
        sys.stderr.write(f"{stamp} {text}\n")
        sys.stderr.flush()
