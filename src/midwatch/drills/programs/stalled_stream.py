"""Asks for a stream that stops and stays open."""

import json

from midwatch.drills.programs import asking, stage

PATIENCE_S = 1.0
"""The fleet file's `between`."""

stage.wait_until_watched()
answer = asking.ask("hello", stream=True, max_tokens=200)
stage.note("said", json.dumps(answer.plain()))
stage.evidence(answer.last_at + PATIENCE_S)
stage.stay()
