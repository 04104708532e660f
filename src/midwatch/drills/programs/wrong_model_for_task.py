"""Checks its own health with the dearest model, and writes mail with it."""

import json

from midwatch.drills.programs import asking, stage

stage.wait_until_watched()
stage.evidence()
tasks = ("health_check", "mail")
said = [
    asking.ask("are you well?", model="gpt-4.1", headers={"x-midwatch-task": task}).plain()
    for task in tasks
]
stage.note("said", json.dumps(said))
stage.stay()
