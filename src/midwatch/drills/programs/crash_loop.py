"""Dies at once: its configuration is bad."""

import os
import sys
import time
from pathlib import Path

work = Path(os.environ["DRILL_DIR"])
with (work / "starts").open("a") as starts:
    starts.write(f"{time.time()}\n")
if len((work / "starts").read_text().split()) == 3:
    (work / "evidence").write_text(str(time.time()))
sys.exit("KeyError: 'mailbox' is not set in config.toml")
