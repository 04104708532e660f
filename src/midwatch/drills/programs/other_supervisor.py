"""A second supervisor over the same fleet file, without a hub: `other_supervisor.py FILE DATA`.

It ends with whoever started it, whose end closes its stdin.
"""

import os
import signal
import sys
import threading
from pathlib import Path

from midwatch.cli.source import read_fleet
from midwatch.supervisor.change import Source
from midwatch.supervisor.main import run


def end_with_the_drill() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=end_with_the_drill, daemon=True).start()
    file = Path(sys.argv[1])
    fleet = read_fleet(file).fleet
    source = Source(file, lambda: read_fleet(file).fleet, fleet)
    sys.exit(run(fleet, Path(sys.argv[2]), hub=False, source=source))
