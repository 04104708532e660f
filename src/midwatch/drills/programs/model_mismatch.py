"""Asks an able model and is answered by a small one; then says a parameter that the model does not know."""

import json

from midwatch.drills.programs import asking, stage

stage.wait_until_watched()
stage.evidence()
review = {"x-midwatch-task": "review"}
said = [
    asking.ask("look at this", model="gpt-4o", headers=review).plain(),
    asking.ask("look at that", model="gpt-4o", headers=review, logprobs=True).plain(),
]
stage.note("said", json.dumps(said))
stage.stay()
