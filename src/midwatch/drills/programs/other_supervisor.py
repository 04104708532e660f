"""A second supervisor over the same fleet file, without a hub: `other_supervisor.py FILE DATA`.

It ends with whoever started it, whose end closes its stdin.
"""

import os
import signal
import sys
import threading
from pathlib import Path

from midwatch.core.fleet import Fleet
from midwatch.core.fleetfile import load
from midwatch.supervisor.change.reload import Source
from midwatch.supervisor.main import run


def end_with_the_drill() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


def read(file: Path) -> Fleet:
    root = str(file.parent)
    return load(file.read_text(), file=file.name, root=root, env=os.environ, read_file=_none)


def _none(path: str) -> str:
    raise FileNotFoundError(path)


if __name__ == "__main__":
    threading.Thread(target=end_with_the_drill, daemon=True).start()
    file = Path(sys.argv[1])
    fleet = read(file)
    source = Source(file, lambda: read(file), fleet)
    sys.exit(run(fleet, Path(sys.argv[2]), hub=False, source=source))
