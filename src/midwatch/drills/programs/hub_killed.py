"""Posts spans without a pause, through the death of the hub, and keeps a journal of what was acknowledged."""

import json
import os
import threading
import time

from midwatch.drills.programs import spans, stage

SPANS, THREADS = 100, 3
MARK = "0f" * 16
acknowledged: list[str] = []


def load() -> None:
    many = [spans.span(MARK, f"{at + 1:016x}", "load") for at in range(SPANS)]
    body = spans.wrapped(many)
    while not stage.seen("enough"):
        trace = os.urandom(16).hex()
        if spans.post(body.replace(MARK.encode(), trace.encode())).status == 200:
            acknowledged.append(trace)
        else:
            time.sleep(0.05)


stage.wait_until_watched()
threads = [threading.Thread(target=load) for _ in range(THREADS)]
for thread in threads:
    thread.start()
while len(acknowledged) < 30:
    time.sleep(0.02)
stage.note("working", "yes")
for thread in threads:
    thread.join()
stage.note("journal", json.dumps(acknowledged))
stage.stay()
