"""A bounded job that has more to do than time; asked to stop, it keeps what it has."""

import os
import signal
import time
from pathlib import Path

WALL_S = 3.0
ITEMS = 1000


def started_at() -> float:
    """Return when this process was started: its time began before its first line ran."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - age


def main() -> None:
    import midwatch as mw
    from midwatch.drills.programs import stage

    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    mw.init()
    stage.count("lives")
    stage.note("evidence", started_at() + WALL_S)
    done = 0
    for _ in range(ITEMS):
        with mw.cycle():
            time.sleep(0.05)
            done += 1
        if stopping:
            break
    mw.draining()
    time.sleep(0.3)
    stage.note("partial", f"{done} of {ITEMS}")


if __name__ == "__main__":
    main()
