"""Works alone, and writes down when another one of it works at the same time."""

import fcntl
import time

from midwatch.drills.programs import stage

with (stage.WORK / "only").open("w") as only:
    try:
        fcntl.flock(only, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        stage.note("overlap", "two at once")
    stage.count("starts")
    while True:
        time.sleep(0.1)
