"""Gets one thing done, then asks a model every moment whether there is anything to do."""

import itertools
import time

import midwatch as mw
from midwatch.drills.programs import asking, stage

IDLE_S = 2.0
"""The fleet file's `loop.idle`."""

mw.init()
stage.wait_until_watched()
mw.progress(1, 10)
stage.evidence(time.time() + IDLE_S)
for number in itertools.count():
    asking.ask(f"anything to do now? {number}", max_tokens=200)
    time.sleep(0.2)
