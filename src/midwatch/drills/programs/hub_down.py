"""Beats on while the hub is away, and writes down how often."""

import time

import midwatch as mw
from midwatch.drills.programs import stage

mw.init()
stage.wait_until_watched()
made = 0
while not stage.seen("enough"):
    mw.beat(tokens=100)
    made = stage.count("beats")
    time.sleep(0.1)
mw.flush()
stage.note("finished", made)
while True:
    time.sleep(1)
