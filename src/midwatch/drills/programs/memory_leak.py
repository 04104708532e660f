"""Holds on to a little more memory in each cycle. The second life lets go of it."""

import os
import signal
import time

import midwatch as mw
from midwatch.drills.programs import stage

CYCLE_S = 0.1
LEAK_BYTES = 1_600_000

stopping: list[int] = []
signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
mw.init()
leaking = not stage.seen("evidence")
mw.beat()
stage.wait_until_watched()
if leaking:
    stage.evidence()
held: list[bytes] = []
while not stopping:
    with mw.cycle():
        if leaking:
            held.append(os.urandom(LEAK_BYTES))
        time.sleep(CYCLE_S)
        whole = True
mw.draining()
stage.note("drained", "between two cycles")
