"""Has a grandchild in a session of its own, which outlives everything unless somebody looks for it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import midwatch as mw

work = Path(os.environ["DRILL_DIR"])
with (work / "starts").open("a") as starts:
    starts.write(f"{os.getpid()}\n")
mw.init()
mw.beat()
if not (work / "orphan").exists():
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
    child = subprocess.Popen(sleeper, start_new_session=True)
    (work / "orphan.new").write_text(str(child.pid))
    (work / "orphan.new").rename(work / "orphan")
while True:
    mw.beat()
    time.sleep(0.2)
