"""A process whose files may not grow beyond a limit, as on a full disk, until it lifts the limit: prints what it saw."""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))
from midwatch.core.counts import Counts
from midwatch.core.errors import StoreError
from midwatch.core.spans.form import Signal
from midwatch.store.spans.embedded import EmbeddedSpans
from midwatch.store.spans.manifest import MemoryManifest
from spans import batch, span

LIMIT = 300_000


async def main(folder: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    store = EmbeddedSpans(folder, MemoryManifest(), Counts())
    await store.open()
    kept: list[int] = []
    why: set[str] = set()

    async def post(number: int) -> None:
        rows = [span(f"{number}/{at}", f"t{number}", status_message="x" * 300) for at in range(100)]
        try:
            await store.append(batch(*rows))
            kept.append(number)
        except StoreError as error:
            why.add(f"{error.permanent} {str(error).split(':')[0]}")

    whole = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, whole[1]))
    for number in range(12):
        await post(number)
    refused = 12 - len(kept)
    resource.setrlimit(resource.RLIMIT_FSIZE, whole)
    for number in range(12, 15):
        await post(number)

    names = await store.read(
        lambda view: view.cursor.execute(f"SELECT name FROM {view.rows(Signal.SPANS)}").fetchall()
    )
    await store.stop()
    found = sorted({int(name.split("/")[0]) for (name,) in names})
    print(json.dumps({"refused": refused, "kept": kept, "found": found, "rows": len(names), "why": sorted(why)}))  # fmt: skip


asyncio.run(main(Path(sys.argv[1])))
