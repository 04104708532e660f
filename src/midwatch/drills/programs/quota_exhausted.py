"""Asks on while one key after the other has nothing left."""

import json

from midwatch.drills.programs import asking, stage

stage.wait_until_watched()
stage.evidence()
stage.note("said", json.dumps([asking.ask(f"question {number}").plain() for number in range(5)]))
stage.stay()
