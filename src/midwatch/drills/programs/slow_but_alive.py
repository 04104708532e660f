"""Takes its time in every honest way: a declared step, an open tool call, a child that works, many
calls in one cycle."""

import subprocess
import sys
import time

import midwatch as mw
from midwatch.drills.programs import stage

LONG_S = 6.0
BUSY = f"import time\nend = time.monotonic() + {LONG_S}\nwhile time.monotonic() < end: pass"


@mw.tool(timeout_s=LONG_S * 2)
def slow_call() -> str:
    time.sleep(LONG_S)
    return "done"


@mw.tool
def quick_call() -> str:
    time.sleep(0.3)
    return "done"


mw.init()
for _ in range(3):
    with mw.cycle():
        time.sleep(0.1)
stage.evidence()
with mw.cycle():
    mw.step("downloading 3 GB", expect_s=LONG_S)
    time.sleep(LONG_S)
with mw.cycle():
    slow_call()
with mw.cycle():
    subprocess.run([sys.executable, "-c", BUSY], check=True)
with mw.cycle():
    for _ in range(15):
        quick_call()
        time.sleep(0.1)
stage.note("finished", "yes")
while True:
    with mw.cycle():
        time.sleep(0.2)
