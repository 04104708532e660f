"""Asks for a stream whose first token does not come."""

import json
import time

from midwatch.drills.programs import asking, stage

PATIENCE_S = 1.0
"""The fleet file's `first_token`."""

stage.wait_until_watched()
stage.evidence(time.time() + PATIENCE_S)
stage.note("said", json.dumps(asking.ask("hello", stream=True).plain()))
stage.stay()
