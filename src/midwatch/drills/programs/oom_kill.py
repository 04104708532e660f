"""Holds on to more and more memory until something kills it. The second life is modest."""

import os
import sys
import time
from pathlib import Path

import midwatch as mw

work = Path(os.environ["DRILL_DIR"])
mw.init()
mw.beat()
if (work / "alive").exists():
    # the last sign of life of the first one is when the evidence came into being
    (work / "evidence").write_text((work / "alive").read_text())
    while True:
        mw.beat()
        time.sleep(0.2)
held: list[bytes] = []
sys.stdout.write("loading the customer table, row ")
sys.stdout.flush()
while True:
    held.append(os.urandom(4 << 20))
    mw.beat()
    (work / "alive.new").write_text(str(time.time()))
    (work / "alive.new").rename(work / "alive")
    time.sleep(0.1)
