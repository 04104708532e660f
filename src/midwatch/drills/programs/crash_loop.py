"""Dies at once: its configuration is bad."""

import sys

import stage

stage.wait_until_watched()
if stage.count("starts") == 3:
    stage.evidence()
sys.exit("KeyError: 'mailbox' is not set in config.toml")
