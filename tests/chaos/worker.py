"""An agent with a grandchild in a session of its own; it beats, and writes down each beat it made."""

import os
import subprocess
import sys
import time
from pathlib import Path

import midwatch as mw

mw.init()
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(900)"], start_new_session=True)
made = Path(os.environ["DRILL_DIR"], f"made.{os.environ['MIDWATCH_AGENT']}.{os.getpid()}")
with made.open("a") as lines:
    while True:
        with mw.cycle() as cycle:
            time.sleep(0.05)
            cycle.usage(tokens=10)
            cycle.done(items=1)
        lines.write("x\n")
        lines.flush()
