"""Sends a hundred times what is usual, from many threads at one time; an instance called `calm` sends a little.

Each keeps a journal of what was acknowledged.
"""

import gzip
import json
import os
import sys
import threading
import time

from midwatch.drills.programs import spans, stage

THREADS, SPANS, PAD = 32, 2_000, 2_000
"""Requests at one time, spans of each, and bytes of each span: more than may wait."""

LASTS_S = 4.0

MARK = "0f" * 16
acknowledged: list[str] = []
refused: list[tuple[float, int, str]] = []


def packed() -> tuple[str, bytes]:
    """Return a trace and its request, as an exporter packs it."""
    trace = os.urandom(16).hex()
    return trace, gzip.compress(body.replace(MARK.encode(), trace.encode()), 1)


def flood(trace: str, request: bytes, until: float) -> None:
    while time.monotonic() < until:
        answer = spans.post(request, encoding="gzip")
        if answer.status == 200:
            acknowledged.append(trace)
        else:
            refused.append((time.time(), answer.status, answer.headers.get("retry-after", "")))
        trace, request = packed()


def be_calm() -> None:
    took: list[float] = []
    failed: list[int] = []
    for _ in range(60):
        trace, began = os.urandom(16).hex(), time.monotonic()
        answer = spans.post(spans.wrapped([spans.span(trace, os.urandom(8).hex(), "calm")]))
        if answer.status == 200:
            took.append(time.monotonic() - began)
            acknowledged.append(trace)
        else:
            failed.append(answer.status)
        time.sleep(0.1)
    stage.note("calm", json.dumps({"took": took, "failed": failed, "acknowledged": acknowledged}))


stage.wait_until_watched()
if "calm" in sys.argv:
    be_calm()
    stage.stay()
many = [spans.span(MARK, f"{at + 1:016x}", "flood", text="x" * PAD) for at in range(SPANS)]
body = spans.wrapped(many)
first = [packed() for _ in range(THREADS)]  # the flood comes at once, not as fast as it is packed
until = time.monotonic() + LASTS_S
threads = [threading.Thread(target=flood, args=(*each, until)) for each in first]
stage.evidence()
began = time.time()
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
stage.note("flood", json.dumps({"began": began, "acknowledged": acknowledged, "refused": refused}))
stage.stay()
