"""A process that writes telemetry until it is killed, and says what was acknowledged: `python writer.py FOLDER [STEP]`.

Each batch has 40 spans named by its number, one of them open until the next batch, and a content. With a STEP it
kills itself when a change of segments gets there. A STEP of rewriting: after batch 60 it drops session s1.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))
from midwatch.core.counts import Counts
from midwatch.core.spans.form import Batch, Rank
from midwatch.core.spans.store import Selector
from midwatch.store.spans.embedded import Due, EmbeddedSpans
from midwatch.store.spans.manifest import StateManifest
from midwatch.store.state import StateDb
from spans import batch, content, span

SPANS = 40
DROP_AT = 60


def numbered(number: int) -> Batch:
    """Return batch NUMBER; it ends the span that the one before left open."""
    trace = f"t{number}"
    rows = [span(f"{number}/{at}", trace, start_s=number, session=f"s{number % 5}") for at in range(SPANS - 1)]  # fmt: skip
    rows.append(span(f"{number}/open", trace, start_s=number, rank=Rank.OPEN.value))
    if number:
        rows.append(span(f"{number - 1}/open", f"t{number - 1}", start_s=number - 1))
    return batch(*rows, contents=[content(rows[0], "k", f"text of {number}")], resources={b"r" * 16: "{}"})  # fmt: skip


async def main(folder: Path, at: str) -> None:
    def step(name: str) -> None:
        if name == at:
            os.kill(os.getpid(), signal.SIGKILL)

    state = StateDb(folder / "state.db")
    state.open()
    store = EmbeddedSpans(
        folder / "spans", StateManifest(state), Counts(), due=Due(rows=800), step=step
    )
    await store.open()
    for number in range(100_000):
        await store.append(numbered(number))
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
        if number == DROP_AT and at.startswith("rewrite"):
            await store.drop(Selector(sessions=frozenset({"s1"})))


asyncio.run(main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else ""))
