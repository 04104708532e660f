"""Works for a moment, then is gone with code 0. The second life stays, so that the drill ends."""

import os
import sys
import time
from pathlib import Path

import midwatch as mw

work = Path(os.environ["DRILL_DIR"])
mw.init()
for _ in range(5):
    with mw.cycle() as cycle:
        time.sleep(0.05)
        cycle.done(items=1)
if not (work / "evidence").exists():
    mw.flush()
    (work / "evidence").write_text(str(time.time()))
    sys.exit(0)
while True:
    with mw.cycle():
        time.sleep(0.2)
