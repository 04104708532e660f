"""Twelve quiet cycles, then one that eats 40,000 tokens, and another."""

import os
import time
from pathlib import Path

import midwatch as mw

work = Path(os.environ["DRILL_DIR"])
mw.init()
for _ in range(12):
    with mw.cycle() as cycle:
        time.sleep(0.05)
        cycle.usage(tokens=200, cost_usd=0.0001)
(work / "evidence").write_text(str(time.time()))
while True:
    with mw.cycle() as cycle:
        time.sleep(0.3)
        cycle.usage(tokens=40_000, cost_usd=0.02)
