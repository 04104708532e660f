"""Has a grandchild in a session of its own, which outlives everything unless somebody looks for it."""

import subprocess
import sys
import time

import midwatch as mw
from midwatch.drills.programs import stage

stage.count("starts")
mw.init()
mw.beat()
if not stage.seen("orphan"):
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
    stage.note("orphan", subprocess.Popen(sleeper, start_new_session=True).pid)
while True:
    mw.beat()
    time.sleep(0.2)
