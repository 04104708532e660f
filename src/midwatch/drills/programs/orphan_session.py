"""Leaves helpers behind in sessions of their own: one a child, one a daemon by double fork, and a family."""

import os
import subprocess
import sys
import time

import midwatch as mw
from midwatch.drills.programs import stage

SLEEP = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
FAMILY = [
    sys.executable,
    "-S",
    "-c",
    "import subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-S', '-c', 'import time; time.sleep(600)'])\n"
    "print(child.pid, flush=True)\n"
    "time.sleep(600)",
]


def daemon() -> int:
    """Start a process as daemons do; return its pid."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(writing, str(os.getpid()).encode())
            os.execv(SLEEP[0], SLEEP)
        os._exit(0)
    os.wait()
    return int(os.read(reading, 20))


stage.count("lives")
mw.init()
mw.beat()
stage.wait_until_watched()
if not stage.seen("left"):
    child = subprocess.Popen(SLEEP, start_new_session=True)
    family = subprocess.Popen(FAMILY, start_new_session=True, stdout=subprocess.PIPE, text=True)
    grandchild = (family.stdout.readline() if family.stdout else "").strip()
    stage.note("left", f"{child.pid} {daemon()} {family.pid} {grandchild}")
    time.sleep(1.5)
    stage.evidence()
    os._exit(3)
while True:
    mw.beat()
    time.sleep(0.2)
