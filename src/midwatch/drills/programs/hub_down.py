"""Beats on while the hub is away, and writes down how often."""

import os
import time
from pathlib import Path

import midwatch as mw

work = Path(os.environ["DRILL_DIR"])
mw.init()
count = 0
with (work / "beats").open("a") as beats:
    while not (work / "enough").exists():
        mw.beat(tokens=100)
        count += 1
        beats.write(f"{count}\n")
        beats.flush()
        time.sleep(0.1)
mw.flush()
(work / "finished.new").write_text(str(count))
(work / "finished.new").rename(work / "finished")
while True:
    time.sleep(1)
