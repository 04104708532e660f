"""Asks again and again what no provider can read."""

import json

from midwatch.drills.programs import asking, stage

stage.wait_until_watched()
stage.evidence()
said = [asking.ask(f"question {number}").plain() for number in range(12)]
stage.note("said", json.dumps(said))
stage.stay()
