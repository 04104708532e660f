"""Says that it stops, then spends more in a second than in its life before, and ends."""

import time

import midwatch as mw
from midwatch.drills.programs import stage

mw.init()
stage.wait_until_watched()
for _ in range(12):
    with mw.cycle() as cycle:
        time.sleep(0.05)
        cycle.usage(tokens=200, cost_usd=0.0001)
stage.evidence()
mw.draining()
for _ in range(20):
    with mw.cycle() as cycle:
        cycle.usage(tokens=50_000, cost_usd=0.05)
mw.flush()
time.sleep(2)  # time for a false alarm to show
stage.note("finished", "yes")
