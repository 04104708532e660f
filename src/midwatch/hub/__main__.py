"""`python -m midwatch.hub --data DIR --listen HOST:PORT [--node NAME]`: the hub's process.

SIGTERM and SIGINT end it in good order, within three seconds. Exit codes: 0 ended in order, 2 it cannot
run as things are (one message on stderr says why), 1 it died of a fault.
"""

from __future__ import annotations

# ruff: noqa: E402  what comes before the other imports takes a quarter of a second off the start, and 6 MB
import gc
import sys

from pydantic import BaseModel

# what is imported lives as long as the process: the collector would look at it again and again
gc.disable()
# validators are made when something is validated: most are FastAPI's, for /api/openapi.json alone
BaseModel.model_config["defer_build"] = True
# FastAPI would load all of pydantic's first version to learn that nothing here is of it
sys.modules["pydantic.v1"] = None  # pyright: ignore[reportArgumentType]

import asyncio
import logging
import signal
from collections.abc import Sequence
from typing import Final

from midwatch.core.errors import MidwatchError, SetupError
from midwatch.hub.app import Hub
from midwatch.hub.memory import Memory
from midwatch.hub.server import HubServer, bind
from midwatch.hub.settings import Settings, read_arguments
from midwatch.wire.sealed import seal

GC_YOUNG: Final = 10_000
"""Allocations between two looks of the collector: a request makes hundreds, and almost no cycles."""


async def serve(settings: Settings) -> None:
    """Run one hub until it is told to stop. Raises SetupError or StoreError when it cannot start."""
    hub = Hub(settings)
    listener = bind(settings.host, settings.port)
    await hub.start()
    try:
        others = await hub.listen()
    except SetupError:
        await hub.stop()
        raise
    server = HubServer(hub.asgi, listener)
    shown = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"http://{shown}:{server.port}"
    hub.login.listen(url, server.port)
    await hub.login.new_link()
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    serving = server.begin()
    serving.add_done_callback(lambda _: told.set())
    # what start-up made lives as long as the process; the collector need not look at it again, nor now: it would
    # look for a tenth of a second and find nothing
    gc.freeze()
    gc.set_threshold(GC_YOUNG, 20, 50)
    gc.enable()
    print(*(f"hub: {each}" for each in others), f"hub: listening on {url}", sep="\n", flush=True)  # noqa: T201  the supervisor's console
    giving_back = asyncio.create_task(Memory().keep_low(), name="memory")
    await told.wait()
    giving_back.cancel()
    gc.unfreeze()  # or extension modules complain at exit that their objects were never freed
    died = serving.done()
    hub.end_waiting()
    await server.end()
    await hub.stop()
    if died:
        serving.result()
        raise MidwatchError("the HTTP server ended by itself")


def main(arguments: Sequence[str]) -> int:
    """Run the hub and return the exit code."""
    seal()
    logging.basicConfig(format="hub: %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        asyncio.run(serve(read_arguments(arguments)))
    except MidwatchError as error:
        print(error, file=sys.stderr)  # noqa: T201  the one message
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
