"""Dies at once: its configuration is bad."""

import sys

from midwatch.drills.programs import stage

stage.wait_until_watched()
if stage.count("starts") == 3:
    stage.evidence()
sys.exit("KeyError: 'mailbox' is not set in config.toml")
