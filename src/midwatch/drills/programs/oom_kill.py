"""Holds on to more and more memory until something kills it. The second life is modest."""

import os
import sys
import time

import midwatch as mw
from midwatch.drills.programs import stage

mw.init()
mw.beat()
if stage.seen("alive"):
    # the last sign of life of the first one is when the evidence came into being
    stage.note("evidence", (stage.WORK / "alive").read_text())
    while True:
        mw.beat()
        time.sleep(0.2)
stage.wait_until_watched()
held: list[bytes] = []
sys.stdout.write("loading the customer table, row ")
sys.stdout.flush()
while True:
    held.append(os.urandom(4 << 20))
    mw.beat()
    stage.note("alive", time.time())
    time.sleep(0.1)
