"""Works for a moment, then is gone with code 0. The second life stays, so that the drill ends."""

import sys
import time

import midwatch as mw
from midwatch.drills.programs import stage

mw.init()
stage.wait_until_watched()
for _ in range(5):
    with mw.cycle() as cycle:
        time.sleep(0.05)
        cycle.done(items=1)
if not stage.seen("evidence"):
    mw.flush()
    stage.evidence()
    sys.exit(0)
while True:
    with mw.cycle():
        time.sleep(0.2)
