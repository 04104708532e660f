"""Takes all that it can get of one thing, by its name: files, memory, children, disk, or a fork bomb.

Without a name it is the neighbour: it only measures how late it is called. Each hog waits for its word,
takes once, and is modest in its second life.
"""

import mmap
import os
import subprocess
import sys
import time

MANY_FILES = 10_000
MANY_CHILDREN = 200
LARGE_FILE = 5 * 10**9
BOMB_MOST = 4_000
"""Where the fork bomb ends by itself, should nobody end it."""
BOMB_S = 20.0
"""After so long its processes end by themselves."""


def files() -> None:
    held: list[int] = []
    while len(held) < MANY_FILES:
        try:
            held.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            time.sleep(0.05)  # no more to be had: as a server that cannot accept


def memory() -> None:
    held: list[bytearray] = []
    while True:
        held.append(bytearray(b"x") * (8 << 20))


def children() -> None:
    held = [subprocess.Popen(["sleep", "600"]) for _ in range(MANY_CHILDREN)]
    time.sleep(600)
    del held


def disk() -> None:
    block = b"x" * (1 << 20)
    with open("large", "wb", buffering=0) as file:
        for _ in range(LARGE_FILE // len(block)):
            file.write(block)


def bomb() -> None:
    count = mmap.mmap(-1, 8)
    until = time.monotonic() + BOMB_S
    while time.monotonic() < until:
        made = int.from_bytes(count[:8], "little")
        if made >= BOMB_MOST:
            time.sleep(0.1)
            continue
        count[:8] = (made + 1).to_bytes(8, "little")
        try:
            os.fork()
        except OSError:
            time.sleep(0.01)
    os._exit(0)


def neighbour() -> None:
    """Beat, and note by how much the latest beat came."""
    import midwatch as mw
    from midwatch.drills.programs import stage

    stage.count("neighbour-lives")
    worst = 0.0
    while True:
        before = time.monotonic()
        time.sleep(0.05)
        mw.beat()
        late = time.monotonic() - before - 0.05
        if late > worst:
            worst = late
            stage.note("neighbour-late", worst)


def main() -> None:
    import midwatch as mw
    from midwatch.drills.programs import stage

    mw.init()
    mw.beat()
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if not name:
        neighbour()
    while not stage.seen(f"go-{name}") or stage.seen(f"done-{name}"):
        mw.beat()
        time.sleep(0.1)
    stage.note(f"done-{name}", time.time())
    {"files": files, "memory": memory, "children": children, "disk": disk, "bomb": bomb}[name]()


if __name__ == "__main__":
    main()
