"""Asks for long answers until it is told that its day's money is used up."""

import json

from midwatch.drills.programs import asking, stage

stage.wait_until_watched()
number = 0
while True:
    number += 1
    answer = asking.ask(f"question {number}", max_tokens=1000)
    if answer.status != 200:
        break
stage.note("refused", json.dumps(answer.plain()))
stage.note("calls", number)
stage.evidence()
stage.stay()
