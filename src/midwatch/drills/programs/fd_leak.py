"""Opens a file in each cycle and forgets it. The second life closes what it opens."""

import os
import time

import midwatch as mw
from midwatch.drills.programs import stage

mw.init()
leaking = not stage.seen("evidence")
stage.count("lives")
mw.beat()
stage.wait_until_watched()
if leaking:
    stage.evidence()
while True:
    with mw.cycle():
        file = os.open("/dev/null", os.O_RDONLY)
        if not leaking:
            os.close(file)
        time.sleep(0.03)
