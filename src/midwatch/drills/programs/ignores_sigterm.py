"""Does not stop when asked, and neither do its children."""

import os
import signal
import time

import midwatch as mw
from midwatch.drills.programs import stage

CHILDREN = 2

signal.signal(signal.SIGTERM, signal.SIG_IGN)
mw.init()
mw.beat()
pids = [os.getpid()]
for _ in range(CHILDREN):
    pid = os.fork()
    if pid == 0:
        while True:
            time.sleep(1)
    pids.append(pid)
stage.wait_until_watched()
stage.note("pids", " ".join(map(str, pids)))
while True:
    mw.beat()
    time.sleep(0.1)
